import { ALL_SLOTS } from '../../session/slots.ts';
import type { Holders } from './holders.ts';

/**
 * How long (ms) we keep a slot that has passed to others if they do not come to cover it. Keeping it costs memory and
 * work; dropping it too early costs pushes, and a new member may take long to load.
 */
const HANDOVER = 10 * 60_000;

/** How long (ms) we keep it once they cover it: of messages from before that, some may still be on their way to us. */
const AFTERWARDS = 5_000;

/** What {@link SlotsHeld.update} goes by. */
export interface SlotsInput {
  /** Our name. */
  readonly own: string;
  /** We are among them unless we are leaving. */
  readonly holders: Holders;
  /** How many members should hold each slot. */
  readonly copies: number;
  readonly covers: (name: string, slot: number) => boolean;
}

/**
 * Which slots we load and monitor:
 *
 *     call        the slot                                     what follows
 *     update      newly ours                                   wanted → `loads` reports it
 *     loaded      its subscriptions are in memory              held
 *     update      no longer ours                               kept until five seconds after its holders cover it, ten
 *                                                              minutes at most
 *     update      kept long enough                             `drops` reports it
 *
 * A slot that passes to others and comes back before it is dropped has been held throughout.
 */
export class SlotsHeld {
  readonly #held = new Set<number>();
  readonly #loading = new Set<number>();
  /** Slots that we still hold although they have passed to others; since when, and when those first covered it. */
  readonly #passed = new Map<number, { readonly since: number; coveredSince: number }>();
  #covered: ReadonlySet<number> = new Set();

  /** Whether its subscriptions are in memory or being loaded. */
  has(slot: number): boolean {
    return this.#held.has(slot) || this.#loading.has(slot);
  }

  /** The slots whose subscriptions are all in memory. */
  get held(): ReadonlySet<number> {
    return this.#held;
  }

  get loading(): ReadonlySet<number> {
    return this.#loading;
  }

  /** The slots in which, at the last check, a connected storage server had confirmed every account. */
  get covered(): ReadonlySet<number> {
    return this.#covered;
  }

  /** Sets which slots are covered; those that we do not hold are ignored. */
  setCovered(slots: Iterable<number>): void {
    this.#covered = new Set([...slots].filter((slot) => this.#held.has(slot)));
  }

  /**
   * Works out what to load and drop, now that the members may have changed.
   * @param now monotonic, ms
   * @returns the slots to load, which count as loading from now on, and those to drop, which count as gone
   */
  update({ own, holders, copies, covers }: SlotsInput, now: number): { loads: number[]; drops: number[] } {
    const loads: number[] = [];
    const drops: number[] = [];
    for (const slot of ALL_SLOTS) {
      const owners = holders.of(slot, copies);
      if (owners.includes(own)) {
        this.#passed.delete(slot);
        if (this.has(slot)) continue;
        this.#loading.add(slot);
        loads.push(slot);
      } else if (this.#held.has(slot)) {
        const passed = this.#passed.get(slot) ?? { since: now, coveredSince: Number.POSITIVE_INFINITY };
        this.#passed.set(slot, passed);
        const isCovered = owners.length > 0 && owners.every((name) => covers(name, slot));
        if (isCovered) passed.coveredSince = Math.min(passed.coveredSince, now);
        const isTaken = isCovered && now - passed.coveredSince >= AFTERWARDS;
        if (!isTaken && now - passed.since < HANDOVER) continue;
        this.#held.delete(slot);
        this.#passed.delete(slot);
        drops.push(slot);
      }
    }
    this.setCovered(this.#covered);
    return { loads, drops };
  }

  /** Called when the subscriptions of these slots are in memory. */
  loaded(slots: Iterable<number>): void {
    for (const slot of slots) if (this.#loading.delete(slot)) this.#held.add(slot);
  }

  /** Called when these slots could not be loaded: the next {@link update} reports them again. */
  failed(slots: Iterable<number>): void {
    for (const slot of slots) this.#loading.delete(slot);
  }
}
