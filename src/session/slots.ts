/**
 * How several hiveminds divide the work among them (docs/decisions/18): each slot is one of 256 contiguous ranges of
 * swarm space. Who holds a slot is not stored anywhere: every member computes it from the names of those alive.
 */

import { ACCOUNT_SIZE } from './account.ts';
import { SwarmSpace } from './swarm.ts';

export const SLOTS = 256;
/** 0 to 255. */
export const ALL_SLOTS: readonly number[] = Array.from({ length: SLOTS }, (_, slot) => slot);

/**
 * The slot of an account, 0 to 255: the upper eight bits of its place in swarm space (session/swarm.ts).
 *
 * @param account holds the 33 bytes of an account id
 * @param offset where in `account` they begin
 */
export function slotOf(account: Uint8Array, offset = 0): number {
  const at = offset + 1;
  return account[at]! ^ account[at + 8]! ^ account[at + 16]! ^ account[at + 24]!;
}

/**
 * Who is to hold a slot, best first: the `copies` names that rank highest for it (rendezvous hashing), so that when a
 * member goes only its slots move.
 *
 * @param names of the hiveminds alive, each once, in any order
 */
export function holdersOf(slot: number, names: readonly string[], copies: number): string[] {
  return names
    .map((name) => ({ name, rank: rankOf(slot, name) }))
    .sort((a, b) => b.rank - a.rank || (a.name < b.name ? -1 : 1))
    .slice(0, copies)
    .map(({ name }) => name);
}

/**
 * The swarms that keep accounts of these slots: a swarm keeps the accounts closest to its id, so it may reach into the
 * slots on both sides.
 *
 * @param ids of all swarms of the network
 */
export function swarmsOfSlots(ids: readonly bigint[], slots: Iterable<number>): Set<bigint> {
  const space = new SwarmSpace(ids);
  const inSlot = Map.groupBy(space.ids, (id) => Number(id >> 56n));
  const swarms = new Set<bigint>();
  const edge = Buffer.alloc(ACCOUNT_SIZE);
  for (const slot of slots) {
    for (const id of inSlot.get(slot) ?? []) swarms.add(id);
    for (const rest of [0x00, 0xff]) {
      edge.fill(rest, 2, 9)[1] = slot;
      const closest = space.ids[space.closest(edge)];
      if (closest !== undefined) swarms.add(closest);
    }
  }
  return swarms;
}

/** FNV-1a over the name and the slot, finished as in MurmurHash3: FNV alone gives similar names similar ranks. */
function rankOf(slot: number, name: string): number {
  let hash = 0x811c9dc5;
  for (const byte of Buffer.from(name)) hash = Math.imul(hash ^ byte, 0x01000193);
  hash = Math.imul(hash ^ slot, 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
