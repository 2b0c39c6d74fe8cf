import type { Clock } from '../../clock.ts';
import type { Log } from '../../log.ts';
import type { DeviceGone } from '../../session/notifier-protocol.ts';
import type { Devices } from '../devices/devices.ts';
import type { Service } from '../notifications/outbox/service.ts';
import type { Store } from '../store/store.ts';

/** What {@link DeadDevices} is built from. */
export interface DeadDeviceModules {
  clock: Clock;
  devices: Pick<Devices, 'removeDevice'>;
  store: Pick<Store, 'removeDevices'>;
  service: (name: string) => Service | undefined;
  /** Whether a client's request for that device is being worked on. */
  inWork: (service: string, serviceId: string) => boolean;
  log: Pick<Log, 'debug' | 'warn' | 'error'>;
}

/**
 * How old a verdict without a time may be, in ms: the original's notifiers gather them for 15 s. A device that has
 * subscribed since may be alive.
 */
const GATHERED_MS = 20_000;
/** How many of a list of dead devices are worked on at once. */
const AT_ONCE = 500;

/**
 * Removes the subscriptions of devices that a provider calls gone, unless they are newer than its verdict
 * (docs/decisions/08).
 */
export class DeadDevices {
  readonly #modules: DeadDeviceModules;

  constructor(modules: DeadDeviceModules) {
    this.#modules = modules;
  }

  /**
   * Takes an original notifier's list of dead devices, which has neither times nor reasons.
   * @returns how many subscriptions were removed
   */
  async removeAll(service: string, serviceIds: readonly string[]): Promise<number> {
    const time = this.#modules.clock.now() - GATHERED_MS;
    let removed = 0;
    for (let at = 0; at < serviceIds.length; at += AT_ONCE) {
      const some = serviceIds.slice(at, at + AT_ONCE);
      const reports = some.map((serviceId) => ({ service, serviceId, time, reason: 'dropped', local: false }));
      for (const count of await Promise.all(reports.map((report) => this.remove(report)))) removed += count;
    }
    return removed;
  }

  /**
   * Takes a notifier's report of a dead device.
   * @returns how many subscriptions were removed
   */
  async remove(report: DeviceGone): Promise<number> {
    const { clock, devices, store, inWork, log } = this.#modules;
    const service = this.#modules.service(report.service);
    if (!service) return 0;
    service.counters.gone++;
    const wasOpen = service.breaker.open;
    // A token that its form alone rules out (`local`) says nothing about the provider: the breaker does not count it.
    if (!report.local && !service.breaker.gone()) {
      service.counters.goneHeldBack++;
      if (!wasOpen) {
        log.error(
          `${report.service} reports a suspiciously large share of its devices as gone (${report.reason}): no more are removed until that ` +
            'share falls. Check the certificate, topic and environment of that notifier',
        );
      }
      return 0;
    }
    // A request that is being worked on is newer than any verdict that has arrived.
    if (inWork(report.service, report.serviceId)) return 0;
    // If the provider's clock is ahead, its verdict must not apply to subscriptions still to come.
    const time = Math.min(Number(report.time), clock.now());
    const removed = devices.removeDevice(report.service, report.serviceId, Math.floor(time / 1000));
    if (removed.length === 0) return 0;
    log.debug(`${report.service}: a device is gone (${report.reason}), ${removed.length} subscriptions removed`);
    // With the signing times, so that a renewal that is just being written stays.
    const keys = removed.map((one) => ({ ...one, service: report.service, serviceId: report.serviceId }));
    try {
      await store.removeDevices(keys);
    } catch (error) {
      // They come back with the next start, and will be called gone again.
      log.warn(`dead devices could not be removed from the database: ${(error as Error).message}`);
    }
    return removed.length;
  }
}
