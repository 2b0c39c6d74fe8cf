import type { Arena } from './arena.ts';
import { HashIndex } from './hash-index.ts';
import type { SipHash } from './siphash.ts';

/**
 * The 32-bit words at the head of a set: how many records use it, how many namespaces it has, and the size of their
 * bencoding in bytes.
 */
const USES = 0;
const COUNT = 1;
const ENCODED = 2;
/** A 64-bit filter in which each namespace sets one bit: a set that lacks a bit of another does not include it. */
const LOW_BITS = 3;
const HIGH_BITS = 4;
const HEAD = 5 * 4;

const I = 0x69;
const E = 0x65;
const MINUS = 0x2d;
/** Added to namespaces, which makes them unsigned and keeps their order. */
const BIAS = 32_768;

/**
 * The sets of namespaces that subscriptions ask for. Each is stored once: nearly all subscriptions ask for one of a
 * handful, and two ask for the same exactly if they have the same reference. A set lies in packed memory, as 16 bits
 * for each namespace and then as it is sent to storage servers (`i0ei3e`).
 */
export class NamespaceSets {
  readonly #arena: Arena;
  readonly #hash: SipHash;
  readonly #byContent = new HashIndex();
  /** The set that {@link #isSought} compares with, in the stored form. */
  readonly #sought = Buffer.alloc(65_536 * 2);
  #soughtSize = 0;
  readonly #isSought = (set: number) => this.#equals(set);

  constructor(arena: Arena, hash: SipHash) {
    this.#arena = arena;
    this.#hash = hash;
  }

  /** How many different sets there are. */
  get size(): number {
    return this.#byContent.size;
  }

  /**
   * Finds or makes the set of these namespaces, and counts one more use of it.
   *
   * @param namespaces ascending, each within int16
   * @returns a reference to the set, never 0
   */
  take(namespaces: readonly number[]): number {
    const count = namespaces.length;
    for (let n = 0; n < count; n++) {
      const value = namespaces[n]! + BIAS;
      this.#sought[2 * n] = value & 255;
      this.#sought[2 * n + 1] = value >> 8;
    }
    this.#soughtSize = count * 2;
    const hash = this.#hash.bytes(this.#sought, 0, count * 2);
    let set = this.#byContent.find(hash, this.#isSought);
    if (set === 0) {
      set = this.#write(namespaces);
      this.#byContent.add(hash, set);
    }
    this.#arena.words(set)[this.#arena.offset(set) / 4 + USES]!++;
    return set;
  }

