import { hostname } from 'node:os';
import { category, repeated } from '../daemon/log.ts';
import type { Context, Daemon } from '../daemon/run.ts';
import { transportMetrics } from '../daemon/transport-metrics.ts';
import { JudgedClock } from '../judged-clock.ts';
import type { Log } from '../log.ts';
import { blake2b } from '../session/sodium.ts';
import { reachableAt } from '../settings/hivemind.ts';
import { VERSION } from '../version.ts';
import { joinCluster } from './cluster/join.ts';
import { SharedSubscriptions } from './cluster/shared-subscriptions.ts';
import { Devices } from './devices/devices.ts';
import { startParts } from './lifecycle.ts';
import { type OpenListener, openListeners } from './listeners.ts';
import { Network } from './network/network.ts';
import type { Node } from './network/node.ts';
import { DuplicateFilter } from './notifications/duplicate-filter.ts';
import { Intake } from './notifications/intake.ts';
import { Outbox } from './notifications/outbox/outbox.ts';
import { type EndpointModules, endpoints } from './operators/endpoints.ts';
import { registerMetrics } from './operators/metrics.ts';
import { serviceReports, statsReport, statusLine, statusSample } from './operators/report.ts';
import { intakeCounter, Stats } from './operators/stats.ts';
import { statusPage } from './operators/status-page.ts';
import { testPush } from './operators/test-push.ts';
import { filterLifetime, outboxLimits, reloader } from './reload.ts';
import { Store } from './store/store.ts';
import { DeadDevices } from './subscriptions/dead-devices.ts';
import { expectedServices } from './subscriptions/expected-services.ts';
import { Expiry } from './subscriptions/expiry.ts';
import { loadSubscriptions } from './subscriptions/load.ts';
import { Subscriptions } from './subscriptions/subscriptions.ts';

/**
 * Builds the parts of the hivemind and connects them. Each part is described in its own file; in what order they start
 * and stop, and when the whole is ready, is in lifecycle.ts.
 */
