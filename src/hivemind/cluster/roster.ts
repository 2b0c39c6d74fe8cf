import type { Clock } from '../../clock.ts';
import { ALL_SLOTS, SLOTS } from '../../session/slots.ts';
import type { MemberRow } from '../store/cluster-store.ts';
import type { Holders } from './holders.ts';

/** How often a member writes its heartbeat, in ms. */
export const BEAT = 1_000;
/** A member without a heartbeat for this long, in ms by the database's clock, is dead. */
const DEAD_AFTER = 3_000;
/**
 * Only a member whose own heartbeats have succeeded without a break for this long (ms) may call others dead: after an
 * outage of the database everybody looks dead to the first one back.
 */
const JUDGES_AFTER = DEAD_AFTER + BEAT;
/** The longest pause (ms) between two of our heartbeats that does not count as a break. */
const UNBROKEN = 2 * BEAT;
/** Until we may judge, a run not judged before counts as alive if its last heartbeat is no older than this (ms). */
const BENEFIT = 30_000;

/** A member's row in the database, and whether we take it to be alive. */
export interface KnownMember extends MemberRow {
  readonly living: boolean;
}

/**
 * Which members of the cluster are alive, judged by their heartbeats in the database. A wrong judgement neither loses a
 * push nor rings a phone twice: a second copy is held or sent needlessly, no more.
 */
export class Roster {
  readonly #clock: Pick<Clock, 'monotonic'>;
  readonly #own: string;
  #members = new Map<string, KnownMember>();
  /** Since when our heartbeats have come without a break, and the last of them; monotonic ms. */
  #unbrokenSince: number | undefined;
  #beatAt = Number.NEGATIVE_INFINITY;

  /** @param own our name */
  constructor(clock: Pick<Clock, 'monotonic'>, own: string) {
    this.#clock = clock;
    this.#own = own;
  }

  /** All members seen within the last hour or so, sorted by name, ourselves included. */
  get members(): readonly KnownMember[] {
    return [...this.#members.values()];
  }

  /** The names of the members that slots are divided among: those that are alive and not leaving. */
  get holders(): string[] {
    return this.members.filter(({ living, state }) => living && state !== 'leaving').map(({ name }) => name);
  }

  /**
   * Takes over the rows that came back with our heartbeat.
   *
   * @param now the database's clock, unix ms
   * @returns whether anything but the times has changed
   */
  take(now: number, rows: readonly MemberRow[]): boolean {
    const at = this.#clock.monotonic();
    if (this.#unbrokenSince === undefined || at - this.#beatAt > UNBROKEN) this.#unbrokenSince = at;
    this.#beatAt = at;
    const isJudge = at - this.#unbrokenSince >= JUDGES_AFTER;
    const before = this.#members;
    this.#members = new Map(
      rows.map((row) => [
        row.name,
        { ...row, living: this.#lives(row, now - row.seen, isJudge, before.get(row.name)) },
      ]),
    );
    return !sameMembers(before, this.#members);
  }

  #lives({ name, state, run }: MemberRow, age: number, isJudge: boolean, before: KnownMember | undefined): boolean {
    if (name === this.#own) return true;
    if (state === 'stopped') return false;
    if (age <= DEAD_AFTER) return true;
    if (isJudge) return false;
    // A run that has not been judged yet gets the benefit of the doubt.
    return before !== undefined && before.run === run ? before.living : age <= BENEFIT;
  }
}

/**
 * The member that sends first, for each slot: the highest-ranked of those that cover it, or of all while none does.
 * Empty where there is no member.
 *
 * @param covers whether that member covers the slot
 */
export function firstOfSlots(holders: Holders, covers: (name: string, slot: number) => boolean): string[] {
  return ALL_SLOTS.map((slot) => {
    const ranked = holders.ranked(slot);
    return ranked.find((name) => covers(name, slot)) ?? ranked[0] ?? '';
  });
}

/** Whether a member's row says that it covers the slot. */
export function coversSlot({ covers }: Pick<MemberRow, 'covers'>, slot: number): boolean {
  return hasSlot(covers, slot);
}

/** Whether the bit of a slot is set. @param bits 32 bytes */
export function hasSlot(bits: Uint8Array, slot: number): boolean {
  return (bits[slot >> 3]! & (1 << (slot & 7))) !== 0;
}

/**
 * Makes a function that tells whether a member covers a slot.
 *
 * @param own our name; our row may be out of date, so `covered` counts for us
 * @param covered the slots that we cover
 */
export function coversOf(
  members: readonly KnownMember[],
  own: string,
  covered: ReadonlySet<number>,
): (name: string, slot: number) => boolean {
  const rows = new Map(members.map((member) => [member.name, member]));
  return (name, slot) => {
    if (name === own) return covered.has(slot);
    const row = rows.get(name);
    return row !== undefined && coversSlot(row, slot);
  };
}

/** 32 bytes with the bits of these slots set, as in a member's row. */
export function slotBits(slots: Iterable<number>): Buffer {
  const bits = Buffer.alloc(SLOTS / 8);
  for (const slot of slots) bits[slot >> 3]! |= 1 << (slot & 7);
  return bits;
}

function sameMembers(a: ReadonlyMap<string, KnownMember>, b: ReadonlyMap<string, KnownMember>): boolean {
  if (a.size !== b.size) return false;
  for (const [name, one] of a) {
    const other = b.get(name);
    const same =
      other !== undefined &&
      one.living === other.living &&
      one.state === other.state &&
      one.run === other.run &&
      one.address === other.address &&
      one.pushAddress === other.pushAddress &&
      one.covers.equals(other.covers);
    if (!same) return false;
  }
  return true;
}
