import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ended } from '../support/once.ts';

const MAIN = fileURLToPath(new URL('../../src/notifiers/main.ts', import.meta.url));

export interface NotifierProcess {
  readonly child: ChildProcess;
  /** What it has written so far. */
  output(): string;
  /** Ends it, and tells how it ended: the exit code or the signal. */
  end(signal: NodeJS.Signals): Promise<number | NodeJS.Signals>;
  /** How it ends by itself. */
  readonly ended: Promise<number | NodeJS.Signals>;
}

/**
 * Writes a spns.ini for a notifier and returns its path.
 *
 * @param secret the hivemind's key, 32 bytes
 */
export async function writeConfig(
  path: string,
  service: string,
  hivemind: { readonly endpoint: string } | undefined,
  keys: Record<string, string>,
  secret = randomBytes(32),
): Promise<string> {
  await writeFile(join(path, 'hivemind.key'), secret.toString('hex'), { mode: 0o600 });
  const section = Object.entries(keys).map(([key, value]) => `${key} = ${value}`);
  const ini = [
    '[hivemind]',
    `listen = ${hivemind?.endpoint ?? 'tcp://127.0.0.1:1'}`,
    '[keys]',
    `hivemind = ${join(path, 'hivemind.key')}`,
    `[notify-${service}]`,
    ...section,
    '',
  ];
  const file = join(path, 'spns.ini');
  await writeFile(file, ini.join('\n'));
  return file;
}

/** Runs a notifier as a process of its own; it is killed at the end of the test if it still runs. */
export function startProcess(t: TestContext, config: string, ...args: string[]): NotifierProcess {
  const { NODE_TEST_CONTEXT: _, NODE_OPTIONS: __, ...env } = process.env;
  const child = spawn(process.execPath, [MAIN, ...args], {
    env: { ...env, SPNS_CONFIG: config },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let text = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8');
    stream.on('data', (chunk: string) => {
      text += chunk;
    });
  }
  const end = ended(child);
  t.after(async () => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
    await end;
  });
  return {
    child,
    output: () => text,
    ended: end,
    end(signal) {
      child.kill(signal);
      return end;
    },
  };
}
