import { ALL_SLOTS } from '../../session/slots.ts';
import type { Duty } from '../notifications/copies/duty.ts';
import type { Holders } from './holders.ts';
import { coversOf, firstOfSlots, type KnownMember } from './roster.ts';

/** What {@link Duties.update} goes by. */
export interface DutyInput {
  /** All known members, ourselves included. */
  readonly members: readonly KnownMember[];
  readonly holders: Holders;
  /** How many members should hold each slot. */
  readonly copies: number;
  /** The slots that we cover; our own row may be out of date. */
  readonly covered: ReadonlySet<number>;
}

/** Works out who sends the pushes of which slot, each time the members or what they cover change. */
export class Duties implements Duty {
  readonly own: string;
  /** The runs of the living members, by name. */
  #living: ReadonlyMap<string, bigint> = new Map();
  #first: readonly string[] = [];
  #others: readonly (readonly string[])[] = [];
  readonly #listeners = new Set<() => void>();

  /** @param own our name */
  constructor(own: string) {
    this.own = own;
  }

  firstOf(slot: number): string | undefined {
    return this.#first[slot] || undefined;
  }

  othersOf(slot: number): readonly string[] {
    return this.#others[slot] ?? [];
  }

  isLiving(name: string, run?: bigint): boolean {
    const living = this.#living.get(name);
    return living !== undefined && (run === undefined || run === living);
  }

  onChange(listener: () => void): void {
    this.#listeners.add(listener);
  }

  /** Works everything out anew, and calls the listeners if any answer has changed. */
  update({ members, holders, copies, covered }: DutyInput): void {
    const { own } = this;
    const covers = coversOf(members, own, covered);
    const living = new Map(members.filter((member) => member.living).map(({ name, run }) => [name, run]));
    const first = firstOfSlots(holders, covers);
    const others = ALL_SLOTS.map((slot) => {
      const owners = holders.of(slot, copies);
      return [...living.keys()].filter((name) => name !== own && (owners.includes(name) || covers(name, slot)));
    });
    const isSame =
      living.size === this.#living.size &&
      [...living].every(([name, run]) => this.#living.get(name) === run) &&
      sameNames(first, this.#first) &&
      others.every((names, slot) => sameNames(names, this.othersOf(slot)));
    this.#living = living;
    this.#first = first;
    this.#others = others;
    if (!isSame) for (const listener of this.#listeners) listener();
  }
}

function sameNames(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((name, n) => name === b[n]);
}
