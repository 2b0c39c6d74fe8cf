/**
 * The search through the accounts of one storage server for what is due. A walk sees every account once, and may be
 * interrupted at any place: a request is built in slices, and the next one goes on where the last one ended, so that
 * none is asked for twice before all were.
 */
export class Walk {
  #isGoing = false;
  /** Another walk is wanted; when (seconds) one is in any case; and when an account is to be tried again. */
  #isWanted = false;
  #nextAt = 0;
  #retryAt = Number.POSITIVE_INFINITY;
  /** The place in the list, how many were seen, and up to which second what is due counts. */
  #cursor = 0;
  #seen = 0;
  #isOver = false;
  #horizon = 0;

  get isGoing(): boolean {
    return this.#isGoing;
  }

  /** Whether there is something to look for, or the present walk has not come to its end. */
  get hasWork(): boolean {
    return this.#isGoing || this.#isWanted;
  }

  /** The same in this second. */
  hasWorkAt(now: number): boolean {
    if (this.#nextAt <= now || this.#retryAt <= now) this.#isWanted = true;
    return this.hasWork;
  }

  /** Something may be due that was not when the present walk passed by. */
  want(): void {
    this.#isWanted = true;
  }

  wantAt(second: number): void {
    this.#retryAt = Math.min(this.#retryAt, second);
  }

  /** An account changed its place: the present walk may have been beyond it. */
  reordered(): void {
    if (this.#isGoing) this.#isWanted = true;
  }

  /** Begins a walk at this second, or goes on with the present one. */
  begin(now: number): void {
    if (this.#isGoing) return;
    this.#isGoing = true;
    this.#seen = 0;
    this.#horizon = now;
    this.#isWanted = false;
    if (this.#retryAt <= now) this.#retryAt = Number.POSITIVE_INFINITY;
  }

  /**
   * The next place of the first `count` in `due` whose second has come, where the walk stays; undefined if none is
   * within `steps`.
   */
  next(due: Uint32Array, count: number, steps: number): number | undefined {
    const horizon = this.#horizon;
    let cursor = this.#cursor;
    let seen = this.#seen;
    const end = Math.min(seen + steps, count);
    let found: number | undefined;
    for (; seen < end; seen++, cursor++) {
      if (cursor >= count) cursor = 0;
      if (due[cursor]! <= horizon) {
        found = cursor;
        break;
      }
    }
    this.#cursor = cursor;
    this.#seen = seen;
    this.#isOver = seen >= count;
    return found;
  }

  /** Goes past the place where it stays. */
  pass(): void {
    this.#seen++;
    this.#cursor++;
  }

  /** Whether it had seen every account when it last looked for the {@link next}. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** It has seen every account; the next one begins at that second, if nothing wants one before. */
  end(nextAt: number): void {
    this.#isGoing = false;
    this.#nextAt = nextAt;
  }

  /** Is given up where it is. */
  abandon(): void {
    this.#isGoing = false;
  }

  /** Is given up, because nothing came of what it found: another one has to find that again. */
  beginAnew(): void {
    this.#isGoing = false;
    this.#isWanted = true;
  }

  /** The list is another one: nothing of an earlier walk holds. */
  restart(): void {
    this.#isGoing = false;
    this.#cursor = 0;
    this.#retryAt = Number.POSITIVE_INFINITY;
  }
}
