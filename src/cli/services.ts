import { type Command, print } from './command.ts';
import { TO_HIVEMIND, withAdmin } from './hivemind.ts';
import { duration, latency, table } from './table.ts';

/** One element of admin.get_services. */
export interface ServiceLine {
  service: string;
  notifiers: number;
  subscriptions: number;
  queued: number;
  in_flight: number;
  oldest_seconds: number;
  accepted: number;
  refused: number;
  redelivered: number;
  dropped: Record<string, number>;
  gone: number;
  breaker_open: boolean;
  /** Not of an older hivemind. */
  latency?: { median: number; p95: number } | null;
}

export const command: Command = {
  summary: 'Shows the notification services: notifiers, queues, what providers answered',
  words: [],
  help: [
    'queued      pushes that wait for a notifier',
    'in flight   pushes with a notifier that has not acknowledged them; oldest: of both',
    'latency     from a message being stored to the provider taking its push, in the last minutes: half of them took',
    '            no longer than the first figure, 95 of 100 no longer than the second',
    'accepted … gone  what providers answered since the hivemind started; redelivered: given to another notifier',
    'dropped     pushes that the hivemind gave up; --json tells the reasons',
    'removal     "stopped" while so many devices are called gone that none is believed',
  ].join('\n'),
  options: { json: { type: 'boolean', help: 'as JSON, with all there is' }, ...TO_HIVEMIND },
  async run(given) {
    const services = (await withAdmin(given, (admin) => admin.ask('admin.get_services'))) as ServiceLine[];
    print(given.is('json') ? JSON.stringify(services, null, 2) : servicesTable(services));
    return 0;
  },
};

/** The table of `spns services`. */
export function servicesTable(services: readonly ServiceLine[]): string {
  if (services.length === 0) return 'No service yet: no notifier has registered, and there is no subscription.';
  return table(
    [
      'service',
      'notifiers',
      'devices',
      'queued',
      'in flight',
      'oldest',
      'latency',
      'accepted',
      'refused',
      'redelivered',
      'gone',
      'dropped',
      'removal',
    ],
    services.map((each) => [
      each.service,
      each.notifiers,
      each.subscriptions,
      each.queued,
      each.in_flight,
      each.oldest_seconds > 0 ? duration(each.oldest_seconds) : '-',
      each.latency ? `${latency(each.latency.median)} / ${latency(each.latency.p95)}` : '-',
      each.accepted,
      each.refused,
      each.redelivered,
      each.gone,
      Object.values(each.dropped).reduce((sum, count) => sum + count, 0),
      each.breaker_open ? 'stopped' : 'on',
    ]),
  );
}
