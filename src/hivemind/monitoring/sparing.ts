import type { Clock } from '../../clock.ts';
import { SLOTS, slotOf, swarmsOfSlots } from '../../session/slots.ts';
import type { Member, Swarm } from './member.ts';
import type { Accounts, Defer, Swarms } from './swarms.ts';

export interface SparingOptions {
  readonly clock: Clock;
  readonly accounts: Pick<Accounts, 'account'>;
  readonly swarms: Pick<Swarms, 'current'>;
  readonly defer: Defer;
  /** Told of a storage server that has accounts to be asked for which it was spared. */
  readonly onWork: (member: Member) => void;
}

/** How long, in ms, what has changed may hold the event loop at a time. */
const SLICE = 8;
/**
 * So many storage servers of a swarm tell enough to a hivemind that another one is ahead of: one that is honest and
 * alive among them suffices, and of two liars the third says otherwise (docs/decisions/37).
 */
export const ENOUGH = 3;

/**
 * Of several hiveminds: which storage servers need not monitor which accounts. Where another hivemind is first, and
 * hears of an account from its whole swarm, this one asks {@link ENOUGH} of its servers alone, for receiving is what a
 * message costs.
 *
 * In each swarm so many that are there and answer are chosen. Who is chosen stays so as long as that holds, since what
 * a server has been asked for goes on for an hour; a place that becomes free goes at once to the best of the others by
 * rank, which is other for each hivemind. With fewer than enough all are asked, as they are without any of this.
 *
 * An account is judged when it is due at a server ({@link spares}), so nothing has to be gone through when another
 * hivemind becomes first; and when that one is gone, what was spared becomes due ({@link Schedule.reconsider}).
 */
export class Sparing {
  readonly #options: SparingOptions;
  /** The slots of which another hivemind is first. */
  #slots: ReadonlySet<number> = new Set();
  /** The servers that are not chosen. */
  readonly #left = new Set<Member>();
  /** Since when (monotonic ms) a slot is not among those, and a server is chosen, if that has ever been otherwise. */
  readonly #slotSince = new Array<number>(SLOTS).fill(Number.NEGATIVE_INFINITY);
  readonly #chosenSince = new WeakMap<Member, number>();
  /** Servers of which something that was spared may be wanted now. */
  readonly #changed = new Set<Member>();
  #stopped = false;

  constructor(options: SparingOptions) {
    this.#options = options;
  }

  /** Another hivemind is first of these slots, and covers them. */
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
      for (const { id, members } of swarms.current) if (affected.has(id)) for (const one of members) this.#want(one);
    }
    this.review();
  }

  /** Whether that server need not be asked for that account. */
  spares(member: Member, id: number): boolean {
    if (this.#slots.size === 0 || !this.#left.has(member)) return false;
    const { bytes, offset } = this.#options.accounts.account(id);
    return this.#slots.has(slotOf(bytes, offset));
  }

  /**
   * Since when (monotonic ms, -Infinity: ever since it is there) that server is asked for the accounts of that slot;
   * undefined if it is not.
   */
  askedSince(member: Member, slot: number): number | undefined {
    if (!this.#slots.has(slot)) return this.#slotSince[slot];
    return this.#left.has(member) ? undefined : (this.#chosenSince.get(member) ?? Number.NEGATIVE_INFINITY);
  }

  /** Looks at all swarms: some servers may not answer any more. To be called every second. */
  review(): void {
    if (this.#slots.size > 0) for (const swarm of this.#options.swarms.current) this.choose(swarm);
  }

  /** A server has come into a swarm. Until its turn comes it is left out, so that none who is there loses its place. */
  entered(member: Member, swarm: Swarm): void {
    this.#left.add(member);
    this.choose(swarm);
  }

  /** The server is in no swarm any more. */
  forget(member: Member): void {
    this.#left.delete(member);
    this.#changed.delete(member);
  }

  /** Chooses the servers of a swarm anew: one of them came, went, or can tell from now on, or no more. */
  choose({ members }: Swarm): void {
    if (this.#slots.size === 0) return;
    const chosen = members.filter((member) => !this.#left.has(member));
    if (chosen.length === ENOUGH && chosen.every(canTell)) return;
    const best = this.#best(members);
    for (const member of members) {
      if (!best.includes(member)) this.#left.add(member);
      else if (this.#left.delete(member)) {
        this.#chosenSince.set(member, this.#options.clock.monotonic());
        this.#want(member);
      }
    }
  }

  stop(): void {
    this.#stopped = true;
  }

  /** Of those that can tell, who was chosen before, then by rank; all, if too few can. */
  #best(members: readonly Member[]): readonly Member[] {
    const able = members.filter(canTell);
    if (able.length < ENOUGH) return members;
    return able
      .sort((a, b) => Number(this.#left.has(a)) - Number(this.#left.has(b)) || a.rank - b.rank)
      .slice(0, ENOUGH);
  }

  #want(member: Member): void {
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

/** Whether a server would announce what happens now, as far as we can know. */
function canTell(member: Member): boolean {
  return member.isUp && !member.isResting && !member.isSilent;
}
