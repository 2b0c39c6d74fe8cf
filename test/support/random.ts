import { mulberry32 } from '../../src/mulberry32.ts';

/** Random numbers that are the same for the same seed, so that a failure can be replayed. */
export interface Random {
  readonly seed: number;
  /** An integer from 0 to below `below`. */
  int(below: number): number;
  bytes(size: number): Buffer;
  pick<T>(list: readonly T[]): T;
}

/** The seed is taken from SPNS_TEST_SEED if that is set. */
export function seededRandom(seed = Number(process.env.SPNS_TEST_SEED ?? Math.floor(Math.random() * 2 ** 32))): Random {
  const next = mulberry32(seed);
  return {
    seed,
    int: (below) => Math.floor((next() / 2 ** 32) * below),
    bytes(size) {
      const bytes = Buffer.alloc(size);
      for (let at = 0; at < size; at++) bytes[at] = next() & 255;
      return bytes;
    },
    pick: (list) => list[Math.floor((next() / 2 ** 32) * list.length)]!,
  };
}
