import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Clock, Timer } from '../../clock.ts';
import type { Log } from '../../log.ts';
import { encodeChanged, encodeLeaving, type Sender } from '../../session/cluster-protocol.ts';
import { ALL_SLOTS, SLOTS, slotOf } from '../../session/slots.ts';
import type { Devices } from '../devices/devices.ts';
import type { MemberRow } from '../store/cluster-store.ts';
import { Duties } from './duties.ts';
import { Holders } from './holders.ts';
import type { Links } from './links.ts';
import { BEAT, coversOf, coversSlot, hasSlot, type KnownMember, Roster, slotBits } from './roster.ts';
import { SlotsHeld } from './slots-held.ts';
import { SparedSlots } from './spared-slots.ts';

/** What {@link Cluster} is built from. */
export interface ClusterModules {
  readonly clock: Clock;
  readonly own: Sender;
  /** How many members should hold each slot. */
  readonly copies: number;
  /**
   * Writes our heartbeat.
   * @returns the rows of all members, and the database's time (unix ms)
   * @throws StoreError
   */
  readonly beat: (own: Pick<MemberRow, 'state' | 'covers'>) => Promise<{ now: number; members: readonly MemberRow[] }>;
  /** Loads the subscriptions of these slots into memory. @throws StoreError */
  readonly load: (slots: ReadonlySet<number>) => Promise<void>;
  readonly devices: Pick<Devices, 'removeAccounts'>;
  /** See {@link Monitoring.uncoveredSlots}. */
  readonly uncovered: () => Promise<Set<number> | undefined>;
  /** Sets the slots whose storage servers we connect to. */
  readonly setSlots: (slots: ReadonlySet<number>) => void;
  /** Sets the slots in which another member sends first, so that we need not ask all their storage servers. */
  readonly spareSlots: (slots: ReadonlySet<number>) => void;
  readonly links: Pick<Links, 'update' | 'send' | 'troubles'>;
  readonly log: Pick<Log, 'info' | 'warn'>;
}

/**
 * Beats between two checks of what we cover, while we cover everything that we hold: a check costs more the more
 * accounts there are.
 */
const CHECK_EVERY = 5;
/** How long, in ms, changes are collected before they are announced to the others together. */
const HINT_DELAY = 10;
/** How often, in ms, a member that is about to stop checks whether the others cover what it covers. */
const LEAVING_POLL = 200;

/** The cluster as operators see it. */
export interface ClusterReport {
  readonly own: string;
  readonly copies: number;
  /** Slots by how many living members cover them: `copies` or more, fewer but at least one, none. */
  readonly coverage: { readonly full: number; readonly fewer: number; readonly none: number };
  /** How many of our slots we ask only some storage servers about, because another member sends first. */
  readonly spared: number;
  /** All members seen within the last hour or so, dead ones among them. */
  readonly members: readonly MemberReport[];
}

/** A member as operators see it. */
export interface MemberReport {
  readonly name: string;
  /** Differs from one run of its process to the next. */
  readonly run: string;
  readonly state: MemberRow['state'] | 'dead';
  readonly address: string;
  readonly version: string;
  /** How many slots it covers, and in how many it sends first. */
  readonly covers: number;
  readonly first: number;
  /** When its process started, and its last heartbeat; unix seconds. */
  readonly started: number;
  readonly seen: number;
}

/**
 * This hivemind as one of several: who else is alive, which slots are ours, and who sends first. Members know each
 * other by their heartbeats in the database; while it is unreachable they carry on with what they last knew.
 */
export class Cluster {
  readonly duty: Duties;
  readonly #modules: ClusterModules;
  readonly #roster: Roster;
  #holders = new Holders([]);
  readonly #slots = new SlotsHeld();
  readonly #spared = new SparedSlots();
  #state: 'starting' | 'ready' | 'leaving' = 'starting';
  #timer: Timer | undefined;
  #beating: Promise<void> | undefined;
  /** Loads and removals of slots, one after the other. */
  #work: Promise<void> = Promise.resolve();
  #checking = false;
  #beats = 0;
  /** Why the last load failed; undefined if it did not. */
  #trouble: string | undefined;
  #connected: ReadonlySet<number> = new Set();
  /** Slots with changes that have not been announced yet. */
  #changed = new Set<number>();
  #hint: Timer | undefined;
  #stopped = false;

  constructor(modules: ClusterModules) {
    this.#modules = modules;
    this.duty = new Duties(modules.own.name);
    this.#roster = new Roster(modules.clock, modules.own.name);
  }

  /** Whether this slot's subscriptions are in memory here, or being loaded. */
  holdsSlot(slot: number): boolean {
    return this.#slots.has(slot);
  }

