import { ALL_SLOTS } from '../../session/slots.ts';
import type { Holders } from './holders.ts';

/**
 * How long (ms) a living first may leave a slot uncovered before we ask all servers again: each new account leaves its
 * slot uncovered for a moment, and servers go on reporting for an hour after they were asked.
 */
const DOUBT = 10_000;

/** What {@link SparedSlots.update} goes by. */
export interface SparingInput {
  /** Our name. */
  readonly own: string;
  /** How many members should hold each slot. */
  readonly copies: number;
  readonly holders: Holders;
  /** The member that sends first in that slot. */
  readonly firstOf: (slot: number) => string | undefined;
  readonly covers: (name: string, slot: number) => boolean;
}

/**
 * In which slots we ask fewer storage servers, because another hivemind sends first ({@link Sparing}):
 *
 *     what is known                                               fewer are asked
 *     copies = 1                                                  no
 *     another hivemind is first, and covers the slot              yes
 *     the one that was first is dead, or about to stop            no, unless another one is first and covers it
 *     the one that was first lives, and does not cover the slot   as before, for ten seconds
 *     we are first, or nobody was                                 no
 */
export class SparedSlots {
  /** By slot: the first that we rely on, and since when (monotonic ms) it has not covered the slot. */
  readonly #spared = new Map<number, { readonly first: string; readonly doubtedSince: number | undefined }>();

  /**
   * Works the slots out anew.
   *
   * @param now monotonic, ms
   * @returns all spared slots if they have changed, else undefined
   */
  update(input: SparingInput, now: number): ReadonlySet<number> | undefined {
    let isChanged = false;
    for (const slot of ALL_SLOTS) {
      const before = this.#spared.get(slot);
      const after = relyOn(input, slot, before, now);
      if (after) this.#spared.set(slot, after);
      else this.#spared.delete(slot);
      if ((before === undefined) !== (after === undefined)) isChanged = true;
    }
    return isChanged ? new Set(this.#spared.keys()) : undefined;
  }

  has(slot: number): boolean {
    return this.#spared.has(slot);
  }
}

function relyOn(
  { own, copies, holders, firstOf, covers }: SparingInput,
  slot: number,
  before: { readonly first: string; readonly doubtedSince: number | undefined } | undefined,
  now: number,
): typeof before {
  if (copies === 1) return undefined;
  const first = firstOf(slot);
  if (first !== undefined && first !== own && covers(first, slot)) return { first, doubtedSince: undefined };
  if (!before || !holders.names.includes(before.first) || covers(before.first, slot)) return undefined;
  const doubtedSince = before.doubtedSince ?? now;
  return now - doubtedSince < DOUBT ? { first: before.first, doubtedSince } : undefined;
}
