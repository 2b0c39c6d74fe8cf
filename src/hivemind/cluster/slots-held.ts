import { SLOTS } from '../../session/slots.ts';
import type { Holders } from './holders.ts';

/**
 * How long (ms) a slot that has passed to others is kept at most, should they never cover it. Keeping it costs memory
 * and work; letting it go too early costs pushes, and a new member may be loading for long.
 */
const HANDOVER = 10 * 60_000;

/** What is known of the others, for {@link SlotsHeld.update}. */
export interface Others {
  /** Our name. */
  readonly own: string;
  /** We are among them unless we are leaving. */
  readonly holders: Holders;
  /** How many are to hold each slot. */
  readonly copies: number;
  covers(name: string, slot: number): boolean;
}

/**
 * Which slots we load and monitor:
 *
 *     verb        to be held                                   state
 *     update      newly ours                                   wanted → `loads` reports it
 *     loaded      its subscriptions are in memory              held
 *     update      no longer ours                               kept until its holders cover it, ten minutes at most
 *     update      kept long enough                             `drops` reports it
 *
 * A slot that passes to others and back in between was held all the time.
 */
export class SlotsHeld {
  readonly #held = new Set<number>();
  readonly #loading = new Set<number>();
  /** Slots that are others' now, and since when; monotonic ms. */
  readonly #passed = new Map<number, number>();
  #covered: ReadonlySet<number> = new Set();

  /** Whether its subscriptions belong in memory: they are there, or are being loaded. */
  has(slot: number): boolean {
    return this.#held.has(slot) || this.#loading.has(slot);
  }

  /** Those whose subscriptions are all in memory. */
  get held(): ReadonlySet<number> {
    return this.#held;
  }

  get loading(): ReadonlySet<number> {
    return this.#loading;
  }

  /** Those of which every account is confirmed by a storage server that we are connected to, at the last look. */
  get covered(): ReadonlySet<number> {
    return this.#covered;
  }

  /** Takes over which of the held slots are covered. */
  setCovered(slots: Iterable<number>): void {
    this.#covered = new Set([...slots].filter((slot) => this.#held.has(slot)));
  }

  /**
   * Goes by who is there now.
   * @param now monotonic, ms
   * @returns the slots to load, which count as loading from now on, and those to drop, which count as gone
   */
  update(others: Others, now: number): { loads: number[]; drops: number[] } {
    const { own, holders, copies } = others;
    const loads: number[] = [];
    const drops: number[] = [];
    for (let slot = 0; slot < SLOTS; slot++) {
      const owners = holders.of(slot, copies);
      if (owners.includes(own)) {
        this.#passed.delete(slot);
        if (this.has(slot)) continue;
        this.#loading.add(slot);
        loads.push(slot);
      } else if (this.#held.has(slot)) {
        const since = this.#passed.get(slot) ?? now;
        this.#passed.set(slot, since);
        const isCovered = owners.length > 0 && owners.every((name) => others.covers(name, slot));
        if (!isCovered && now - since < HANDOVER) continue;
        this.#passed.delete(slot);
        this.#held.delete(slot);
        drops.push(slot);
      }
    }
    if (drops.length > 0) this.setCovered(this.#covered);
    return { loads, drops };
  }

  /** The subscriptions of these slots are in memory. */
  loaded(slots: Iterable<number>): void {
    for (const slot of slots) if (this.#loading.delete(slot)) this.#held.add(slot);
  }

  /** They could not be loaded: the next {@link update} reports them again. */
  failed(slots: Iterable<number>): void {
    for (const slot of slots) this.#loading.delete(slot);
  }
}
