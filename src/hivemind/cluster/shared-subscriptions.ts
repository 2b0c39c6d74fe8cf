import { slotOf } from '../../session/slots.ts';
import type { DeviceRow } from '../devices/device.ts';
import { type Devices, MAX_DEVICES, MAX_SUBACCOUNT_DEVICES } from '../devices/devices.ts';
import type { Store } from '../store/store.ts';
import type { Subscribed } from '../subscriptions/subscriptions.ts';
import type { Cluster } from './cluster.ts';

/** What {@link SharedSubscriptions} is built from. */
export interface SharedModules {
  readonly devices: Pick<Devices, 'hasRoom' | 'hasSessionKey' | 'get' | 'replace' | 'remove'>;
  readonly store: Pick<Store, 'find' | 'countDevices'>;
  readonly cluster: Pick<Cluster, 'holds' | 'changed'>;
}

/**
 * Subscriptions as a member of a cluster sees them. It answers clients of every account: those of its own slots are in
 * memory, where other members' writes arrive a moment late; the rest are in the database alone.
 */
export class SharedSubscriptions implements Subscribed {
  readonly #modules: SharedModules;

  constructor(modules: SharedModules) {
    this.#modules = modules;
  }

  async hasRoom(
    account: Uint8Array,
    service: string,
    serviceId: string,
    tag: Uint8Array | undefined,
  ): Promise<boolean> {
    const { devices, store, cluster } = this.#modules;
    if (cluster.holds(account)) return devices.hasRoom(account, service, serviceId, tag);
    const { all, alike } = await store.countDevices(account, tag);
    if (all < MAX_DEVICES && alike < MAX_SUBACCOUNT_DEVICES) return true;
    return (await store.find(account, service, serviceId)) !== undefined;
  }

  hasSessionKey(account: Uint8Array, key: Uint8Array): boolean {
    return this.#modules.devices.hasSessionKey(account, key);
  }

  get(account: Uint8Array, service: string, serviceId: string): DeviceRow | undefined {
    return this.#modules.devices.get(account, service, serviceId);
  }

  find(account: Uint8Array, service: string, serviceId: string): Promise<DeviceRow | undefined> {
    return this.#modules.store.find(account, service, serviceId);
  }

  replace(row: DeviceRow, confirmedAt: number): void {
    const { devices, cluster } = this.#modules;
    if (cluster.holds(row.account)) devices.replace(row, confirmedAt);
    cluster.changed(slotOf(row.account));
  }

  remove(account: Uint8Array, service: string, serviceId: string): boolean {
    const { devices, cluster } = this.#modules;
    cluster.changed(slotOf(account));
    return devices.remove(account, service, serviceId);
  }
}
