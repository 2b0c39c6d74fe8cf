import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** One run of a daemon as a child process. */
export interface DaemonProcess {
  /** 0 if it could not be started. */
  readonly pid: number;
  kill(signal: NodeJS.Signals): void;
  /** Resolves when it has started; never if it fails to. */
  readonly ready: Promise<void>;
  /** How it ended, in words; exit code 0 is `undefined`. Never rejects. */
  readonly ended: Promise<string | undefined>;
}

/** Absolute path of a file of this program, such as `web/main.ts`. */
export function programPath(file: string): string {
  return fileURLToPath(new URL(`../${file}`, import.meta.url));
}

/** systemd sets these for this process alone, not for its children. */
const NOT_FOR_CHILDREN = { NOTIFY_SOCKET: undefined, WATCHDOG_USEC: undefined, WATCHDOG_PID: undefined };

/** Programs of daemons that do not have a folder of their own in src/. */
const PROGRAMS: { readonly [name: string]: string } = { canary: 'notifiers/canary/main.ts' };

/** How much memory V8 and glibc keep; the units set the same, and say why. */
const MEMORY: { readonly [kind: string]: Readonly<Record<string, string>> } = {
  hivemind: { NODE_OPTIONS: '--max-semi-space-size=16' },
  notify: { NODE_OPTIONS: '--max-semi-space-size=8', MALLOC_ARENA_MAX: '1' },
};

/**
 * An environment with what a daemon's unit sets about its memory. What stands in the environment already wins: Node
 * takes the last of two flags.
 *
 * @param name as of {@link startDaemon}
 */
export function withMemorySettings(name: string, env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const settings = MEMORY[name.split('-')[0] ?? ''];
  if (!settings) return env;
  const options = [settings.NODE_OPTIONS, env.NODE_OPTIONS].filter(Boolean).join(' ');
  return { ...settings, ...env, NODE_OPTIONS: options };
}

/**
 * Starts a daemon with the same Node. It stops by itself, in order, when this process ends for whatever reason.
 *
 * @param name `hivemind`, `hivemind-INSTANCE`, `web`, `notify-SERVICE` or `canary`
 * @param options.env in addition to our own
 * @param options.log the file for its output, which is emptied first; without one it writes where this process does
 */
export function startDaemon(
  name: string,
  { env = {}, log }: { readonly env?: Readonly<Record<string, string>>; readonly log?: string } = {},
): DaemonProcess {
  const service = /^notify-(.+)$/.exec(name)?.[1];
  const instance = /^hivemind-(.+)$/.exec(name)?.[1];
  const file =
    service !== undefined
      ? 'notifiers/main.ts'
      : (PROGRAMS[name] ?? `${instance === undefined ? name : 'hivemind'}/main.ts`);
  const output = log === undefined ? 'inherit' : openSync(log, 'w');
  const child = spawn(process.execPath, [programPath(file), ...(service === undefined ? [] : [service])], {
    env: withMemorySettings(name, {
      ...process.env,
      ...NOT_FOR_CHILDREN,
      ...(instance !== undefined && { SPNS_INSTANCE: instance }),
      ...env,
    }),
    // The channel tells us when the daemon has started, and tells the daemon when we are gone, even by SIGKILL.
    stdio: ['ignore', output, output, 'ipc'],
    // A process group of its own: Ctrl-C in a terminal goes to the whole group, and a daemon that gets the signal twice
    // ends at once.
    detached: true,
  });
  if (typeof output === 'number') closeSync(output);
  return {
    pid: child.pid ?? 0,
    kill: (signal) => child.kill(signal),
    ready: new Promise((resolve) => child.on('message', (message) => message === 'ready' && resolve())),
    ended: new Promise((resolve) => {
      child.once('error', (error) => resolve(`could not be started: ${error.message}`));
      child.once('exit', (code, signal) =>
        resolve(signal ? `by ${signal}` : code === 0 ? undefined : `exit code ${code}`),
      );
    }),
  };
}
