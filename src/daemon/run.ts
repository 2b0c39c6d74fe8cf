import { randomBytes } from 'node:crypto';
import { systemClock } from '../clock.ts';
import { build as libsodium } from '../session/sodium.ts';
import { type DaemonName, type LoadOptions, loadConfig, programOf } from '../settings/config.ts';
import { formatListen } from '../settings/listen-address.ts';
import { ConfigError } from '../settings/section.ts';
import type { Context, Daemon } from './daemon.ts';
import { createLog, flushLog } from './log.ts';
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
  const options: LoadOptions = { role: programOf(name), ...(read && { read }) };
  const systemd = openSystemd(process.env);
  const stopping = new AbortController();
  // With the defaults, until the configuration is read.
  let log = createLog({ level: 'info', levels: new Map(), format: 'auto' }, name);
  const exit = async (code: number): Promise<never> => {
    await flushLog(log, FLUSH_DEADLINE);
    process.exit(code);
  };
  const fail = async (error: unknown, message: string): Promise<never> => {
    if (error instanceof ConfigError) {
      for (const warning of error.warnings) log.warn(warning);
      for (const problem of error.problems) log.fatal(problem);
    } else log.fatal({ err: error }, message);
    return await exit(1);
  };

  // An uncaught exception leaves the process in an unknown state. Going on could give wrong answers for days; stopping
  // in order would write from that state, and may hang. So the process ends at once and systemd starts a new one. That
  // loses no subscription: whatever a client was told has succeeded is committed in PostgreSQL, and tests cover a start
  // after a kill. A rejection that nobody awaited is the same fault in an async function. Faults from outside never get
  // here; they are caught where they arise.
  const fault = (error: unknown) => {
    const { message, stack } = describeError(error);
    log.fatal({ stack }, `internal error, exiting so that a fresh process can take over: ${message}`);
    void exit(1);
  };
  process.on('uncaughtException', fault);
  process.on('unhandledRejection', fault);

  let life: Life | undefined;
  let code = 0;
  const stop = (why: string) => {
    systemd.stopping();
    systemClock.setTimeout(() => {
      log.fatal({ seconds: EXIT_DEADLINE / 1000 }, 'did not stop in time, exiting');
      void exit(1);
    }, EXIT_DEADLINE - FLUSH_DEADLINE);
    stopping.abort(new Error(`stopped by ${why}`));
    life?.stop().then(
      () => exit(code),
      (error) => fail(error, 'could not stop in order'),
    );
  };
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      if (stopping.signal.aborted) {
        log.fatal({ signal }, 'told to stop a second time, exiting');
        void exit(1);
        return;
      }
      log.info({ signal }, 'stopping');
      stop(signal);
    });
  }
  // Under "spns run" there is a channel to the parent. If it breaks, the parent is dead, and nobody else would stop us.
  process.once('disconnect', () => {
    if (stopping.signal.aborted) return;
    log.error('the process that started this one is gone, stopping');
    stop('the death of its parent');
  });
  const giveUp = (error: Error) => {
    if (stopping.signal.aborted) return;
    code = 1;
    log.fatal(`cannot go on, stopping: ${error.message}`);
    stop('its own decision');
  };
  let reloadAfterStart = false;
  process.on('SIGHUP', () => {
    if (life) life.reload();
    else reloadAfterStart = true;
  });
  if (systemd.watchdogInterval !== undefined) {
    // From the event loop itself and nowhere else, so that systemd sees when it is stuck; from the beginning, since a
    // start may take long.
    systemClock.setInterval(() => systemd.watchdog(), systemd.watchdogInterval);
  }

  try {
    const config = loadConfig(process.env, options);
    log = createLog(config.log, name);
    for (const warning of config.warnings) log.warn(warning);
    const { signal } = stopping;
    const context = { name, config, log, clock: systemClock, systemd, random: randomBytes, stopping: signal, giveUp };
    life = await startLife(context, build, options);
  } catch (error) {
    // A start that was cancelled has not failed.
    if (stopping.signal.aborted) return await exit(code);
    return await fail(error, 'could not start');
  }
  if (stopping.signal.aborted) {
    await life.stop().catch((error) => fail(error, 'could not stop in order'));
    await exit(code);
  }
  if (reloadAfterStart) life.reload();
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
