/** The size of a token bucket, and how fast it fills. */
export interface Allowance {
  /** Tokens of a full bucket. */
  readonly burst: number;
  /** How long until one token comes back, in ms. */
  readonly every: number;
}

/** With no more buckets than this, full ones are not looked for. */
const SWEEP_FROM = 1024;

/**
 * Token buckets, one for each key. A bucket is one number, when it will be full again, and full ones are dropped: they
 * take memory for keys used lately, not for all that ever were.
 */
export class TokenBuckets<Key> {
  readonly #allowance: Allowance;
  /** Monotonic ms. */
  readonly #fullAt = new Map<Key, number>();
  #sweepAt = SWEEP_FROM;

  constructor(allowance: Allowance) {
    this.#allowance = allowance;
  }

  /** How many buckets are kept. */
  get size(): number {
    return this.#fullAt.size;
  }

  /**
   * Takes a token.
   * @param now monotonic ms
   * @returns false if there is none
   */
  take(key: Key, now: number): boolean {
    const { burst, every } = this.#allowance;
    const fullAt = Math.max(this.#fullAt.get(key) ?? now, now);
    if (fullAt - now > (burst - 1) * every) return false;
    this.#fullAt.set(key, fullAt + every);
    if (this.#fullAt.size > this.#sweepAt) this.#sweep(now);
    return true;
  }

  #sweep(now: number): void {
    for (const [key, fullAt] of this.#fullAt) if (fullAt <= now) this.#fullAt.delete(key);
    this.#sweepAt = Math.max(SWEEP_FROM, this.#fullAt.size * 2);
  }
}
