import { nearest } from '../settings/nearest.ts';
import { ConfigError } from '../settings/section.ts';
import { VERSION } from '../version.ts';
import { CliError, type Command, complain, help, parseWords, print, UsageError, usage } from './command.ts';
import { type Commands, completion, manPage } from './manual.ts';

/** Loaded when used, so that making a key needs no ZeroMQ. */
const COMMANDS: ReadonlyMap<string, () => Promise<{ readonly command: Command }>> = new Map([
  ['keygen', () => import('./keygen.ts')],
  ['check-config', () => import('./check-config.ts')],
  ['migrate', () => import('./migrate.ts')],
  ['run', () => import('./run.ts')],
  ['stats', () => import('./stats.ts')],
  ['services', () => import('./services.ts')],
  ['nodes', () => import('./nodes.ts')],
  ['members', () => import('./members.ts')],
  ['roll', () => import('./roll.ts')],
  ['expire', () => import('./expire.ts')],
  ['test-push', () => import('./test-push.ts')],
  [
    'man',
    async () => printing('Prints the man page of this command', 'spns man | man -l -', (all) => manPage(all, VERSION)),
  ],
  [
    'completion',
    async () => printing('Prints the completion of this command for bash', 'eval "$(spns completion)"', completion),
  ],
]);

/**
 * Runs `spns` with the words after its name.
 *
 * @returns the exit code: 0 on success, 1 on failure, 2 if the command line makes no sense
 */
export async function runCommand(args: readonly string[]): Promise<number> {
  const [name, ...rest] = args;
  if (name === undefined || name === '--help' || name === '-h' || name === 'help') {
    const about = name === 'help' ? rest[0] : undefined;
    const load = about === undefined ? undefined : COMMANDS.get(about);
    if (about === undefined || !load) {
      print(await overview());
      return name === undefined ? 2 : 0;
    }
    print(help(about, (await load()).command));
    return 0;
  }
  if (name === '--version') {
    print(VERSION);
    return 0;
  }
  const load = COMMANDS.get(name);
  if (!load) {
    const near = nearest(name, COMMANDS.keys());
    complain(`spns: there is no command "${name}"${near ? `: did you mean ${near}?` : ''} "spns --help" lists them.`);
    return 2;
  }
  const { command } = await load();
  if (rest.includes('--help') || rest.includes('-h')) {
    print(help(name, command));
    return 0;
  }
  try {
    return await command.run(parseWords(name, command, rest));
  } catch (error) {
    if (error instanceof UsageError) {
      complain(`spns: ${error.message}\nusage: ${usage(name, command)}`);
      return 2;
    }
    if (error instanceof ConfigError) for (const problem of error.problems) complain(`spns: ${problem}`);
    else if (error instanceof CliError) complain(`spns: ${error.message}`);
    else throw error;
    return 1;
  }
}

/** A command that prints something made from the help of all commands. */
function printing(summary: string, help: string, write: (commands: Commands) => string): { readonly command: Command } {
  const run = async () => {
    const all: [string, Command][] = [];
    for (const [name, load] of COMMANDS) all.push([name, (await load()).command]);
    process.stdout.write(write(new Map(all)));
    return 0;
  };
  return { command: { summary, words: [], help, options: {}, run } };
}

async function overview(): Promise<string> {
  const width = Math.max(...[...COMMANDS.keys()].map((name) => name.length));
  const lines: string[] = [];
  for (const [name, load] of COMMANDS) {
    lines.push(`  ${name.padEnd(width)}  ${(await load()).command.summary}`);
  }
  return [
    `spns ${VERSION}: Session Push Notification Server\n`,
    'spns COMMAND …\n',
    ...lines,
    '\n"spns COMMAND --help" explains each of them.',
    'The configuration is the file given by --config, or by SPNS_CONFIG, or spns.ini here, or /etc/spns/spns.ini.',
  ].join('\n');
}
