import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { inTime } from '../support/until.ts';

/** The fixture daemon as a process of its own. */
export interface Child {
  readonly process: ChildProcess;
  readonly folder: string;
  /** All lines of its stdout so far. */
  readonly lines: string[];
  /** The first line that matches, come or to come; rejects when the process ends without it. */
  line(pattern: RegExp): Promise<string>;
  /** How it ended: the exit code, or the signal. */
  readonly ended: Promise<number | string>;
  configure(text: string): void;
}

export interface Start {
  /** What the fixture is to do. */
  what?: string;
  /** The fixture's section. */
  config?: string;
  env?: NodeJS.ProcessEnv;
  /** Leave its stdout unread. */
  unread?: boolean;
}

const FIXTURE = new URL('./fixtures/daemon.ts', import.meta.url).pathname;

export function start(t: TestContext, { what = '', config = '', env = {}, unread = false }: Start = {}): Child {
  const folder = mkdtempSync(join(tmpdir(), 'spns-run-'));
  writeFileSync(join(folder, 'key'), Buffer.alloc(32, 1), { mode: 0o600 });
  const configure = (text: string) =>
    writeFileSync(join(folder, 'spns.ini'), `[keys]\nhivemind = ${folder}/key\n${text}`);
  configure(`[notify-fixture]\n${config}`);
  const child = spawn(process.execPath, [FIXTURE], {
    cwd: folder,
    env: { PATH: process.env.PATH, FIXTURE: what, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const lines: string[] = [];
  const waiting = new Set<() => void>();
  const wake = () => {
    for (const look of waiting) look();
  };
  let over = false;
  if (!unread) {
    let rest = '';
    child.stdout!.setEncoding('utf8');
    child.stdout!.on('data', (text: string) => {
      const parts = (rest + text).split('\n');
      rest = parts.pop()!;
      lines.push(...parts);
      wake();
    });
  }
  // Without a reader there is no end of its stdout to wait for.
  const ended = new Promise<number | string>((resolve) => {
    child.once(unread ? 'exit' : 'close', (code, signal) => {
      over = true;
      wake();
      resolve(code ?? signal ?? -1);
    });
  });
  t.after(async () => {
    child.kill('SIGKILL');
    child.stdout.destroy();
    await ended;
    rmSync(folder, { recursive: true });
  });
  return {
    process: child,
    folder,
    lines,
    ended,
    configure,
    line: (pattern) =>
      inTime(
        new Promise((resolve, reject) => {
          const look = () => {
            const found = lines.find((line) => pattern.test(line));
            if (found === undefined && !over) return;
            waiting.delete(look);
            if (found !== undefined) resolve(found);
            else reject(new Error(`ended without ${pattern}:\n${lines.join('\n')}`));
          };
          waiting.add(look);
          look();
        }),
        () => `${pattern} in:\n${lines.join('\n')}`,
      ),
  };
}
