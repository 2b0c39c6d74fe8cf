import type { Clock } from '../../clock.ts';
import { slotOf } from '../../session/slots.ts';
import { SLICE } from '../slice.ts';
import type { Swarm, SwarmMember } from './swarm-member.ts';
import type { Accounts, Defer, Swarms } from './swarms.ts';

export interface CoverageOptions {
  readonly clock: Clock;
  readonly accounts: Pick<Accounts, 'account'>;
  readonly swarms: Pick<Swarms, 'current' | 'recalculating'>;
  readonly defer: Defer;
}

/** After how many accounts a check looks at the time. */
const STRIDE = 256;
/**
 * If no server of a swarm has been connected for this long (ms), while at least this share of the swarms has one, the
 * fault is the swarm's and not ours: its accounts are left out.
 */
const UNREACHABLE = 60_000;
const REACHED_SHARE = 1 / 2;

/**
 * Which slots are covered: a storage server that is connected now has confirmed every account in them. Only then is
 * nothing missed when another hivemind that covers the slot stops.
 */
export class Coverage {
  readonly #options: CoverageOptions;
  /** Since when (monotonic ms) no server of a swarm has been connected. */
  readonly #awaySince = new WeakMap<Swarm, number>();

  constructor(options: CoverageOptions) {
    this.#options = options;
  }

  /**
   * Checks all accounts, in slices.
   *
   * @returns the slots that are not covered; undefined while it is not known which swarm each account belongs to
   */
  async uncovered(): Promise<Set<number> | undefined> {
    const { clock, swarms, defer } = this.#options;
    const uncovered = new Set<number>();
    // A change of the network meanwhile makes a new list; we finish with this one, and are a moment out of date.
    const { current } = swarms;
    if (current.length === 0 || swarms.recalculating) return undefined;
    const gone = this.#gone(current.filter(({ count }) => count > 0));
    let since = clock.monotonic();
    for (const swarm of current) {
      if (gone.has(swarm)) continue;
      const { members } = swarm;
      for (let from = 0; from < swarm.count; from += STRIDE) {
        const up = members.filter(({ isUp }) => isUp);
        this.#check(swarm, from, Math.min(from + STRIDE, swarm.count), up, uncovered);
        if (clock.monotonic() - since < SLICE) continue;
        await new Promise<void>((resolve) => defer(resolve));
        since = clock.monotonic();
      }
    }
    return uncovered;
  }

  /** The swarms that nobody can reach, as far as we can tell: if we reach too few, our own network may be down. */
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

  #check(
    { accounts }: { accounts: Uint32Array },
    from: number,
    to: number,
    up: readonly SwarmMember[],
    uncovered: Set<number>,
  ): void {
    for (let position = from; position < to; position++) {
      if (up.some(({ schedule }) => schedule.isConfirmed(position))) continue;
      // If every server refuses the account, no other hivemind receives its messages either.
      const asked = up.filter(({ schedule }) => !schedule.isSpared(position));
      if (asked.length > 0 && asked.every(({ schedule }) => schedule.isRefused(position))) continue;
      const { bytes, offset } = this.#options.accounts.account(accounts[position]!);
      uncovered.add(slotOf(bytes, offset));
    }
  }
}
