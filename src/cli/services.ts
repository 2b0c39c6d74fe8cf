import { type Command, complain, print } from './command.ts';
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
  /** Missing from an older hivemind. */
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
    'dropped     pushes that the hivemind gave up; --json has the reasons',
    'removal     "stopped" while so many devices are reported gone that none is believed',
  ].join('\n'),
  options: { json: { type: 'boolean', help: 'as JSON, with all details' }, ...TO_HIVEMIND },
  async run(given) {
    const { answers, troubles } = await withAdmin(given, (admin) => admin.askAll('get_services'));
    const services = addUp([...answers.values()] as ServiceLine[][]);
    print(given.is('json') ? JSON.stringify(services, null, 2) : servicesTable(services));
    for (const trouble of troubles) complain(trouble);
    return troubles.length > 0 ? 1 : 0;
  },
};

/**
 * Adds up what the hiveminds of a cluster say about the services. Each counts the devices and notifiers that it knows,
 * which others know as well: there the largest figure counts.
 */
export function addUp(answers: readonly (readonly ServiceLine[])[]): ServiceLine[] {
  const [first, ...others] = answers;
  if (first && others.length === 0) return [...first];
  const sums = new Map<string, ServiceLine>();
  for (const line of answers.flat()) {
    const sum = sums.get(line.service);
    sums.set(line.service, sum ? together(sum, line) : line);
  }
  return [...sums.values()];
}

function together(a: ServiceLine, b: ServiceLine): ServiceLine {
  const dropped = { ...a.dropped };
  for (const [reason, count] of Object.entries(b.dropped)) dropped[reason] = (dropped[reason] ?? 0) + count;
  const slower = (a.latency?.p95 ?? 0) >= (b.latency?.p95 ?? 0) ? a.latency : b.latency;
  return {
    ...a,
    notifiers: Math.max(a.notifiers, b.notifiers),
    subscriptions: Math.max(a.subscriptions, b.subscriptions),
    queued: a.queued + b.queued,
    in_flight: a.in_flight + b.in_flight,
    oldest_seconds: Math.max(a.oldest_seconds, b.oldest_seconds),
    ...(slower !== undefined && { latency: slower }),
    accepted: a.accepted + b.accepted,
    refused: a.refused + b.refused,
    redelivered: a.redelivered + b.redelivered,
    gone: Math.max(a.gone, b.gone),
    dropped,
    breaker_open: a.breaker_open || b.breaker_open,
  };
}

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
