import type { Clock } from '../../clock.ts';
import { SLOTS, slotOf, swarmsOfSlots } from '../../session/slots.ts';
import { SLICE } from '../slice.ts';
import type { Swarm, SwarmMember } from './swarm-member.ts';
import type { Accounts, Defer, Swarms } from './swarms.ts';

export interface SparingOptions {
  readonly clock: Clock;
  readonly accounts: Pick<Accounts, 'account'>;
  readonly swarms: Pick<Swarms, 'current'>;
  readonly defer: Defer;
  /** Called with a storage server that has to be asked for accounts that it was spared. */
  readonly onWork: (member: SwarmMember) => void;
}

/**
 * How many storage servers of a swarm are enough where another hivemind sends first: one that is honest and alive
 * suffices, and the third contradicts two liars (docs/decisions/37).
 */
export const ENOUGH = 3;

/**
 * Which storage servers need not monitor which accounts for one of several hiveminds. Where another hivemind sends
 * first, and hears of an account from its whole swarm, this one asks only {@link ENOUGH} of its servers, because
 * receiving is most of what a message costs.
 *
 * In each swarm that many servers are chosen that are connected and answer. They stay chosen as long as they do, since
 * a server goes on reporting for an hour; a free place goes at once to the one with the lowest rank, and each hivemind
 * ranks them differently. If too few can be chosen, all servers of the swarm are asked.
 *
 * Whether an account is spared is decided when it is due at a server ({@link spares}), so another hivemind can become
 * first without our going through all accounts. When it is gone, what was spared becomes due
 * ({@link Schedule.reconsider}).
 */
export class Sparing {
  readonly #options: SparingOptions;
  /** The slots in which another hivemind sends first. */
  #slots: ReadonlySet<number> = new Set();
  /** The servers that are not chosen. */
  readonly #unchosen = new WeakSet<SwarmMember>();
  /** Since when (monotonic ms) a slot is not among those, and a server is chosen, if it was ever otherwise. */
  readonly #slotSince = new Array<number>(SLOTS).fill(Number.NEGATIVE_INFINITY);
  readonly #chosenSince = new WeakMap<SwarmMember, number>();
  /** Servers that may have to be asked for what they were spared. */
  readonly #changed = new Set<SwarmMember>();
  #stopped = false;

  constructor(options: SparingOptions) {
    this.#options = options;
  }

  /** Sets the slots in which another hivemind sends first, and which it covers. */
  setSlots(slots: ReadonlySet<number>): void {
    const { clock, swarms } = this.#options;
    const wanted = [...this.#slots].filter((slot) => !slots.has(slot));
    this.#slots = new Set(slots);
    for (const slot of wanted) this.#slotSince[slot] = clock.monotonic();
    if (wanted.length > 0) {
      const affected = swarmsOfSlots(
        swarms.current.map(({ id }) => id),
        wanted,
      );
      for (const { id, members } of swarms.current) if (affected.has(id)) for (const one of members) this.#queue(one);
    }
    this.review();
  }

  /** Whether this server need not be asked for this account. */
  spares(member: SwarmMember, id: number): boolean {
    if (this.#slots.size === 0 || !this.#unchosen.has(member)) return false;
    const { bytes, offset } = this.#options.accounts.account(id);
    return this.#slots.has(slotOf(bytes, offset));
  }

  /**
   * Since when (monotonic ms) this server has been asked for the accounts of this slot, -Infinity if it always has;
   * undefined if it is not.
   */
  askedSince(member: SwarmMember, slot: number): number | undefined {
    if (!this.#slots.has(slot)) return this.#slotSince[slot];
    return this.#unchosen.has(member) ? undefined : (this.#chosenSince.get(member) ?? Number.NEGATIVE_INFINITY);
  }

  /** Reviews all swarms, since servers may have stopped answering. To be called every second. */
  review(): void {
    if (this.#slots.size > 0) for (const swarm of this.#options.swarms.current) this.choose(swarm);
  }

  /** A server has entered a swarm. It is unchosen at first, so that it takes nobody's place. */
  entered(member: SwarmMember, swarm: Swarm): void {
    this.#unchosen.add(member);
    this.choose(swarm);
  }

  /** A server has left its swarm. */
  forget(member: SwarmMember): void {
    this.#changed.delete(member);
  }

  /** Chooses among the servers of a swarm, after one of them has come, gone, or begun or stopped to answer. */
  choose({ members }: Swarm): void {
    if (this.#slots.size === 0) return;
    const chosen = members.filter((member) => !this.#unchosen.has(member));
    if (chosen.length === ENOUGH && chosen.every(isAnswering)) return;
    const best = this.#best(members);
    for (const member of members) {
      if (!best.includes(member)) this.#unchosen.add(member);
      else if (this.#unchosen.delete(member)) {
        this.#chosenSince.set(member, this.#options.clock.monotonic());
        this.#queue(member);
      }
    }
  }

  stop(): void {
    this.#stopped = true;
  }

  /** Of those that answer, the ones already chosen, then by rank; all members if too few answer. */
  #best(members: readonly SwarmMember[]): readonly SwarmMember[] {
    const able = members.filter(isAnswering);
    if (able.length < ENOUGH) return members;
    return able
      .sort((a, b) => Number(this.#unchosen.has(a)) - Number(this.#unchosen.has(b)) || a.rank - b.rank)
      .slice(0, ENOUGH);
  }

  #queue(member: SwarmMember): void {
    if (this.#changed.size === 0) this.#options.defer(() => this.#reconsider());
    this.#changed.add(member);
  }

  #reconsider(): void {
    if (this.#stopped) return;
    const { clock, defer, onWork } = this.#options;
    const deadline = clock.monotonic() + SLICE;
    for (const member of this.#changed) {
      this.#changed.delete(member);
      member.schedule.reconsider();
      onWork(member);
      if (this.#changed.size > 0 && clock.monotonic() >= deadline) {
        defer(() => this.#reconsider());
        return;
      }
    }
  }
}

/** Whether a server would report messages now, as far as we can tell. */
function isAnswering(member: SwarmMember): boolean {
  return member.isUp && !member.isResting && !member.isSilent;
}
