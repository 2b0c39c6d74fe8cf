/**
 * A request counts as one place, and as one more for each so many bytes: what it costs the hivemind goes by the devices
 * in it.
 */
const BYTES_A_PLACE = 8_000;
/**
 * A client may have so many times what is left: one alone gets most, two share, and there is always something left for
 * a third.
 */
const CLIENT_SHARE = 4;

/** The places for requests that wait for the hivemind. */
export interface Places {
  /**
   * @param client who asks, as far as clients can be told apart; undefined if they cannot
   * @returns what gives the place back; undefined if there is none
   */
  take(client: string | undefined, bytes: number): (() => void) | undefined;
}

/**
 * Gives the places to whole requests. Large ones get half of them at most, so that there is room for the small ones
 * which phones send, and none is left to one client alone.
 *
 * @param limit how many there are, at this moment
 */
export function createPlaces(limit: () => number): Places {
  const held = new Map<string, number>();
  let total = 0;
  let large = 0;

  function mayHave(key: string | undefined, weight: number): boolean {
    // However few there are, the largest request can have them.
    if (total === 0) return limit() > 0;
    const left = limit() - total - weight;
    if (left < 0) return false;
    if (weight > 1 && large > 0 && large + weight > limit() / 2) return false;
    const has = key === undefined ? 0 : (held.get(key) ?? 0);
    return has === 0 || has + weight <= CLIENT_SHARE * left;
  }

  function count(key: string | undefined, weight: number): void {
    total += weight;
    if (Math.abs(weight) > 1) large += weight;
    if (key === undefined) return;
    const now = (held.get(key) ?? 0) + weight;
    if (now > 0) held.set(key, now);
    else held.delete(key);
  }

  return {
    take(client, bytes) {
      const weight = 1 + Math.floor(bytes / BYTES_A_PLACE);
      // Its large requests do not keep a client from small ones: many may be behind one address.
      const key = client === undefined ? undefined : `${weight > 1 ? 'large' : 'small'} ${client}`;
      if (!mayHave(key, weight)) return undefined;
      count(key, weight);
      return () => count(key, -weight);
    },
  };
}
