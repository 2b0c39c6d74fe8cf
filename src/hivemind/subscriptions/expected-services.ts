import type { Config } from '../../settings/config.ts';
import type { Devices } from '../devices/devices.ts';
import type { Outbox } from '../notifications/outbox/outbox.ts';

/** Where a service may be known from. */
export interface ServiceSources {
  readonly config: Pick<Config, 'hivemind' | 'ini'>;
  readonly outbox: Pick<Outbox, 'services'>;
  readonly devices: Pick<Devices, 'countByService'>;
  /** Whether a notifier of it has ever reported, as the statistics have it. */
  readonly hasReported: (service: string) => boolean;
}

/**
 * Distinguishes services that are away from those that are not run here. Clients of the former are told to retry, those
 * of the latter that there is no such service: today's Android app would otherwise retry every four minutes for ever
 * (docs/decisions/14).
 *
 * @returns a function that tells whether a service is configured or expected, has ever had a notifier, or has
 *   subscriptions
 */
export function expectedServices({
  config,
  outbox,
  devices,
  hasReported,
}: ServiceSources): (service: string) => boolean {
  const sections = [...config.ini.sections.keys()].map((name) => /^notify-(.+)$/.exec(name)?.[1]);
  const configured = new Set([...config.hivemind.notifiersExpected, ...sections]);
  return (service) =>
    configured.has(service) ||
    outbox.services.has(service) ||
    hasReported(service) ||
    devices.countByService().has(service);
}
