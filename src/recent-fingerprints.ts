import type { Clock } from './clock.ts';

/** A power of two. Each table grows by itself, so that no single entry pays for the whole set. */
const TABLES = 256;
const FIRST_SLOTS = 16;

/**
 * 64-bit keyed fingerprints that were added recently, in two generations. New ones go into the current generation;
 * after each lifetime it becomes the previous one, and the one before that is forgotten. So an entry lives for one to
 * two lifetimes. It takes 11 to 21 bytes: slots have 8 bytes, and three eighths to three quarters of them are in use.
 * Among a million entries a look-up finds a wrong one once in 10^13.
 */
export class RecentFingerprints {
  /** Milliseconds after which the generations change; may be changed at any time. */
  lifetime: number;
  readonly #clock: Pick<Clock, 'monotonic'>;
  readonly #maxEntries: number;
  #current = new FingerprintSet();
  #previous = new FingerprintSet();
  #rotatedAt: number;

  /**
   * @param lifetime milliseconds
   * @param maxEntries of one generation, which ends early when it has so many
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
    // After two lifetimes without a call, the current generation has expired as well.
    this.#previous = age < 2 * this.lifetime ? this.#current : new FingerprintSet();
    this.#current = new FingerprintSet();
    this.#rotatedAt = now;
  }
}

/**
 * A set of 64-bit numbers in two halves, each pair in a slot of two words. A low half of 0 marks an empty slot, so 0 is
 * stored as 1 there.
 */
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

/** The index of the empty slot where that number belongs; -1 if the table has it. */
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
