import { spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { programPath } from '../daemon/daemon-process.ts';

/** A user of this machine. */
export interface User {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

/** How a child ended, and what it wrote. */
export interface Result {
  readonly code: number;
  readonly output: string;
  readonly errors: string;
}

/**
 * Runs one of our other programs to its end, with the same Node: the rooms of this floor do not import each other, so
 * this is how the commands use a daemon's code.
 */
export function runProgram(
  file: string,
  args: readonly string[],
  options: {
    /** In addition to our own; undefined removes a variable. */
    readonly env?: Readonly<Record<string, string | undefined>>;
    readonly as?: User | undefined;
    readonly cwd?: string | undefined;
  } = {},
): Promise<Result> {
  const [command, ...words] = asUser(options.as, [process.execPath, programPath(file), ...args]);
  const child = spawn(command, words, {
    env: { ...process.env, ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
    ...(options.cwd !== undefined && { cwd: options.cwd }),
  });
  let output = '';
  let errors = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text));
  return new Promise((resolve) => {
    child.once('error', (error) => resolve({ code: 1, output, errors: error.message }));
    child.once('close', (code) => resolve({ code: code ?? 1, output: output.trim(), errors: errors.trim() }));
  });
}

/** Whether that user may read the file. */
export function mayRead(file: string, user: User): boolean {
  const [command, ...words] = asUser(user, ['/bin/sh', '-c', 'test -r "$0"', file]);
  return spawnSync(command, words, { stdio: 'ignore' }).status === 0;
}

type Words = readonly [program: string, ...args: string[]];

/**
 * The command that runs `command` as that user, with all of the user's groups, which Node's `uid` and `gid` leave out.
 */
function asUser(user: User | undefined, command: Words): Words {
  if (user === undefined || user.uid === process.getuid?.()) return command;
  return ['setpriv', `--reuid=${user.uid}`, `--regid=${user.gid}`, '--init-groups', '--', ...command];
}

/** Looks a user up by name; undefined if there is none. */
export function findUser(name: string): User | undefined {
  for (const line of readFileSync('/etc/passwd', 'utf8').split('\n')) {
    const [user, , uid, gid] = line.split(':');
    if (user === name && uid && gid) return { name, uid: Number(uid), gid: Number(gid) };
  }
  return undefined;
}
