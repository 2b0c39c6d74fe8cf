import type { Clock, Timer } from '../clock.ts';
import { type Backend, type Delivery, type Outcome, retry } from './backend.ts';
import { Fifo } from './fifo.ts';
import { ceiling, jitter, nextAttempt, RETRY, type RetryPolicy } from './retry.ts';

/** A push on its way through this process. */
export interface HeldPush extends Delivery {
  /** The hivemind's number for it; undefined from an original hivemind, which does not want to hear of it again. */
  readonly pushId: number | undefined;
  /** Somebody waits to be told the provider's answer in words. */
  readonly wantsAnswer: boolean;
}

/** Why a push was given up without the provider having decided. Each has its own counter. */
export type GiveUpReason = 'expired' | 'retried-too-long' | 'too-many-retries' | 'overflow' | 'shutdown';

/** The end of a push, as far as this process is concerned. */
export type End =
  | Extract<Outcome, { kind: 'accepted' | 'gone' | 'refused' }>
  | { readonly kind: 'given-up'; readonly reason: GiveUpReason }
  | { readonly kind: 'handed-back' };

/** What a {@link Courier} is made with. */
export interface CourierOptions {
  readonly backend: Backend;
  readonly clock: Clock;
  readonly random: (bytes: number) => Buffer;
  /** Pushes that may wait to be sent; beyond it the oldest is given up. */
  readonly maxQueue: number;
  /** Pushes that may wait for another attempt; beyond it a push that would join them is given up. */
  readonly maxRetrying: number;
  /** Milliseconds after which a call of `send` that says nothing counts as failed. */
  readonly sendTimeout?: number;
  readonly policy?: RetryPolicy;
  /** Called exactly once for each push. `attempts` is how often the provider was asked. */
  readonly done: (push: HeldPush, end: End, attempts: number) => void;
  /** Called with every answer of the provider, before `done`. */
  readonly answered?: (push: HeldPush, outcome: Outcome) => void;
  /** Called with how long a call of `send` took, in milliseconds. */
  readonly took?: (ms: number) => void;
  /** Called when all sending is put off: for how many milliseconds, and why. */
  readonly paused?: (ms: number, reason: string) => void;
}

interface Entry {
  readonly push: HeldPush;
  readonly expiry: number;
  attempts: number;
  firstTried: number;
  /** Set while it waits for another attempt. */
  timer: Timer | undefined;
}

const SEND_TIMEOUT = 30_000;
/** So many answers in a row that are trouble, and it is the provider or we, not the pushes. */
const TROUBLE = 20;
/** A pause after trouble starts at this and doubles to `cap`: one push then asks whether it is over. */
const PAUSE: RetryPolicy = { base: 1_000, cap: 60_000, lifetime: 0 };

/**
 * Carries pushes to a provider: a queue, so many calls at a time, and the retries. A push that has to wait for another attempt waits
 * aside, so it never holds up another device. When everything fails, the provider is left alone for a while and then asked with a
 * single push, so an outage costs neither attempts nor pushes.
 */
export class Courier {
  readonly #options: CourierOptions;
  readonly #batch: number;
  readonly #concurrency: number;
  readonly #linger: number;
  readonly #policy: RetryPolicy;
  readonly #queue = new Fifo<Entry>();
  readonly #held = new Set<Entry>();
  /** Calls of `send` that run, each as what ends the waiting for it. */
  readonly #calls = new Set<(outcomes: readonly Outcome[]) => void>();
  #retrying = 0;
  #inFlight = 0;
  #lingering: Timer | undefined;
  #lingered = false;
  #pause: { readonly until: number; readonly timer: Timer } | undefined;
  #pauses = 0;
  #trouble = 0;
  #probing = false;
  #stopping: 'hand-back' | 'finish' | undefined;
  #idle: (() => void)[] = [];

