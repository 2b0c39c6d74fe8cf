import type { Clock } from '../../clock.ts';
import type { Log } from '../../log.ts';
import { type Notification, parseNotification } from '../../session/notification.ts';
import { isFalseAlarm } from '../../session/payload.ts';
import type { Devices, WantingDevice } from '../devices/devices.ts';
import { Doubt, isExpired, isProven, leastDoubt } from './doubt.ts';
import type { DuplicateFilter } from './duplicate-filter.ts';
import { type HeldCopy, HeldMessages } from './held-messages.ts';
import { type IntakeCounters, intakeCounters } from './intake-counters.ts';
import { DeviceLimits } from './message-limits.ts';
import { MisfitShare } from './misfit-share.ts';
import type { Outbox } from './outbox/outbox.ts';
import { type ServerRecord, ServerRecords } from './server-records.ts';

/** What the intake works with. */
export interface IntakeModules<Node> {
  clock: Clock;
  /** Every time that it may be, unix milliseconds: the clocks may disagree. */
  possibleTimes: () => readonly number[];
  devices: Pick<Devices, 'accountId' | 'forEachWanting'>;
  seen: DuplicateFilter;
  outbox: Pick<Outbox, 'add'>;
  /** True if that node was asked to monitor that account (docs/decisions/16). */
  accepts: (node: Node, account: number) => boolean;
  /** True if another node should announce that account's messages, too. */
  hasOthers: (node: Node, account: number) => boolean;
  /** A node's name in the log. */
  nameOf: (node: Node) => string;
  /** Called with a line for the operator, as often as it happens. */
  log: Pick<Log, 'warn'>;
}

/**
 * The way of a notification: parse, seen before?, asked for?, does it say the truth?, who wants it?, queue. Runs for
 * each of the 5 to 10 copies.
 *
 * One server's word is not the message (docs/decisions/19). A copy whose body fits its hash goes at once; a doubtful
 * one waits for another server's copy. Nothing but a message that was passed on is marked as seen, and what went on a
 * doubtful copy still goes on a better one.
 */
export class Intake<Node extends object> {
  readonly counters: IntakeCounters;
  readonly #modules: IntakeModules<Node>;
  readonly #held: HeldMessages<Node>;
  readonly #servers: ServerRecords<Node>;
  readonly #devices = new DeviceLimits();
  readonly #misfits: MisfitShare;

