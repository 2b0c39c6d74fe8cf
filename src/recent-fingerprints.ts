import type { Clock } from './clock.ts';

/** A power of two. Each table grows by itself, so that no single entry pays for the whole set. */
const TABLES = 256;
const FIRST_SLOTS = 16;

/**
 * 64-bit keyed fingerprints that were added lately, in two generations: what is added goes to the current one; after
 * each lifetime the current becomes the previous, whose entries are forgotten. So an entry lives for one to two
 * lifetimes. It costs 8 bytes a slot, 11 to 21 bytes in all. In a million entries a look-up errs once in 10^13.
 */
export class RecentFingerprints {
  /** Milliseconds after which the generations change; may be set anew at any time. */
  lifetime: number;
  readonly #clock: Pick<Clock, 'monotonic'>;
  readonly #maxEntries: number;
  #current = new FingerprintSet();
  #previous = new FingerprintSet();
  #rotatedAt: number;

  /**
   * @param lifetime milliseconds
   * @param maxEntries of one generation; with more it ends before its time
   */
  constructor(clock: Pick<Clock, 'monotonic'>, lifetime: number, maxEntries: number) {
    this.#clock = clock;
    this.#maxEntries = maxEntries;
    this.lifetime = lifetime;
    this.#rotatedAt = clock.monotonic();
  }

  /** Entries in both generations. */
  get size(): number {
    return this.#current.size + this.#previous.size;
  }

  /** The fingerprint in two halves of 32 bits, unsigned. */
  has(low: number, high: number): boolean {
    this.#rotate();
    return this.#current.has(low, high) || this.#previous.has(low, high);
  }

  /** As {@link has}. */
  add(low: number, high: number): void {
    this.#rotate();
    this.#current.add(low, high);
  }

  #rotate(): void {
    const now = this.#clock.monotonic();
    const age = now - this.#rotatedAt;
    if (age < this.lifetime && this.#current.size < this.#maxEntries) return;
    // Nobody asked for so long that the current generation is past its time as well.
    this.#previous = age < 2 * this.lifetime ? this.#current : new FingerprintSet();
    this.#current = new FingerprintSet();
    this.#rotatedAt = now;
  }
}

/** A set of 64-bit numbers in two halves. Slots of two words; 0, 0 is an empty one, and the number 0 counts as 1. */
class FingerprintSet {
  readonly #tables: Uint32Array[] = [];
  readonly #counts = new Uint32Array(TABLES);
  size = 0;

  constructor() {
    for (let n = 0; n < TABLES; n++) this.#tables.push(new Uint32Array(FIRST_SLOTS * 2));
  }

  has(low: number, high: number): boolean {
    return find(this.#tables[low & (TABLES - 1)]!, low || 1, high) < 0;
  }

  add(low: number, high: number): void {
    const which = low & (TABLES - 1);
    let table = this.#tables[which]!;
    low ||= 1;
    let slot = find(table, low, high);
    if (slot < 0) return;
    if ((this.#counts[which]! + 1) * 8 > table.length * 3) {
      table = grow(table);
      this.#tables[which] = table;
      slot = find(table, low, high);
    }
    table[slot] = low;
    table[slot + 1] = high;
    this.#counts[which]!++;
    this.size++;
  }
}

/** The empty slot where that number belongs; -1 if it is there. */
function find(table: Uint32Array, low: number, high: number): number {
  const last = table.length - 1;
  for (let at = (high << 1) & last; ; at = (at + 2) & last) {
    const here = table[at]!;
    if (here === 0) return at;
    if (here === low && table[at + 1] === high) return -1;
  }
}

function grow(from: Uint32Array): Uint32Array {
  const to = new Uint32Array(from.length * 2);
  for (let at = 0; at < from.length; at += 2) {
    const low = from[at]!;
    if (low === 0) continue;
    const slot = find(to, low, from[at + 1]!);
    to[slot] = low;
    to[slot + 1] = from[at + 1]!;
  }
  return to;
}
