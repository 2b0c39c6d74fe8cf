import type { Clock, Timer } from '../../clock.ts';
import type { Backend, Delivery, Outcome } from './backend.ts';
import { Calls } from './calls.ts';
import { Fifo } from './fifo.ts';
import { Outage } from './outage.ts';
import { bounded, nextAttempt, RETRY, type RetryPolicy } from './retry.ts';

/** A push on its way through this process. */
export interface HeldPush extends Delivery {
  /**
   * Whether somebody takes it back who can have it sent by another. An original hivemind does not: what it gave is sent
   * now or never.
   */
  readonly returnable: boolean;
}

/** Why a push was given up without the provider having decided. Each has its own counter. */
export type GiveUpReason = 'expired' | 'retried-too-long' | 'too-many-retries' | 'overflow' | 'shutdown';

/** The end of a push, as far as this process is concerned. */
export type End =
  | Extract<Outcome, { kind: 'accepted' | 'gone' | 'refused' }>
  | { readonly kind: 'given-up'; readonly reason: GiveUpReason }
  | { readonly kind: 'handed-back' };

/** How many pushes a {@link Sender} holds at most. */
export interface SenderLimits {
  /** Pushes that may wait to be sent; beyond it the oldest is given up. */
  readonly maxQueue: number;
  /** Pushes that may wait for another attempt; beyond it a push that would join them is given up. */
  readonly maxRetrying: number;
}

/** What a {@link Sender} is made with. */
export interface SenderOptions<P extends HeldPush = HeldPush> extends SenderLimits {
  readonly backend: Backend;
  readonly clock: Clock;
  readonly random: (bytes: number) => Buffer;
  /** Milliseconds after which a call of `send` that says nothing counts as failed. */
  readonly sendTimeout?: number;
  readonly policy?: RetryPolicy;
  /** Called exactly once for each push. `attempts` is how often the provider was asked. */
  readonly done: (push: P, end: End, attempts: number) => void;
  /** Called with every answer of the provider, before `done`. */
  readonly answered?: (push: P, outcome: Outcome) => void;
  /** Called with how long a call of `send` took, in milliseconds. */
  readonly took?: (ms: number) => void;
  /** Called when all sending is put off: for how many milliseconds, and why. */
  readonly paused?: (ms: number, reason: string) => void;
}

interface Entry<P extends HeldPush> {
  readonly push: P;
  /** Unix milliseconds; 0 if never. */
  readonly expiry: number;
  attempts: number;
  firstTried: number;
  /** Set while it waits for another attempt. */
  timer: Timer | undefined;
}

/** Longer than any backend waits by itself: otherwise what the provider had accepted by then would be sent twice. */
const SEND_TIMEOUT = 60_000;
const LONG_AGO = 3_600_000;

/**
 * Carries pushes to a provider: a queue, so many calls at a time, and the retries. A push that has to wait for another
 * attempt waits aside, so it never holds up another device. What becomes of all of them when everything fails, {@link
 * Outage} tells.
 */
export class Sender<P extends HeldPush = HeldPush> {
  readonly #options: SenderOptions<P>;
  readonly #policy: RetryPolicy;
  readonly #outage: Outage;
  #backend: Backend;
  #limits: SenderLimits;
  readonly #queue = new Fifo<Entry<P>>();
  readonly #held = new Set<Entry<P>>();
  readonly #calls: Calls;
  #retrying = 0;
  #inFlight = 0;
  #lingering: Timer | undefined;
  #lingered = false;
  #probing = false;
  #stopping = false;
  #idle: (() => void)[] = [];

  constructor(options: SenderOptions<P>) {
    this.#options = options;
    this.#backend = options.backend;
    this.#limits = options;
    this.#policy = options.policy ?? RETRY;
    const { clock, random, paused } = options;
    this.#calls = new Calls(clock, options.sendTimeout ?? SEND_TIMEOUT);
    this.#outage = new Outage({ clock, random, paused, resume: () => this.#pump() });
  }

  /** Pushes that wait for their first attempt or are due for another. */
  get queued(): number {
    return this.#queue.length;
  }

  /** Pushes that the provider is being asked about. */
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

  /** Whether all sending is put off. It is so, too, while a single push asks whether the trouble is over. */
  get isPaused(): boolean {
    return this.#outage.isOn;
  }

  /**
   * Sends everything from now on with another backend. What the one before is being asked about comes to its end there.
   * @returns when the one before is not needed any more
   */
  use(backend: Backend, limits: SenderLimits): Promise<void> {
    const before = this.#backend;
    this.#backend = backend;
    this.#limits = limits;
    const unused = this.#calls.unused(before);
    this.#outage.askAgain();
    this.#pump();
    return unused;
  }

  /** How many it may hold from now on; what is too many already stays. */
  set limits(limits: SenderLimits) {
    this.#limits = limits;
  }

