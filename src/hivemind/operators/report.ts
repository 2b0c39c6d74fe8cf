import type { Clock } from '../../clock.ts';
import type { RecentLatency } from '../../latency.ts';
import type { ClusterReport } from '../cluster/cluster.ts';
import type { Devices } from '../devices/devices.ts';
import type { Network } from '../network/network.ts';
import type { IntakeCounters } from '../notifications/intake-counters.ts';
import type { Outbox } from '../notifications/outbox/outbox.ts';
import type { SubscriptionCounters } from '../subscriptions/subscriptions.ts';
import type { Stats, StatValue } from './stats.ts';

/** Where an operator's figures come from. */
export interface ReportSources {
  clock: Clock;
  /** When the process started, unix ms. */
  startedAt: number;
  /** The same, monotonic ms. */
  since: number;
  devices: Devices;
  network: Network;
  stats: Stats;
  outbox: Outbox;
  intake: IntakeCounters;
  /** Given by one of several hiveminds. */
  cluster?: (() => ClusterReport) | undefined;
  requests: Pick<SubscriptionCounters, 'results' | 'shed'>;
}

/** A service as `admin.get_services` reports it. */
export interface ServiceReport {
  service: string;
  notifiers: number;
  subscriptions: number;
  queued: number;
  queued_bytes: number;
  in_flight: number;
  oldest_seconds: number;
  handed: number;
  accepted: number;
  refused: number;
  passed: number;
  unreported: number;
  redelivered: number;
  dropped: Record<string, number>;
  gone: number;
  breaker_open: boolean;
  /** From when a message was stored until the provider accepted its push, over the last minutes, in seconds. */
  latency: RecentLatency | null;
  /** How long the provider takes to answer, as the notifier reports; null if it does not. */
  provider: RecentLatency | null;
  /** When the notifier's credential for the provider expires, unix seconds; null if unknown. */
  credential_expires: number | null;
}

/** What the canary reported about itself. */
export interface CanaryReport {
  readonly isRunning: boolean;
  /** How long its last push took, in seconds; null if none has come yet. */
  readonly lastSeconds: number | null;
  /** How long ago its last push came, in seconds. */
  readonly silentSeconds: number;
  readonly delivered: number;
  readonly lost: number;
  /** What it complains of; empty if there is nothing. */
  readonly problem: string;
}

/** Clients' requests since the start: successful, refused with a code, and told to retry for lack of room or time. */
export interface RequestCounts {
  readonly taken: number;
  readonly refused: number;
  readonly shed: number;
}

/** What the status page shows of one moment. Counters count from the start of the process. */
export interface StatusSample {
  /** How many storage servers are known. */
  readonly nodes: number;
  /** How many of them only keep accounts that other hiveminds look after. */
  readonly unneeded: number;
  readonly swarms: number;
  /** How many servers are connected, and being connected. */
  readonly connected: number;
  readonly pending: number;
  /** Storage servers that have confirmed every account within a monitor's lifetime. */
  readonly fresh: number;
  /** How long ago the account that has waited longest was confirmed, in seconds. */
  readonly oldestSeconds: number;
  /** Accounts that no storage server of their swarm has confirmed. */
  readonly uncovered: number;
  readonly blockHeight: number;
  readonly accounts: number;
  /** Notifications received, copies included, and messages among them that some device wanted. */
  readonly raw: number;
  readonly unique: number;
  readonly services: readonly ServiceReport[];
  readonly requests: RequestCounts;
  /** Null if there is none. */
  readonly canary: CanaryReport | null;
  /** Null for a single hivemind. */
  readonly cluster: ClusterReport | null;
  /** Why the hivemind is not ready, and what else it complains of, one sentence each. */
  readonly complaints: readonly string[];
}

/** The answer to `admin.get_stats`: all keys of the original's (docs/spec/hivemind.md, section 1.5), and our own. */
export function statsReport(sources: ReportSources): Record<string, unknown> {
  const { clock, since, devices, network, stats, intake } = sources;
  const summary = network.summary();
  const subscriptions: Record<string, number> = Object.create(null);
  for (const [service, count] of devices.countByService()) subscriptions[service] = count;
  return {
    ...stats.snapshot(),
    ...(sources.cluster && { cluster: sources.cluster() }),
    accounts_monitored: devices.accounts,
    block_hash: summary.blockHash,
    block_height: summary.blockHeight,
    connections: summary.connected,
    pending_connections: summary.pending,
    snodes: summary.nodes,
    subscriptions: { ...subscriptions, total: devices.size },
    swarms: summary.swarms,
    uptime: (clock.monotonic() - since) / 1000,
    freshness: {
      fresh_nodes: summary.fresh,
      silent_nodes: summary.silent,
      oldest_seconds: summary.oldestSeconds,
      unconfirmed: summary.unconfirmed,
      uncovered: summary.uncovered,
      oxend: network.oxendUp,
    },
    since_start: {
      raw: intake.raw,
      duplicates: intake.duplicates,
      unique: intake.unique,
      pushes: intake.pushes,
      unwanted: intake.unwanted,
      unasked: intake.unasked,
      expired: intake.expired,
      limited: intake.limited,
      unshown: intake.unshown,
      contradicted: intake.contradicted,
      unheld: intake.unheld,
      held: intake.held,
      malformed: Object.fromEntries(intake.malformed),
    },
    services: serviceReports(sources),
    complaints: network.complaints(),
  };
}

