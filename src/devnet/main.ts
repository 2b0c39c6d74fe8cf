import { randomBytes } from 'node:crypto';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { systemClock } from '../clock.ts';
import { nearest } from '../settings/nearest.ts';
import { play } from './play.ts';

const HELP = `npm start [-- OPTIONS]

Runs a whole world on this machine: a simulated Session network, the suite's daemons as real processes, fake providers,
and phones that subscribe and are woken. Ctrl-C ends it.

  --once          end as soon as each phone has been woken once; exit 1 if that takes more than 60 s
  --hiveminds N   so many share the database; k kills one of them, and with --once one is killed by itself
  --folder PATH   where data, keys, settings and logs are kept (default: .devnet)
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
  // Whatever may still be open after all that was started has been stopped must not keep the terminal waiting.
  setTimeout(() => process.exit(), 2000).unref();
}

interface Options {
  readonly values: {
    readonly once?: boolean;
    readonly hiveminds?: string;
    readonly folder?: string;
    readonly help?: boolean;
  };
  /** Why the command line makes no sense, in a sentence. */
  readonly problem?: string | undefined;
}

function readOptions(): Options {
  const kept = keptByNpm();
  if (kept !== undefined)
    return {
      values: {},
      problem: `npm has kept --${kept} for itself: options go behind "--", as in npm start -- --once`,
    };
  try {
    return parseArgs({ options: OPTIONS });
  } catch (error) {
    // Node adds how to pass a word that starts with a dash; one sentence is enough.
    return { values: {}, problem: (error as Error).message.split('. ')[0] };
  }
}

/** Of `npm start --once` we get nothing but a variable of npm's; so we do of an option that is nearly one of ours. */
function keptByNpm(): string | undefined {
  return Object.keys(process.env)
    .map((name) => /^npm_config_(\w+)$/.exec(name)?.[1])
    .find((name) => name !== undefined && nearest(name, Object.keys(OPTIONS)) !== undefined);
}
