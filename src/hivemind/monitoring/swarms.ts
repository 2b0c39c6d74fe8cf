import type { Clock } from '../../clock.ts';
import { SwarmSpace } from '../../session/swarm.ts';
import type { Member, Swarm } from './member.ts';
import { MONITOR_LIFETIME } from './schedule.ts';

/** What monitoring needs to know of the accounts. Ids are small dense integers that are used again after a removal. */
export interface Accounts {
  /** All ids are below this. */
  readonly capacity: number;
  isLive(id: number): boolean;
  /** The 33 bytes of an account; to be read at once. */
  account(id: number): { bytes: Uint8Array; offset: number };
  /**
   * Appends the monitor dicts of an account to `out`, and for each a number to `refs` that stands for its signature.
   * @param refused signatures that are not to be used, by those numbers
   * @returns the new offset; the same if there is nothing to ask; -1 if it does not fit
   */
  writeMonitors(id: number, out: Buffer, offset: number, refused?: ReadonlySet<number>, refs?: number[]): number;
}

/** Calls `work` once, as soon as the event loop has looked after everybody else. */
export type Defer = (work: () => void) => void;

export interface SwarmsOptions {
  readonly clock: Clock;
  readonly accounts: Accounts;
  /** Seconds on the monitoring clock. */
  readonly now: () => number;
  readonly defer: Defer;
  /** Told of a member that has accounts to ask for which came with a change of the swarms. */
  readonly onWork: (member: Member) => void;
}

/** More earlier shapes of the network than this within {@link MONITOR_LIFETIME} are not remembered. */
const MAX_FORMER_SPACES = 32;
/** How long (ms) a recalculation holds the event loop, and accounts between two glances at the clock. */
const SLICE = 8;
const STRIDE = 256;
const NOWHERE = -1;

/**
 * Which account is whose (docs/spec/network.md, section 2). A change of the list of swarms is followed in slices, so
 * that a million accounts never block the event loop, and only accounts whose swarm is another one now are touched.
 */
export class Swarms {
  readonly #options: SwarmsOptions;
  #space: SwarmSpace | undefined;
  /** The swarms in the order of the ids of `#space`. */
  #current: Swarm[] = [];
  #formers: { space: SwarmSpace; until: number }[] = [];
  readonly #byId = new Map<bigint, Swarm>();
  readonly #byNumber: (Swarm | undefined)[] = [];
  /** By account id: number of its swarm, place in its list, and how often what we ask for it has changed. */
  #swarmOf = new Int32Array(0);
  #positionOf = new Uint32Array(0);
  #versionOf = new Uint32Array(0);
  /** Where the recalculation is; undefined = none is going on. */
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

  /** Whether accounts are still being moved to where they belong now. */
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

  /** The swarm with this id, if it is one of the network's. */
  get(id: bigint): Swarm | undefined {
    return this.#byId.get(id);
  }

  /** A storage server becomes a member: everything of the swarm is to be asked there. */
  enter(member: Member, swarm: Swarm): void {
    swarm.members.push(member);
    member.enter(swarm);
  }

  leave(member: Member): void {
    const members = member.swarm?.members;
    members?.splice(members.indexOf(member), 1);
    member.leave();
  }

  /** An account came into being. Returns its swarm; undefined as long as the network is not known. */
  add(id: number): Swarm | undefined {
    this.#makeRoom(id);
    this.#assign(id);
    return this.swarmOf(id);
  }

  /** An account is no more. */
  remove(id: number): void {
    if (id >= this.#swarmOf.length) return;
    this.#take(id);
    this.#versionOf[id]!++;
  }

  /** What we ask for an account has changed: all of its swarm are to be asked again. Returns the swarm. */
  touch(id: number): Swarm | undefined {
    const swarm = this.swarmOf(id);
    if (!swarm) return undefined;
    this.#versionOf[id]!++;
    const position = this.#positionOf[id]!;
    for (const { schedule } of swarm.members) schedule.changed(position);
    return swarm;
  }

  /** Other signatures stand for what is asked for an account. Returns its swarm if there is one to be asked. */
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

  /** Place of an account in the list of its swarm; only meaningful if it has one. */
  positionOf(id: number): number {
    return this.#positionOf[id]!;
  }

  /** Changes whenever an answer to an earlier question is no longer an answer for this account. */
  versionOf(id: number): number {
    return this.#versionOf[id]!;
  }

  /**
   * Whether an account belongs to a swarm, or did within the lifetime of a monitor. Allocates nothing; the usual case,
   * that it does belong there, is two array reads.
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

  /** Puts an account where it belongs. Returns its new swarm, undefined if it was there already or belongs nowhere. */
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
      const mean = this.#options.accounts.capacity / this.#current.length;
      // Small steps, for each member of the swarm has as much room; but nearly all swarms grow to half the mean.
      const room = Math.ceil(Math.max(16, mean / 2, swarm.count * 1.25));
      const accounts = new Uint32Array(room);
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

  /** Forgets the swarms that are no longer of the network; all their accounts have moved. */
  #dissolve(): void {
    const current = new Set(this.#current);
    for (const swarm of this.#byId.values()) {
      if (current.has(swarm) || swarm.count > 0) continue;
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
