/**
 * How long things took, counted in buckets: memory does not grow with the number of measurements, and adding one takes
 * a few comparisons.
 */

/** The upper bounds of the buckets, in seconds; one more bucket takes everything beyond the last. */
export const LATENCY_BOUNDS = [0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60, 300, 1800] as const;

/** Seconds that half of the latest measurements, and 95 % of them, did not exceed. */
export interface RecentLatency {
  readonly median: number;
  readonly p95: number;
}

/** "Recent" reaches back at least this far, and at most twice as far. */
const WINDOW_MS = 150_000;
/** Some latencies begin at a time that a stranger claims: no single one may add more than this to the sum. */
const MOST_SECONDS = 86_400;

/** The latencies of one kind. */
export class Latency {
  /** How many fell into each bucket since the start. */
  readonly counts = emptyBuckets();
  count = 0;
  /** In seconds. */
  sum = 0;
  #current = emptyBuckets();
  #before = emptyBuckets();
  #turned = 0;

  /**
   * @param seconds a negative value, from a sender whose clock is ahead of ours, counts as 0
   * @param now the monotonic clock, in milliseconds
   */
  add(seconds: number, now: number): void {
    const bounded = Math.min(Math.max(seconds, 0), MOST_SECONDS);
    const found = LATENCY_BOUNDS.findIndex((bound) => bounded <= bound);
    const bucket = found < 0 ? LATENCY_BOUNDS.length : found;
    this.#turn(now);
    count(this.counts, bucket);
    count(this.#current, bucket);
    this.count++;
    this.sum += bounded;
  }

  /** Of the last 2.5 to 5 minutes; null if nothing was measured. */
  recent(now: number): RecentLatency | null {
    this.#turn(now);
    const counts = this.#current.map((count, bucket) => count + (this.#before[bucket] ?? 0));
    if (counts.every((count) => count === 0)) return null;
    return { median: quantile(counts, 0.5), p95: quantile(counts, 0.95) };
  }

  #turn(now: number): void {
    const since = now - this.#turned;
    if (since < WINDOW_MS) return;
    this.#before = since < 2 * WINDOW_MS ? this.#current : emptyBuckets();
    this.#current = emptyBuckets();
    this.#turned = now;
  }
}

/**
 * The value that `share` of the measurements do not exceed, in seconds, computed as by Prometheus' histogram_quantile:
 * values lie evenly within their bucket, and those beyond the last bound count as that bound.
 */
function quantile(counts: Float64Array, share: number): number {
  const wanted = share * counts.reduce((sum, count) => sum + count, 0);
  let passed = 0;
  for (const [bucket, bound] of LATENCY_BOUNDS.entries()) {
    const count = counts[bucket] ?? 0;
    if (count > 0 && passed + count >= wanted) {
      const from = LATENCY_BOUNDS[bucket - 1] ?? 0;
      return from + (bound - from) * ((wanted - passed) / count);
    }
    passed += count;
  }
  return LATENCY_BOUNDS[LATENCY_BOUNDS.length - 1] ?? 0;
}

function count(counts: Float64Array, bucket: number): void {
  counts[bucket] = (counts[bucket] ?? 0) + 1;
}

function emptyBuckets(): Float64Array {
  return new Float64Array(LATENCY_BOUNDS.length + 1);
}
