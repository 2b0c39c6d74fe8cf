import { Counter, Gauge, type Registry } from 'prom-client';
import type { Clock } from '../../clock.ts';
import type { JudgedClock } from '../../judged-clock.ts';
import { LATENCY_BOUNDS } from '../../latency.ts';
import type { Joined } from '../cluster/join.ts';
import type { Devices } from '../devices/devices.ts';
import type { Network } from '../network/network.ts';
import type { IntakeCounters } from '../notifications/intake-counters.ts';
import type { Outbox } from '../notifications/outbox/outbox.ts';
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

type Reading = readonly [value: number, labels?: Record<string, string>];

/** Registers the hivemind's metrics. The dashboards and alerts in ops/ depend on these names. */
export function registerMetrics(registry: Registry, sources: MetricSources): void {
  const { clock, devices, expiry, intake, joined, network, oversized, outbox, store, subscriptions } = sources;
  const services = () => [...outbox.services.values()];

  const counter = (name: string, help: string, labels: string[], read: () => Iterable<Reading>) =>
    new Counter({
      name,
      help,
      labelNames: labels,
      registers: [registry],
      collect() {
        this.reset();
        for (const [value, of] of read()) this.inc(of ?? {}, value);
      },
    });
  const gauge = (name: string, help: string, labels: string[], read: () => Iterable<Reading>) =>
    new Gauge({
      name,
      help,
      labelNames: labels,
      registers: [registry],
      collect() {
        this.reset();
        for (const [value, of] of read()) this.set(of ?? {}, value);
      },
    });

  counter('spns_notifications_raw_total', 'Notifications received from storage servers, copies included', [], () => [
    [intake.raw],
  ]);
  counter('spns_notifications_duplicate_total', 'Copies of notifications that were passed on before', [], () => [
    [intake.duplicates],
  ]);
  counter('spns_notifications_unique_total', 'Messages passed on to at least one device', [], () => [[intake.unique]]);
  counter('spns_notifications_dropped_total', 'Notifications dropped, by reason', ['reason'], () => [
    [intake.unwanted, { reason: 'unwanted' }],
    [intake.unasked, { reason: 'unasked' }],
    [intake.expired, { reason: 'expired' }],
    [intake.limited, { reason: 'limited' }],
    [intake.unshown, { reason: 'unshown' }],
    [intake.contradicted, { reason: 'contradicted' }],
    [intake.unheld, { reason: 'unheld' }],
    ...[...intake.malformed].map(([reason, count]): Reading => [count, { reason }]),
  ]);
  counter(
    'spns_notifications_vouched_total',
    'Messages passed on, by what they were trusted for: their hash, a second storage server, or nothing but their sender',
    ['via'],
    () => Object.entries(intake.vouched).map(([via, count]): Reading => [count, { via }]),
  );
  counter(
    'spns_notifications_misfit_total',
    'Messages that do not fit their hash, and were passed on because a second storage server confirmed them',
    [],
    () => [[intake.misfits]],
  );
  gauge('spns_notifications_held', 'Copies held until another storage server confirms them', [], () => [[intake.held]]);
  gauge('spns_notifications_held_bytes', 'Memory of these copies', [], () => [[intake.heldBytes]]);
  counter('spns_pushes_limited_total', 'Pushes not made because their device had too many', [], () => [
    [intake.limitedPushes],
  ]);
  counter(
    'spns_pushes_unshown_total',
    'Pushes not made because apps would show changed settings as a new message, or nothing',
    [],
    () => [[intake.unshownPushes]],
  );

  counter('spns_pushes_queued_total', 'Pushes made, one for each device and message', ['service'], () =>
    services().map((service): Reading => [service.counters.queued, { service: service.name }]),
  );
  counter(
    'spns_pushes_total',
    'Pushes by what became of them: handed to a notifier, accepted or refused by the provider, passed to a notifier that does not acknowledge, taken back to be handed out again',
    ['service', 'outcome'],
    () =>
      services().flatMap(({ name: service, counters }): Reading[] => [
        [counters.handed, { service, outcome: 'handed' }],
        [counters.accepted, { service, outcome: 'accepted' }],
        [counters.refused, { service, outcome: 'refused' }],
        [counters.passed, { service, outcome: 'passed' }],
        [counters.redelivered, { service, outcome: 'redelivered' }],
      ]),
  );
  counter('spns_pushes_dropped_total', 'Pushes given up by the hivemind, by reason', ['service', 'reason'], () =>
    services().flatMap(({ name: service, counters }) =>
      Object.entries(counters.dropped).map(([reason, count]): Reading => [count, { service, reason }]),
    ),
  );
  gauge('spns_outbox_pushes', 'Pushes waiting for a notifier', ['service'], () =>
    services().map((service): Reading => [service.queue.length, { service: service.name }]),
  );
  gauge('spns_outbox_bytes', 'Memory that pushes take here, on the way to notifiers and there', ['service'], () =>
    services().map((service): Reading => [service.bytes, { service: service.name }]),
  );
  gauge('spns_outbox_in_flight', 'Pushes with a notifier that it has not acknowledged', ['service'], () =>
    services().map((service): Reading => [service.instances.inFlight, { service: service.name }]),
  );
  gauge('spns_outbox_oldest_seconds', 'Age of the oldest push that is not acknowledged', ['service'], () => {
    const now = clock.monotonic();
    return services().map(
      ({ name: service, oldest }): Reading => [oldest === undefined ? 0 : (now - oldest) / 1000, { service }],
    );
  });
  new CountedHistogram(
    {
      name: 'spns_push_latency_seconds',
      help: 'From when a message was stored, by its timestamp, until the provider accepted its push',
      labelNames: ['service'],
      buckets: [...LATENCY_BOUNDS],
      registers: [registry],
    },
    () => services().map(({ name: service, latency }) => ({ labels: { service }, ...latency })),
  );
  gauge('spns_notifiers', 'Notifiers connected', ['service'], () =>
    services().map((service): Reading => [service.instances.size, { service: service.name }]),
  );
  counter('spns_devices_gone_total', 'Devices that a provider called gone', ['service'], () =>
    services().map(({ name: service, counters }): Reading => [counters.gone, { service }]),
  );
  counter('spns_devices_gone_held_back_total', 'Of those, not removed because the breaker was open', ['service'], () =>
    services().map(({ name: service, counters }): Reading => [counters.goneHeldBack, { service }]),
  );
  gauge('spns_gone_breaker_open', '1 while no dead device of the service is removed', ['service'], () =>
    services().map(({ name: service, breaker }): Reading => [breaker.open ? 1 : 0, { service }]),
  );

  counter('spns_requests_total', "Clients' requests by kind and result", ['kind', 'result'], () =>
    [...subscriptions.results].map(([key, count]): Reading => {
      const [kind = '', result = ''] = key.split(':');
      return [count, { kind, result }];
    }),
  );
  counter('spns_signature_check_seconds_total', 'Time spent on reading and verifying requests', [], () => [
    [subscriptions.work.ms / 1000],
  ]);
  counter('spns_signature_checks_total', 'Pieces of that work: a request read, an element of it verified', [], () => [
    [subscriptions.work.tasks],
  ]);
  counter(
    'spns_requests_shed_total',
    'Requests told to retry, by reason: too long a wait, no room, invalid and made room for others; and elements too late for anybody to wait for',
    ['reason'],
    () => [
      [subscriptions.shed.wait, { reason: 'wait' }],
      [subscriptions.shed.room, { reason: 'room' }],
      [subscriptions.shed.invalid, { reason: 'invalid' }],
      [subscriptions.work.late, { reason: 'late' }],
    ],
  );
  counter('spns_database_commit_seconds_total', 'Time spent on group commits', [], () => [
    [store.counters.commitMs / 1000],
  ]);
  counter('spns_database_commits_total', 'Group commits', [], () => [[store.counters.commits]]);
  counter('spns_database_errors_total', 'Writes that failed, by cause', ['reason'], () =>
    [...store.errors].map(([reason, count]): Reading => [count, { reason }]),
  );
  gauge('spns_database_up', "1 while the database writes what clients' requests change", [], () => [
    [store.trouble === undefined ? 1 : 0],
  ]);

  gauge('spns_subscriptions', 'Subscriptions stored', ['service'], () =>
    [...devices.countByService()].map(([service, count]): Reading => [count, { service }]),
  );
  gauge('spns_time_in_doubt', '1 while the clocks disagree about the time', [], () => [
    [clock.doubt === undefined ? 0 : 1],
  ]);
  gauge('spns_expiry_held', '1 while too many subscriptions seem to have expired at once, and are kept', [], () => [
    [expiry.held ? 1 : 0],
  ]);
  gauge('spns_accounts', 'Accounts with a subscription', [], () => [[devices.accounts]]);

  const summary = () => network.summary();
  gauge('spns_nodes', 'Storage servers known', [], () => [[summary().nodes]]);
  gauge(
    'spns_nodes_needed',
    'Those of them that keep accounts of this hivemind: all, if it is the only one',
    [],
    () => [[summary().nodes - summary().unneeded]],
  );
  gauge('spns_swarms', 'Swarms known', [], () => [[summary().swarms]]);
  gauge('spns_node_connections', 'Connections to storage servers', ['state'], () => [
    [summary().connected, { state: 'connected' }],
    [summary().pending, { state: 'pending' }],
  ]);
  gauge('spns_block_height', "Height of the network's last block known, -1 before the first", [], () => [
    [summary().blockHeight],
  ]);
  gauge('spns_oxend_up', '1 while oxend is connected and its last answer was valid', [], () => [
    [network.oxendUp ? 1 : 0],
  ]);
  gauge(
    'spns_oxend_list_doubted',
    "1 while oxend's list is not believed, because much of what was known is missing",
    [],
    () => [[network.listDoubted ? 1 : 0]],
  );
  counter('spns_oxend_answers_total', "oxend's lists of service nodes by result", ['result'], () => {
    const { lists, doubted, wrongAnswers, timeouts } = network.counters.oxend;
    return [
      [lists, { result: 'accepted' }],
      [doubted, { result: 'doubted' }],
      [wrongAnswers, { result: 'wrong' }],
      [timeouts, { result: 'timeout' }],
    ];
  });
  gauge('spns_nodes_left_out', 'Storage servers left unconnected on purpose, by reason', ['reason'], () => [
    [summary().unusable, { reason: 'no_usable_address' }],
    [summary().cutOff, { reason: 'cut_off' }],
  ]);
  counter('spns_nodes_cut_off_total', 'Storage servers that did us harm and were left alone for an hour', [], () => [
    [network.counters.nodes.cutOff],
  ]);
  counter('spns_messages_oversized_total', 'Messages of too many parts or bytes, by sender', ['kind'], () => [
    [network.counters.peers.excessive, { kind: 'storage_server' }],
    [network.counters.toOxend.excessive, { kind: 'oxend' }],
    [oversized(), { kind: 'client' }],
  ]);
  counter('spns_monitors_ended_total', 'Notices that a monitor has ended, by outcome', ['result'], () =>
    Object.entries(network.counters.ended).map(([result, count]): Reading => [count, { result }]),
  );
  gauge(
    'spns_nodes_fresh',
    'Storage servers that have confirmed every account within the lifetime of a monitor',
    [],
    () => [[summary().fresh]],
  );
  gauge(
    'spns_freshness_oldest_seconds',
    'How long ago the account that has waited longest was last confirmed by any server of its swarm',
    [],
    () => [[summary().oldestSeconds]],
  );
  gauge('spns_nodes_silent', 'Storage servers that are connected but do not answer', [], () => [[summary().silent]]);
  gauge('spns_accounts_unconfirmed', 'Monitors that no storage server has confirmed yet', [], () => [
    [summary().unconfirmed],
  ]);
  gauge('spns_accounts_uncovered', 'Accounts that no storage server of their swarm has confirmed', [], () => [
    [summary().uncovered],
  ]);
  counter('spns_monitor_requests_total', 'Requests to storage servers by result', ['result'], () =>
    Object.entries(network.counters.requests).map(([result, count]): Reading => [count, { result }]),
  );
  counter('spns_monitor_answers_total', 'Answers for single accounts by result', ['result'], () =>
    Object.entries(network.counters.answers).map(([result, count]): Reading => [count, { result }]),
  );
  counter('spns_monitor_passed_over_total', 'Accounts that were not asked for, by reason', ['reason'], () =>
    Object.entries(network.counters.passedOver).map(([reason, count]): Reading => [count, { reason }]),
  );
  if (joined) {
    const { cluster, links, hearing, feed } = joined;
    gauge('spns_cluster_members', 'Hiveminds on this database that are alive', [], () => [[cluster.living.length]]);
    gauge('spns_cluster_reached', 'Other hiveminds that this one is connected to', [], () => [[links.reached.length]]);
    gauge('spns_cluster_slots', 'The 256 parts of the work by how many hiveminds cover them', ['state'], () =>
      Object.entries(cluster.report().coverage).map(([state, count]): Reading => [count, { state }]),
    );
    gauge('spns_cluster_slots_sent_first', 'Slots in which this hivemind sends first', [], () => [
      [cluster.report().members.find(({ name }) => name === cluster.duty.own)?.first ?? 0],
    ]);
    gauge(
      'spns_cluster_monitors_spared',
      'Monitors that storage servers are not asked for, because another hivemind sends first',
      [],
      () => [[summary().spared]],
    );
    const held = () => (outbox.standby ? [outbox.standby] : []);
    gauge('spns_cluster_pushes_held', 'Pushes held back because another hivemind sends first', [], () =>
      held().map(({ size }): Reading => [size]),
    );
    gauge('spns_cluster_pushes_held_bytes', 'Memory that they take', [], () =>
      held().map(({ bytes }): Reading => [bytes]),
    );
    gauge('spns_cluster_news_waiting', 'News of pushes that other hiveminds are not known to have yet', [], () =>
      held().map(({ untold }): Reading => [untold]),
    );
    counter(
      'spns_cluster_copies_total',
      'Pushes held back, by what became of them: not sent, because another hivemind ended them (ended), they were here already (repeated), grew too old (too_old) or were left to others at our stop (left); or sent after all, because the first said nothing (silence), could not send them (none), was gone (gone) or no longer first (duty), or for lack of memory (room)',
      ['outcome'],
      () =>
        held().flatMap(({ counters: { released, ended, repeated, tooOld, left } }) =>
          Object.entries({ ended, repeated, too_old: tooOld, left, ...released }).map(
            ([outcome, count]): Reading => [count, { outcome }],
          ),
        ),
    );
    counter(
      'spns_cluster_pushes_elsewhere_total',
      'Pushes that another hivemind ended while they waited here',
      ['service'],
      () => services().map(({ name: service, counters }): Reading => [counters.elsewhere, { service }]),
    );
    counter(
      'spns_cluster_nodes_renewed_total',
      'Reconnections to storage servers that spoke to other hiveminds but not to this one',
      [],
      () => [[hearing.counters.reconnects]],
    );
    counter('spns_cluster_changes_total', 'Subscriptions that others changed in the database', [], () => [
      [feed.counters.changes],
    ]);
    gauge(
      'spns_cluster_changes_waiting',
      'Changed subscriptions that are still to be read from the database',
      [],
      () => [[feed.pending]],
    );
    counter(
      'spns_cluster_reloads_total',
      'How often everything was loaded again because changes were missed',
      [],
      () => [[feed.counters.reloads]],
    );
  }
}
