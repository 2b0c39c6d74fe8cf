import type { Registry } from 'prom-client';
import type { Clock } from '../clock.ts';
import type { Config, DaemonName } from '../settings/config.ts';
import type { Logger } from './log.ts';
import type { Readiness, Routes } from './metrics.ts';
import type { Systemd } from './systemd.ts';

/** What a daemon is built with. */
export interface Context {
  readonly name: DaemonName;
  readonly config: Config;
  readonly log: Logger;
  readonly clock: Clock;
  readonly systemd: Systemd;
  readonly registry: Registry;
  readonly random: (bytes: number) => Buffer;
  /**
   * Aborted when the process is asked to stop: a start that waits for something must then reject or resolve.
   */
  readonly stopping: AbortSignal;
  /**
   * Stops the daemon in order and exits with 1: when it cannot go on, but its state is sound and can be handed over.
   */
  readonly giveUp: (error: Error) => void;
}

/** A running daemon. */
export interface Daemon {
  /**
   * Stops in order: takes nothing new, finishes or hands over what it has, closes all sockets and timers.
   *
   * @param deadline milliseconds that it has for this, after which the process ends anyway
   */
  stop(deadline: number): Promise<void>;
  /** Live figures in one line, for `systemctl status` and the log, where they follow the reasons of `ready`. */
  status?(): string;
  /** Whether it can do its work; a daemon without this can as soon as it is built. */
  ready?(): Readiness;
  /**
   * Applies what can change without a restart, and returns what it changed, in words.
   *
   * @throws Error to refuse; nothing may have changed then
   */
  reload?(config: Config): string[] | Promise<string[]>;
  /** More paths at the metrics address. */
  readonly routes?: Routes;
}
