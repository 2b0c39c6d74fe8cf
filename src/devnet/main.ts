import { randomBytes } from 'node:crypto';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { systemClock } from '../clock.ts';
import { nearest } from '../settings/nearest.ts';
import { play } from './play.ts';

const HELP = `npm start [-- OPTIONS]

Runs everything on this machine: a simulated Session network, the daemons as real processes, fake providers, and
phones that subscribe and are woken. Ctrl-C ends it.

  --once          end as soon as every phone has been woken; exit 1 if it takes more than 60 s after the start
  --hiveminds N   run N hiveminds on one database; the key k kills one, and --once kills one without it
  --folder PATH   where to keep data, keys, settings and logs (default: .devnet)
  --help
`;

const OPTIONS = {
  once: { type: 'boolean' },
  hiveminds: { type: 'string' },
  folder: { type: 'string' },
  help: { type: 'boolean' },
} as const;

const source = path.resolve(import.meta.dirname, '..');
const { values, problem } = readOptions();
const hiveminds = Number(values.hiveminds ?? 1);

if (problem !== undefined) {
  process.stderr.write(`${problem}\n\n${HELP}`);
  process.exitCode = 2;
} else if (values.help) {
  process.stdout.write(HELP);
} else if (!Number.isInteger(hiveminds) || hiveminds < 1 || hiveminds > 8) {
  process.stderr.write(`--hiveminds takes a number from 1 to 8, not ${values.hiveminds}\n`);
  process.exitCode = 2;
} else {
  process.exitCode = await play({
    clock: systemClock,
    random: randomBytes,
    folder: path.resolve(values.folder ?? path.join(source, '..', '.devnet')),
    once: values.once === true,
    hiveminds,
    write: (text) => process.stdout.write(text),
  });
  // Everything has been stopped; whatever may still be open must not keep the terminal waiting.
  setTimeout(() => process.exit(), 2000).unref();
}

interface Options {
  readonly values: {
    readonly once?: boolean;
    readonly hiveminds?: string;
    readonly folder?: string;
    readonly help?: boolean;
  };
  /** What is wrong with the command line, in a sentence. */
  readonly problem?: string | undefined;
}

function readOptions(): Options {
  const kept = keptByNpm();
  if (kept !== undefined)
    return {
      values: {},
      problem: `npm has kept --${kept} for itself: put options after "--", as in npm start -- --once`,
    };
  try {
    return parseArgs({ options: OPTIONS });
  } catch (error) {
    // Node adds how to pass a value that starts with a dash; one sentence is enough.
    return { values: {}, problem: (error as Error).message.split('. ')[0] };
  }
}

/** An option of ours, or nearly so, that npm took for itself, as in `npm start --once`: npm only sets a variable. */
function keptByNpm(): string | undefined {
  return Object.keys(process.env)
    .map((name) => /^npm_config_(\w+)$/.exec(name)?.[1])
    .find((name) => name !== undefined && nearest(name, Object.keys(OPTIONS)) !== undefined);
}
