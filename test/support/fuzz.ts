import assert from 'node:assert/strict';
import { BencodeError } from '../../src/codec/bencode.ts';
import { mulberry32 } from '../../src/mulberry32.ts';

/** Seeded noise for parsers: the same seed does the same damage, so that a failure can be replayed. */
export interface Fuzz {
  /** A whole number from 0 to below `limit`. */
  below(limit: number): number;
  /** Random bytes. */
  bytes(length: number): Buffer;
  /** A copy with some bits flipped, bytes removed, repeated or inserted, or its end cut off. */
  damage(data: Uint8Array): Buffer;
}

/** @param seed any 32-bit number; the same seed gives the same sequence */
export function createFuzz(seed: number): Fuzz {
  const next = mulberry32(seed);
  const below = (limit: number): number => Math.floor((next() / 2 ** 32) * limit);
  const bytes = (length: number): Buffer => Buffer.from(Array.from({ length }, () => below(256)));
  const damage = (data: Uint8Array): Buffer => {
    let result = Buffer.from(data);
    for (let times = 1 + below(3); times > 0; times--) {
      const at = below(result.length + 1);
      const end = Math.min(result.length, at + 1 + below(4));
      const kind = below(5);
      if (kind === 0 && result.length > 0) result[Math.min(at, result.length - 1)]! ^= 1 << below(8);
      else if (kind === 1) result = result.subarray(0, at);
      else if (kind === 2) result = Buffer.concat([result.subarray(0, at), result.subarray(end)]);
      else if (kind === 3) result = Buffer.concat([result.subarray(0, end), result.subarray(at)]);
      else result = Buffer.concat([result.subarray(0, at), bytes(1 + below(4)), result.subarray(at)]);
    }
    return result;
  };
  return { below, bytes, damage };
}

/**
 * Runs `check` with many seeds, and names the seed in the error of the one that fails.
 *
 * @param rounds how many; the first seed is new for each run unless FUZZ_SEED names one
 */
export function fuzz(rounds: number, check: (fuzz: Fuzz) => void): void {
  const first = Number(process.env.FUZZ_SEED ?? Math.floor(Math.random() * 2 ** 31));
  for (let seed = first; seed < first + rounds; seed++) {
    try {
      check(createFuzz(seed));
    } catch (error) {
      throw new Error(`failed with FUZZ_SEED=${seed}`, { cause: error });
    }
  }
}

/**
 * Checks that a decoder of bencoded messages refuses every prefix of `intact` and each of `wrong`, and throws nothing
 * but BencodeError for damaged copies.
 */
export function refusesDamage(decode: (data: Buffer) => unknown, intact: Buffer, wrong: readonly string[]): void {
  for (let length = 0; length < intact.length; length++) {
    assert.throws(() => decode(intact.subarray(0, length)), BencodeError);
  }
  for (const text of wrong) assert.throws(() => decode(Buffer.from(text)), BencodeError, text);
  fuzz(3_000, (random) => {
    try {
      decode(random.damage(intact));
    } catch (error) {
      assert.ok(error instanceof BencodeError);
    }
  });
}
