import { KeyCounts } from '../key-counts.ts';

/**
 * A request takes one place, and another for every this many bytes: its cost to the hivemind grows with the devices in
 * it.
 */
const BYTES_A_PLACE = 8_000;
/**
 * A client may hold at most this many times the places that are left: one alone gets most of them, two share them, and
 * there is always something left for a third.
 */
const CLIENT_SHARE = 4;

/** The places for requests that wait for the hivemind. */
export interface Places {
  /**
   * Takes the places for a request.
   *
   * @param client who asks, as far as clients can be told apart; undefined if they cannot
   * @param bytes of the request
   * @returns a function that gives the places back; undefined if there are not enough
   */
  take(client: string | undefined, bytes: number): (() => void) | undefined;
}

/**
 * Gives out the places. Large requests get at most half of them, so that there is room for the small ones that phones
 * send, and no client can take all.
 *
 * @param limit how many places there are at the moment
 */
export function createPlaces(limit: () => number): Places {
  const held = new KeyCounts();
  let total = 0;
  let large = 0;

  function mayHave(key: string | undefined, weight: number): boolean {
    // However few places there are, one request of any size is always let in.
    if (total === 0) return limit() > 0;
    const left = limit() - total - weight;
    if (left < 0) return false;
    if (weight > 1 && large > 0 && large + weight > limit() / 2) return false;
    const has = key === undefined ? 0 : held.get(key);
    return has === 0 || has + weight <= CLIENT_SHARE * left;
  }

  function count(key: string | undefined, weight: number): void {
    total += weight;
    if (Math.abs(weight) > 1) large += weight;
    if (key !== undefined) held.add(key, weight);
  }

  return {
    take(client, bytes) {
      const weight = 1 + Math.floor(bytes / BYTES_A_PLACE);
      // Counted apart, so that large requests do not keep out small ones of the same address: many may be behind it.
      const key = client === undefined ? undefined : `${weight > 1 ? 'large' : 'small'} ${client}`;
      if (!mayHave(key, weight)) return undefined;
      count(key, weight);
      return () => count(key, -weight);
    },
  };
}
