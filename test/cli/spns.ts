import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ended } from '../support/once.ts';

export const MAIN = join(import.meta.dirname, '../../src/cli/main.ts');

/** How `spns` ended, and what it wrote. */
export interface Result {
  code: number | null;
  out: string;
  err: string;
}

/** Starts `spns` as a user does, in `cwd`, with no configuration named in the environment. */
export function startSpns(args: readonly string[], cwd: string, env: Record<string, string> = {}): ChildProcess {
  const { SPNS_CONFIG: _, ...rest } = process.env;
  return spawn(process.execPath, [MAIN, ...args], { cwd, env: { ...rest, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
}

/** Runs `spns` to its end. */
export async function spns(args: readonly string[], cwd: string, env: Record<string, string> = {}): Promise<Result> {
  const child = startSpns(args, cwd, env);
  let out = '';
  let err = '';
  child.stdout!.setEncoding('utf8').on('data', (text: string) => (out += text));
  child.stderr!.setEncoding('utf8').on('data', (text: string) => (err += text));
  const end = await ended(child);
  return { code: typeof end === 'number' ? end : null, out, err };
}

/** A folder for one test, whose path is short enough for Unix sockets. */
export async function folder(
  t: { after(fn: () => Promise<void>): void },
  files: Record<string, string> = {},
): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'spns-cli-'));
  t.after(() => rm(dir, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(files)) await writeFile(join(dir, name), text, { mode: 0o600 });
  return dir;
}
