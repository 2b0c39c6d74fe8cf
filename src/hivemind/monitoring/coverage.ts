import type { Clock } from '../../clock.ts';
import { slotOf } from '../../session/slots.ts';
import type { Member, Swarm } from './member.ts';
import type { Accounts, Defer, Swarms } from './swarms.ts';

export interface CoverageOptions {
  readonly clock: Clock;
  readonly accounts: Pick<Accounts, 'account'>;
  readonly swarms: Pick<Swarms, 'current' | 'recalculating'>;
  readonly defer: Defer;
}

/** How long, in ms, one look may hold the event loop, and accounts between two glances at the clock. */
const SLICE = 8;
const STRIDE = 256;
/**
 * A swarm of which no server could be reached for so long (ms) waits for its servers, not for us, as long as we reach
 * at least this share of the others.
 */
const UNREACHABLE = 60_000;
const REACHED_SHARE = 1 / 2;

/**
 * Which slots are covered: every account of them is confirmed by a storage server that we are connected to now. Only
 * then nothing is missed when another hivemind that covers the slot goes.
 */
export class Coverage {
  readonly #options: CoverageOptions;
  /** Since when (monotonic ms) no server of a swarm is connected. */
  readonly #awaySince = new WeakMap<Swarm, number>();

  constructor(options: CoverageOptions) {
    this.#options = options;
  }

  /**
   * Looks at all accounts, a slice at a time.
   *
   * @returns the slots with an account that is not covered; undefined while it is not known which account is whose
   */
  async uncovered(): Promise<Set<number> | undefined> {
    const { clock, swarms, defer } = this.#options;
    const uncovered = new Set<number>();
    // A change of the network during the look makes a new list; this one is finished, and what it says is a moment old.
    const { current } = swarms;
    if (current.length === 0 || swarms.recalculating) return undefined;
    const gone = this.#gone(current.filter(({ count }) => count > 0));
    let since = clock.monotonic();
    for (const swarm of current) {
      if (gone.has(swarm)) continue;
      const { members } = swarm;
      for (let from = 0; from < swarm.count; from += STRIDE) {
        const up = members.filter(({ isUp }) => isUp);
        this.#look(swarm, from, Math.min(from + STRIDE, swarm.count), up, uncovered);
        if (clock.monotonic() - since < SLICE) continue;
        await new Promise<void>((resolve) => defer(resolve));
        since = clock.monotonic();
      }
    }
    return uncovered;
  }

  /** Those that nobody reaches, as far as can be told: who has lost its own network reaches none. */
  #gone(swarms: readonly Swarm[]): ReadonlySet<Swarm> {
    const now = this.#options.clock.monotonic();
    const gone = new Set<Swarm>();
    let reached = 0;
    for (const swarm of swarms) {
      if (swarm.members.some(({ isUp }) => isUp)) {
        reached++;
        this.#awaySince.delete(swarm);
        continue;
      }
      const since = this.#awaySince.get(swarm) ?? now;
      this.#awaySince.set(swarm, since);
      if (now - since >= UNREACHABLE) gone.add(swarm);
    }
    return reached >= swarms.length * REACHED_SHARE ? gone : new Set();
  }

  #look(
    { accounts }: { accounts: Uint32Array },
    from: number,
    to: number,
    up: readonly Member[],
    uncovered: Set<number>,
  ): void {
    for (let position = from; position < to; position++) {
      if (up.some(({ schedule }) => schedule.isConfirmed(position))) continue;
      // What every server refuses, no other hivemind hears of either.
      const asked = up.filter(({ schedule }) => !schedule.isSpared(position));
      if (asked.length > 0 && asked.every(({ schedule }) => schedule.isRefused(position))) continue;
      const { bytes, offset } = this.#options.accounts.account(accounts[position]!);
      uncovered.add(slotOf(bytes, offset));
    }
  }
}
