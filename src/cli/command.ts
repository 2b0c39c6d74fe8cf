import { parseArgs } from 'node:util';

/** An option of a command, as node:util's parseArgs takes it, with a line of help. */
export interface Option {
  readonly type: 'string' | 'boolean';
  readonly help: string;
  /** What the value is called in the help. */
  readonly value?: string;
}

/** The words and options that the user gave. */
export interface Given {
  readonly words: readonly string[];
  text(option: string): string | undefined;
  is(option: string): boolean;
}

/** One of the commands of `spns`. */
export interface Command {
  /** One line for the list of commands. */
  readonly summary: string;
  /** Names of the words that it takes; those in brackets are optional. */
  readonly words: readonly string[];
  /** Everything beyond the summary. */
  readonly help: string;
  readonly options: { readonly [name: string]: Option };
  /** @returns the exit code: 0 on success, 1 on failure */
  run(given: Given): Promise<number>;
}

/** Something that the user can put right: printed as one sentence, without a stack; exit code 1. */
export class CliError extends Error {}

/** The command line makes no sense: printed together with the usage; exit code 2. */
export class UsageError extends Error {}

/** Reads the words after a command's name. @throws UsageError */
export function parseWords(name: string, command: Command, args: readonly string[]): Given {
  const options = Object.fromEntries(Object.entries(command.options).map(([key, { type }]) => [key, { type }]));
  let parsed: { values: Record<string, unknown>; positionals: string[] };
  try {
    parsed = parseArgs({ args: [...args], options, allowPositionals: true });
  } catch (error) {
    // Only the first sentence: Node adds how to pass a word that starts with a dash.
    throw new UsageError((error as Error).message.replace(/\. .*$/s, ''));
  }
  const least = command.words.filter((word) => !word.startsWith('[')).length;
  const { values, positionals } = parsed;
  if (positionals.length < least) throw new UsageError(`${name} needs ${command.words.slice(0, least).join(' and ')}`);
  if (positionals.length > command.words.length) {
    throw new UsageError(`${name} does not know what to do with "${positionals[command.words.length]}"`);
  }
  return {
    words: positionals,
    text: (option) => values[option] as string | undefined,
    is: (option) => values[option] === true,
  };
}

/** `spns stats [--watch] [--json]` */
export function usage(name: string, { words, options }: Command): string {
  const flags = Object.entries(options).map(([key, { type, value }]) =>
    type === 'boolean' ? `[--${key}]` : `[--${key} ${value}]`,
  );
  return ['spns', name, ...words, ...flags].join(' ');
}

/** All of `spns NAME --help`. */
export function help(name: string, command: Command): string {
  const options = Object.entries({ ...command.options, help: { type: 'boolean', help: 'this text' } as Option });
  const flags = options.map(([key, { value, help }]) => [`  --${key}${value ? ` ${value}` : ''}`, help] as const);
  const width = Math.max(...flags.map(([flag]) => flag.length));
  return [
    `${usage(name, command)}\n`,
    `${command.summary}.`,
    ...(command.help ? [`\n${command.help}`] : []),
    '\nOptions:',
    ...flags.map(([flag, text]) => `${flag.padEnd(width)}  ${text}`),
    '',
  ].join('\n');
}

/** Writes a line to stdout. */
export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** Writes a line to stderr. */
export function complain(text: string): void {
  process.stderr.write(`${text}\n`);
}
