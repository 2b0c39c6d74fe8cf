import { isDeepStrictEqual } from 'node:util';
import { getHeapStatistics } from 'node:v8';
import type { Clock, Timer } from '../clock.ts';
import { category, repeated } from '../daemon/log.ts';
import type { Context, Daemon } from '../daemon/run.ts';
import { transportMetrics } from '../daemon/transport-metrics.ts';
import { JudgedClock } from '../judged-clock.ts';
import { CLOCK_TOLERANCE } from '../session/subscription.ts';
import type { Config } from '../settings/config.ts';
import type { DeviceRow } from './devices/device.ts';
import { Devices } from './devices/devices.ts';
import { type OpenListener, openListeners } from './listeners.ts';
import { Network } from './network/network.ts';
import type { Node } from './network/node.ts';
import { DuplicateFilter } from './notifications/duplicate-filter.ts';
import { Intake } from './notifications/intake.ts';
import { Outbox } from './notifications/outbox/outbox.ts';
import { type EndpointModules, endpoints } from './operators/endpoints.ts';
import { registerMetrics } from './operators/metrics.ts';
import { serviceReports, statsReport, statusLine, statusSample } from './operators/report.ts';
import { Stats } from './operators/stats.ts';
import { statusPage } from './operators/status-page.ts';
import { testPush } from './operators/test-push.ts';
import { Store } from './store/store.ts';
import { DeadDevices } from './subscriptions/dead-devices.ts';
import { Expiry } from './subscriptions/expiry.ts';
import { expectedServices } from './subscriptions/known-services.ts';
import { SigningTimes } from './subscriptions/signing-times.ts';
import { Subscriptions } from './subscriptions/subscribe.ts';

const STATISTICS_MS = 15_000;
/** Of the nine seconds that a stop may take, notifiers that report nothing have this long, and those that do as long as leaves {@link CLOSE_MS}. */
const HAND_OVER_MS = 5_000;
/** To close the database and the listeners, in ms. */
const CLOSE_MS = 1_500;
/** And so long for their word on devices that clients wait for; what they have vouched for is then still written. */
const VALIDATE_MS = 2_000;
/** The rest of the stop, in ms: for the last answers, after a database that has stopped answering was given up. */
const LAST_MS = 500;
/** Of V8's heap, what the pushes of one service may take at most, whatever is configured: several full queues must not end the process. */
const HEAP_SHARE = 1 / 8;
const NOTIFIER_POLL_MS = 25;

/**
 * Builds the parts of the hivemind, joins them and starts them in order: database, listeners, subscriptions, notifiers,
 * network. Only joining happens here; what a part does is told in its own file.
 */
