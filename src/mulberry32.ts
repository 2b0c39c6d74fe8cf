/**
 * Cheap, reproducible randomness, for spreading things in time and for tests; never for secrets.
 *
 * @param seed any 32-bit number
 * @returns a function that gives whole numbers, uniform from 0 to below 2^32, the same sequence for the same seed
 */
export function mulberry32(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (t ^ (t >>> 14)) >>> 0;
  };
}
