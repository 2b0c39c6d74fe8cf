import type { Clock } from '../../clock.ts';
import { SwarmSpace } from '../../session/swarm.ts';
import { SLICE } from '../slice.ts';
import { MONITOR_LIFETIME } from './schedule.ts';
import type { Swarm, SwarmMember } from './swarm-member.ts';

/** What monitoring needs to know about accounts. Ids are small dense integers that are reused after a removal. */
export interface Accounts {
  /** All ids are below this. */
  readonly capacity: number;
  isLive(id: number): boolean;
  /** Where the 33 bytes of an account are; valid until the next change. */
  account(id: number): { bytes: Uint8Array; offset: number };
  /**
   * Appends the monitor dicts of an account to `out`, and for each a number to `refs` that stands for its signature.
   * @param refused signatures not to use, by those numbers
   * @returns the new offset: `offset` itself if there is nothing to ask for, -1 if the dicts do not fit
   */
  writeMonitors(id: number, out: Buffer, offset: number, refused?: ReadonlySet<number>, refs?: number[]): number;
}

/** Calls `work` once, after the event loop has handled what is waiting. */
export type Defer = (work: () => void) => void;

export interface SwarmsOptions {
  readonly clock: Clock;
  readonly accounts: Accounts;
  /** Seconds on the monitoring clock. */
  readonly now: () => number;
  readonly defer: Defer;
  /** Called with a member that has new accounts to ask for, after a change of the swarms. */
  readonly onWork: (member: SwarmMember) => void;
}

/** How many earlier sets of swarms are remembered at most. */
const MAX_FORMER_SPACES = 32;
/** After how many accounts a recalculation looks at the time. */
const STRIDE = 256;
const NOWHERE = -1;

/**
 * Which account belongs to which swarm (docs/spec/network.md, section 2). A change of the list of swarms is worked
 * through in slices, so that a million accounts do not block the event loop, and only accounts that move are touched.
 */
export class Swarms {
  readonly #options: SwarmsOptions;
  #space: SwarmSpace | undefined;
  /** The swarms in the order of the ids of `#space`. */
  #current: Swarm[] = [];
  #formers: { space: SwarmSpace; until: number }[] = [];
  readonly #byId = new Map<bigint, Swarm>();
  readonly #byNumber: (Swarm | undefined)[] = [];
  /** By account id: the number of its swarm, its position there, and its {@link versionOf}. */
  #swarmOf = new Int32Array(0);
  #positionOf = new Uint32Array(0);
  #versionOf = new Uint32Array(0);
  /** The next account of the running recalculation; undefined if none is running. */
  #cursor: number | undefined;
  #stopped = false;
  readonly counters = { recalculations: 0, moved: 0 };

  constructor(options: SwarmsOptions) {
    this.#options = options;
  }

  /** The swarms of the network as it is now. */
  get current(): readonly Swarm[] {
    return this.#current;
  }

  /** Whether accounts are still being moved to the swarms they now belong to. */
  get recalculating(): boolean {
    return this.#cursor !== undefined;
  }

