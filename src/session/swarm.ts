/** Which swarm keeps an account (docs/spec/network.md, section 2; test/vectors/swarm-space.json). */

/**
 * The id that stands for "no swarm": oxend lists nodes without a swarm under it.
 */
export const INVALID_SWARM: bigint = 2n ** 64n - 1n;

/**
 * The swarms of the network, laid out to find the closest one for millions of accounts in a row.
 *
 * The place of an account in the swarm space is an unsigned 64-bit number: the XOR of the four big-endian quarters of
 * its key. The prefix byte does not count.
 */
export class SwarmSpace {
  /** Ascending, without duplicates, without {@link INVALID_SWARM}. */
  readonly ids: readonly bigint[];
  // The upper and lower halves of the ids: comparing those as numbers is ten times as fast as comparing bigints.
  readonly #high: Uint32Array;
  readonly #low: Uint32Array;

  /** @param ids unsigned 64-bit, in any order; duplicates and {@link INVALID_SWARM} are left out */
  constructor(ids: readonly bigint[]) {
    this.ids = [...new Set(ids)].filter((id) => id !== INVALID_SWARM).sort((a, b) => (a < b ? -1 : 1));
    this.#high = Uint32Array.from(this.ids, (id) => Number(id >> 32n));
    this.#low = Uint32Array.from(this.ids, (id) => Number(id & 0xffffffffn));
  }

  /**
   * The swarm closest to an account by cyclic distance; of two at the same distance, the one below it.
   *
   * @param account holds the 33 bytes of an account id
   * @param offset where in `account` they begin
   * @returns its index in {@link ids}, or -1 if there are no swarms
   */
  closest(account: Uint8Array, offset = 0): number {
    const count = this.#high.length;
    if (count < 2) return count - 1;
    const high = quarters(account, offset + 1);
    const low = quarters(account, offset + 5);
    let first = 0;
    for (let end = count; first < end; ) {
      const middle = (first + end) >>> 1;
      const midHigh = this.#high[middle]!;
      if (midHigh < high || (midHigh === high && this.#low[middle]! < low)) first = middle + 1;
      else end = middle;
    }
    const right = first === count ? 0 : first;
    const left = right === 0 ? count - 1 : right - 1;
    // Differences modulo 2^64, in halves: the upper one borrows when the lower one wraps.
    const rightLow = this.#low[right]!;
    const leftLow = this.#low[left]!;
    const upHigh = (this.#high[right]! - high - (rightLow < low ? 1 : 0)) >>> 0;
    const downHigh = (high - this.#high[left]! - (low < leftLow ? 1 : 0)) >>> 0;
    if (upHigh !== downHigh) return upHigh < downHigh ? right : left;
    return (rightLow - low) >>> 0 < (low - leftLow) >>> 0 ? right : left;
  }
}

/** The XOR of four big-endian 32-bit numbers that lie 8 bytes apart: half of an account's place. */
function quarters(bytes: Uint8Array, at: number): number {
  let result = 0;
  for (let quarter = 0; quarter < 4; quarter++, at += 8) {
    result ^= (bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!;
  }
  return result >>> 0;
}