export async function startHivemind(context: Context): Promise<Daemon> {
  const { config, random, registry, systemd } = context;
  const log = category(context.log, 'hivemind');
  // What clients, notifiers and strangers can cause at will is said once, and then counted.
  const faults = repeated(log, context.clock);
  const settings = config.hivemind;

  // The database first: its lock tells whether another hivemind runs, before we take that one's sockets away.
  systemd.status('Connecting to the database');
  const store = await Store.open({
    url: config.db.url,
    clock: context.clock,
    log: category(context.log, 'pg'),
    onTaken: context.giveUp,
  });
  // From here on there is one clock, and no step of the machine's costs a subscription.
  const clock = await JudgedClock.start({
    clock: context.clock,
    database: () => store.time(),
    log: (level, text) => log[level](text),
  });

  const devices = new Devices({ random });
  const seen = new DuplicateFilter({ clock, random, lifetime: settings.filterLifetime * 1000 });
  const stats = new Stats(clock, store);
  // Before anybody can report: what is counted from here on comes on top.
  stats.load(await store.readStats());
  let current = outboxLimits(config);
  if (current.limits.maxBytes < settings.outboxMaxBytes)
    log.info(
      `outbox_max_bytes counts as ${current.limits.maxBytes}: an eighth of the heap that Node allows itself here`,
    );
  const outbox = new Outbox({ clock, random, ...current, log: (level, text) => log[level](text) });
  const network = new Network({
    clock,
    random,
    accounts: devices,
    secret: config.keys.hivemind,
    oxend: settings.oxendRpc,
    maxConnects: settings.maxConnects,
    allowPrivate: settings.allowPrivateNodes,
    interval: settings.subsInterval * 1000,
    log: category(context.log, 'snode'),
    onNotification: (node, body) => intake.handle(node, body),
  });
  const intake = new Intake<Node>({
    clock,
    devices,
    seen,
    outbox,
    accepts: (node, account) => network.monitoring.accepts(node.member, account),
    hasOthers: (node, account) => network.monitoring.hasOthers(node.member, account),
    nameOf: ({ key, address }) => `${key.slice(0, 12)} at ${address.host}:${address.port}`,
    warn: (text) => faults.warn(text),
  });
  const expiry = new Expiry({
    clock,
    devices,
    store,
    log: (level, text) => (level === 'warn' ? faults.warn(text) : log[level](text)),
  });
  let open = () => {};
  const ready = new Promise<void>((resolve) => (open = resolve));
  const subscriptions = new Subscriptions({
    clock,
    time: () => ({ possible: clock.possible(), inDoubt: clock.doubt !== undefined || expiry.held !== undefined }),
    ready,
    store,
    devices,
    stats,
    notifierFor: (service) => outbox.validator(service)?.remote,
    isExpected: expectedServices({ config, outbox, devices, stats }),
    log: (level, text) => (level === 'debug' ? log.debug(text) : faults.warn(text)),
  });
  const deadDevices = new DeadDevices({
    clock,
    devices,
    store,
    service: (name) => outbox.services.get(name),
    inWork: (service, serviceId) => subscriptions.isInWork(service, serviceId),
    log: (level, text) => log[level](text),
  });
  registerMetrics(registry, {
    clock,
    devices,
    expiry,
    intake: intake.counters,
    network,
    oversized: () => listeners.reduce((sum, { counters }) => sum + counters.excessive, 0),
    outbox,
    store,
    subscriptions: subscriptions.counters,
  });

  let listeners: readonly OpenListener[] = [];
  const sources = {
    clock,
    startedAt: clock.now(),
    since: clock.monotonic(),
    devices,
    network,
    stats,
    outbox,
    intake: intake.counters,
  };
  let counted = { raw: 0, pushes: 0 };
  const flush = () => {
    const { raw, pushes } = intake.counters;
    stats.add('', { pushes: raw - counted.raw, notifications: pushes - counted.pushes });
    counted = { raw, pushes };
  };

  let isReady = false;
  const joined: EndpointModules = {
    subscriptions,
    outbox,
    stats,
    deadDevices,
    getStats: () => {
      flush();
      return statsReport(sources);
    },
    expire: (approved) => expiry.report(approved),
    getNodes: () => network.nodes((node) => intake.recordOf(node)),
    getServices: () => serviceReports(sources),
    testPush: (service, info) => testPush(service, info, { clock, random, outbox }),
    onBlock: () => network.refresh(),
    log: (text) => faults.warn(text),
  };
  listeners = await openListeners({
    clock,
    random,
    settings,
    secret: config.keys.hivemind,
    commands: endpoints(joined),
    log: (text) => log.info(text),
    stray: (reason) => faults.warn('a message was dropped', { reason }),
    gone: (remote) => outbox.gone(remote),
  });
  transportMetrics(registry, () => [
    ...network.sockets,
    ...listeners.map(({ counters }) => ['clients', counters] as const),
  ]);

  systemd.status('Loading existing subscriptions');
  const loading = clock.monotonic();
  const signed = new SigningTimes();
  const visit = (row: DeviceRow) => {
    signed.add(row.signedAt);
    devices.upsert(row, row.signedAt);
  };
  const loaded = await store.load(visit, context.stopping);
  log.info(
    `loaded ${loaded.rows} subscriptions of ${devices.accounts} accounts in ${((clock.monotonic() - loading) / 1000).toFixed(1)} s` +
      (loaded.skipped > 0 ? `; ${loaded.skipped} rows are invalid and were passed over` : ''),
  );

  // Devices sign by their own clocks, at most so far ahead of the true time: a clock that says less is wrong.
  clock.isAfter((signed.newest() - CLOCK_TOLERANCE) * 1000);
  await expiry.start();

  const timers: Timer[] = [];
  // What follows takes as long as it takes: systemd and the operator see it in the status, the daemon is up.
  const start = async () => {
    await expectedNotifiers(settings.notifiersExpected, settings.startupWait, outbox, clock, context.stopping);
    if (context.stopping.aborted) return;
    network.start();
    isReady = true;
    open();
    log.info('ready for subscriptions');
  };
  const started = start();

  timers.push(clock.setInterval(flush, STATISTICS_MS));

  const complaints = () =>
    [
      clock.doubt && `the time is in doubt: ${clock.doubt}`,
      expiry.complaint,
      ...subscriptions.complaints(),
      ...network.complaints(),
      ...intake.complaints(),
    ].filter((text) => text !== undefined);
  const readiness = () => {
    const { trouble } = store;
    const reasons = [
      ...(isReady ? [] : ['waiting for notifiers']),
      ...(trouble === undefined ? [] : [trouble]),
      ...complaints(),
    ];
    // Without oxend or a storage server the hivemind still does its work for clients: that is a complaint, not a reason to be taken out of service.
    return { ok: isReady && trouble === undefined, reasons };
  };
  const page = statusPage(() => statusSample(sources, readiness().reasons), clock);

  return {
    status: () => `${isReady ? '' : 'waiting for notifiers; '}${statusLine(sources)}`,
    ready: readiness,
    routes: page.routes,
    reload(next: Config): string[] {
      const changes: string[] = [];
      const limits = outboxLimits(next);
      if (!isDeepStrictEqual(limits, current)) {
        outbox.setLimits(limits.limits, limits.breaker);
        current = limits;
        changes.push("the outbox's and the breaker's limits");
      }
      const lifetime = next.hivemind.filterLifetime * 1000;
      if (lifetime !== seen.lifetime) {
        seen.lifetime = lifetime;
        changes.push("the duplicate filter's lifetime");
      }
      return changes;
    },
    async stop(deadline) {
      const end = clock.monotonic() + deadline - LAST_MS;
      await started;
      open();
      // Side by side with the rest: a notifier that answers nobody must not take the time of those that do.
      const answered = subscriptions.stop(VALIDATE_MS);
      for (const timer of timers) timer.cancel();
      expiry.stop();
      page.stop();
      await network.stop();
      intake.stop();
      await outbox.stop(HAND_OVER_MS, end - CLOSE_MS - clock.monotonic());
      if (!(await within(answered, end - clock.monotonic(), clock)))
        log.warn('clients wait for a database that does not answer');
      flush();
      const closed = await within(store.close(), end - clock.monotonic(), clock);
      if (!closed) log.warn('the database does not answer: the last statistics are lost');
      for (const listener of listeners) await listener.close();
      const { queued, accepted, refused, passed, unreported, dropped, shutdown } = outbox.close();
      if (shutdown > 0) log.warn(`${shutdown} pushes could not be handed over and are given up`);
      if (unreported > 0)
        log.warn(`${unreported} pushes are with notifiers that have not reported on them, and may still deliver them`);
      log.info(
        `of ${queued} pushes ${accepted} were accepted, ${refused} refused, ${passed} passed on without acknowledgement, ` +
          `${dropped} given up, ${unreported} not reported on`,
      );
      faults.stop();
      clock.stop();
    },
  };
}

