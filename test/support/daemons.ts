import fs from 'node:fs/promises';
import path from 'node:path';
import { systemClock, within } from '../../src/clock.ts';
import { type DaemonProcess, startDaemon } from '../../src/daemon/daemon-process.ts';
import { lastLines, untilReady } from '../../src/devnet/daemons.ts';
import type { Cleaner } from './hivemind.ts';

/** How long a daemon may take until it is ready, and until it has ended, ms. */
const READY = 90_000;
const ENDED = 15_000;

/** Daemons as real processes, started and ended one by one. */
export interface Daemons {
  /**
   * Resolves when it is ready.
   *
   * @param name as of {@link startDaemon}; what ran under that name before becomes its former run
   * @param env further variables of that process
   */
  start(name: string, env?: Readonly<Record<string, string>>): Promise<void>;
  /** Sends a signal. Resolves with how the process ended, when it has. */
  signal(name: string, signal: NodeJS.Signals): Promise<string>;
  pid(name: string): number;
  /** The pids of all that run, by name. */
  readonly pids: ReadonlyMap<string, number>;
  /** The file of its output. */
  log(name: string): string;
  /** The last lines of its output. */
  lastLines(name: string): Promise<string>;
  /** How the former run of that name ended. */
  former(name: string): Promise<string>;
  /** Those that ended without having been sent a signal. */
  readonly deaths: readonly string[];
}

interface Started {
  readonly daemon: DaemonProcess;
  readonly log: string;
  readonly ended: Promise<string>;
}

/**
 * @param options.folder where their output is kept, a file for each start
 * @param options.socket where each serves its health page, by its name
 */
export async function createDaemons(
  t: Cleaner,
  { folder, ini, socket }: { folder: string; ini: string; socket: (name: string) => string },
): Promise<Daemons> {
  await fs.mkdir(folder, { recursive: true });
  const current = new Map<string, Started>();
  const formers = new Map<string, Started>();
  const all: Started[] = [];
  const signalled = new Set<DaemonProcess>();
  const deaths: string[] = [];
  const get = (name: string): Started => {
    const started = current.get(name);
    if (!started) throw new Error(`${name} has not been started`);
    return started;
  };
  const stop = async ({ daemon, ended }: Started) => {
    signalled.add(daemon);
    daemon.kill('SIGTERM');
    if (!(await within(ended, ENDED, systemClock))) daemon.kill('SIGKILL');
    await ended;
  };
  t.after(async () => {
    // The hiveminds last: the notifiers still have something to tell them.
    const isHivemind = ([name]: [string, Started]) => name.startsWith('hivemind');
    await Promise.all([...current].filter((one) => !isHivemind(one)).map(([, one]) => stop(one)));
    await Promise.all(all.map(stop));
  });
  return {
    deaths,
    async start(name, env = {}) {
      const file = `${name}-${all.length + 1}`;
      const log = path.join(folder, `${file}.log`);
      const daemon = startDaemon(name, { env: { SPNS_CONFIG: ini, ...env }, log });
      const ended = daemon.ended.then((how = 'exit code 0') => {
        if (!signalled.has(daemon)) deaths.push(`${file}: ${how}`);
        return how;
      });
      const before = current.get(name);
      if (before) formers.set(name, before);
      const started = { daemon, log, ended };
      current.set(name, started);
      all.push(started);
      await untilReady(daemon, { name, socket: socket(name), log, patience: READY });
    },
    signal(name, signal) {
      const { daemon, ended } = get(name);
      signalled.add(daemon);
      daemon.kill(signal);
      return ended;
    },
    pid: (name) => get(name).daemon.pid,
    get pids() {
      return new Map(Array.from(current, ([name, { daemon }]) => [name, daemon.pid]));
    },
    log: (name) => get(name).log,
    lastLines: (name) => lastLines(get(name).log),
    async former(name) {
      const former = formers.get(name);
      if (!former) throw new Error(`${name} has been started only once`);
      return await former.ended;
    },
  };
}
