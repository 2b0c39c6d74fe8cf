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
   * Aborted when the process is asked to stop: a start that waits for something must then give up, by a rejection or by
   * resolving.
   */
  readonly stopping: AbortSignal;
  /** Ends the process in order, with 1: for what cannot be survived, but leaves what there is to hand over sound. */
  readonly giveUp: (error: Error) => void;
}

/** A running daemon. */
export interface Daemon {
  /**
   * Ends in order: takes nothing new, finishes or hands over what it has, gives back all sockets and timers.
   * @param deadline milliseconds that it has for this; after them the process ends anyway
   */
  stop(deadline: number): Promise<void>;
  /**
   * Live figures in one line, for `systemctl status` and the log, where they stand behind the reasons of
   * {@link Daemon.ready}.
   */
  status?(): string;
  /** Whether it can do its work; without this it can from the moment it was built. */
  ready?(): Readiness;
  /**
   * Takes over what can change without a restart, and names each change it made in words. Throws to refuse; nothing may
   * have changed then.
   */
  reload?(config: Config): string[] | Promise<string[]>;
  /** More paths at the metrics address. */
  readonly routes?: Routes;
}
