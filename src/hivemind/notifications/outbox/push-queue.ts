import { AccountQueue } from './account-queue.ts';
import type { QueuedPush } from './push.ts';

/**
 * Why a push was given up. Each has its own counter, because each has its own cure. `overflow`: there was no room;
 * `account_share`: there was none, and its account held more than twice what accounts hold in the mean.
 */
export type DropReason = 'overflow' | 'account_share' | 'too_old' | 'expired' | 'unacknowledged' | 'shutdown';

/** The limits of one service's queue. */
export interface QueueLimits {
  /** The most memory that its pushes may take, in bytes. */
  maxBytes: number;
  /** How long a push may wait, in milliseconds. */
  maxAge: number;
}

/**
 * The pushes of one service from their coming in to their end, bounded by bytes and by age; those that wait, and those
 * that are with a notifier. When room is short the account with the most that wait pays, with its oldest: a phone that
 * is woken late by an old message has been woken by a newer one already.
 */
export class PushQueue {
  limits: QueueLimits;
  readonly #drop: (push: QueuedPush, reason: DropReason) => void;
  /** By id, hence oldest first. */
  readonly #held = new Map<number, QueuedPush>();
  readonly #waiting = new AccountQueue();
  #bytes = 0;

  constructor(limits: QueueLimits, drop: (push: QueuedPush, reason: DropReason) => void) {
    this.limits = limits;
    this.#drop = drop;
  }

  /** Pushes that wait. */
  get length(): number {
    return this.#waiting.length;
  }

  /** Pushes that wait or are with a notifier. */
  get held(): number {
    return this.#held.size;
  }

  /** The memory that all of them take; a message is counted once for all its pushes. */
  get bytes(): number {
    return this.#bytes;
  }

  /** When the oldest that is held came in (monotonic milliseconds), or undefined if there is none. */
  get oldest(): number | undefined {
    for (const { message } of this.#held.values()) return message.queuedAt;
    return undefined;
  }

  /** What {@link take} will take. */
  get next(): QueuedPush | undefined {
    return this.#waiting.next;
  }

  /** One that is held, waiting or not. */
  get(id: number): QueuedPush | undefined {
    return this.#held.get(id);
  }

  /** All that are held, oldest first. */
  all(): Iterable<QueuedPush> {
    return this.#held.values();
  }

  /** Adds one, of a higher id than all before. */
  add(push: QueuedPush): void {
    this.#held.set(push.id, push);
    this.#bytes += push.bytes;
    if (push.message.pushes++ === 0) this.#bytes += push.message.bytes;
    this.#waiting.add(push);
    this.#trim();
  }

  /** Takes the next one that waits. It stays counted until its {@link end}. */
  take(): QueuedPush | undefined {
    return this.#waiting.take();
  }

  /** Lets some that were taken wait again, before the others. */
  putBack(pushes: readonly QueuedPush[]): void {
    for (let index = pushes.length - 1; index >= 0; index--) this.#waiting.putBack(pushes[index] as QueuedPush);
  }

  /** Forgets one that was taken. */
  end(push: QueuedPush): void {
    this.#held.delete(push.id);
    this.#bytes -= push.bytes;
    if (--push.message.pushes === 0) this.#bytes -= push.message.bytes;
  }

  /**
   * Drops what has waited too long, and what a notifier has had for twice that time: they give up in time by
   * themselves, so that was lost on the way.
   * @param monotonic now, in milliseconds of the monotonic clock
   */
  dropOld(monotonic: number): void {
    for (const push of this.#held.values()) {
      const age = monotonic - push.message.queuedAt;
      if (age <= this.limits.maxAge) break;
      if (!push.holder) {
        this.#waiting.takeFirst(push);
        this.#give(push, 'too_old');
      } else if (age > this.limits.maxAge * 2) this.#give(push, 'unacknowledged');
    }
  }

  #trim(): void {
    const waiting = this.#waiting;
    while (this.#bytes > this.limits.maxBytes) {
      const push = waiting.heaviest;
      if (!push) return;
      const share = waiting.countOf(push) > (2 * waiting.length) / waiting.accounts;
      waiting.takeFirst(push);
      this.#give(push, share ? 'account_share' : 'overflow');
    }
  }

  #give(push: QueuedPush, reason: DropReason): void {
    this.end(push);
    this.#drop(push, reason);
  }
}
