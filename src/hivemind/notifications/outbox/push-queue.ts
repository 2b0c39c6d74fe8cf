import type { Copy } from '../copies/copy.ts';
import { AccountQueue } from './account-queue.ts';
import type { Instance } from './instances.ts';
import type { QueuedPush } from './push.ts';

/**
 * Why a push was given up. Each has its own counter, because each has its own cure. `overflow`: there was no room;
 * `account_share`: there was none, and its account held more than twice what accounts hold in the mean.
 */
export type DropReason = 'overflow' | 'account_share' | 'too_old' | 'expired' | 'unacknowledged' | 'shutdown';

/** `elsewhere`: another hivemind of the cluster has ended it. */
export type EndReason = DropReason | 'elsewhere';

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
  readonly #drop: (push: QueuedPush, reason: EndReason) => void;
  /** By id, hence oldest first. */
  readonly #held = new Map<number, QueuedPush>();
  readonly #waiting = new AccountQueue();
  /** Lines of those that wait aside, of every notifier that has one. */
  readonly #aside = new Set<AccountQueue>();
  #bytes = 0;

  constructor(limits: QueueLimits, drop: (push: QueuedPush, reason: EndReason) => void) {
    this.limits = limits;
    this.#drop = drop;
  }

  /** Pushes that wait, here or aside. */
  get length(): number {
    let total = this.#waiting.length;
    for (const line of this.#aside) total += line.length;
    return total;
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

  /** Lets one that was taken wait for that notifier alone, so that it holds up nobody else. */
  putAside(push: QueuedPush, instance: Instance): void {
    push.aside = instance;
    instance.line.insert(push);
    this.#aside.add(instance.line);
  }

  /** As {@link take}, of those that wait for that notifier alone. */
  takeAside({ line }: Instance): QueuedPush | undefined {
    const push = line.take();
    if (push) push.aside = undefined;
    if (line.length === 0) this.#aside.delete(line);
    return push;
  }

  /** Lets those that waited for that notifier alone wait with the others. */
  bringBack(instance: Instance): void {
    const pushes: QueuedPush[] = [];
    for (let push = this.takeAside(instance); push; push = this.takeAside(instance)) pushes.push(push);
    this.putBack(pushes);
  }

  /**
   * Ends one that waits and need not be sent. It goes once all of its account that are older and wait have gone.
   */
  cancel(copy: Copy): void {
    copy.state = 'over';
    const { push } = copy;
    const line = lineOf(push, this.#waiting);
    for (let first = line.firstOf(push); first?.copy?.state === 'over'; first = line.firstOf(push)) {
      this.#takeFirst(first);
      this.#give(first, 'elsewhere');
    }
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
        this.#takeFirst(push);
        this.#give(push, 'too_old');
      } else if (age > this.limits.maxAge * 2) this.#give(push, 'unacknowledged');
    }
  }

  #trim(): void {
    while (this.#bytes > this.limits.maxBytes) {
      const line = this.#heaviest();
      const push = line.heaviest;
      if (!push) return;
      const share = line.countOf(push) > (2 * line.length) / line.accounts;
      this.#takeFirst(push);
      this.#give(push, share ? 'account_share' : 'overflow');
    }
  }

  /** The line with the account that holds most. */
  #heaviest(): AccountQueue {
    let best = this.#waiting;
    for (const line of this.#aside) if (weight(line) > weight(best)) best = line;
    return best;
  }

  #takeFirst(push: QueuedPush): void {
    const line = lineOf(push, this.#waiting);
    line.takeFirst(push);
    push.aside = undefined;
    if (line.length === 0) this.#aside.delete(line);
  }

  #give(push: QueuedPush, reason: EndReason): void {
    this.end(push);
    this.#drop(push, push.copy?.state === 'over' ? 'elsewhere' : reason);
  }
}

function lineOf({ aside }: QueuedPush, waiting: AccountQueue): AccountQueue {
  return aside?.line ?? waiting;
}

function weight(line: AccountQueue): number {
  return line.heaviest ? line.countOf(line.heaviest) : 0;
}