/** The answer to `admin.get_services`, sorted by name. */
export function serviceReports({
  outbox,
  clock,
  devices,
  stats,
}: Pick<ReportSources, 'outbox' | 'clock' | 'devices' | 'stats'>) {
  const now = clock.monotonic();
  const subscriptions = devices.countByService();
  const names = new Set([...outbox.services.keys(), ...subscriptions.keys()]);
  return [...names].sort().map((name): ServiceReport => {
    const service = outbox.service(name);
    const { queue, counters, oldest } = service;
    const reported = service.instances.size > 0 ? stats.of(name) : new Map<string, StatValue>();
    const [median, p95] = [seconds(reported.get('provider_ms')), seconds(reported.get('provider_p95_ms'))];
    const expires = reported.get('credential_expires');
    return {
      service: name,
      notifiers: service.instances.size,
      subscriptions: subscriptions.get(name) ?? 0,
      queued: queue.length,
      queued_bytes: service.bytes,
      in_flight: service.instances.inFlight,
      oldest_seconds: oldest === undefined ? 0 : (now - oldest) / 1000,
      handed: counters.handed,
      accepted: counters.accepted,
      refused: counters.refused,
      passed: counters.passed,
      unreported: counters.unreported,
      redelivered: counters.redelivered,
      dropped: { ...counters.dropped },
      gone: counters.gone,
      breaker_open: service.breaker.open,
      latency: service.latency.recent(now),
      provider: median === null || p95 === null ? null : { median, p95 },
      credential_expires: typeof expires === 'number' ? expires : null,
    };
  });
}

/** Seconds of what a notifier reported in ms; null if it did not. */
function seconds(ms: StatValue | undefined): number | null {
  return typeof ms === 'number' ? ms / 1000 : null;
}

function requestCounts({ requests: { results, shed } }: ReportSources): RequestCounts {
  let [taken, refused] = [0, 0];
  for (const [key, count] of results) {
    if (key.endsWith(':ok')) taken += count;
    else refused += count;
  }
  return { taken, refused, shed: shed.wait + shed.room + shed.invalid };
}

/** What the canary has reported since our start; null if nothing. */
function canaryReport({ clock, startedAt, stats, outbox }: ReportSources): CanaryReport | null {
  const last = stats.get('last.canary');
  if (typeof last !== 'number' || last < Math.floor(startedAt / 1000)) return null;
  const reported = stats.of('canary');
  const number = (key: string) => {
    const value = reported.get(key);
    return typeof value === 'number' ? value : 0;
  };
  return {
    isRunning: (outbox.services.get('canary')?.instances.size ?? 0) > 0,
    lastSeconds: seconds(reported.get('latency_ms')),
    silentSeconds: number('silent_seconds') + Math.max(0, Math.floor(clock.now() / 1000) - last),
    delivered: number('delivered'),
    lost: number('lost'),
    problem: String(reported.get('problem') ?? ''),
  };
}

/** What the status page shows of this moment. @param complaints of the hivemind as a whole */
export function statusSample(sources: ReportSources, complaints: readonly string[]): StatusSample {
  const { network, devices, intake } = sources;
  return {
    ...network.summary(),
    accounts: devices.accounts,
    raw: intake.raw,
    unique: intake.unique,
    services: serviceReports(sources),
    requests: requestCounts(sources),
    canary: canaryReport(sources),
    cluster: sources.cluster?.() ?? null,
    complaints,
  };
}

/**
 * The status line for systemd and the log (docs/spec/hivemind.md, section 6), with freshness and queues in addition to
 * the original's.
 */
export function statusLine({ startedAt, devices, network, stats, outbox, intake }: ReportSources): string {
  const { connected, nodes, unneeded, pending, blockHeight, fresh } = network.summary();
  const needed = nodes - unneeded;
  const alive = stats.alive(Math.floor(startedAt / 1000));
  return [
    `SN conns: ${connected}/${needed} (${pending} pending)`,
    `Fresh: ${fresh}/${needed}`,
    `Height: ${blockHeight}`,
    `Accts/Subs: ${devices.accounts}/${devices.size}`,
    `svcs: ${alive.join(', ') || 'none'}`,
    `notifies: ${stats.total('notifies')}`,
    `pushes recv'd: ${intake.raw}`,
    `unacknowledged: ${outbox.outstanding}`,
  ].join('; ');
}
