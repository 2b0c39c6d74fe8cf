/**
 * The search for what is due among the accounts of one storage server. A walk visits every account once and can pause
 * anywhere: a request is built in slices, and the next request goes on where the last one ended, so that no account is
 * asked for twice before all have been.
 */
export class Walk {
  #isGoing = false;
  /** Whether another walk is wanted; when one begins in any case, and when an account is to be retried (seconds). */
  #isWanted = false;
  #nextAt = 0;
  #retryAt = Number.POSITIVE_INFINITY;
  /** The position in the list, how many accounts have been visited, and up to which second accounts count as due. */
  #cursor = 0;
  #seen = 0;
  #isOver = false;
  #horizon = 0;
  /** Whether no walk has begun since {@link restart}. */
  #isFirst = true;

  get isGoing(): boolean {
    return this.#isGoing;
  }

  /** Whether a walk is going on or another is wanted. */
  get hasWork(): boolean {
    return this.#isGoing || this.#isWanted;
  }

  /** {@link hasWork} as of this second, which may be one that a walk was to begin in. */
  hasWorkAt(now: number): boolean {
    if (this.#nextAt <= now || this.#retryAt <= now) this.#isWanted = true;
    return this.hasWork;
  }

  /** Another walk is wanted: something may be due that was not when this one passed it. */
  want(): void {
    this.#isWanted = true;
  }

  /** A walk is wanted in that second. */
  wantAt(second: number): void {
    this.#retryAt = Math.min(this.#retryAt, second);
  }

  /** An account has changed its position: this walk may have passed the new one already. */
  reordered(): void {
    if (this.#isGoing) this.#isWanted = true;
  }

  /**
   * Begins a walk in this second, or goes on with the current one.
   * @param position where the first walk since {@link restart} begins, below the count; later ones go on where the last
   *   one ended
   */
  begin(now: number, position = 0): void {
    if (this.#isGoing) return;
    if (this.#isFirst) this.#cursor = position;
    this.#isFirst = false;
    this.#isGoing = true;
    this.#seen = 0;
    this.#horizon = now;
    this.#isWanted = false;
    if (this.#retryAt <= now) this.#retryAt = Number.POSITIVE_INFINITY;
  }

  /**
   * Goes on to the next of the first `count` positions in `due` whose second has come, and stays there; {@link pass} it
   * before the next call.
   * @returns the position; undefined if there is none within `steps`
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

  /** Leaves the position that {@link next} found behind. */
  pass(): void {
    this.#seen++;
    this.#cursor++;
  }

  /** Whether the last {@link next} found that every account has been visited. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** Ends a walk that has visited every account. The next begins in that second, or when one is wanted. */
  end(nextAt: number): void {
    this.#isGoing = false;
    this.#nextAt = nextAt;
  }

  /** Gives the walk up where it is. */
  abandon(): void {
    this.#isGoing = false;
  }

  /** Gives the walk up because the request it found accounts for has failed: another has to find them again. */
  beginAnew(): void {
    this.#isGoing = false;
    this.#isWanted = true;
  }

  /** Starts over, with another list. */
  restart(): void {
    this.#isGoing = false;
    this.#isFirst = true;
    this.#retryAt = Number.POSITIVE_INFINITY;
  }
}
