import { randomBytes } from 'node:crypto';
import { systemClock } from '../clock.ts';
import { build as libsodium } from '../session/sodium.ts';
import { type DaemonName, type LoadOptions, loadConfig, programOf } from '../settings/config.ts';
import { formatListen } from '../settings/listen-address.ts';
import { ConfigError } from '../settings/section.ts';
import type { Context, Daemon } from './daemon.ts';
import { createLog, flushLog, type Logger } from './log.ts';
import { describeError } from './log-line.ts';
import {
  buildInfo,
  createRegistry,
  type MetricsServer,
  type Readiness,
  reloadMetric,
  serveMetrics,
} from './metrics.ts';
import { reloadConfig } from './reload.ts';
import { reportStatus } from './status.ts';
import { openSystemd } from './systemd.ts';

export type { Context, Daemon } from './daemon.ts';

/** How long a daemon may take to stop after the first signal, ms. */
const STOP_DEADLINE = 9_000;
/** How long the process may take to exit after the first signal, ms. */
const EXIT_DEADLINE = 10_000;
/** How long the last lines of the log may take to be written, ms. */
const FLUSH_DEADLINE = 500;

/**
 * The life of a daemon's process, from the configuration to the exit code:
 * - 0 when it was asked to stop (SIGTERM, SIGINT, or the death of the "spns run" that started it) and shut down
 *   cleanly, even during startup;
 * - 1 when the configuration is wrong, the start or the stop failed, the stop took longer than 10 s, a second signal
 *   came, the daemon gave up, or the program has a fault.
 *
 * SIGHUP reads the configuration again. The process always ends by process.exit: a forgotten timer must not keep a
 * stopped daemon running.
 *
 * @param build makes and starts the daemon; READY goes to systemd when it resolves
 * @param read reads the daemon's own sections, so that their problems are reported together with all others
 */
export async function runDaemon(
  name: DaemonName,
  build: (context: Context) => Promise<Daemon>,
  { read }: Pick<LoadOptions, 'read'> = {},
): Promise<void> {
  process.title = processTitle(name, process.env.SPNS_INSTANCE);
  const run = new DaemonRun(name, build, { role: programOf(name), ...(read && { read }) });
  run.handleEvents();
  await run.start();
}

/** The one run of a daemon in this process: its start, and what ends it. */
class DaemonRun {
  readonly #name: DaemonName;
  readonly #build: (context: Context) => Promise<Daemon>;
  readonly #options: LoadOptions;
  readonly #systemd = openSystemd(process.env);
  readonly #stopping = new AbortController();
  #log: Logger;
  /** undefined until it has started. */
  #life: Life | undefined;
  /** The exit code after a stop in order. */
  #code = 0;
  #reloadAfterStart = false;

  constructor(name: DaemonName, build: (context: Context) => Promise<Daemon>, options: LoadOptions) {
    this.#name = name;
    this.#build = build;
    this.#options = options;
    // With the defaults, until the configuration is read.
    this.#log = createLog({ level: 'info', levels: new Map(), format: 'auto' }, name);
  }

