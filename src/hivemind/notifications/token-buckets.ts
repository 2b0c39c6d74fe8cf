/** How much one may do at once, and how soon again. */
export interface Allowance {
  /** Tokens of a full bucket. */
  readonly burst: number;
  /** Milliseconds until one comes back. */
  readonly every: number;
}

/** Fewer buckets than this are never looked through. */
const SWEEP_FROM = 1024;

/**
 * Token buckets, one a key. Only buckets that are not full are kept, and each by one number: when it will be full
 * again. So they take memory for those who did something lately, not for those who ever did.
 */
export class TokenBuckets<Key> {
  readonly #allowance: Allowance;
  /** Monotonic ms. */
  readonly #fullAt = new Map<Key, number>();
  #sweepAt = SWEEP_FROM;

  constructor(allowance: Allowance) {
    this.#allowance = allowance;
  }

  /** Buckets that are kept. */
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
