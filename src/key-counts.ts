/** Counts by key. A key that is back at 0 takes no memory. */
export class KeyCounts<K = string> {
  readonly #counts = new Map<K, number>();

  /** How many keys have a count. */
  get size(): number {
    return this.#counts.size;
  }

  /** The count of a key, 0 at first. */
  get(key: K): number {
    return this.#counts.get(key) ?? 0;
  }

  /** Adds to the count of a key, which must not become negative. */
  add(key: K, by: number): void {
    const count = this.get(key) + by;
    if (count > 0) this.#counts.set(key, count);
    else this.#counts.delete(key);
  }

  keys(): Iterable<K> {
    return this.#counts.keys();
  }
}
