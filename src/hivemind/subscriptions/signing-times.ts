const HOUR = 3_600;
/** This share of the newest is ignored: single devices may be wrong, or lie. */
const DISTRUST = 0.01;

/** When the stored subscriptions were signed, by the hour: evidence of what time it must be at least. */
export class SigningTimes {
  readonly #hours = new Map<number, number>();
  #total = 0;

  /** @param signedAt unix seconds */
  add(signedAt: number): void {
    const hour = Math.floor(signedAt / HOUR);
    this.#hours.set(hour, (this.#hours.get(hour) ?? 0) + 1);
    this.#total++;
  }

  /** The newest hour outside the newest hundredth, unix seconds; 0 if there are none. */
  newest(): number {
    let left = Math.floor(this.#total * DISTRUST);
    for (const [hour, count] of [...this.#hours].sort(([a], [b]) => b - a)) {
      left -= count;
      if (left < 0) return hour * HOUR;
    }
    return 0;
  }
}