  /**
   * Takes over the swarm ids of the network. Nothing happens if they are the same as before.
   * @param ids in any order, repetitions allowed
   */
  setIds(ids: Iterable<bigint>): void {
    const space = new SwarmSpace([...ids]);
    if (this.#space && sameIds(this.#space.ids, space.ids)) return;
    if (this.#space) this.#remember(this.#space);
    this.#space = space;
    this.#current = space.ids.map((id) => this.#byId.get(id) ?? this.#create(id));
    this.counters.recalculations++;
    if (this.#cursor === undefined) this.#options.defer(() => this.#recalculate());
    this.#cursor = 0;
  }

  /** The swarm with this id, if there is one. */
  get(id: bigint): Swarm | undefined {
    return this.#byId.get(id);
  }

  /** Makes a storage server a member of a swarm, to be asked for all its accounts. */
  enter(member: SwarmMember, swarm: Swarm): void {
    swarm.members.push(member);
    member.enter(swarm);
  }

  /** Takes a storage server out of its swarm, if it is in one. */
  leave(member: SwarmMember): void {
    const members = member.swarm?.members;
    members?.splice(members.indexOf(member), 1);
    member.leave();
  }

  /** An account has been added. @returns its swarm; undefined as long as the network is not known */
  add(id: number): Swarm | undefined {
    this.#makeRoom(id);
    this.#assign(id);
    return this.swarmOf(id);
  }

  /** An account has been removed. */
  remove(id: number): void {
    if (id >= this.#swarmOf.length) return;
    this.#take(id);
    this.#versionOf[id]!++;
  }

  /** More is asked for an account: all members of its swarm are to be asked again. @returns the swarm */
  touch(id: number): Swarm | undefined {
    const swarm = this.swarmOf(id);
    if (!swarm) return undefined;
    this.#versionOf[id]!++;
    const position = this.#positionOf[id]!;
    for (const { schedule } of swarm.members) schedule.changed(position);
    return swarm;
  }

  /**
   * No more than before is asked for an account, but by other signatures: members that have not confirmed it are to be
   * asked again.
   * @returns its swarm if there are any
   */
  touchUnconfirmed(id: number): Swarm | undefined {
    const swarm = this.swarmOf(id);
    if (!swarm) return undefined;
    const position = this.#positionOf[id]!;
    const asked = swarm.members.filter(({ schedule }) => schedule.resigned(position));
    return asked.length > 0 ? swarm : undefined;
  }

  swarmOf(id: number): Swarm | undefined {
    const number = id < this.#swarmOf.length ? this.#swarmOf[id]! : NOWHERE;
    return number === NOWHERE ? undefined : this.#byNumber[number];
  }

  /** The position of an account in the list of its swarm; meaningless if it has none. */
  positionOf(id: number): number {
    return this.#positionOf[id]!;
  }

  /** A number that changes whenever answers to earlier requests no longer hold for this account id. */
  versionOf(id: number): number {
    return this.#versionOf[id]!;
  }

  /**
   * Whether an account belongs to a swarm, or did within the lifetime of a monitor. Allocates nothing, and in the usual
   * case, that it does belong there, reads two array elements.
   */
  belongs(id: number, swarmId: bigint): boolean {
    if (!this.#space || !this.#options.accounts.isLive(id)) return false;
    if (this.swarmOf(id)?.id === swarmId) return true;
    const { bytes, offset } = this.#options.accounts.account(id);
    if (isIn(this.#space, bytes, offset, swarmId)) return true;
    if (this.#formers.length === 0) return false;
    const now = this.#options.now();
    for (const { space, until } of this.#formers) {
      if (until >= now && isIn(space, bytes, offset, swarmId)) return true;
    }
    return false;
  }

  stop(): void {
    this.#stopped = true;
  }

  #recalculate(): void {
    if (this.#cursor === undefined || this.#stopped) return;
    const { clock, accounts, defer, onWork } = this.#options;
    const deadline = clock.monotonic() + SLICE;
    const reached = new Set<Swarm>();
    this.#makeRoom(accounts.capacity - 1);
    let cursor = this.#cursor;
    while (cursor < accounts.capacity && clock.monotonic() < deadline) {
      for (const end = Math.min(cursor + STRIDE, accounts.capacity); cursor < end; cursor++) {
        if (!accounts.isLive(cursor)) continue;
        const swarm = this.#assign(cursor);
        if (swarm) reached.add(swarm);
      }
    }
    for (const swarm of reached) for (const member of swarm.members) onWork(member);
    if (cursor < accounts.capacity) {
      this.#cursor = cursor;
      defer(() => this.#recalculate());
      return;
    }
    this.#cursor = undefined;
    this.#dissolve();
  }

  /** Puts an account where it belongs. @returns its new swarm; undefined if it has not moved or belongs nowhere */
  #assign(id: number): Swarm | undefined {
    if (!this.#space) return undefined;
    const { bytes, offset } = this.#options.accounts.account(id);
    const swarm = this.#current[this.#space.closest(bytes, offset)];
    if (this.swarmOf(id) === swarm) return undefined;
    if (this.#swarmOf[id] !== NOWHERE) this.counters.moved++;
    this.#take(id);
    this.#versionOf[id]!++;
    if (swarm) this.#put(id, swarm);
    return swarm;
  }

  #put(id: number, swarm: Swarm): void {
    if (swarm.count === swarm.accounts.length) {
      const accounts = new Uint32Array(this.#roomFor(id, swarm));
      accounts.set(swarm.accounts);
      swarm.accounts = accounts;
    }
    const position = swarm.count++;
    const now = this.#options.now();
    swarm.accounts[position] = id;
    this.#swarmOf[id] = swarm.number;
    this.#positionOf[id] = position;
    for (const { schedule } of swarm.members) schedule.append(now, swarm.accounts.length);
  }

  /**
   * How many accounts to allocate for in a list that is full. It grows in small steps, since each member's schedule has
   * as much room; but all is copied at each step, for all members at once, which for a swarm of 500,000 holds the event
   * loop for 50 ms. So where all accounts are assigned for the first time, by rising id, the share of those up to this
   * one tells how many the swarm will have.
   */
  #roomFor(id: number, { count }: Swarm): number {
    const { capacity } = this.#options.accounts;
    const mean = capacity / this.#current.length;
    const isFirst = this.recalculating && this.counters.recalculations === 1 && count > 0;
    const expected = isFirst ? (count / (id + 1)) * capacity * (1 + 4 / Math.sqrt(count)) : 0;
    return Math.ceil(Math.max(16, Math.min(mean / 2, 4096), expected, count * 1.25));
  }

  #take(id: number): void {
    const swarm = this.swarmOf(id);
    if (!swarm) return;
    const position = this.#positionOf[id]!;
    const last = swarm.count - 1;
    for (const { schedule } of swarm.members) schedule.remove(position, id);
    const other = swarm.accounts[last]!;
    swarm.accounts[position] = other;
    this.#positionOf[other] = position;
    swarm.count = last;
    this.#swarmOf[id] = NOWHERE;
  }

  #create(id: bigint): Swarm {
    let number = this.#byNumber.indexOf(undefined);
    if (number === -1) number = this.#byNumber.length;
    const swarm: Swarm = { id, number, accounts: new Uint32Array(0), count: 0, members: [] };
    this.#byNumber[number] = swarm;
    this.#byId.set(id, swarm);
    return swarm;
  }

  /** Forgets swarms that the network no longer has, now that their accounts have moved. */
  #dissolve(): void {
    const current = new Set(this.#current);
    for (const swarm of this.#byId.values()) {
      if (current.has(swarm)) continue;
      this.#byId.delete(swarm.id);
      this.#byNumber[swarm.number] = undefined;
    }
  }

  #remember(space: SwarmSpace): void {
    const now = this.#options.now();
    const others = this.#formers.filter((f) => f.until >= now && !sameIds(f.space.ids, space.ids));
    this.#formers = [{ space, until: now + MONITOR_LIFETIME }, ...others].slice(0, MAX_FORMER_SPACES);
  }

  #makeRoom(id: number): void {
    const room = this.#swarmOf.length;
    if (id < room) return;
    const wanted = Math.max(id + 1, this.#options.accounts.capacity, Math.ceil(room * 1.5));
    const swarmOf = new Int32Array(wanted).fill(NOWHERE, room);
    const positionOf = new Uint32Array(wanted);
    const versionOf = new Uint32Array(wanted);
    swarmOf.set(this.#swarmOf);
    positionOf.set(this.#positionOf);
    versionOf.set(this.#versionOf);
    this.#swarmOf = swarmOf;
    this.#positionOf = positionOf;
    this.#versionOf = versionOf;
  }
}

function isIn(space: SwarmSpace, bytes: Uint8Array, offset: number, swarmId: bigint): boolean {
  return space.ids[space.closest(bytes, offset)] === swarmId;
}

function sameIds(a: readonly bigint[], b: readonly bigint[]): boolean {
  return a.length === b.length && a.every((id, i) => id === b[i]);
}
