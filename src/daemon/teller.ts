import type { Clock } from '../clock.ts';
import type { Daemon } from './daemon.ts';
import type { Logger } from './log.ts';
import type { Systemd } from './systemd.ts';

/** How often the status line is checked for systemd, ms: only changes are sent. */
const LOOK = 1000;
/** The status goes to the log at debug so often, ms, and every so many times at info. */
const LOG_INTERVAL = 15_000;
const LOGGED_EVERY = 20;

/** Tells how a daemon is. */
export interface Teller {
  /** At once, for what has just changed. */
  tell(): void;
  stop(): void;
}

/**
 * One line for `systemctl status` and the log, from now on: a refused configuration first, then why the daemon is not
 * ready or what it complains of, then its figures.
 * @param refused a configuration that was refused at the last reload, in a sentence
 */
export function teller({
  clock,
  log,
  systemd,
  stopping,
  daemon,
  refused,
}: {
  clock: Clock;
  log: Pick<Logger, 'info' | 'debug'>;
  systemd: Pick<Systemd, 'enabled' | 'status'>;
  stopping: AbortSignal;
  daemon: Pick<Daemon, 'status' | 'ready'>;
  refused: () => string | undefined;
}): Teller {
  const line = () =>
    [refused(), ...(daemon.ready?.().reasons ?? []), daemon.status?.()].filter((text) => text !== undefined).join('; ');
  let told = '';
  const tell = () => {
    const status = line();
    if (status === told || stopping.aborted) return;
    told = status;
    systemd.status(status);
  };
  let turns = 0;
  const say = () => {
    const status = line();
    if (status !== '' && !stopping.aborted) log[turns++ % LOGGED_EVERY === 0 ? 'info' : 'debug'](status);
  };
  const timers = [clock.setInterval(say, LOG_INTERVAL)];
  if (systemd.enabled) timers.push(clock.setInterval(tell, LOOK));
  tell();
  return {
    tell,
    stop() {
      for (const timer of timers) timer.cancel();
    },
  };
}
