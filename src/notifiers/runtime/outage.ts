import type { Clock, Timer } from '../../clock.ts';
import { ceiling, jitter, type RetryPolicy } from './retry.ts';

/** What an {@link Outage} is made with. */
export interface OutageOptions {
  readonly clock: Clock;
  readonly random: (bytes: number) => Buffer;
  /** Called when sending may go on, with a single push at first. */
  readonly resume: () => void;
  /** Called when all sending pauses: for how many milliseconds, and why. */
  readonly paused?: ((ms: number, reason: string) => void) | undefined;
}

/** After this many troubled answers in a row, the trouble is the provider's or ours, not that of the pushes. */
export const TROUBLE = 20;
/**
 * A pause after trouble begins with `base` and doubles up to `cap`; after each, one push finds out whether it is
 * over.
 */
const PAUSE: RetryPolicy = { base: 1_000, cap: 60_000, lifetime: 0 };

/**
 * Knows when to send nothing to a provider: after too many failures in a row, or because it asks for that. After each
 * pause a single push finds out whether the trouble is over, so that an outage uses up neither attempts nor pushes.
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

  /** Whether there is an outage: nothing may be sent, or only a single push whose answer decides. */
  get isOn(): boolean {
    return this.#trouble >= TROUBLE;
  }

  /** Whether the last answer was trouble. */
  get isTroubled(): boolean {
    return this.#trouble > 0;
  }

  /** Whether nothing may be sent now. */
  get isWaiting(): boolean {
    return this.#pause !== undefined;
  }

  /** Milliseconds until something may be sent. */
  get left(): number {
    return this.#pause ? Math.max(this.#pause.until - this.#options.clock.monotonic(), 0) : 0;
  }

  /** The provider decided on a push, whichever way. */
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

  /** The settings have changed, so the trouble may be over: tries at once, unless the provider asked us to wait. */
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
    // Not during a pause: a batch that fails as a whole would double it 500 times.
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