export async function startHivemind(context: Context): Promise<Daemon> {
  const { config, random, registry, systemd } = context;
  const log = category(context.log, 'hivemind');
  // A warning that clients, notifiers or strangers can cause at will is logged once, and then counted.
  const faults = repeated(log, context.clock);
  const quietLog: Log = {
    debug: (text) => log.debug(text),
    info: (text) => log.info(text),
    warn: (text) => faults.warn(text),
    error: (text) => log.error(text),
  };
  const settings = config.hivemind;

  // The database first: its lock shows whether another hivemind is running, before we take over that one's sockets.
  systemd.status('Connecting to the database');
  const store = await openStore(context);
  // Everything below uses this clock: a step of the machine's clock must not expire subscriptions.
  const clock = await JudgedClock.start({
    clock: context.clock,
    database: () => store.time(),
    log,
  });

  const devices = new Devices({ random });
  const seen = new DuplicateFilter({ clock, random, lifetime: filterLifetime(config) });
  const stats = new Stats(clock, store);
  // Before anything can be counted, since counts are added to what was stored.
  stats.load(await store.readStats());
  const network = new Network({
    clock,
    random,
    accounts: devices,
    secret: config.keys.hivemind,
    identity: store.cluster?.membership,
    oxend: settings.oxendRpc,
    maxConnects: settings.maxConnects,
    allowPrivate: settings.allowPrivateNodes,
    interval: settings.subsInterval * 1000,
    log: category(context.log, 'snode'),
    onNotification: (node, body) => {
      joined?.hearing.heard(node, body);
      intake.handle(node, body);
    },
  });
  const loading = { clock, store, devices, stopping: context.stopping, log };
  const joined =
    store.cluster &&
    joinCluster({
      clock,
      secret: config.keys.hivemind,
      copies: settings.copies,
      store: { cluster: store.cluster, load: store.load.bind(store), watchWrites: () => store.watchWrites() },
      load: (slots) => loadSubscriptions(loading, slots),
      devices,
      network,
      inWork: (service, serviceId) => subscriptions.isInWork(service, serviceId),
      onProgress: (progress) => outbox.standby?.onProgress(progress),
      log: quietLog,
    });
  const outbox = new Outbox({
    clock,
    random,
    ...outboxLimits(config, log),
    log,
    cluster: joined && { duty: joined.cluster.duty, secret: config.keys.hivemind, tell: joined.tell },
  });
  const intake = new Intake<Node>({
    clock,
    possibleTimes: () => clock.possibleLately(),
    devices,
    seen,
    outbox,
    accepts: (node, account) => network.monitoring.accepts(node.swarmMember, account),
    hasOthers: (node, account) => network.monitoring.hasOthers(node.swarmMember, account),
    nameOf: ({ key, address }) => `${key.slice(0, 12)} at ${address.host}:${address.port}`,
    log: quietLog,
  });
  const expiry = new Expiry({
    clock,
    devices,
    store,
    log: quietLog,
  });
  const start = Promise.withResolvers<void>();
  const subscriptions = new Subscriptions({
    clock,
    time: () => ({ possible: clock.possible(), inDoubt: clock.doubt !== undefined || expiry.held !== undefined }),
    ready: start.promise,
    store,
    devices: joined ? new SharedSubscriptions({ devices, store, cluster: joined.cluster }) : devices,
    stats,
    notifierFor: (service) => outbox.validator(service),
    isExpected: expectedServices({ config, outbox, devices, hasReported: (service) => stats.hasReported(service) }),
    log: quietLog,
  });
  const deadDevices = new DeadDevices({
    clock,
    devices,
    store,
    service: (name) => outbox.services.get(name),
    inWork: (service, serviceId) => subscriptions.isInWork(service, serviceId),
    log,
  });
  registerMetrics(registry, {
    clock,
    devices,
    expiry,
    intake: intake.counters,
    joined,
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
    requests: subscriptions.counters,
    ...(joined && { cluster: () => joined.cluster.report() }),
  };
  const flush = intakeCounter(stats, intake.counters);
  const getNodes = () => network.nodes((node) => intake.recordOf(node));
  const modules: EndpointModules = {
    subscriptions,
    outbox,
    stats,
    deadDevices,
    getStats: () => {
      flush();
      return statsReport(sources);
    },
    expire: (approved) => expiry.report(approved),
    getNodes,
    getServices: () => serviceReports(sources),
    testPush: (service, info) => testPush(service, info, { clock, random, outbox }),
    ...(joined && {
      cluster: {
        own: joined.cluster.duty.own,
        members: () => joined.cluster.living,
        ask: (member, command, parts, timeout) => joined.links.request(member, command, parts, timeout),
      },
    }),
    onBlock: () => network.refresh(),
    log: quietLog,
  };
  listeners = await openListeners({
    clock,
    random,
    settings,
    secret: config.keys.hivemind,
    commands: { ...endpoints(modules), ...joined?.commands },
    log,
    stray: (reason) => faults.warn('a message was dropped', { reason }),
    gone: (remote) => outbox.gone(remote),
  });
  transportMetrics(registry, () => [
    ...network.sockets,
    ...(joined ? [['members', joined.links.counters] as const] : []),
    ...listeners.map(({ counters }) => ['clients', counters] as const),
  ]);

  const lifecycle = await startParts({
    clock,
    log,
    systemd,
    settings,
    stopping: context.stopping,
    store,
    devices,
    expiry,
    subscriptions,
    intake,
    outbox,
    network,
    joined,
    listeners,
    open: start.resolve,
    flush,
  });
  const page = statusPage({
    sample: () => statusSample(sources, lifecycle.readiness().reasons),
    nodes: getNodes,
    host: hostname(),
    version: VERSION,
    clock,
  });

  return {
    status: () => statusLine(sources),
    ready: lifecycle.readiness,
    routes: page.routes,
    reload: reloader(config, { outbox, seen }),
    async stop(deadline) {
      page.stop();
      await lifecycle.stop(deadline);
      faults.stop();
      clock.stop();
    },
  };
}

/** @throws StoreError with a sentence for the operator */
function openStore({ config, clock, log, giveUp }: Context): Promise<Store> {
  const { db, keys, hivemind: settings } = config;
  return Store.open({
    url: db.url,
    clock,
    log: category(log, 'pg'),
    onTaken: giveUp,
    ...(settings.instance !== undefined && {
      cluster: {
        name: settings.instance,
        copies: settings.copies,
        keyFingerprint: keyFingerprint(keys.hivemind),
        version: VERSION,
        ...reachableAt(settings),
      },
    }),
  });
}

/** Shows whether hiveminds on one database have the same key, without revealing it: 16 bytes. */
function keyFingerprint(secret: Buffer): Buffer {
  return blake2b(16, Buffer.from('spns key fingerprint'), secret);
}
