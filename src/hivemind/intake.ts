import { parseNotification } from '../session/notification.ts';
import type { Devices, WantingDevice } from './devices/devices.ts';
import type { Outbox } from './outbox/outbox.ts';
import type { Seen } from './seen.ts';

/** What becomes of the storage servers' notifications; plain numbers, read by the metrics. */
export interface IntakeCounters {
  /** notify.message received. */
  raw: number;
  /** Copies of messages that were passed on before. */
  duplicates: number;
  /** Messages seen for the first time that somebody wanted. */
  unique: number;
  /** Pushes made of them, one a device. */
  pushes: number;
  /** Nobody (any more) wants them. */
  unwanted: number;
  /** Reported by a node that was not asked to. */
  unasked: number;
  /** Dropped as malformed, by reason. */
  readonly malformed: Map<string, number>;
}

/** What the intake works with. */
export interface IntakeModules<Node> {
  devices: Pick<Devices, 'accountId' | 'forEachWanting'>;
  seen: Seen;
  outbox: Pick<Outbox, 'add'>;
  /** True if that node was asked to monitor that account (design, decision 16). */
  accepts: (node: Node, account: number) => boolean;
}

/** What a push holds beside the frame it came in: its objects and its copies of the device's fields, in bytes. */
const OVERHEAD = 700;

/** The way of a notification: parse, seen before?, asked for?, who wants it?, queue. Runs for each of the 5 to 10 copies. */
export class Intake<Node> {
  readonly counters: IntakeCounters = {
    raw: 0,
    duplicates: 0,
    unique: 0,
    pushes: 0,
    unwanted: 0,
    unasked: 0,
    malformed: new Map(),
  };
  readonly #modules: IntakeModules<Node>;

  constructor(modules: IntakeModules<Node>) {
    this.#modules = modules;
  }

  /**
   * Takes one notify.message. Never throws: what is malformed is dropped and counted.
   * @param node who sent it
   * @param body the bencoded dict; views into it are kept while its pushes wait
   */
  handle(node: Node, body: Buffer): void {
    const { counters } = this;
    const { devices, seen, outbox, accepts } = this.#modules;
    counters.raw++;
    const message = parseNotification(body);
    if (typeof message === 'string') {
      counters.malformed.set(message, (counters.malformed.get(message) ?? 0) + 1);
      return;
    }
    // First, since it answers for 4 of 5 copies: the cheapest question that ends the matter.
    if (seen.hasMessage(message.account, message.namespace, message.hash)) {
      counters.duplicates++;
      return;
    }
    const account = devices.accountId(message.account);
    if (account < 0) {
      counters.unwanted++;
      return;
    }
    if (!accepts(node, account)) {
      counters.unasked++;
      return;
    }
    let wanted = false;
    devices.forEachWanting(account, message.namespace, (device: WantingDevice) => {
      wanted = true;
      // The second look is the original's rule: one push for a message hash and a device, whatever the namespace.
      if (seen.hasDevice(device.service, device.serviceId, message.hash)) return;
      outbox.add({
        account: message.account,
        hash: message.hash,
        namespace: message.namespace,
        timestamp: message.timestamp,
        expiry: message.expiry,
        data: device.wantData ? message.data : null,
        service: device.service,
        serviceId: device.serviceId,
        serviceData: device.serviceData,
        encKey: device.encKey,
        bytes: body.length + OVERHEAD,
      });
      seen.addDevice(device.service, device.serviceId, message.hash);
      counters.pushes++;
    });
    if (!wanted) {
      // Not marked: a device may subscribe between two copies.
      counters.unwanted++;
      return;
    }
    counters.unique++;
    seen.addMessage(message.account, message.namespace, message.hash);
  }
}
