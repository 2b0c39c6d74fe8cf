import { ALL_SLOTS, holdersOf } from '../../session/slots.ts';

/** The members that slots are divided among: alive and not leaving. Their ranking for each slot is worked out once. */
export class Holders {
  readonly names: readonly string[];
  readonly #ranked: readonly (readonly string[])[];

  /** @param names each once, in any order */
  constructor(names: readonly string[]) {
    this.names = names;
    this.#ranked = ALL_SLOTS.map((slot) => holdersOf(slot, names, names.length));
  }

  /** All of them, best first for that slot. */
  ranked(slot: number): readonly string[] {
    return this.#ranked[slot] ?? [];
  }

  /** The members that should hold that slot, best first: `copies` of them, if there are so many. */
  of(slot: number, copies: number): readonly string[] {
    return this.ranked(slot).slice(0, copies);
  }

  /** Whether these are the same names in the same order. */
  hasSame(names: readonly string[]): boolean {
    return names.length === this.names.length && names.every((name, n) => name === this.names[n]);
  }
}