/**
 * Waits until the expected notifiers are registered, or `wait` seconds have passed (docs/spec/hivemind.md, section 6).
 */
async function expectedNotifiers(
  expected: readonly string[],
  wait: number,
  outbox: Outbox,
  clock: Clock,
  stopping: AbortSignal,
): Promise<void> {
  const deadline = clock.monotonic() + wait * 1000;
  const missing = () => expected.some((name) => !outbox.validator(name));
  // With nobody expected the original waits the full time, for whoever may come.
  while (!stopping.aborted && clock.monotonic() < deadline && (expected.length === 0 || missing())) {
    await new Promise<void>((resolve) => {
      clock.setTimeout(resolve, Math.min(NOTIFIER_POLL_MS, deadline - clock.monotonic()));
    });
  }
}

/** Whether it is done before so many milliseconds have passed. */
async function within(work: Promise<void>, ms: number, clock: Clock): Promise<boolean> {
  let timer: Timer | undefined;
  const late = new Promise<false>((resolve) => {
    timer = clock.setTimeout(() => resolve(false), Math.max(ms, 0));
  });
  try {
    return await Promise.race([work.then(() => true), late]);
  } finally {
    timer?.cancel();
  }
}

function outboxLimits({ hivemind }: Config) {
  const most = Math.floor(getHeapStatistics().heap_size_limit * HEAP_SHARE);
  return {
    limits: { maxBytes: Math.min(hivemind.outboxMaxBytes, most), maxAge: hivemind.outboxMaxAge * 1000 },
    breaker: { share: hivemind.goneBreakerShare, minimum: hivemind.goneBreakerMinimum },
  };
}