  constructor(modules: IntakeModules<Node>) {
    this.#modules = modules;
    const held = new HeldMessages<Node>({ clock: modules.clock, onDue: (copies) => this.#due(copies) });
    this.#held = held;
    this.#misfits = new MisfitShare(modules.clock);
    this.counters = intakeCounters(held);
    this.#servers = new ServerRecords(modules);
  }

  /**
   * Takes one notify.message. Never throws: what is malformed is dropped and counted.
   * @param node who sent it
   * @param frame the bencoded dict, in memory of its own; views into it are kept while it waits for another server's
   *   copy
   */
  handle(node: Node, frame: Buffer): void {
    const { counters } = this;
    const { clock, devices, seen, accepts, hasOthers } = this.#modules;
    counters.raw++;
    const message = parseNotification(frame);
    if (typeof message === 'string') {
      counters.malformed.set(message, (counters.malformed.get(message) ?? 0) + 1);
      return;
    }
    // First, since it answers for 4 of 5 copies: the cheapest question that ends the matter.
    if (seen.hasMessage(message.account, message.namespace, message.hash)) {
      counters.duplicates++;
      return;
    }
    const now = clock.now();
    const least = this.#leastDoubt(message, now);
    if (least !== Doubt.none && seen.hasMessage(message.account, message.namespace, message.hash, least)) {
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
    if (isExpired(message, now)) {
      counters.expired++;
      return;
    }
    if (!this.#servers.limits(node).tell(account, clock.monotonic())) {
      this.#limit(node);
      return;
    }
    if (least === Doubt.none && isProven(message)) {
      for (const copy of this.#held.settle(message)) this.#overtake(copy, message);
      if (!this.#pass(message, account, Doubt.none)) return;
      counters.vouched.hash++;
      this.#misfits.add(false);
      return;
    }
    const doubt = least === Doubt.none ? Doubt.unproven : least;
    if (doubt !== least && seen.hasMessage(message.account, message.namespace, message.hash, doubt)) {
      counters.duplicates++;
      return;
    }
    if (!hasOthers(node, account)) {
      if (this.#pass(message, account, doubt)) counters.vouched.alone++;
      return;
    }
    const told = this.#held.tell(node, message, frame.length);
    if (told === 'repeated') counters.duplicates++;
    else if (told === 'full') {
      counters.unheld++;
      this.#servers.count(node, 'unheld');
    } else if (told !== 'held') {
      for (const copy of told.others) this.#overtake(copy, message);
      this.#confirm({ message, server: node, size: frame.length }, told.confirmed, account);
    }
  }

  /** What that server told that others did not, or more than it may. */
  recordOf(node: Node): ServerRecord {
    return this.#servers.of(node);
  }

  /** What is wrong with what the storage servers tell, in words. */
  complaints(): string[] {
    const share = this.#misfits.alarming;
    if (share === undefined) return [];
    return [
      `${Math.round(share * 100)} % of the messages of the last minutes do not fit their hash, whatever server tells them: phones ring a little later`,
    ];
  }

  /** Passes on what still waits. */
  stop(): void {
    this.#held.stop();
  }

  /**
   * A message is untimely only if it is so by every time that it may be: a wrong clock of ours must not make all
   * messages wait for a second server, nor give them another doubt than another hivemind does.
   */
  #leastDoubt(message: Notification, now: number): Doubt {
    const least = leastDoubt(message, now);
    if (least !== Doubt.untimely) return least;
    return Math.min(...this.#modules.possibleTimes().map((time) => leastDoubt(message, time))) as Doubt;
  }

  /** Two servers say the same of account, namespace and body; of the times the better ones count. */
  #confirm(copy: HeldCopy<Node>, earlier: HeldCopy<Node>, account: number): void {
    const { counters } = this;
    const now = this.#modules.clock.now();
    const [least, leastEarlier] = [this.#leastDoubt(copy.message, now), this.#leastDoubt(earlier.message, now)];
    const isBetter = leastEarlier < least || (leastEarlier === least && earlier.message.expiry > copy.message.expiry);
    const { message } = isBetter ? earlier : copy;
    const doubt = Math.max(Math.min(least, leastEarlier), Doubt.unproven) as Doubt;
    counters.duplicates++;
    if (!this.#pass(message, account, doubt)) return;
    counters.vouched.second++;
    // Who names another namespace later on will be alone with that.
    this.#modules.seen.addHash(message.account, message.hash, doubt);
    if (message.data === null || doubt !== Doubt.unproven) return;
    counters.misfits++;
    this.#misfits.add(true);
    if (this.#misfits.alarming !== undefined)
      this.#modules.log.warn(
        'messages do not fit their hash, whatever server tells them: has the network changed its rule?',
      );
  }

  /** The wait is over: what one server said, and no other contradicted, goes as it is. */
  #due(copies: readonly HeldCopy<Node>[]): void {
    const { counters } = this;
    const { clock, devices, seen } = this.#modules;
    const now = clock.now();
    for (const copy of copies) {
      const { message, server: node } = copy;
      const doubt = Math.max(this.#leastDoubt(message, now), Doubt.unproven) as Doubt;
      const account = devices.accountId(message.account);
      if (account < 0) counters.unwanted++;
      else if (isExpired(message, now)) counters.expired++;
      else if (seen.hasMessage(message.account, message.namespace, message.hash, doubt)) counters.duplicates++;
      else if (seen.hasHash(message.account, message.hash, doubt)) this.#contradict(node);
      else if (!this.#servers.limits(node).tellAlone(account, clock.monotonic())) this.#limit(node);
      else if (this.#pass(message, account, doubt)) {
        counters.vouched.alone++;
        this.#servers.count(node, 'alone');
      }
    }
  }

  /**
   * Queues a push for each device that wants the message and has not had it.
   * @returns false if no push came of it: then it is counted, and nothing is marked
   */
  #pass(message: Notification, account: number, doubt: Doubt): boolean {
    const { counters } = this;
    const { clock, devices, seen, outbox } = this.#modules;
    const { hash, namespace } = message;
    const now = clock.monotonic();
    let wanted = false;
    let limited = false;
    const falseAlarm = isFalseAlarm(message);
    let unshown = false;
    const told: WantingDevice[] = [];
    devices.forEachWanting(account, namespace, (device: WantingDevice) => {
      wanted = true;
      // The original's rule: one push for a message hash and a device.
      if (seen.hasDevice(device.service, device.serviceId, hash, namespace, doubt)) return;
      if (falseAlarm && device.wantData) {
        unshown = true;
        counters.unshownPushes++;
        seen.addDevice(device.service, device.serviceId, hash, namespace, doubt);
        return;
      }
      if (!this.#devices.push(device.service, device.serviceId, now)) {
        limited = true;
        counters.limitedPushes++;
        return;
      }
      told.push(device);
      seen.addDevice(device.service, device.serviceId, hash, namespace, doubt);
    });
    counters.pushes += told.length;
    if (told.length === 0) {
      // A device may subscribe, or be allowed more, between two copies.
      if (!wanted) counters.unwanted++;
      else if (limited) counters.limited++;
      else if (unshown) {
        counters.unshown++;
        // All has been done that this message needs; its copies are large.
        if (doubt === Doubt.none) seen.addMessage(message.account, namespace, hash);
      } else counters.duplicates++;
      return false;
    }
    outbox.add(message, told, doubt);
    counters.unique++;
    if (!limited) seen.addMessage(message.account, namespace, hash, doubt);
    return true;
  }

  /** A copy that waited is of no more use. It was a lie unless it only lacked the body. */
  #overtake({ message, server }: HeldCopy<Node>, better: Notification): void {
    const { counters } = this;
    const { namespace, data, expiry } = message;
    if (namespace === better.namespace && data === null && expiry === better.expiry) {
      counters.duplicates++;
      return;
    }
    this.#contradict(server);
  }

  #contradict(node: Node): void {
    this.counters.contradicted++;
    this.#servers.count(node, 'contradicted');
  }

  #limit(node: Node): void {
    this.counters.limited++;
    this.#servers.count(node, 'limited');
  }
}
