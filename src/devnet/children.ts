import { type ChildProcess, spawn } from 'node:child_process';
import fs from 'node:fs/promises';
import path from 'node:path';

/** A daemon that runs as a child of ours. */
export interface Child {
  readonly name: string;
  readonly pid: number;
  /** Where its output goes. */
  readonly log: string;
  /** Settles when it is gone, with how it ended in words. */
  readonly ended: Promise<string>;
  readonly running: boolean;
  /** SIGTERM, and SIGKILL after `patience` ms. */
  stop(patience?: number): Promise<void>;
  /** SIGKILL; resolves when it is gone. */
  kill(): Promise<void>;
  /** The last lines of its output. */
  lastWords(): Promise<string>;
}

/** Starts daemons, and sees to it that none outlives us. */
export interface Children {
  /**
   * Starts `node script …args` with the environment of ours and `env`.
   *
   * @param options.onDeath called if it ends without having been stopped
   */
  start(options: {
    name: string;
    script: string;
    args?: readonly string[];
    env: Readonly<Record<string, string>>;
    onDeath: (child: Child, how: string) => void;
  }): Promise<Child>;
  /** The end of all that still run, at once. */
  killAll(): void;
  /** To be called when all are stopped. */
  close(): void;
}

/**
 * @param folder where their output is kept, one file each, begun anew at each start
 */
export async function createChildren(folder: string): Promise<Children> {
  await fs.mkdir(folder, { recursive: true });
  const guard = startGuard();
  const running = new Set<ChildProcess>();

  return {
    async start({ name, script, args = [], env, onDeath }) {
      const log = path.join(folder, `${name}.log`);
      const output = await fs.open(log, 'w');
      const daemon = spawn(process.execPath, [script, ...args], {
        env: { ...process.env, NOTIFY_SOCKET: undefined, WATCHDOG_USEC: undefined, ...env },
        stdio: ['ignore', output.fd, output.fd],
        // A group of its own: Ctrl-C in the terminal is for us, and we stop them in order.
        detached: true,
      });
      await output.close();
      running.add(daemon);
      if (daemon.pid !== undefined) guard.stdin?.write(`${daemon.pid}\n`);

      let stopping = false;
      const ended = new Promise<string>((resolve) => {
        daemon.once('error', (error) => resolve(`could not be started: ${error.message}`));
        daemon.once('exit', (code, signal) => resolve(signal ? `ended by ${signal}` : `exit code ${code}`));
      });
      const child: Child = {
        name,
        pid: daemon.pid ?? 0,
        log,
        ended,
        get running() {
          return running.has(daemon);
        },
        async stop(patience = 12_000) {
          stopping = true;
          if (!running.has(daemon)) return;
          daemon.kill('SIGTERM');
          const late = setTimeout(() => daemon.kill('SIGKILL'), patience);
          await ended;
          clearTimeout(late);
        },
        async kill() {
          stopping = true;
          daemon.kill('SIGKILL');
          await ended;
        },
        async lastWords() {
          const text = await fs.readFile(log, 'utf8').catch(() => '');
          return text.trimEnd().split('\n').slice(-12).join('\n');
        },
      };
      void ended.then((how) => {
        running.delete(daemon);
        if (!stopping) onDeath(child, how);
      });
      return child;
    },
    killAll() {
      for (const daemon of running) daemon.kill('SIGKILL');
    },
    close() {
      guard.kill('SIGKILL');
    },
  };
}

/**
 * A shell that reads the pids of the children from a pipe, and ends them when the pipe does: when we are gone for
 * whatever reason.
 */
function startGuard(): ChildProcess {
  const script = 'pids=; while read -r pid; do pids="$pids $pid"; done; [ -z "$pids" ] || kill -TERM $pids';
  const guard = spawn('/bin/sh', ['-c', script], { stdio: ['pipe', 'ignore', 'ignore'], detached: true });
  guard.on('error', () => undefined);
  guard.stdin?.on('error', () => undefined);
  guard.unref();
  (guard.stdin as unknown as { unref(): void }).unref();
  return guard;
}
