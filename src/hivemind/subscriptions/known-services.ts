import type { Config } from '../../settings/config.ts';
import type { Devices } from '../devices/devices.ts';
import type { Outbox } from '../notifications/outbox/outbox.ts';
import type { Stats } from '../operators/stats.ts';

/** Where a service may be known from. */
export interface ServiceSources {
  readonly config: Pick<Config, 'hivemind' | 'ini'>;
  readonly outbox: Pick<Outbox, 'services'>;
  readonly devices: Pick<Devices, 'countByService'>;
  readonly stats: Pick<Stats, 'get'>;
}

/**
 * Tells services that are away from those that are not run here: of the first a client is told to come again, and of
 * the others that there is none, for today's Android app would else ask every four minutes for ever
 * (docs/decisions/14).
 *
 * @returns whether a service is configured or expected, has had a notifier, in this process or an earlier one, or has
 *   subscriptions
 */
export function expectedServices({ config, outbox, devices, stats }: ServiceSources): (service: string) => boolean {
  const sections = [...config.ini.sections.keys()].map((name) => /^notify-(.+)$/.exec(name)?.[1]);
  const configured = new Set([...config.hivemind.notifiersExpected, ...sections]);
  return (service) =>
    configured.has(service) ||
    outbox.services.has(service) ||
    stats.get(`last.${service}`) !== undefined ||
    devices.countByService().has(service);
}
