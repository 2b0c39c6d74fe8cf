import fs from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Clock } from '../clock.ts';
import { type DaemonProcess, startDaemon } from '../daemon/daemon-process.ts';
import { type Supervised, supervise } from '../daemon/supervisor.ts';
import { health } from './reach.ts';

/** The suite's daemons as processes. */
export interface Daemons {
  /** Of each by its name, the wait until it is ready; an error has been told to the watcher too. */
  readonly starts: ReadonlyMap<string, Promise<void>>;
  /** Kills one, and starts it again `away` ms later. */
  kill(name: string, away: number): void;
  /** Ends all in order. */
  stop(): Promise<unknown>;
  /** Ends all at once. */
  killAll(): void;
}

/** What becomes of the daemons. */
export interface DaemonsWatcher {
  /** One is ready, `ms` after it was started; also one that had been killed. */
  up(name: string, pid: number, ms: number): void;
  notUp(name: string, error: Error): void;
  /** Something went wrong that nobody asked for. */
  trouble(what: string): void;
  /** One has ended by itself: which, how, and the end of its log. None is started again. */
  died(what: string): void;
}

/** How long a daemon may take until it is ready, ms: generous, for machines that do other things too. */
const PATIENCE = 45_000;

/**
 * Starts the daemons as `spns run` does, but with a log for each, and without restarting what dies.
 *
 * @param modules.logs the folder for `NAME.log`
 * @param modules.socket where a daemon serves its health page
 * @param modules.signal ends the waiting until they are ready
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
 * @param about.socket where that page is
 * @param about.log the file of its output
 * @param about.patience how long that may take, ms
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
