import { Counter, Gauge, type Registry } from 'prom-client';
import type { Clock } from '../../clock.ts';
import type { JudgedClock } from '../../judged-clock.ts';
import { LATENCY_BOUNDS } from '../../latency.ts';
import type { Joined } from '../cluster/join.ts';
import type { Devices } from '../devices/devices.ts';
import type { Network } from '../network/network.ts';
import type { IntakeCounters } from '../notifications/intake-counters.ts';
import type { Outbox } from '../notifications/outbox/outbox.ts';
import type { Service } from '../notifications/outbox/service.ts';
import type { Store } from '../store/store.ts';
import type { Expiry } from '../subscriptions/expiry.ts';
import type { SubscriptionCounters } from '../subscriptions/subscriptions.ts';
import { CountedHistogram } from './counted-histogram.ts';

/** Where the figures come from. Nothing is counted here: the parts keep plain numbers, which are read on collection. */
export interface MetricSources {
  clock: Clock & Pick<JudgedClock, 'doubt'>;
  devices: Devices;
  expiry: Pick<Expiry, 'held'>;
  intake: IntakeCounters;
  /** What only a hivemind that is one of several has. */
  joined: Joined | undefined;
  network: Network;
  /** Messages of clients and notifiers that were dropped for their size. */
  oversized: () => number;
  outbox: Outbox;
  store: Store;
  subscriptions: SubscriptionCounters;
}

type Reading = readonly [value: number, labels: Record<string, string>];

/** Registers a metric. @param read gives its value, or one for each set of labels */
type Register = (name: string, help: string, labels: string[], read: () => number | Iterable<Reading>) => void;

interface Registrar {
  readonly counter: Register;
  readonly gauge: Register;
}

/** Registers the hivemind's metrics. The dashboards and alerts in ops/ depend on these names. */
export function registerMetrics(registry: Registry, sources: MetricSources): void {
  const registrar = registrarOf(registry);
  registerMessages(registrar, sources);
  registerPushes(registrar, sources);
  registerLatency(registry, sources);
  registerRequests(registrar, sources);
  registerSubscriptions(registrar, sources);
  registerNetwork(registrar, sources);
  registerMonitoring(registrar, sources);
  if (sources.joined) registerCluster(registrar, sources, sources.joined);
}

function registrarOf(registry: Registry): Registrar {
  const readingsOf = (read: () => number | Iterable<Reading>): Iterable<Reading> => {
    const readings = read();
    return typeof readings === 'number' ? [[readings, {}]] : readings;
  };
  return {
    counter: (name, help, labelNames, read) =>
      new Counter({
        name,
        help,
        labelNames,
        registers: [registry],
        collect() {
          this.reset();
          for (const [value, labels] of readingsOf(read)) this.inc(labels, value);
        },
      }),
    gauge: (name, help, labelNames, read) =>
      new Gauge({
        name,
        help,
        labelNames,
        registers: [registry],
        collect() {
          this.reset();
          for (const [value, labels] of readingsOf(read)) this.set(labels, value);
        },
      }),
  };
}

/** A reading for each of the counts, labelled with its key. */
function byLabel(label: string, counts: Iterable<readonly [key: string, count: number]>): Reading[] {
  return Array.from(counts, ([key, count]) => [count, { [label]: key }]);
}

/** A reading for each service. */
function byService({ outbox }: MetricSources, read: (service: Service) => number): Reading[] {
  return Array.from(outbox.services.values(), (service) => [read(service), { service: service.name }]);
}

/** A reading for each service and each of its counts, labelled with the count's name. */
function byServiceAnd(
  label: string,
  { outbox }: MetricSources,
  read: (service: Service) => Readonly<Record<string, number>>,
): Reading[] {
  return [...outbox.services.values()].flatMap((service) =>
    Object.entries(read(service)).map(([name, count]): Reading => [count, { service: service.name, [label]: name }]),
  );
}