  /** Reacts to faults, signals and the end of the parent process, and feeds systemd's watchdog. */
  handleEvents(): void {
    process.on('uncaughtException', (error) => this.#fault(error));
    process.on('unhandledRejection', (error) => this.#fault(error));
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => this.#onSignal(signal));
    // Under "spns run" there is a channel to the parent. If it breaks, the parent is dead, and nobody else would stop
    // us.
    process.once('disconnect', () => {
      if (this.#stopping.signal.aborted) return;
      this.#log.error('the process that started this one is gone, stopping');
      this.#stop('the death of its parent');
    });
    process.on('SIGHUP', () => {
      if (this.#life) this.#life.reload();
      else this.#reloadAfterStart = true;
    });
    const { watchdogInterval } = this.#systemd;
    if (watchdogInterval !== undefined) {
      // From the event loop itself and nowhere else, so that systemd sees when it is stuck; from the beginning, since a
      // start may take long.
      systemClock.setInterval(() => this.#systemd.watchdog(), watchdogInterval);
    }
  }

  /** Resolves when the daemon is running; exits if it cannot start, or was told to stop meanwhile. */
  async start(): Promise<void> {
    const { signal } = this.#stopping;
    let life: Life;
    try {
      const config = loadConfig(process.env, this.#options);
      this.#log = createLog(config.log, this.#name);
      for (const warning of config.warnings) this.#log.warn(warning);
      const context = {
        name: this.#name,
        config,
        log: this.#log,
        clock: systemClock,
        systemd: this.#systemd,
        random: randomBytes,
        stopping: signal,
        giveUp: (error: Error) => this.#giveUp(error),
      };
      life = await startLife(context, this.#build, this.#options);
      this.#life = life;
    } catch (error) {
      // A start that was cancelled has not failed.
      if (signal.aborted) return await this.#exit(this.#code);
      return await this.#fail(error, 'could not start');
    }
    if (signal.aborted) return await this.#end(life);
    if (this.#reloadAfterStart) life.reload();
  }

  /**
   * An uncaught exception leaves the process in an unknown state. Going on could give wrong answers for days; stopping
   * in order would write from that state, and may hang. So the process ends at once and systemd starts a new one. That
   * loses no subscription: whatever a client was told has succeeded is committed in PostgreSQL, and tests cover a start
   * after a kill. A rejection that nobody awaited is the same fault in an async function. Faults from outside never get
   * here; they are caught where they arise.
   */
  #fault(error: unknown): void {
    const { message, stack } = describeError(error);
    this.#log.fatal({ stack }, `internal error, exiting so that a fresh process can take over: ${message}`);
    void this.#exit(1);
  }

  #onSignal(signal: 'SIGTERM' | 'SIGINT'): void {
    if (this.#stopping.signal.aborted) {
      this.#log.fatal({ signal }, 'told to stop a second time, exiting');
      void this.#exit(1);
      return;
    }
    this.#log.info({ signal }, 'stopping');
    this.#stop(signal);
  }

  #giveUp(error: Error): void {
    if (this.#stopping.signal.aborted) return;
    this.#code = 1;
    this.#log.fatal(`cannot go on, stopping: ${error.message}`);
    this.#stop('its own decision');
  }

  /** Stops what is running; a start under way notices by itself. */
  #stop(why: string): void {
    this.#systemd.stopping();
    systemClock.setTimeout(() => {
      this.#log.fatal({ seconds: EXIT_DEADLINE / 1000 }, 'did not stop in time, exiting');
      void this.#exit(1);
    }, EXIT_DEADLINE - FLUSH_DEADLINE);
    this.#stopping.abort(new Error(`stopped by ${why}`));
    if (this.#life) void this.#end(this.#life);
  }

  async #end(life: Life): Promise<never> {
    await life.stop().catch((error) => this.#fail(error, 'could not stop in order'));
    return await this.#exit(this.#code);
  }

  async #fail(error: unknown, message: string): Promise<never> {
    if (error instanceof ConfigError) {
      for (const warning of error.warnings) this.#log.warn(warning);
      for (const problem of error.problems) this.#log.fatal(problem);
    } else this.#log.fatal({ err: error }, message);
    return await this.#exit(1);
  }

  async #exit(code: number): Promise<never> {
    await flushLog(this.#log, FLUSH_DEADLINE);
    process.exit(code);
  }
}

/** A running daemon, with its metrics and status. */
interface Life {
  stop(): Promise<void>;
  reload(): void;
}

async function startLife(
  base: Omit<Context, 'registry'>,
  build: (context: Context) => Promise<Daemon>,
  options: LoadOptions,
): Promise<Life> {
  const { name, log, clock, systemd, stopping } = base;
  const started = clock.monotonic();
  const listen = base.config.metricsListen(name);
  const registry = createRegistry(listen !== undefined);
  let refused: string | undefined;
  buildInfo(registry);
  reloadMetric(registry, () => refused === undefined);
  let daemon: Daemon | undefined;
  let metrics: MetricsServer | undefined;

  systemd.status('Starting');
  if (listen !== undefined) {
    // Before the daemon, so that a long start can be watched, and a port that is taken is found before anything else is
    // touched.
    const ready = (): Readiness => {
      if (stopping.aborted) return { ok: false, reasons: ['stopping'] };
      return daemon ? (daemon.ready?.() ?? { ok: true, reasons: [] }) : { ok: false, reasons: ['starting'] };
    };
    metrics = await serveMetrics({ listen, registry, ready, routes: () => daemon?.routes });
    log.info({ listen: formatListen(metrics.address) }, 'metrics and health');
  }
  const running = await build({ ...base, registry });
  daemon = running;
  // Before READY, so that whoever has waited for that no longer sees "Starting".
  const status = reportStatus({ clock, log, systemd, stopping, daemon: running, refused: () => refused });
  if (!stopping.aborted) {
    systemd.ready();
    process.send?.('ready', undefined, undefined, () => {});
    log.info({ seconds: seconds(clock.monotonic() - started), libsodium }, 'started');
  }

  let config = base.config;
  let reloading: Promise<void> = Promise.resolve();
  return {
    async stop() {
      status.stop();
      await running.stop(STOP_DEADLINE);
      await metrics?.close();
      log.info({ seconds: seconds(clock.monotonic() - started) }, 'stopped');
    },
    reload() {
      // One after the other, so that the file that was written last is in force in the end.
      reloading = reloading.then(async () => {
        if (stopping.aborted) return;
        systemd.reloading();
        const outcome = await reloadConfig({ name, first: base.config, config, options, daemon: running, log });
        ({ config, refused } = outcome);
        status.update();
        systemd.ready();
      });
    },
  };
}

/**
 * What ps shows of a daemon: `spns-hivemind`, or `spns-hivemind-one` if it is one of several, and
 * `spns-notifier-apns`. Linux keeps 15 characters of it as the name of the process.
 */
function processTitle(name: DaemonName, instance: string | undefined): string {
  return [`spns-${name.replace(/^notify-/, 'notifier-')}`, name === 'hivemind' && instance].filter(Boolean).join('-');
}

function seconds(ms: number): number {
  return Math.round(ms) / 1000;
}