  /** {@link holdsSlot} for any of several. @param slots 32 bytes, a bit for each slot */
  holdsAnyOf(slots: Buffer): boolean {
    return ALL_SLOTS.some((slot) => this.#slots.has(slot) && hasSlot(slots, slot));
  }

  /** {@link holdsSlot} for an account's slot. @param account has the account's 33 bytes at `offset` */
  holds(account: Uint8Array, offset = 0): boolean {
    return this.#slots.has(slotOf(account, offset));
  }

  /** The members that are alive, sorted by name, ourselves included. */
  get living(): KnownMember[] {
    return this.#roster.members.filter(({ living }) => living);
  }

  /** Whether another member is alive and has joined the network. */
  get othersWork(): boolean {
    return this.living.some(({ name, state }) => name !== this.#modules.own.name && state === 'ready');
  }

  /**
   * Finds out who is alive, and loads the subscriptions of our slots into memory.
   * @throws StoreError if the database cannot be reached, Error if the subscriptions cannot be loaded
   */
  async start(): Promise<void> {
    await this.#beatOnce();
    this.#reassign();
    await this.#work;
    if (this.#trouble !== undefined) throw new Error(this.#trouble);
    this.#timer = this.#modules.clock.setInterval(() => void this.#beat(), BEAT);
  }

  /** Called once we have joined the network: from now on the others count what we cover. */
  ready(): void {
    if (this.#state === 'starting') this.#state = 'ready';
    void this.#beat();
  }

  /**
   * Hands our slots over: from now on the others send first.
   *
   * @param patience how long to wait at most, in ms, until they cover what we cover
   * @returns whether they do
   */
  async leave(patience: number): Promise<boolean> {
    const { clock, links, own } = this.#modules;
    const end = clock.monotonic() + patience;
    this.#state = 'leaving';
    for (;;) {
      await this.#beat();
      const others = this.living.filter(({ name }) => name !== own.name);
      for (const { name } of others) links.send(name, 'cluster.leaving', encodeLeaving(own));
      const heirs = others.filter(({ state }) => state === 'ready');
      const isCovered = [...this.#slots.covered].every((slot) => heirs.some((member) => coversSlot(member, slot)));
      if (isCovered || heirs.length === 0 || clock.monotonic() >= end) return isCovered;
      await new Promise<void>((resolve) => clock.setTimeout(resolve, LEAVING_POLL));
    }
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
    this.#hint?.cancel();
  }

  /** Called when another member says that it is about to stop: reads the members' rows now. */
  refresh(): void {
    void this.#beat();
  }

  /** Called after we have committed a change to a subscription in this slot. */
  changed(slot: number): void {
    this.#changed.add(slot);
    this.#hint ??= this.#modules.clock.setTimeout(() => {
      const { links, own } = this.#modules;
      this.#hint = undefined;
      const part = encodeChanged({ ...own, slots: slotBits(this.#changed) });
      this.#changed = new Set();
      for (const { name } of this.living) if (name !== own.name) links.send(name, 'cluster.changed', part);
    }, HINT_DELAY);
  }

  /** What an operator should know, one sentence each. */
  complaints(): string[] {
    const { copies, links } = this.#modules;
    const complaints: string[] = [];
    if (this.#trouble !== undefined) complaints.push(this.#trouble);
    if (this.#state === 'starting') return complaints;
    const { fewer, none } = this.#coverage();
    const alone = this.living.length === 1;
    if (copies > 1 && alone) complaints.push('no other hivemind is alive: if this one stops, pushes are lost');
    else if (fewer > 0) complaints.push(`${fewer} of ${SLOTS} slots are covered by fewer than ${copies} hiveminds`);
    if (none > 0) complaints.push(`${none} of ${SLOTS} slots are covered by no hivemind`);
    for (const { name, trouble } of links.troubles)
      complaints.push(`the hivemind ${name} cannot be reached: ${trouble}`);
    return complaints;
  }

  report(): ClusterReport {
    const { own, copies } = this.#modules;
    const coversIt = this.#coversOf();
    const members = this.#roster.members.map((member): MemberReport => {
      const { name, run, state, living, address, version, started, seen } = member;
      let [covers, first] = [0, 0];
      for (const slot of ALL_SLOTS) {
        if (coversIt(name, slot)) covers++;
        if (this.duty.firstOf(slot) === name) first++;
      }
      return {
        name,
        run: String(run),
        state: living || state === 'stopped' ? state : 'dead',
        address,
        version,
        covers: living ? covers : 0,
        first,
        started: Math.floor(started / 1000),
        seen: Math.floor(seen / 1000),
      };
    });
    const spared = [...this.#slots.held].filter((slot) => this.#spared.has(slot)).length;
    return { own: own.name, copies, coverage: this.#coverage(), spared, members };
  }

  /** Writes a heartbeat, and acts on the rows that come back. Never throws. */
  #beat(): Promise<void> {
    this.#beating ??= this.#beatSafely().finally(() => {
      this.#beating = undefined;
    });
    return this.#beating;
  }

  async #beatSafely(): Promise<void> {
    if (this.#stopped) return;
    try {
      await this.#beatOnce();
    } catch {
      // The store reports its own errors. We carry on with what we last knew.
    }
    if (this.#stopped) return;
    this.#reassign();
    const isCovered = this.#slots.covered.size === this.#slots.held.size;
    if (this.#beats++ % CHECK_EVERY === 0 || !isCovered) void this.#checkCovered();
  }

  async #beatOnce(): Promise<void> {
    const before = this.#roster.members;
    const { now, members } = await this.#modules.beat({ state: this.#state, covers: slotBits(this.#slots.covered) });
    if (this.#roster.take(now, members)) this.#logChanges(before);
  }

  /** Works out from who is alive which slots are ours, whom we connect to, and who sends first. */
  #reassign(): void {
    const { own, copies, links, setSlots, spareSlots, clock } = this.#modules;
    const { members } = this.#roster;
    const names = this.#roster.holders.filter((name) => name !== own.name || this.#state !== 'leaving');
    if (!this.#holders.hasSame(names)) this.#holders = new Holders(names);
    const holders = this.#holders;
    links.update(this.living.filter(({ name }) => name !== own.name));
    const covers = this.#coversOf();
    // While leaving we keep what we have: it is needed until the others have it.
    if (this.#state !== 'leaving') {
      const { loads, drops } = this.#slots.update({ own: own.name, holders, copies, covers }, clock.monotonic());
      if (loads.length > 0) this.#load(new Set(loads));
      if (drops.length > 0) this.#drop(new Set(drops));
    }
    this.duty.update({ members, holders, copies, covered: this.#slots.covered });
    const firstOf = (slot: number) => this.duty.firstOf(slot);
    const spared = this.#spared.update({ own: own.name, copies, holders, firstOf, covers }, clock.monotonic());
    if (spared) spareSlots(spared);
    const connected = new Set([...this.#slots.held, ...this.#slots.loading]);
    if (connected.size !== this.#connected.size || [...connected].some((slot) => !this.#connected.has(slot))) {
      this.#connected = connected;
      setSlots(connected);
    }
  }

  #load(slots: ReadonlySet<number>): void {
    const { load, log } = this.#modules;
    this.#work = this.#work.then(async () => {
      try {
        await load(slots);
        this.#slots.loaded(slots);
        this.#trouble = undefined;
      } catch (error) {
        this.#slots.failed(slots);
        this.#trouble = `the subscriptions of ${slots.size} slots cannot be loaded: ${(error as Error).message}`;
        log.warn(this.#trouble);
        // Part of them may be in memory, and the feed does not keep those up to date.
        await this.#remove(slots);
      }
    });
  }

  #drop(slots: ReadonlySet<number>): void {
    this.#modules.log.info(`${slots.size} slots are now covered by others, and are released`);
    this.#work = this.#work.then(() => this.#remove(slots));
  }

  /**
   * Removes these slots from memory, even those that have become ours again: the feed has skipped their changes since,
   * and they are loaded again after this.
   */
  async #remove(slots: ReadonlySet<number>): Promise<void> {
    const { devices } = this.#modules;
    let next: number | undefined = 0;
    while (next !== undefined && !this.#stopped) {
      next = devices.removeAccounts((bytes, offset) => slots.has(slotOf(bytes, offset)), next);
      await nextTurn();
    }
  }

  /** Checks which of our slots are covered, and tells the others at once if that has changed. */
  async #checkCovered(): Promise<void> {
    if (this.#checking || this.#state === 'starting') return;
    this.#checking = true;
    try {
      const uncovered = await this.#modules.uncovered();
      if (uncovered === undefined || this.#stopped) return;
      const before = slotBits(this.#slots.covered);
      this.#slots.setCovered([...this.#slots.held].filter((slot) => !uncovered.has(slot)));
      if (!before.equals(slotBits(this.#slots.covered))) void this.#beat();
    } finally {
      this.#checking = false;
    }
  }

  #coversOf(): (name: string, slot: number) => boolean {
    return coversOf(this.#roster.members, this.#modules.own.name, this.#slots.covered);
  }

  #coverage(): ClusterReport['coverage'] {
    const covers = this.#coversOf();
    const { living } = this;
    const counts = { full: 0, fewer: 0, none: 0 };
    for (const slot of ALL_SLOTS) {
      const count = living.filter(({ name }) => covers(name, slot)).length;
      if (count === 0) counts.none++;
      else if (count < this.#modules.copies) counts.fewer++;
      else counts.full++;
    }
    return counts;
  }

  /** Logs which members have come, gone or begun to leave. */
  #logChanges(before: readonly KnownMember[]): void {
    const { own, log } = this.#modules;
    const were = new Map(before.map((member) => [member.name, member]));
    for (const { name, living, state, run, version } of this.#roster.members) {
      const was = were.get(name);
      if (name === own.name) continue;
      if (living && (!was?.living || was.run !== run)) log.info(`the hivemind ${name} (${version}) is alive`);
      else if (!living && was?.living)
        log.warn(`the hivemind ${name} ${state === 'stopped' ? 'has stopped' : 'has stopped sending heartbeats'}`);
      else if (living && state === 'leaving' && was?.state !== 'leaving')
        log.info(`the hivemind ${name} is about to stop`);
    }
  }
}
