import type { Clock } from '../clock.ts';
import type { Daemon } from './daemon.ts';
import type { Logger } from './log.ts';
import type { Systemd } from './systemd.ts';

/** How often the status line for systemd is made, ms; only changes are sent. */
const SYSTEMD_INTERVAL = 1000;
/** How often the status is logged at debug, ms; each 20th time it is logged at info instead. */
const LOG_INTERVAL = 15_000;
const LOGGED_EVERY = 20;

/** Keeps systemd and the log informed of a daemon's status. */
export interface StatusReport {
  /** Tells systemd at once, when something has just changed. */
  update(): void;
  stop(): void;
}

/**
 * Reports a daemon's status from now on, in one line for `systemctl status` and the log: first a refused configuration,
 * then why the daemon is not ready or what it complains about, then its figures.
 *
 * @param refused a sentence about a configuration that the last reload refused
 */
export function reportStatus({
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
}): StatusReport {
  const line = () =>
    [refused(), ...(daemon.ready?.().reasons ?? []), daemon.status?.()].filter((text) => text !== undefined).join('; ');
  let sent = '';
  const update = () => {
    const status = line();
    if (status === sent || stopping.aborted) return;
    sent = status;
    systemd.status(status);
  };
  let turns = 0;
  const logStatus = () => {
    const status = line();
    if (status !== '' && !stopping.aborted) log[turns++ % LOGGED_EVERY === 0 ? 'info' : 'debug'](status);
  };
  const timers = [clock.setInterval(logStatus, LOG_INTERVAL)];
  if (systemd.enabled) timers.push(clock.setInterval(update, SYSTEMD_INTERVAL));
  update();
  return {
    update,
    stop() {
      for (const timer of timers) timer.cancel();
    },
  };
}
