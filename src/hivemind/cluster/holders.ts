import { holdersOf, SLOTS } from '../../session/slots.ts';

/** The members that are to hold slots: who lives and is not leaving. Ranked for every slot once, for many to ask. */
export class Holders {
  readonly names: readonly string[];
  readonly #ranked: readonly (readonly string[])[];

  /** @param names each once, in any order */
  constructor(names: readonly string[]) {
    this.names = names;
    this.#ranked = Array.from({ length: SLOTS }, (_, slot) => holdersOf(slot, names, names.length));
  }

  /** All of them, the best for that slot first. */
  ranked(slot: number): readonly string[] {
    return this.#ranked[slot] ?? [];
  }

  /** Those that are to hold that slot, if it has so many holders; the best first. */
  of(slot: number, copies: number): readonly string[] {
    return this.ranked(slot).slice(0, copies);
  }

  /** Whether these are they. */
  are(names: readonly string[]): boolean {
    return names.length === this.names.length && names.every((name, n) => name === this.names[n]);
  }
}
