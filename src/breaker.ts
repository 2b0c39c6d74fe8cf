import type { Clock } from './clock.ts';

/** When a breaker opens. */
export interface BreakerLimits {
  /** The share of "device gone" among a provider's final answers above which removals stop, 0 to 1. */
  share: number;
  /** How many devices must be reported gone within the window before the share means anything. */
  minimum: number;
}

const BUCKETS = 10;
const BUCKET_MS = 60_000;

/**
 * Guards the subscriptions of one service against mass removal: in the hivemind, and in a notifier whose hivemind has
 * no guard of its own. When a provider reports a suspiciously large share of the devices as gone, most likely our
 * certificate, topic or environment is wrong, which is no reason to remove anybody. Counts over a sliding window of ten
 * minutes.
 */
export class Breaker {
  limits: BreakerLimits;
  readonly #clock: Clock;
  readonly #accepted = new Float64Array(BUCKETS);
  readonly #gone = new Float64Array(BUCKETS);
  #bucket: number;
  #open = false;

  constructor(limits: BreakerLimits, clock: Clock) {
    this.limits = limits;
    this.#clock = clock;
    this.#bucket = Math.floor(clock.monotonic() / BUCKET_MS);
  }

  /** True while no device of the service may be removed. */
  get open(): boolean {
    this.#turn();
    return this.#open;
  }

  /** Counts pushes that the provider accepted. */
  accepted(count: number): void {
    this.#turn();
    add(this.#accepted, this.#bucket, count);
    this.#judge();
  }

  /** Counts one device that the provider reported gone, and returns whether it may be removed. */
  gone(): boolean {
    this.#turn();
    add(this.#gone, this.#bucket, 1);
    this.#judge();
    return !this.#open;
  }

  #turn(): void {
    const now = Math.floor(this.#clock.monotonic() / BUCKET_MS);
    if (now === this.#bucket) return;
    for (let bucket = Math.max(this.#bucket + 1, now - BUCKETS + 1); bucket <= now; bucket++) {
      this.#accepted[bucket % BUCKETS] = 0;
      this.#gone[bucket % BUCKETS] = 0;
    }
    this.#bucket = now;
    this.#judge();
  }

  #judge(): void {
    const gone = sum(this.#gone);
    const share = gone / (gone + sum(this.#accepted) || 1);
    if (this.#open) {
      // Closing needs half the share: a figure that hovers at the limit would otherwise let removals trickle through.
      if (share <= this.limits.share / 2) this.#open = false;
    } else if (gone >= this.limits.minimum && share > this.limits.share) {
      this.#open = true;
    }
  }
}

function add(counts: Float64Array, bucket: number, count: number): void {
  const at = bucket % BUCKETS;
  counts[at] = (counts[at] ?? 0) + count;
}

function sum(values: Float64Array): number {
  let total = 0;
  for (const value of values) total += value;
  return total;
}