  constructor(options: CourierOptions) {
    this.#options = options;
    this.#batch = options.backend.batch ?? 1;
    this.#concurrency = options.backend.concurrency ?? 16;
    this.#linger = options.backend.linger ?? 0;
    this.#policy = options.policy ?? RETRY;
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

  /** Whether all sending is put off. */
  get isPaused(): boolean {
    return this.#pause !== undefined;
  }

  add(push: HeldPush): void {
    const entry: Entry = { push, expiry: push.expiry, attempts: 0, firstTried: 0, timer: undefined };
    this.#held.add(entry);
    if (this.#stopping === 'hand-back') {
      this.#end(entry, { kind: 'handed-back' });
      return;
    }
    this.#queue.push(entry);
    while (this.queued > this.#options.maxQueue)
      this.#end(this.#queue.take()!, { kind: 'given-up', reason: 'overflow' });
    this.#pump();
  }

  /**
   * Lets what the provider is being asked about come to its end.
   * @param rest what becomes of all other pushes: they are handed back, or sent once and not again
   * @returns when nothing is left
   */
  stop(rest: 'hand-back' | 'finish'): Promise<void> {
    this.#stopping = rest;
    this.#lingered = true;
    for (const entry of this.#held) {
      if (!entry.timer) continue;
      entry.timer.cancel();
      entry.timer = undefined;
      this.#retrying--;
      this.#end(entry, rest === 'hand-back' ? { kind: 'handed-back' } : { kind: 'given-up', reason: 'shutdown' });
    }
    if (rest === 'hand-back') {
      for (let entry = this.#queue.take(); entry; entry = this.#queue.take()) this.#end(entry, { kind: 'handed-back' });
    }
    this.#pump();
    return new Promise((resolve) => {
      this.#idle.push(resolve);
      this.#checkIdle();
    });
  }

  /** Ends everything that is left, whatever the provider may still say of it, and stops all timers. */
  abandon(): void {
    const end: End = this.#stopping === 'finish' ? { kind: 'given-up', reason: 'shutdown' } : { kind: 'handed-back' };
    this.#stopping ??= 'hand-back';
    this.#queue.clear();
    for (const entry of this.#held) {
      entry.timer?.cancel();
      this.#end(entry, end);
    }
    this.#pause?.timer.cancel();
    this.#pause = undefined;
    this.#lingering?.cancel();
    for (const settle of this.#calls) settle([]);
  }

  #pump(): void {
    while (this.#calls.size < this.#concurrency && !this.#pause && this.queued > 0) {
      const testing = this.#trouble >= TROUBLE;
      if (testing && this.#probing) return;
      if (this.#linger > 0 && this.queued < this.#batch && !this.#lingered) {
        this.#lingering ??= this.#options.clock.setTimeout(() => {
          this.#lingering = undefined;
          this.#lingered = true;
          this.#pump();
          this.#lingered = this.#stopping !== undefined;
        }, this.#linger);
        return;
      }
      const entries = this.#takeBatch(testing ? 1 : this.#batch);
      if (entries.length > 0) void this.#send(entries, testing);
    }
    this.#checkIdle();
  }

  /** Takes up to `count` pushes that have not expired. */
  #takeBatch(count: number): Entry[] {
    const entries: Entry[] = [];
    const wall = this.#options.clock.now();
    while (entries.length < count) {
      const entry = this.#queue.take();
      if (!entry) break;
      if (entry.expiry > 0 && entry.expiry <= wall) this.#end(entry, { kind: 'given-up', reason: 'expired' });
      else entries.push(entry);
    }
    return entries;
  }

  async #send(entries: readonly Entry[], probe: boolean): Promise<void> {
    const { clock, backend } = this.#options;
    const start = clock.monotonic();
    this.#inFlight += entries.length;
    if (probe) this.#probing = true;
    for (const entry of entries) {
      if (entry.attempts++ === 0) entry.firstTried = start;
    }
    const outcomes = await this.#outcomes(backend, entries);
    this.#inFlight -= entries.length;
    if (probe) this.#probing = false;
    this.#options.took?.(clock.monotonic() - start);
    for (let index = 0; index < entries.length; index++) {
      this.#settle(entries[index]!, outcomes[index] ?? retry('the backend said nothing of this push'));
    }
    this.#pump();
  }

  /** What the backend says, or a retry for all if it throws or says nothing in time. */
  #outcomes(backend: Backend, entries: readonly Entry[]): Promise<readonly Outcome[]> {
    return new Promise((resolve) => {
      const timer = this.#options.clock.setTimeout(
        () => failed('no answer in time'),
        this.#options.sendTimeout ?? SEND_TIMEOUT,
      );
      const settle = (outcomes: readonly Outcome[]) => {
        timer.cancel();
        this.#calls.delete(settle);
        resolve(outcomes);
      };
      const failed = (reason: string) => settle(entries.map(() => retry(reason)));
      this.#calls.add(settle);
      // Through a promise, so that a backend that throws at once is met the same way.
      Promise.resolve(entries.map((entry) => entry.push))
        .then((pushes) => backend.send(pushes))
        .then(settle, (error: unknown) => failed(error instanceof Error ? error.message : String(error)));
    });
  }

  #settle(entry: Entry, outcome: Outcome): void {
    if (!this.#held.has(entry)) return;
    this.#options.answered?.(entry.push, outcome);
    if (outcome.kind !== 'retry' && outcome.kind !== 'misconfigured') {
      this.#trouble = 0;
      this.#pauses = 0;
      this.#end(entry, outcome);
      return;
    }
    const after = (outcome.kind === 'retry' && outcome.after) || 0;
    const whom = (outcome.kind === 'retry' && outcome.whom) || 'provider';
    if (whom === 'everyone') this.#pauseFor(after, outcome.reason);
    else if (whom === 'provider' && ++this.#trouble >= TROUBLE && !this.#pause) this.#pauseFor(0, outcome.reason);
    this.#again(entry, after);
  }

  #again(entry: Entry, after: number): void {
    const { clock, random } = this.#options;
    if (this.#stopping) {
      this.#end(
        entry,
        this.#stopping === 'hand-back' ? { kind: 'handed-back' } : { kind: 'given-up', reason: 'shutdown' },
      );
      return;
    }
    const now = { wall: clock.now(), monotonic: clock.monotonic() };
    const delay = nextAttempt(entry, after, now, random, this.#policy);
    if (typeof delay === 'string') {
      this.#end(entry, { kind: 'given-up', reason: delay });
      return;
    }
    if (this.#retrying >= this.#options.maxRetrying) {
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

  /** Sends nothing for at least `least` milliseconds. */
  #pauseFor(least: number, reason: string): void {
    const { clock, random } = this.#options;
    const high = ceiling(++this.#pauses, PAUSE);
    const ms = Math.max(least, high / 2) + jitter(high / 2, random);
    const until = clock.monotonic() + ms;
    if (this.#pause && this.#pause.until >= until) return;
    if (!this.#pause) this.#options.paused?.(ms, reason);
    this.#pause?.timer.cancel();
    // One push is sent when the pause is over, and all others follow only if it fares better.
    this.#trouble = Math.max(this.#trouble, TROUBLE);
    const timer = clock.setTimeout(() => {
      this.#pause = undefined;
      this.#pump();
    }, ms);
    this.#pause = { until, timer };
  }

  #end(entry: Entry, end: End): void {
    if (!this.#held.delete(entry)) return;
    this.#options.done(entry.push, end, entry.attempts);
    this.#checkIdle();
  }

  #checkIdle(): void {
    if (!this.#stopping || this.#held.size > 0) return;
    for (const resolve of this.#idle.splice(0)) resolve();
  }
}
