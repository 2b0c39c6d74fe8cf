import type { Push } from '../../session/push.ts';

/** One push on its way to one device: what was notified, for whom, and what the outbox has to know of it. */
export interface QueuedPush extends Push {
  /** The number under which a notifier acknowledges it; unique within the process and its restarts. */
  readonly id: number;
  /** A hash of the device, by which the devices of a service are spread over its notifiers. */
  readonly deviceHash: number;
  /** The memory it holds, in bytes: the received frame is kept alive by the views into it. */
  readonly bytes: number;
  /** When it came in, by the monotonic clock, in milliseconds. */
  readonly queuedAt: number;
  /** Called with the provider's answer in words, if somebody waits for it. */
  readonly onAnswer: ((text: string) => void) | undefined;
}

/** Why a push was given up. Each has its own counter, because each has its own cure. */
export type DropReason = 'overflow' | 'too_old' | 'expired' | 'unacknowledged' | 'shutdown';

/** The limits of one service's queue. */
export interface QueueLimits {
  /** The most memory that waiting pushes may hold, in bytes. */
  maxBytes: number;
  /** How long a push may wait, in milliseconds. */
  maxAge: number;
}

/**
 * The waiting pushes of one service, first in first out, bounded by bytes and by age. What does not fit pushes out the
 * oldest: a phone that is woken late by an old message has been woken by a newer one already.
 */
export class PushQueue {
  limits: QueueLimits;
  readonly #drop: (push: QueuedPush, reason: DropReason) => void;
  /** What was taken is let go of at once: it may hold a frame of 77 kB. */
  #items: (QueuedPush | undefined)[] = [];
  /** Index of the first waiting item: taking from the front moves this instead of the whole array. */
  #head = 0;
  #bytes = 0;

  constructor(limits: QueueLimits, drop: (push: QueuedPush, reason: DropReason) => void) {
    this.limits = limits;
    this.#drop = drop;
  }

  get length(): number {
    return this.#items.length - this.#head;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** When the oldest waiting push came in (monotonic milliseconds), or undefined if none waits. */
  get oldest(): number | undefined {
    return this.#items[this.#head]?.queuedAt;
  }

  /** Adds at the end; the oldest are dropped while the queue is over its limit. */
  add(push: QueuedPush): void {
    this.#items.push(push);
    this.#bytes += push.bytes;
    this.#trim();
  }

  /** Puts back, at the front and in their own order, pushes that were taken but not delivered. */
  putBack(pushes: readonly QueuedPush[]): void {
    if (pushes.length === 0) return;
    if (pushes.length <= this.#head) {
      // Into the places of what was taken: a full window puts one push back for each acknowledgement, however many wait.
      this.#head -= pushes.length;
      for (const [index, push] of pushes.entries()) this.#items[this.#head + index] = push;
    } else {
      this.#items = [...pushes, ...this.#items.slice(this.#head)];
      this.#head = 0;
    }
    for (const push of pushes) this.#bytes += push.bytes;
    this.#trim();
  }

  /** Takes the oldest push, or undefined if none waits. */
  take(): QueuedPush | undefined {
    const push = this.#items[this.#head];
    if (!push) return undefined;
    this.#items[this.#head++] = undefined;
    this.#bytes -= push.bytes;
    // Give the taken part back once it is the larger half: constant cost for each push, in the mean.
    if (this.#head > 64 && this.#head * 2 > this.#items.length) {
      this.#items = this.#items.slice(this.#head);
      this.#head = 0;
    }
    return push;
  }

  /**
   * Drops what has waited too long. Only the front is looked at: pushes wait in the order in which they came.
   * @param monotonic now, in milliseconds of the monotonic clock
   */
  dropOld(monotonic: number): void {
    for (
      let oldest = this.oldest;
      oldest !== undefined && monotonic - oldest > this.limits.maxAge;
      oldest = this.oldest
    ) {
      this.#drop(this.take() as QueuedPush, 'too_old');
    }
  }

  /** Empties the queue, dropping everything for `reason`. */
  clear(reason: DropReason): void {
    for (let push = this.take(); push; push = this.take()) this.#drop(push, reason);
  }

  #trim(): void {
    while (this.#bytes > this.limits.maxBytes && this.length > 0) this.#drop(this.take() as QueuedPush, 'overflow');
  }
}
