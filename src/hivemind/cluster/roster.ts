import type { Clock } from '../../clock.ts';
import { SLOTS } from '../../session/slots.ts';
import type { MemberRow } from '../store/cluster-store.ts';
import type { Holders } from './holders.ts';

/** How often a member gives a sign of life, in ms. */
export const BEAT = 1_000;
/** A member that gave none for so long, in ms by the database's clock, is dead. */
const DEAD_AFTER = 3_000;
/**
 * Only a member with an unbroken run of signs of its own for so long (ms) may judge: after an outage of the database
 * everybody looks dead to the first that comes back.
 */
const JUDGES_AFTER = DEAD_AFTER + BEAT;
/** The longest pause (ms) between two answers of the database that does not break the run. */
const UNBROKEN = 2 * BEAT;
/** At the start, before we may judge, a member that gave a sign within so long (ms) counts as alive. */
const BENEFIT = 30_000;

/** A member of the cluster, as its row in the database and our judgement have it. */
export interface KnownMember extends MemberRow {
  readonly living: boolean;
}

/**
 * Which members of the cluster are alive, as far as the signs of life in the database show. Nothing that is wrong here
 * loses a push or rings a phone twice; it only makes the second copy of a push wait in vain, or be sent in vain.
 */
export class Roster {
  readonly #clock: Pick<Clock, 'monotonic'>;
  readonly #own: string;
  #members = new Map<string, KnownMember>();
  /** Since when the run of signs is unbroken, and when the last was; monotonic ms. */
  #unbrokenSince: number | undefined;
  #beatAt = Number.NEGATIVE_INFINITY;

  /** @param own our name */
  constructor(clock: Pick<Clock, 'monotonic'>, own: string) {
    this.#clock = clock;
    this.#own = own;
  }

  /** All that have a row and were seen within the last hour or so, by name; we ourselves among them. */
  get members(): readonly KnownMember[] {
    return [...this.#members.values()];
  }

  find(name: string): KnownMember | undefined {
    return this.#members.get(name);
  }

  /** Whether it is alive, as far as we know; one that is leaving still is. */
  isLiving(name: string): boolean {
    return this.#members.get(name)?.living === true;
  }

  /** The names of those that are to hold slots: who lives and is not leaving. */
  get holders(): string[] {
    return this.members.filter(({ living, state }) => living && state !== 'leaving').map(({ name }) => name);
  }

  /** Whether we may judge others: our own signs have come without a break for long enough. */
  get isJudge(): boolean {
    const now = this.#clock.monotonic();
    return (
      this.#unbrokenSince !== undefined &&
      now - this.#beatAt <= UNBROKEN &&
      this.#beatAt - this.#unbrokenSince >= JUDGES_AFTER
    );
  }

  /**
   * Takes over what the database told with our sign of life.
   *
   * @param now the database's clock, unix ms
   * @returns whether anything is other than before, but for the times
   */
  take(now: number, rows: readonly MemberRow[]): boolean {
    const at = this.#clock.monotonic();
    if (this.#unbrokenSince === undefined || at - this.#beatAt > UNBROKEN) this.#unbrokenSince = at;
    this.#beatAt = at;
    const { isJudge } = this;
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
    // Another run of the same name has not been judged yet.
    return before !== undefined && before.run === run ? before.living : age <= BENEFIT;
  }
}

/**
 * For each slot the name of the member that sends its pushes first: the best of those that cover it, or while nobody
 * does the best of all.
 *
 * @param covers whether that member covers the slot
 */
export function firstOfSlots(holders: Holders, covers: (name: string, slot: number) => boolean): string[] {
  return Array.from({ length: SLOTS }, (_, slot) => {
    const ranked = holders.ranked(slot);
    return ranked.find((name) => covers(name, slot)) ?? ranked[0] ?? '';
  });
}

/** Whether the bit of a slot is set in the 32 bytes of a member's row. */
export function coversSlot({ covers }: Pick<MemberRow, 'covers'>, slot: number): boolean {
  return hasSlot(covers, slot);
}

/** Whether the bit of a slot is set. @param bits 32 bytes */
export function hasSlot(bits: Uint8Array, slot: number): boolean {
  return ((bits[slot >> 3] ?? 0) & (1 << (slot & 7))) !== 0;
}

/**
 * Tells whether a member covers a slot.
 *
 * @param own our name: of ourselves we know more than our row says
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

/** The 32 bytes of a row for these slots. */
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
