import { AccountQueue } from './account-queue.ts';
import type { Instance } from './instances.ts';
import type { Copy, QueuedPush } from './push.ts';

/**
 * Why a push was given up. Each reason has its own counter, since each calls for another remedy. `overflow`: there was
 * no room; `account_share`: there was no room, and its account had more than twice as many as the average account.
 */
export type DropReason = 'overflow' | 'account_share' | 'too_old' | 'expired' | 'unacknowledged' | 'shutdown';

/** Why a push ended without its notifier's report. `elsewhere`: another hivemind of the cluster has ended it. */
export type EndReason = DropReason | 'elsewhere';

/** The limits of one service's queue. */
export interface QueueLimits {
  /** The most memory that its pushes may take, in bytes. */
  maxBytes: number;
  /** How long a push may wait, in milliseconds. */
  maxAge: number;
}

/**
 * The pushes of one service from when they come in to when they end, both waiting and with a notifier, bounded by bytes
 * and by age. When room is short, the account with the most waiting pushes loses its oldest: a newer message will wake
 * the phone anyway.
 */
export class PushQueue {
  limits: QueueLimits;
  readonly #drop: (push: QueuedPush, reason: EndReason) => void;
  /** By id, in the order in which they entered. */
  readonly #pushes = new Map<number, QueuedPush>();
  /** Those that entered after younger ones, because another hivemind was to send them first. */
  readonly #late = new Set<QueuedPush>();
  /** When the latest of all that have entered came in, monotonic ms. */
  #newest = Number.NEGATIVE_INFINITY;
  readonly #waiting = new AccountQueue();
  /** Pushes that wait until one notifier has room, by that notifier: in a cluster no other may take them. */
  readonly #aside = new Map<Instance, AccountQueue>();
  #bytes = 0;

  constructor(limits: QueueLimits, drop: (push: QueuedPush, reason: EndReason) => void) {
    this.limits = limits;
    this.#drop = drop;
  }