  add(push: P): void {
    // The hivemind gives nothing out that expired long ago: then it is our clock that is wrong.
    const expiry = this.#options.clock.now() - push.expiry > LONG_AGO ? 0 : push.expiry;
    const entry: Entry<P> = { push, expiry, attempts: 0, firstTried: 0, timer: undefined };
    this.#held.add(entry);
    if (this.#stopping && push.returnable) {
      this.#end(entry, unsent(push));
      return;
    }
    this.#queue.push(entry);
    while (this.queued > this.#limits.maxQueue)
      this.#end(this.#queue.take()!, { kind: 'given-up', reason: 'overflow' });
    this.#pump();
  }

  /**
   * Lets what the provider is being asked about come to its end. What nobody takes back is sent once more at most; all
   * else is handed back.
   * @returns when nothing is left
   */
  stop(): Promise<void> {
    this.#stopping = true;
    this.#lingered = true;
    for (const entry of this.#held) {
      if (!entry.timer) continue;
      entry.timer.cancel();
      entry.timer = undefined;
      this.#retrying--;
      this.#end(entry, unsent(entry.push));
    }
    for (let left = this.#queue.length; left > 0; left--) {
      const entry = this.#queue.take()!;
      if (entry.push.returnable) this.#end(entry, unsent(entry.push));
      else this.#queue.push(entry);
    }
    this.#pump();
    return new Promise((resolve) => {
      this.#idle.push(resolve);
      this.#checkIdle();
    });
  }

  /** Ends everything that is left, whatever the provider may still say of it, and stops all timers. */
  abandon(): void {
    this.#stopping = true;
    this.#queue.clear();
    for (const entry of this.#held) {
      entry.timer?.cancel();
      this.#end(entry, unsent(entry.push));
    }
    this.#outage.stop();
    this.#lingering?.cancel();
    this.#calls.abandon();
  }

  #pump(): void {
    const { batch = 1, concurrency = 16, linger = 0 } = this.#backend;
    while (this.#calls.size < concurrency && !this.#outage.isWaiting && this.queued > 0) {
      const probe = this.#outage.isOn;
      if (probe && this.#probing) return;
      if (linger > 0 && this.queued < batch && !this.#lingered) {
        this.#lingering ??= this.#options.clock.setTimeout(() => {
          this.#lingering = undefined;
          this.#lingered = true;
          this.#pump();
          this.#lingered = this.#stopping;
        }, linger);
        return;
      }
      const entries = this.#takeBatch(probe ? 1 : batch);
      if (entries.length > 0) void this.#send(entries, probe);
    }
    this.#checkIdle();
  }

  /** Takes up to `count` pushes that have not expired. */
  #takeBatch(count: number): Entry<P>[] {
    const entries: Entry<P>[] = [];
    const wall = this.#options.clock.now();
    while (entries.length < count) {
      const entry = this.#queue.take();
      if (!entry) break;
      if (entry.expiry > 0 && entry.expiry <= wall) this.#end(entry, { kind: 'given-up', reason: 'expired' });
      else entries.push(entry);
    }
    return entries;
  }

  async #send(entries: readonly Entry<P>[], probe: boolean): Promise<void> {
    const { clock } = this.#options;
    const start = clock.monotonic();
    this.#inFlight += entries.length;
    if (probe) this.#probing = true;
    for (const entry of entries) {
      if (entry.attempts++ === 0) entry.firstTried = start;
    }
    const outcomes = await this.#calls.run(
      this.#backend,
      entries.map((entry) => entry.push),
    );
    this.#inFlight -= entries.length;
    if (probe) this.#probing = false;
    this.#options.took?.(clock.monotonic() - start);
    for (let index = 0; index < entries.length; index++) this.#settle(entries[index]!, outcomes[index]!);
    this.#pump();
  }

  #settle(entry: Entry<P>, outcome: Outcome): void {
    if (!this.#held.has(entry)) return;
    this.#options.answered?.(entry.push, outcome);
    if (outcome.kind !== 'retry' && outcome.kind !== 'misconfigured') {
      this.#outage.answered();
      this.#end(entry, outcome);
      return;
    }
    // A backend may hand on what its provider says.
    const after = bounded((outcome.kind === 'retry' && outcome.after) || 0);
    const whom = (outcome.kind === 'retry' && outcome.whom) || 'provider';
    if (whom === 'everyone') this.#outage.asked(after, outcome.reason);
    else if (whom === 'provider') this.#outage.failed(outcome.reason);
    this.#again(entry, after);
  }

  #again(entry: Entry<P>, after: number): void {
    const { clock, random } = this.#options;
    if (this.#stopping) {
      this.#end(entry, unsent(entry.push));
      return;
    }
    const now = { wall: clock.now(), monotonic: clock.monotonic() };
    const delay = nextAttempt(entry, after, now, random, this.#policy);
    if (typeof delay === 'string') {
      this.#end(entry, { kind: 'given-up', reason: delay });
      return;
    }
    if (this.#retrying >= this.#limits.maxRetrying) {
      this.#end(entry, { kind: 'given-up', reason: 'too-many-retries' });
      return;
    }
    this.#retrying++;
    entry.timer = clock.setTimeout(() => {
      entry.timer = undefined;
      this.#retrying--;
      this.#queue.push(entry);
      this.#pump();
    }, delay);
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

/** The end of a push that is not sent any more because we stop. */
function unsent({ returnable }: HeldPush): End {
  return returnable ? { kind: 'handed-back' } : { kind: 'given-up', reason: 'shutdown' };
}
