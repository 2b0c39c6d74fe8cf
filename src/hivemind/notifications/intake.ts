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

/** What {@link Intake} is built from. */
export interface IntakeModules<Node> {
  clock: Clock;
  /** Every time that it may be now, in unix ms: our clock and the database's may disagree. */
  possibleTimes: () => readonly number[];
  devices: Pick<Devices, 'accountId' | 'forEachWanting'>;
  seen: DuplicateFilter;
  outbox: Pick<Outbox, 'add'>;
  /** Whether that server may have been asked to monitor that account (docs/decisions/16). */
  accepts: (node: Node, account: number) => boolean;
  /** Whether some other server should report that account's messages as well. */
  hasOthers: (node: Node, account: number) => boolean;
  /** A server's name in the log. */
  nameOf: (node: Node) => string;
  log: Pick<Log, 'warn'>;
}

/**
 * Turns notifications into pushes: parses one, drops it if it is a duplicate or was not asked for, checks whether it is
 * to be trusted, and queues a push for each device that wants it. Runs for each of the 5 to 10 copies of a message.
 *
 * A single server is not trusted (docs/decisions/19): a copy whose body matches its hash is passed on at once, a
 * doubtful one waits for another server's copy. Only messages that were passed on are marked as seen, and a message
 * passed on because of a doubtful copy is passed on again when a better copy comes.
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
   * Takes one `notify.message`. Never throws: a malformed one is dropped and counted.
   * @param node the server that sent it
   * @param frame the bencoded dict, in memory of its own: views into it are kept while it waits for another copy
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
    // First, because it is cheap and settles 4 of 5 copies.
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
    if (!this.#servers.limits(node).allow(account, clock.monotonic())) {
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
    const outcome = this.#held.hold(node, message, frame.length);
    if (outcome === 'repeated') counters.duplicates++;
    else if (outcome === 'full') {
      counters.unheld++;
      this.#servers.count(node, 'unheld');
    } else if (outcome !== 'held') {
      for (const copy of outcome.others) this.#overtake(copy, message);
      this.#confirm({ message, server: node, size: frame.length }, outcome.confirmed, account);
    }
  }

  /** How often that server has contradicted others, been alone with a message, or exceeded its limits. */
  recordOf(node: Node): ServerRecord {
    return this.#servers.of(node);
  }

  /** What is wrong with what the storage servers send, in words. */
  complaints(): string[] {
    const share = this.#misfits.alarming;
    if (share === undefined) return [];
    return [
      `${Math.round(share * 100)} % of the messages of the last minutes do not match their hash, whichever server sends them: phones ring a little later`,
    ];
  }

  /** Passes on the copies that still wait. */
  stop(): void {
    this.#held.stop();
  }

  /**
   * A message is untimely only if it is by every time that it may be now: if our clock is wrong, messages must not all
   * wait for a second server, nor be more doubtful here than at another hivemind.
   */
  #leastDoubt(message: Notification, now: number): Doubt {
    const least = leastDoubt(message, now);
    if (least !== Doubt.untimely) return least;
    return Math.min(...this.#modules.possibleTimes().map((time) => leastDoubt(message, time))) as Doubt;
  }

  /** Two servers agree on account, namespace and body. Of their times the less doubtful count, or the later expiry. */
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
    // A server that later names another namespace contradicts both.
    this.#modules.seen.addHash(message.account, message.hash, doubt);
    if (message.data === null || doubt !== Doubt.unproven) return;
    counters.misfits++;
    this.#misfits.add(true);
    if (this.#misfits.alarming !== undefined)
      this.#modules.log.warn(
        'messages do not match their hash, whichever server sends them: has the network changed its rule?',
      );
  }

  /** The wait is over: a copy that no other server has contradicted is passed on as it is. */
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
      else if (!this.#servers.limits(node).allowAlone(account, clock.monotonic())) this.#limit(node);
      else if (this.#pass(message, account, doubt)) {
        counters.vouched.alone++;
        this.#servers.count(node, 'alone');
      }
    }
  }

  /**
   * Queues a push for each device that wants the message and has not had it.
   * @returns whether there were any; if not, the copy is counted here
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
    const pushed: WantingDevice[] = [];
    devices.forEachWanting(account, namespace, (device: WantingDevice) => {
      wanted = true;
      // As in the original: one push for each message hash and device.
      if (seen.hasDevice(device.service, device.serviceId, hash, namespace, doubt)) return;
      if (falseAlarm && device.wantData) {
        unshown = true;
        counters.unshownPushes++;
        seen.addDevice(device.service, device.serviceId, hash, namespace, doubt);
        return;
      }
      if (!this.#devices.allow(device.service, device.serviceId, now)) {
        limited = true;
        counters.limitedPushes++;
        return;
      }
      pushed.push(device);
      seen.addDevice(device.service, device.serviceId, hash, namespace, doubt);
    });
    counters.pushes += pushed.length;
    if (pushed.length === 0) {
      // Not marked as seen, since a device may subscribe or be within its limit again before the next copy.
      if (!wanted) counters.unwanted++;
      else if (limited) counters.limited++;
      else if (unshown) {
        counters.unshown++;
        // Nothing is left to do for this message, and its copies are large.
        if (doubt === Doubt.none) seen.addMessage(message.account, namespace, hash);
      } else counters.duplicates++;
      return false;
    }
    outbox.add(message, pushed, doubt);
    counters.unique++;
    if (!limited) seen.addMessage(message.account, namespace, hash, doubt);
    return true;
  }

  /** Drops a copy that waited, now that there is a better one. If it lacks more than the body, its server was wrong. */
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