  /** Ends one use of a set, and frees it with its last. */
  release(set: number): void {
    const words = this.#arena.words(set);
    if (--words[this.#arena.offset(set) / 4 + USES]! > 0) return;
    const at = this.#arena.offset(set) + HEAD;
    this.#byContent.remove(this.#hash.bytes(this.#arena.bytes(set), at, at + 2 * this.count(set)), set);
    this.#arena.free(set);
  }

  count(set: number): number {
    return this.#word(set, COUNT);
  }

  /** The buffer that holds the set: its bencoded integers, without a list around them, are at {@link encodedAt}. */
  bytes(set: number): Buffer {
    return this.#arena.bytes(set);
  }

  encodedAt(set: number): number {
    return this.#arena.offset(set) + HEAD + 2 * this.count(set);
  }

  encodedSize(set: number): number {
    return this.#word(set, ENCODED);
  }

  /** Whether the set has this namespace; at most 16 steps. */
  has(set: number, namespace: number): boolean {
    const bytes = this.#arena.bytes(set);
    const start = this.#arena.offset(set) + HEAD;
    const sought = namespace + BIAS;
    let low = 0;
    let high = this.count(set);
    while (low < high) {
      const middle = (low + high) >> 1;
      if (valueAt(bytes, start + 2 * middle) < sought) low = middle + 1;
      else high = middle;
    }
    return low < this.count(set) && valueAt(bytes, start + 2 * low) === sought;
  }

  /** Whether all of `b` is in `a`. Takes as many steps as `a` has namespaces at worst. */
  includes(a: number, b: number): boolean {
    if (a === b) return true;
    const aCount = this.count(a);
    const bCount = this.count(b);
    if (aCount <= bCount) return false;
    if ((this.#word(b, LOW_BITS) & ~this.#word(a, LOW_BITS)) !== 0) return false;
    if ((this.#word(b, HIGH_BITS) & ~this.#word(a, HIGH_BITS)) !== 0) return false;
    const aBytes = this.#arena.bytes(a);
    const bBytes = this.#arena.bytes(b);
    let aAt = this.#arena.offset(a) + HEAD;
    let bAt = this.#arena.offset(b) + HEAD;
    const bEnd = bAt + 2 * bCount;
    // How many of `a` may be skipped before fewer are left than `b` needs.
    for (let spare = aCount - bCount; bAt < bEnd; aAt += 2) {
      if (valueAt(aBytes, aAt) === valueAt(bBytes, bAt)) bAt += 2;
      else if (--spare < 0) return false;
    }
    return true;
  }

  /** The namespaces in a new array, ascending. */
  list(set: number): number[] {
    const bytes = this.#arena.bytes(set);
    const start = this.#arena.offset(set) + HEAD;
    return Array.from({ length: this.count(set) }, (_, n) => valueAt(bytes, start + 2 * n) - BIAS);
  }

  #write(namespaces: readonly number[]): number {
    let size = 0;
    for (const namespace of namespaces) size += 2 + digits(Math.abs(namespace)) + (namespace < 0 ? 1 : 0);
    const set = this.#arena.alloc(HEAD + this.#soughtSize + size);
    const words = this.#arena.words(set);
    const head = this.#arena.offset(set) / 4;
    words[head + USES] = 0;
    words[head + COUNT] = namespaces.length;
    words[head + ENCODED] = size;
    words[head + LOW_BITS] = 0;
    words[head + HIGH_BITS] = 0;
    for (const namespace of namespaces) {
      words[head + ((namespace & 32) === 0 ? LOW_BITS : HIGH_BITS)]! |= 1 << (namespace & 31);
    }
    const bytes = this.#arena.bytes(set);
    const at = this.#arena.offset(set) + HEAD;
    this.#sought.copy(bytes, at, 0, this.#soughtSize);
    encode(namespaces, bytes, at + this.#soughtSize);
    return set;
  }

  #equals(set: number): boolean {
    const size = this.#soughtSize;
    if (this.count(set) * 2 !== size) return false;
    const bytes = this.#arena.bytes(set);
    const at = this.#arena.offset(set) + HEAD;
    for (let n = 0; n < size; n++) if (bytes[at + n] !== this.#sought[n]) return false;
    return true;
  }

  #word(set: number, word: number): number {
    return this.#arena.words(set)[this.#arena.offset(set) / 4 + word]!;
  }
}

function valueAt(bytes: Buffer, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8);
}

/** Writes the namespaces as bencoded integers. */
function encode(namespaces: readonly number[], to: Buffer, at: number): void {
  for (const namespace of namespaces) {
    to[at++] = I;
    if (namespace < 0) to[at++] = MINUS;
    at = writeDigits(to, at, Math.abs(namespace));
    to[at++] = E;
  }
}

/** Writes a number below 2^32 in decimal digits. @returns the offset after them */
export function writeDigits(to: Buffer, at: number, value: number): number {
  const end = at + digits(value);
  // Kept an unsigned 32-bit integer, so that V8 divides by multiplying.
  let rest = value >>> 0;
  for (let n = end - 1; n >= at; n--) {
    const next = (rest / 10) >>> 0;
    to[n] = 0x30 + (rest - next * 10);
    rest = next;
  }
  return end;
}

/** How many decimal digits a number below 2^32 has. */
export function digits(value: number): number {
  // The common case: unix seconds.
  if (value >= 1e9) return 10;
  let count = 1;
  for (let limit = 10; value >= limit; limit *= 10) count++;
  return count;
}
