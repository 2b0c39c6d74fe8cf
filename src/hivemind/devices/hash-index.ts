/** A power of two. Each table grows on its own, so that no single insertion pays for the whole index. */
const TABLES = 256;
const FIRST_SLOTS = 8;

/**
 * A hash table from 32-bit hashes to numbers from 1 to 2^32 - 1, which stand for something stored elsewhere (0 marks an
 * empty slot). Open addressing with linear probing; a removal closes its gap, so churn leaves nothing behind.
 *
 * Takes 8 bytes a slot, 11 to 21 bytes an entry. The hash must be keyed: see {@link SipHash}.
 */
export class HashIndex {
  /** in each table: hash, value, hash, value… */
  readonly #tables: Uint32Array[] = [];
  readonly #counts = new Uint32Array(TABLES);
  #size = 0;
  /** The length of a table that holds its share of what is expected. */
  #expected = 0;

  constructor() {
    for (let n = 0; n < TABLES; n++) this.#tables.push(new Uint32Array(FIRST_SLOTS * 2));
  }

  get size(): number {
    return this.#size;
  }

  /**
   * Tells how many entries there will be, 0 if that is not known: tables that must grow then grow to that at once. To
   * grow by doubling takes a tenth of the CPU time of loading.
   */
  expect(entries: number): void {
    this.#expected = FIRST_SLOTS * 2;
    // The fullest of them has a few more than the mean.
    const share = entries / TABLES;
    while (this.#expected * 3 < (share + 4 * Math.sqrt(share)) * 8) this.#expected *= 2;
  }

  /** The first value under that hash for which `matches` holds, or 0. */
  find(hash: number, matches: (value: number) => boolean): number {
    const table = this.#tables[hash & (TABLES - 1)]!;
    const last = table.length - 1;
    for (let at = ((hash >>> 8) << 1) & last; ; at = (at + 2) & last) {
      const value = table[at + 1]!;
      if (value === 0) return 0;
      if (table[at] === hash && matches(value)) return value;
    }
  }

  add(hash: number, value: number): void {
    const which = hash & (TABLES - 1);
    let table = this.#tables[which]!;
    // At most three quarters full.
    if ((this.#counts[which]! + 1) * 8 > table.length * 3)
      table = this.#resize(which, Math.max(table.length * 2, this.#expected));
    place(table, hash, value);
    this.#counts[which]!++;
    this.#size++;
  }

  /** Replaces a value that is in the table. */
  replace(hash: number, value: number, by: number): void {
    const table = this.#tables[hash & (TABLES - 1)]!;
    table[slotOf(table, hash, value) + 1] = by;
  }

  /** Removes a value that is in the table. */
  remove(hash: number, value: number): void {
    const which = hash & (TABLES - 1);
    const table = this.#tables[which]!;
    const last = table.length - 1;
    let gap = slotOf(table, hash, value);
    // Close the gap: move up every entry that would no longer be found behind it.
    for (let at = (gap + 2) & last; table[at + 1] !== 0; at = (at + 2) & last) {
      const home = ((table[at]! >>> 8) << 1) & last;
      if (((at - home) & last) >= ((at - gap) & last)) {
        table[gap] = table[at]!;
        table[gap + 1] = table[at + 1]!;
        gap = at;
      }
    }
    table[gap + 1] = 0;
    this.#size--;
    const count = --this.#counts[which]!;
    if (table.length > FIRST_SLOTS * 2 && count * 16 < table.length) this.#resize(which, table.length / 2);
  }

  #resize(which: number, length: number): Uint32Array {
    const from = this.#tables[which]!;
    const to = new Uint32Array(length);
    for (let at = 0; at < from.length; at += 2) if (from[at + 1] !== 0) place(to, from[at]!, from[at + 1]!);
    this.#tables[which] = to;
    return to;
  }
}

function place(table: Uint32Array, hash: number, value: number): void {
  const last = table.length - 1;
  let at = ((hash >>> 8) << 1) & last;
  while (table[at + 1] !== 0) at = (at + 2) & last;
  table[at] = hash;
  table[at + 1] = value;
}

function slotOf(table: Uint32Array, hash: number, value: number): number {
  const last = table.length - 1;
  for (let at = ((hash >>> 8) << 1) & last; ; at = (at + 2) & last) {
    if (table[at + 1] === value && table[at] === hash) return at;
    if (table[at + 1] === 0) throw new Error('A value is not in the index under its hash');
  }
}