  /** How many pushes wait, those put aside included. */
  get length(): number {
    let total = this.#waiting.length;
    for (const line of this.#aside.values()) total += line.length;
    return total;
  }

  /** How many pushes wait or are with a notifier. */
  get size(): number {
    return this.#pushes.size;
  }

  /** The memory that all of them take, in bytes; a message counts once for all its pushes. */
  get bytes(): number {
    return this.#bytes;
  }

  /** When the oldest of them came in (monotonic ms); undefined if there is none. */
  get oldest(): number | undefined {
    let oldest = Number.POSITIVE_INFINITY;
    for (const push of this.#pushes.values()) {
      oldest = Math.min(oldest, push.message.queuedAt);
      // All after it that are not late came in later.
      if (!this.#late.has(push)) break;
    }
    for (const { message } of this.#late) oldest = Math.min(oldest, message.queuedAt);
    return this.#pushes.size === 0 ? undefined : oldest;
  }

  /** The push that {@link take} will take. */
  get next(): QueuedPush | undefined {
    return this.#waiting.next;
  }

  /** The push with that id, waiting or with a notifier. */
  get(id: number): QueuedPush | undefined {
    return this.#pushes.get(id);
  }

  /** All pushes, in the order in which they entered. */
  all(): Iterable<QueuedPush> {
    return this.#pushes.values();
  }

  /** Adds a push, whose id must be higher than any before. May drop pushes for lack of room, this one among them. */
  add(push: QueuedPush): void {
    const { queuedAt } = push.message;
    if (queuedAt < this.#newest) this.#late.add(push);
    else this.#newest = queuedAt;
    this.#pushes.set(push.id, push);
    this.#bytes += push.bytes;
    if (push.message.pushes++ === 0) this.#bytes += push.message.bytes;
    this.#waiting.add(push);
    this.#trim();
  }

  /** Takes the next waiting push. It stays in the queue until {@link end}. */
  take(): QueuedPush | undefined {
    return this.#waiting.take();
  }

  /** Lets a taken push wait for that notifier in a line of its own, so that it does not hold up others. */
  putAside(push: QueuedPush, instance: Instance): void {
    push.aside = instance;
    let line = this.#aside.get(instance);
    if (!line) {
      line = new AccountQueue();
      this.#aside.set(instance, line);
    }
    line.insert(push);
  }

  /** Whether pushes wait in that notifier's line. */
  hasAside(instance: Instance): boolean {
    return this.#aside.has(instance);
  }

  /** As {@link take}, from that notifier's line. */
  takeAside(instance: Instance): QueuedPush | undefined {
    const line = this.#aside.get(instance);
    const push = line?.take();
    if (push) push.aside = undefined;
    if (line?.length === 0) this.#aside.delete(instance);
    return push;
  }

  /** Empties that notifier's line: its pushes wait with the others again. */
  bringBack(instance: Instance): void {
    const pushes: QueuedPush[] = [];
    for (let push = this.takeAside(instance); push; push = this.takeAside(instance)) pushes.push(push);
    this.putBack(pushes);
  }

  /** Ends a waiting push that need not be sent any more. It is removed once the older ones of its account are gone. */
  cancel(copy: Copy): void {
    copy.state = 'over';
    const { push } = copy;
    const line = this.#lineOf(push);
    for (let first = line.firstOf(push); first?.copy?.state === 'over'; first = line.firstOf(push)) {
      this.#takeFirst(first);
      this.#giveUp(first, 'elsewhere');
    }
  }

  /** Lets taken pushes wait again, ahead of the others. */
  putBack(pushes: readonly QueuedPush[]): void {
    for (let index = pushes.length - 1; index >= 0; index--) this.#waiting.putBack(pushes[index] as QueuedPush);
  }

  /** Forgets a taken push. */
  end(push: QueuedPush): void {
    this.#pushes.delete(push.id);
    this.#late.delete(push);
    this.#bytes -= push.bytes;
    if (--push.message.pushes === 0) this.#bytes -= push.message.bytes;
  }

  /**
   * Drops pushes that have waited too long, and those that a notifier has had for twice as long: notifiers give up
   * earlier by themselves, so those were lost on the way. Stops at the first that is young enough, behind which only
   * one that was held back can be older. That one may stand behind others of its account, from where it cannot be
   * taken; and it stays no longer than `maxAge` after it has entered, as all before it are old by then.
   * @param now monotonic ms
   */
  dropOld(now: number): void {
    for (const push of this.#pushes.values()) {
      const age = now - push.message.queuedAt;
      if (age <= this.limits.maxAge) break;
      if (!push.holder) {
        this.#takeFirst(push);
        this.#giveUp(push, 'too_old');
      } else if (age > this.limits.maxAge * 2) this.#giveUp(push, 'unacknowledged');
    }
  }

  #trim(): void {
    while (this.#bytes > this.limits.maxBytes) {
      const line = this.#heaviestLine();
      const push = line.heaviest;
      if (!push) return;
      const isLargeShare = line.countOf(push) > (2 * line.length) / line.accounts;
      this.#takeFirst(push);
      this.#giveUp(push, isLargeShare ? 'account_share' : 'overflow');
    }
  }

  /** The line with the account that has the most pushes. */
  #heaviestLine(): AccountQueue {
    let best = this.#waiting;
    for (const line of this.#aside.values()) if (weight(line) > weight(best)) best = line;
    return best;
  }

  #takeFirst(push: QueuedPush): void {
    const line = this.#lineOf(push);
    line.takeFirst(push);
    if (push.aside && line.length === 0) this.#aside.delete(push.aside);
    push.aside = undefined;
  }

  #lineOf({ aside }: QueuedPush): AccountQueue {
    return (aside && this.#aside.get(aside)) ?? this.#waiting;
  }

  #giveUp(push: QueuedPush, reason: EndReason): void {
    this.end(push);
    this.#drop(push, push.copy?.state === 'over' ? 'elsewhere' : reason);
  }
}

function weight(line: AccountQueue): number {
  return line.heaviest ? line.countOf(line.heaviest) : 0;
}