function registerMessages({ counter, gauge }: Registrar, { intake }: MetricSources): void {
  counter(
    'spns_notifications_raw_total',
    'Notifications received from storage servers, copies included',
    [],
    () => intake.raw,
  );
  counter(
    'spns_notifications_duplicate_total',
    'Copies of notifications that were passed on before',
    [],
    () => intake.duplicates,
  );
  counter('spns_notifications_unique_total', 'Messages passed on to at least one device', [], () => intake.unique);
  counter('spns_notifications_dropped_total', 'Notifications dropped, by reason', ['reason'], () => {
    const { unwanted, unasked, expired, limited, unshown, contradicted, unheld, malformed } = intake;
    const counts = { unwanted, unasked, expired, limited, unshown, contradicted, unheld };
    return byLabel('reason', [...Object.entries(counts), ...malformed]);
  });
  counter(
    'spns_notifications_vouched_total',
    'Messages passed on, by what they were trusted for: their hash, a second storage server, or nothing but their sender',
    ['via'],
    () => byLabel('via', Object.entries(intake.vouched)),
  );
  counter(
    'spns_notifications_misfit_total',
    'Messages that do not match their hash, and were passed on because a second storage server confirmed them',
    [],
    () => intake.misfits,
  );
  gauge('spns_notifications_held', 'Copies held until another storage server confirms them', [], () => intake.held);
  gauge('spns_notifications_held_bytes', 'Memory of these copies', [], () => intake.heldBytes);
  counter(
    'spns_pushes_limited_total',
    'Pushes not made because their device had too many',
    [],
    () => intake.limitedPushes,
  );
  counter(
    'spns_pushes_unshown_total',
    'Pushes not made because apps would show changed settings as a new message, or nothing',
    [],
    () => intake.unshownPushes,
  );
}

function registerPushes({ counter, gauge }: Registrar, sources: MetricSources): void {
  const { clock } = sources;
  counter('spns_pushes_queued_total', 'Pushes made, one for each device and message', ['service'], () =>
    byService(sources, ({ counters }) => counters.queued),
  );
  counter(
    'spns_pushes_total',
    'Pushes by what became of them: handed to a notifier, accepted or refused by the provider, passed to a notifier that does not acknowledge, taken back to be handed out again',
    ['service', 'outcome'],
    () =>
      byServiceAnd('outcome', sources, ({ counters }) => {
        const { handed, accepted, refused, passed, redelivered } = counters;
        return { handed, accepted, refused, passed, redelivered };
      }),
  );
  counter('spns_pushes_dropped_total', 'Pushes given up by the hivemind, by reason', ['service', 'reason'], () =>
    byServiceAnd('reason', sources, ({ counters }) => counters.dropped),
  );
  gauge('spns_outbox_pushes', 'Pushes waiting for a notifier', ['service'], () =>
    byService(sources, ({ queue }) => queue.length),
  );
  gauge('spns_outbox_bytes', 'Memory that pushes take here, on the way to notifiers and there', ['service'], () =>
    byService(sources, ({ bytes }) => bytes),
  );
  gauge('spns_outbox_in_flight', 'Pushes with a notifier that it has not acknowledged', ['service'], () =>
    byService(sources, ({ instances }) => instances.inFlight),
  );
  gauge('spns_outbox_oldest_seconds', 'Age of the oldest push that is not acknowledged', ['service'], () => {
    const now = clock.monotonic();
    return byService(sources, ({ oldest }) => (oldest === undefined ? 0 : (now - oldest) / 1000));
  });
  gauge('spns_notifiers', 'Notifiers connected', ['service'], () =>
    byService(sources, ({ instances }) => instances.size),
  );
  counter('spns_devices_gone_total', 'Devices that a provider called gone', ['service'], () =>
    byService(sources, ({ counters }) => counters.gone),
  );
  counter('spns_devices_gone_held_back_total', 'Of those, not removed because the breaker was open', ['service'], () =>
    byService(sources, ({ counters }) => counters.goneHeldBack),
  );
  gauge('spns_gone_breaker_open', '1 while no dead device of the service is removed', ['service'], () =>
    byService(sources, ({ breaker }) => (breaker.open ? 1 : 0)),
  );
}

function registerLatency(registry: Registry, { outbox }: MetricSources): void {
  new CountedHistogram(
    {
      name: 'spns_push_latency_seconds',
      help: 'From when a message was stored, by its timestamp, until the provider accepted its push',
      labelNames: ['service'],
      buckets: [...LATENCY_BOUNDS],
      registers: [registry],
    },
    () => Array.from(outbox.services.values(), ({ name: service, latency }) => ({ labels: { service }, ...latency })),
  );
}

