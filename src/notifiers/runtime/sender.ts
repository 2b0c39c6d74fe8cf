import type { Clock, Timer } from '../../clock.ts';
import { type Backend, type Delivery, type Outcome, retry } from './backend.ts';
import { Calls } from './calls.ts';
import { type Lane, Lanes } from './lanes.ts';
import { Outage, TROUBLE } from './outage.ts';
import { bounded, nextAttempt, RETRY, type RetryPolicy } from './retry.ts';

/** A push on its way through this process. */
export interface HeldPush extends Delivery {
  /**
   * Whether the hivemind takes it back, to give it to another notifier. An original one does not: its pushes are sent
   * now or never.
   */
  readonly returnable: boolean;
}

/** Why a push was given up without a decision of the provider. Each has its own counter. */
export type GiveUpReason = 'expired' | 'retried-too-long' | 'too-many-retries' | 'overflow' | 'shutdown';

/** How a push ended, as far as this process is concerned. */
export type End =
  | Extract<Outcome, { kind: 'accepted' | 'gone' | 'refused' }>
  | { readonly kind: 'given-up'; readonly reason: GiveUpReason }
  | { readonly kind: 'handed-back' };

/** How many pushes a {@link Sender} may hold. */
export interface SenderLimits {
  /** How many may wait to be sent; beyond that the oldest is given up. */
  readonly maxQueue: number;
  /** How many may wait for another attempt; beyond that a push that fails is given up. */
  readonly maxRetrying: number;
}

/** What a {@link Sender} is made with. */
export interface SenderOptions<P extends HeldPush = HeldPush> extends SenderLimits {
  readonly backend: Backend;
  readonly clock: Clock;
  readonly random: (bytes: number) => Buffer;
  /** Milliseconds after which a call of `send` without a result counts as failed. */
  readonly sendTimeout?: number;
  readonly policy?: RetryPolicy;
  /** Called exactly once for each push. `attempts` is how often it was given to the provider. */
  readonly done: (push: P, end: End, attempts: number) => void;
  /** Called with every answer of the provider, before `done`. */
  readonly answered?: (push: P, outcome: Outcome) => void;
  /** Called with how long a call of `send` took, in milliseconds. */
  readonly took?: (ms: number) => void;
  /**
   * Called when all sending to a provider pauses: for how many milliseconds, why, and which of several providers it is
   * ({@link Backend.lane}).
   */
  readonly paused?: (ms: number, reason: string, lane: string) => void;
}

interface Entry<P extends HeldPush> {
  readonly push: P;
  /** Unix milliseconds; 0 if never. */
  readonly expiry: number;
  readonly lane: Lane<Entry<P>>;
  attempts: number;
  /** By the monotonic clock; undefined before the first attempt. */
  firstTried: number | undefined;
  /** Set while it waits for another attempt. */
  timer: Timer | undefined;
}

/**
 * Longer than any backend waits by itself: otherwise a push that the provider has just accepted would be sent again.
 */
const SEND_TIMEOUT = 60_000;
const LONG_AGO = 3_600_000;

/**
 * Takes pushes to a provider: a queue, a limited number of calls at a time, and the retries. A push that has to wait
 * for another attempt waits outside the queue, so it never holds up another device. When everything fails, {@link
 * Outage} decides when to try again.
 *
 * Where there are many providers ({@link Backend.lane}; docs/decisions/33), each has its own queue and outage. None
 * gets more of the calls, or of the room to wait for another attempt, than it leaves free: alone it gets half, and
 * there is always some left for a newcomer. All providers whose last answer was trouble share half of the calls, so
 * that the others go on, however many names somebody's silent servers have. The pushes of a paused provider wait
 * outside the queues, too, since pushes in queues count as work that is about to be done.
 */
export class Sender<P extends HeldPush = HeldPush> {
  readonly #options: SenderOptions<P>;
  readonly #policy: RetryPolicy;
  readonly #lanes: Lanes<Entry<P>>;
  #backend: Backend;
  #limits: SenderLimits;
  readonly #held = new Set<Entry<P>>();
  readonly #calls: Calls;
  #retrying = 0;
  #inFlight = 0;
  /** Running calls to those of many providers whose last answer was trouble. */
  #troubledCalls = 0;
  /** Failures in a row, over all providers. */
  #trouble = 0;
  #stopping = false;
  #idle: (() => void)[] = [];

