import fs from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Clock } from '../clock.ts';
import { type DaemonProcess, startDaemon } from '../daemon/daemon-process.ts';
import { type Supervised, supervise } from '../daemon/supervisor.ts';
import { health } from './reach.ts';

/** The daemons of a world as processes. */
export interface Daemons {
  /** By name, resolves when that daemon is ready, and rejects if it does not get ready; the watcher is told as well. */
  readonly starts: ReadonlyMap<string, Promise<void>>;
  /** Kills a daemon and starts it again `away` ms later. */
  kill(name: string, away: number): void;
  /** Stops all in order. */
  stop(): Promise<unknown>;
  /** Kills all at once. */
  killAll(): void;
}

/** Told what becomes of the daemons. */
export interface DaemonsWatcher {
  /** One is ready, `ms` after it was started; also when it is started again. */
  up(name: string, pid: number, ms: number): void;
  notUp(name: string, error: Error): void;
  /** Something went wrong that was not asked for. */
  trouble(what: string): void;
  /** One has ended by itself, and is not started again: its name, how it ended, and the end of its log. */
  died(what: string): void;
}

/** How long a daemon may take to get ready, ms; generous, since the machine may be busy. */
const PATIENCE = 90_000;

/**
 * Starts daemons as `spns run` does, but each with a log file of its own, and without restarting those that die.
 *
 * @param modules.logs the folder of the files `NAME.log`
 * @param modules.socket the Unix socket of a daemon's health page
 * @param modules.signal aborts the waiting until they are ready
 */
export async function startDaemons(modules: {
  clock: Clock;
  programs: readonly Supervised[];
  logs: string;
  env: Readonly<Record<string, string>>;
  socket: (name: string) => string;
  signal: AbortSignal;
  watcher: DaemonsWatcher;
}): Promise<Daemons> {
  const { clock, programs, logs, env, socket, signal, watcher } = modules;
  await fs.mkdir(logs, { recursive: true });
  const logOf = (name: string) => path.join(logs, `${name}.log`);
  const starts = new Map<string, Promise<void>>();
  const supervisor = supervise(programs, {
    clock,
    start({ name }) {
      const [log, begin] = [logOf(name), clock.monotonic()];
      const daemon = startDaemon(name, { env, log });
      const start = untilReady(daemon, { name, log, socket: socket(name), patience: PATIENCE, signal }).then(() =>
        watcher.up(name, daemon.pid, clock.monotonic() - begin),
      );
      starts.set(name, start);
      start.catch((error: Error) => watcher.notUp(name, error));
      return daemon;
    },
    log: (level, text) => level !== 'info' && watcher.trouble(text),
    onDeath: (name, how) => void describeDeath(name, how, logOf(name)).then(watcher.died),
  });
  return {
    starts,
    kill: (name, away) => supervisor.kill(name, away),
    stop() {
      supervisor.stop();
      return supervisor.done;
    },
    killAll: () => supervisor.signal('SIGKILL'),
  };
}

/**
 * Waits until a daemon's health page says that it is ready.
 *
 * @param about.socket the page's Unix socket
 * @param about.log the file of the daemon's output
 * @param about.patience how long it may take, ms
 * @throws Error with a sentence, and the end of the log if the daemon has ended
 */
export async function untilReady(
  daemon: DaemonProcess,
  about: { name: string; socket: string; log: string; patience: number; signal?: AbortSignal },
): Promise<void> {
  const { name, socket, log, patience, signal } = about;
  let end: { how: string } | undefined;
  void daemon.ended.then((how = 'exit code 0') => (end = { how }));
  const deadline = performance.now() + patience;
  for (;;) {
    const answer = await health(socket, '/ready');
    if (answer?.status === 200) return;
    if (end) throw new Error(await describeDeath(name, end.how, log));
    if (performance.now() > deadline) {
      throw new Error(`${name} is not ready after ${patience / 1000} s: ${answer?.text ?? 'no answer'}`);
    }
    await sleep(50, undefined, { ...(signal && { signal }) });
  }
}

async function describeDeath(name: string, how: string, log: string): Promise<string> {
  return `${name} died (${how}); the end of ${log}:\n${await lastLines(log)}`;
}

/** The last lines of a daemon's log, which say why it ended; empty if there are none. */
export async function lastLines(log: string): Promise<string> {
  const text = await fs.readFile(log, 'utf8').catch(() => '');
  return text.trimEnd().split('\n').slice(-12).join('\n');
}