function registerRequests({ counter, gauge }: Registrar, { store, subscriptions }: MetricSources): void {
  const { results, shed, work } = subscriptions;
  counter('spns_requests_total', "Clients' requests by kind and result", ['kind', 'result'], () =>
    [...results].map(([key, count]): Reading => {
      const [kind = '', result = ''] = key.split(':');
      return [count, { kind, result }];
    }),
  );
  counter(
    'spns_signature_check_seconds_total',
    'Time spent on reading and verifying requests',
    [],
    () => work.ms / 1000,
  );
  counter(
    'spns_signature_checks_total',
    'Pieces of that work: a request read, an element of it verified',
    [],
    () => work.tasks,
  );
  counter(
    'spns_requests_shed_total',
    'Requests turned away, by reason: too long a wait (wait), no room (room), displaced by others because invalid (invalid); and elements that nobody waited for any more (late)',
    ['reason'],
    () => byLabel('reason', Object.entries({ ...shed, late: work.late })),
  );
  counter(
    'spns_database_commit_seconds_total',
    'Time spent on group commits',
    [],
    () => store.counters.commitMs / 1000,
  );
  counter('spns_database_commits_total', 'Group commits', [], () => store.counters.commits);
  counter('spns_database_errors_total', 'Writes that failed, by cause', ['reason'], () =>
    byLabel('reason', store.errors),
  );
  gauge('spns_database_up', "1 while the database writes what clients' requests change", [], () =>
    store.trouble === undefined ? 1 : 0,
  );
}

function registerSubscriptions({ gauge }: Registrar, { clock, devices, expiry }: MetricSources): void {
  gauge('spns_subscriptions', 'Subscriptions stored', ['service'], () => byLabel('service', devices.countByService()));
  gauge('spns_accounts', 'Accounts with a subscription', [], () => devices.accounts);
  gauge('spns_time_in_doubt', '1 while the clocks disagree about the time', [], () =>
    clock.doubt === undefined ? 0 : 1,
  );
  gauge('spns_expiry_held', '1 while too many subscriptions seem to have expired at once, and are kept', [], () =>
    expiry.held ? 1 : 0,
  );
}

function registerNetwork({ counter, gauge }: Registrar, { network, oversized }: MetricSources): void {
  const summary = () => network.summary();
  gauge('spns_nodes', 'Storage servers known', [], () => summary().nodes);
  gauge(
    'spns_nodes_needed',
    'Those of them that keep accounts of this hivemind: all, if it is the only one',
    [],
    () => summary().nodes - summary().unneeded,
  );
  gauge('spns_swarms', 'Swarms known', [], () => summary().swarms);
  gauge('spns_node_connections', 'Connections to storage servers', ['state'], () => {
    const { connected, pending } = summary();
    return byLabel('state', Object.entries({ connected, pending }));
  });
  gauge(
    'spns_block_height',
    "Height of the network's last block known, -1 before the first",
    [],
    () => summary().blockHeight,
  );
  gauge('spns_oxend_up', '1 while oxend is connected and its last answer was valid', [], () =>
    network.oxendUp ? 1 : 0,
  );
  gauge(
    'spns_oxend_list_doubted',
    "1 while oxend's list is not believed, because much of what was known is missing",
    [],
    () => (network.listDoubted ? 1 : 0),
  );
  counter('spns_oxend_answers_total', "oxend's lists of service nodes by result", ['result'], () => {
    const { lists: accepted, doubted, wrongAnswers: wrong, timeouts: timeout } = network.counters.oxend;
    return byLabel('result', Object.entries({ accepted, doubted, wrong, timeout }));
  });
  gauge('spns_nodes_left_out', 'Storage servers left unconnected on purpose, by reason', ['reason'], () => {
    const { unusable, cutOff } = summary();
    return byLabel('reason', Object.entries({ no_usable_address: unusable, cut_off: cutOff }));
  });
  counter(
    'spns_nodes_cut_off_total',
    'Storage servers that sent what no honest one sends and were disconnected for an hour',
    [],
    () => network.counters.nodes.cutOff,
  );
  counter('spns_messages_oversized_total', 'Messages of too many parts or bytes, by sender', ['kind'], () => {
    const { peers, toOxend } = network.counters;
    const counts = { storage_server: peers.excessive, oxend: toOxend.excessive, client: oversized() };
    return byLabel('kind', Object.entries(counts));
  });
}

