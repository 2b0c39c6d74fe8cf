import type { Clock, Timer } from '../../clock.ts';
import { ceiling, jitter, type RetryPolicy } from './retry.ts';

/** What an {@link Outage} is made with. */
export interface OutageOptions {
  readonly clock: Clock;
  readonly random: (bytes: number) => Buffer;
  /** Sending may go on, with a single push at first. */
  readonly resume: () => void;
  /** Called when all sending is put off: for how many milliseconds, and why. */
  readonly paused?: ((ms: number, reason: string) => void) | undefined;
}

/** So many answers in a row that are trouble, and it is the provider or we, not the pushes. */
export const TROUBLE = 20;
/** A pause after trouble starts at this and doubles to `cap`: one push then asks whether it is over. */
const PAUSE: RetryPolicy = { base: 1_000, cap: 60_000, lifetime: 0 };

/**
 * Knows when a provider is to be left alone: after too many failures in a row, or because it asks for it. After each
 * pause a single push finds out whether it is over, so an outage costs neither attempts nor pushes.
 */
export class Outage {
  readonly #options: OutageOptions;
  #pause: { readonly until: number; readonly asked: boolean; readonly timer: Timer } | undefined;
  /** Pauses since the last good answer. */
  #pauses = 0;
  /** Bad answers since the last good one. */
  #trouble = 0;

  constructor(options: OutageOptions) {
    this.#options = options;
  }

  /** The trouble goes on: nothing may be sent, or a single push whose answer decides. */
  get isOn(): boolean {
    return this.#trouble >= TROUBLE;
  }

  /** The last answer was trouble. */
  get isTroubled(): boolean {
    return this.#trouble > 0;
  }

  /** Nothing may be sent. */
  get isWaiting(): boolean {
    return this.#pause !== undefined;
  }

  /** Milliseconds until something may be sent. */
  get left(): number {
    return this.#pause ? Math.max(this.#pause.until - this.#options.clock.monotonic(), 0) : 0;
  }

  /** The provider answered a push, whatever it made of it. */
  answered(): void {
    this.#trouble = 0;
    this.#pauses = 0;
  }

  /** The provider failed, or did not accept us. */
  failed(reason: string): void {
    if (++this.#trouble >= TROUBLE && !this.#pause) this.#pauseFor(0, reason);
  }

  /** The provider asks everybody to wait for at least `ms` milliseconds. */
  asked(ms: number, reason: string): void {
    this.#pauseFor(ms, reason);
  }

  /** We have changed what the provider failed for: a push asks at once, unless the provider wanted us to wait. */
  askAgain(): void {
    this.#pauses = 0;
    if (!this.#pause || this.#pause.asked) return;
    this.stop();
    this.#options.resume();
  }

  stop(): void {
    this.#pause?.timer.cancel();
    this.#pause = undefined;
  }

  #pauseFor(least: number, reason: string): void {
    const { clock, random, paused, resume } = this.#options;
    // A batch that fails as a whole is one failure: its pushes must not double the pause 500 times.
    if (!this.#pause) this.#pauses++;
    const high = ceiling(this.#pauses, PAUSE);
    const ms = Math.max(least, high / 2) + jitter(high / 2, random);
    const until = clock.monotonic() + ms;
    if (this.#pause && this.#pause.until >= until) return;
    if (!this.#pause) paused?.(ms, reason);
    const asked = least > 0 || this.#pause?.asked === true;
    this.#pause?.timer.cancel();
    this.#trouble = Math.max(this.#trouble, TROUBLE);
    const timer = clock.setTimeout(() => {
      this.#pause = undefined;
      resume();
    }, ms);
    this.#pause = { until, asked, timer };
  }
}
