import { randomBytes } from 'node:crypto';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { systemClock } from '../clock.ts';
import { play } from './play.ts';

const HELP = `npm start [-- OPTIONS]

Runs a whole world on this machine: a simulated Session network, the suite's daemons as real processes, fake providers,
and phones that subscribe and are woken. Ctrl-C ends it.

  --once          end as soon as each phone has been woken once; exit 1 if that takes more than 60 s
  --folder PATH   where data, keys, settings and logs are kept (default: .devnet)
  --help
`;

const source = path.resolve(import.meta.dirname, '..');
const { values } = parseArgs({
  options: {
    once: { type: 'boolean', default: false },
    folder: { type: 'string', default: path.resolve(source, '..', '.devnet') },
    help: { type: 'boolean', default: false },
  },
});

if (values.help) {
  process.stdout.write(HELP);
} else {
  process.exitCode = await play({
    clock: systemClock,
    random: randomBytes,
    folder: path.resolve(values.folder),
    source,
    once: values.once,
    write: (text) => process.stdout.write(text),
  });
  // Whatever may still be open after all that was started has been stopped must not keep the terminal waiting.
  setTimeout(() => process.exit(), 2000).unref();
}