function registerMonitoring({ counter, gauge }: Registrar, { network }: MetricSources): void {
  const summary = () => network.summary();
  counter('spns_monitors_ended_total', 'Notices that a monitor has ended, by outcome', ['result'], () =>
    byLabel('result', Object.entries(network.counters.ended)),
  );
  gauge(
    'spns_nodes_fresh',
    'Storage servers that have confirmed every account within the lifetime of a monitor',
    [],
    () => summary().fresh,
  );
  gauge(
    'spns_freshness_oldest_seconds',
    'How long ago the account that has waited longest was last confirmed by any server of its swarm',
    [],
    () => summary().oldestSeconds,
  );
  gauge('spns_nodes_silent', 'Storage servers that are connected but do not answer', [], () => summary().silent);
  gauge(
    'spns_accounts_unconfirmed',
    'Monitors that no storage server has confirmed yet',
    [],
    () => summary().unconfirmed,
  );
  gauge(
    'spns_accounts_uncovered',
    'Accounts that no storage server of their swarm has confirmed',
    [],
    () => summary().uncovered,
  );
  counter('spns_monitor_requests_total', 'Requests to storage servers by result', ['result'], () =>
    byLabel('result', Object.entries(network.counters.requests)),
  );
  counter('spns_monitor_answers_total', 'Answers for single accounts by result', ['result'], () =>
    byLabel('result', Object.entries(network.counters.answers)),
  );
  counter('spns_monitor_passed_over_total', 'Accounts that were not asked for, by reason', ['reason'], () =>
    byLabel('reason', Object.entries(network.counters.passedOver)),
  );
}

function registerCluster({ counter, gauge }: Registrar, sources: MetricSources, joined: Joined): void {
  const { network, outbox } = sources;
  const { cluster, links, hearing, feed } = joined;
  gauge('spns_cluster_members', 'Hiveminds on this database that are alive', [], () => cluster.living.length);
  gauge('spns_cluster_reached', 'Other hiveminds that this one is connected to', [], () => links.reached.length);
  gauge('spns_cluster_slots', 'The 256 parts of the work by how many hiveminds cover them', ['state'], () =>
    byLabel('state', Object.entries(cluster.report().coverage)),
  );
  gauge(
    'spns_cluster_slots_sent_first',
    'Slots in which this hivemind sends first',
    [],
    () => cluster.report().members.find(({ name }) => name === cluster.duty.own)?.first ?? 0,
  );
  gauge(
    'spns_cluster_monitors_spared',
    'Monitors that storage servers are not asked for, because another hivemind sends first',
    [],
    () => network.summary().spared,
  );
  gauge(
    'spns_cluster_pushes_held',
    'Pushes held back because another hivemind sends first',
    [],
    () => outbox.standby?.size ?? 0,
  );
  gauge('spns_cluster_pushes_held_bytes', 'Memory that they take', [], () => outbox.standby?.bytes ?? 0);
  gauge(
    'spns_cluster_news_waiting',
    'News of pushes that other hiveminds are not known to have yet',
    [],
    () => outbox.standby?.untold ?? 0,
  );
  counter(
    'spns_cluster_copies_total',
    'Pushes held back, by what became of them: not sent, because another hivemind ended them (ended), they were here already (repeated), grew too old (too_old) or were left to others at our stop (left); or sent after all, because the first said nothing (silence), could not send them (none), was gone (gone) or no longer first (duty), or for lack of memory (room)',
    ['outcome'],
    () => {
      if (!outbox.standby) return [];
      const { released, ended, repeated, tooOld, left } = outbox.standby.counters;
      return byLabel('outcome', Object.entries({ ended, repeated, too_old: tooOld, left, ...released }));
    },
  );
  counter(
    'spns_cluster_pushes_elsewhere_total',
    'Pushes that another hivemind ended while they waited here',
    ['service'],
    () => byService(sources, ({ counters }) => counters.elsewhere),
  );
  counter(
    'spns_cluster_nodes_renewed_total',
    'Reconnections to storage servers that spoke to other hiveminds but not to this one',
    [],
    () => hearing.counters.reconnects,
  );
  counter(
    'spns_cluster_changes_total',
    'Subscriptions that others changed in the database',
    [],
    () => feed.counters.changes,
  );
  gauge(
    'spns_cluster_changes_waiting',
    'Changed subscriptions that are still to be read from the database',
    [],
    () => feed.pending,
  );
  counter(
    'spns_cluster_reloads_total',
    'How often everything was loaded again because changes were missed',
    [],
    () => feed.counters.reloads,
  );
}