  constructor(options: SenderOptions<P>) {
    this.#options = options;
    this.#backend = options.backend;
    this.#limits = options;
    this.#policy = options.policy ?? RETRY;
    const { clock, random, paused } = options;
    this.#calls = new Calls(clock, options.sendTimeout ?? SEND_TIMEOUT);
    this.#lanes = new Lanes(
      (lane) =>
        new Outage({
          clock,
          random,
          paused: (ms, reason) => paused?.(ms, reason, lane().name),
          resume: () => {
            this.#lanes.changed(lane());
            this.#pump();
          },
        }),
    );
  }

  /** Pushes that wait for their first attempt or are due for another. */
  get queued(): number {
    return this.#lanes.queued;
  }

  /** Pushes in running calls to the provider. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** Pushes that wait for another attempt. */
  get retrying(): number {
    return this.#retrying;
  }

  /** Everything that has not ended. */
  get held(): number {
    return this.#held.size;
  }

  /**
   * Whether all sending is paused, also while a single push finds out whether the trouble is over. With many providers:
   * whether all of the latest answers were trouble.
   */
  get isPaused(): boolean {
    return this.#hasLanes ? this.#trouble >= TROUBLE : this.#lanes.get('').outage.isOn;
  }

  /** Whether there are many providers. */
  get #hasLanes(): boolean {
    return this.#backend.lane !== undefined;
  }

  /**
   * Sends everything from now on with another backend; running calls of the one before go on.
   *
   * @returns when the previous backend is no longer needed
   */
  use(backend: Backend, limits: SenderLimits): Promise<void> {
    const before = this.#backend;
    this.#backend = backend;
    this.#limits = limits;
    const unused = this.#calls.unused(before);
    for (const lane of this.#lanes.all) lane.outage.askAgain();
    this.#pump();
    return unused;
  }

  /** Changes how many it may hold; pushes that are too many already stay. */
  set limits(limits: SenderLimits) {
    this.#limits = limits;
  }

  add(push: P): void {
    // The hivemind gives out no push that expired long ago: if it seems so, our clock is wrong.
    const expiry = this.#options.clock.now() - push.expiry > LONG_AGO ? 0 : push.expiry;
    const lane = this.#lanes.get(laneOf(this.#backend, push));
    const entry: Entry<P> = { push, lane, expiry, attempts: 0, firstTried: undefined, timer: undefined };
    this.#held.add(entry);
    if (this.#stopping && push.returnable) {
      this.#end(entry, unsent(push));
      return;
    }
    this.#enqueue(entry);
    while (this.queued > this.#limits.maxQueue) {
      const oldest = this.#lanes.take(lane);
      if (!oldest) break;
      this.#end(oldest, { kind: 'given-up', reason: 'overflow' });
    }
    this.#lanes.changed(lane);
    this.#pump();
  }

  /**
   * Lets running calls end. Pushes that nobody takes back are sent if they have not been tried yet; all others are
   * handed back.
   *
   * @returns when no push is left
   */
  stop(): Promise<void> {
    this.#stopping = true;
    for (const entry of this.#held) {
      if (!entry.timer) continue;
      entry.timer.cancel();
      this.#comeBack(entry);
      this.#end(entry, unsent(entry.push));
    }
    for (const lane of this.#lanes.all) {
      lane.lingered = true;
      for (let left = lane.queue.length; left > 0; left--) {
        const entry = this.#lanes.take(lane);
        if (!entry) break;
        if (entry.push.returnable) this.#end(entry, unsent(entry.push));
        else this.#lanes.put(lane, entry);
      }
    }
    this.#pump();
    return new Promise((resolve) => {
      this.#idle.push(resolve);
      this.#checkIdle();
    });
  }

  /** Ends all pushes that are left, without waiting for the provider, and stops all timers. */
  abandon(): void {
    this.#stopping = true;
    for (const entry of this.#held) {
      entry.timer?.cancel();
      this.#end(entry, unsent(entry.push));
    }
    for (const lane of this.#lanes.all) {
      while (this.#lanes.take(lane));
      lane.outage.stop();
      lane.lingering?.cancel();
    }
    this.#calls.abandon();
  }

  #pump(): void {
    const { batch = 1, concurrency = 16, linger = 0 } = this.#backend;
    for (;;) {
      const free = concurrency - this.#calls.size;
      const troubled = !this.#hasLanes || this.#troubledCalls < concurrency / 2;
      const lane = free > 0 ? this.#lanes.next(this.#hasLanes ? free : concurrency, troubled) : undefined;
      if (!lane) break;
      const probe = lane.outage.isOn;
      if (linger > 0 && lane.queue.length < batch && !lane.lingered) {
        lane.lingering ??= this.#options.clock.setTimeout(() => {
          lane.lingering = undefined;
          lane.lingered = true;
          this.#pump();
          lane.lingered = this.#stopping;
        }, linger);
        return;
      }
      const entries = this.#takeBatch(lane, probe ? 1 : batch);
      if (entries.length > 0) void this.#send(lane, entries, probe);
      else this.#lanes.changed(lane);
    }
    this.#checkIdle();
  }

  #enqueue(entry: Entry<P>): void {
    // With one provider, the hivemind holds back what cannot be sent; with several it cannot tell which pushes those
    // are.
    if (this.#hasLanes && entry.lane.isBlocked) this.#again(entry, entry.lane.outage.left);
    else this.#lanes.put(entry.lane, entry);
  }

  /** Takes up to `count` pushes that have not expired. */
  #takeBatch(lane: Lane<Entry<P>>, count: number): Entry<P>[] {
    const entries: Entry<P>[] = [];
    const wall = this.#options.clock.now();
    while (entries.length < count) {
      const entry = this.#lanes.take(lane);
      if (!entry) break;
      if (entry.expiry > 0 && entry.expiry <= wall) this.#end(entry, { kind: 'given-up', reason: 'expired' });
      else entries.push(entry);
    }
    return entries;
  }

  async #send(lane: Lane<Entry<P>>, entries: readonly Entry<P>[], probe: boolean): Promise<void> {
    const { clock } = this.#options;
    const start = clock.monotonic();
    this.#inFlight += entries.length;
    lane.calls++;
    const troubled = lane.outage.isTroubled ? 1 : 0;
    this.#troubledCalls += troubled;
    if (probe) lane.probing = true;
    for (const entry of entries) {
      entry.attempts++;
      entry.firstTried ??= start;
    }
    const outcomes = await this.#calls.run(
      this.#backend,
      entries.map((entry) => entry.push),
    );
    this.#inFlight -= entries.length;
    lane.calls--;
    this.#troubledCalls -= troubled;
    if (probe) lane.probing = false;
    this.#options.took?.(clock.monotonic() - start);
    for (const [index, entry] of entries.entries()) {
      this.#settle(entry, outcomes[index] ?? retry('the backend returned no outcome for this push'));
    }
    if (this.#hasLanes && lane.outage.isOn) this.#setAside(lane);
    this.#lanes.changed(lane);
    this.#pump();
  }

  #settle(entry: Entry<P>, outcome: Outcome): void {
    if (!this.#held.has(entry)) return;
    const { outage } = entry.lane;
    this.#options.answered?.(entry.push, outcome);
    if (outcome.kind !== 'retry' && outcome.kind !== 'misconfigured') {
      outage.answered();
      this.#trouble = 0;
      this.#end(entry, outcome);
      return;
    }
    // A backend may pass on whatever its provider asked for.
    const after = bounded((outcome.kind === 'retry' && outcome.after) || 0);
    const whom = (outcome.kind === 'retry' && outcome.whom) || 'provider';
    if (whom !== 'device') this.#trouble++;
    if (whom === 'everyone') outage.asked(after, outcome.reason);
    else if (whom === 'provider') outage.failed(outcome.reason);
    this.#again(entry, after);
  }

  /** Lets all that is queued for a paused provider wait until it is tried again. */
  #setAside(lane: Lane<Entry<P>>): void {
    const { left } = lane.outage;
    for (let entry = this.#lanes.take(lane); entry; entry = this.#lanes.take(lane)) this.#again(entry, left);
  }

  #again(entry: Entry<P>, after: number): void {
    const { clock, random } = this.#options;
    if (this.#stopping) {
      this.#end(entry, unsent(entry.push));
      return;
    }
    const now = { wall: clock.now(), monotonic: clock.monotonic() };
    entry.firstTried ??= now.monotonic;
    const { attempts, firstTried, expiry, lane } = entry;
    const delay = nextAttempt({ attempts, firstTried, expiry }, after, now, random, this.#policy);
    if (typeof delay === 'string') {
      this.#end(entry, { kind: 'given-up', reason: delay });
      return;
    }
    const room = this.#limits.maxRetrying - this.#retrying;
    if (this.#hasLanes ? lane.aside >= room : room <= 0) {
      this.#end(entry, { kind: 'given-up', reason: 'too-many-retries' });
      return;
    }
    this.#retrying++;
    lane.aside++;
    entry.timer = clock.setTimeout(() => {
      this.#comeBack(entry);
      this.#enqueue(entry);
      this.#pump();
    }, delay);
  }

  #comeBack(entry: Entry<P>): void {
    entry.timer = undefined;
    entry.lane.aside--;
    this.#retrying--;
  }

  #end(entry: Entry<P>, end: End): void {
    if (!this.#held.delete(entry)) return;
    this.#options.done(entry.push, end, entry.attempts);
    this.#checkIdle();
  }

  #checkIdle(): void {
    if (!this.#stopping || this.#held.size > 0) return;
    for (const resolve of this.#idle.splice(0)) resolve();
  }
}

/** If `lane` throws, `send` is left to fail for that push, as for any other fault of a backend. */
function laneOf(backend: Backend, push: Delivery): string {
  try {
    return backend.lane?.(push) ?? '';
  } catch {
    return '';
  }
}

/** The end of a push that is not sent, since we stop. */
function unsent({ returnable }: HeldPush): End {
  return returnable ? { kind: 'handed-back' } : { kind: 'given-up', reason: 'shutdown' };
}
