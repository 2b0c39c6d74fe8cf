import type { Clock, Timer } from '../../clock.ts';
import type { Log } from '../../log.ts';
import { encodeChanged, encodeLeaving, type Sender } from '../../session/cluster-protocol.ts';
import { SLOTS, slotOf } from '../../session/slots.ts';
import type { Devices } from '../devices/devices.ts';
import type { MemberRow } from '../store/cluster-store.ts';
import { Duties } from './duties.ts';
import { Holders } from './holders.ts';
import type { Links } from './links.ts';
import { BEAT, coversOf, coversSlot, hasSlot, type KnownMember, Roster, slotBits } from './roster.ts';
import { SlotsHeld } from './slots-held.ts';
import { SparedSlots } from './spared-slots.ts';

/** What a member works with. */
export interface ClusterModules {
  readonly clock: Clock;
  readonly own: Sender;
  /** How many are to hold each slot. */
  readonly copies: number;
  /**
   * Gives our sign of life.
   * @returns what the database has of all members, by its clock (unix ms)
   * @throws StoreError
   */
  readonly beat: (own: Pick<MemberRow, 'state' | 'covers'>) => Promise<{ now: number; members: readonly MemberRow[] }>;
  /** Brings the subscriptions of these slots into memory. @throws StoreError */
  readonly load: (slots: ReadonlySet<number>) => Promise<void>;
  readonly devices: Pick<Devices, 'removeElsewhere'>;
  /** See {@link Monitoring.uncoveredSlots}. */
  readonly uncovered: () => Promise<Set<number> | undefined>;
  /** The slots whose storage servers are to be connected. */
  readonly setSlots: (slots: ReadonlySet<number>) => void;
  /** The slots of which another member is first, so that not all their storage servers need be asked. */
  readonly spareSlots: (slots: ReadonlySet<number>) => void;
  readonly links: Pick<Links, 'update' | 'send' | 'troubles'>;
  readonly log: Pick<Log, 'info' | 'warn'>;
}

/** While everything held is covered, so many beats pass between two looks, which cost more with more accounts. */
const LOOK_EVERY = 5;
/** Changes within so long (ms) are announced to the others together. */
const HINT_DELAY = 10;
/** How often, in ms, a member that is about to stop looks whether the others cover what it covers. */
const LEAVING_LOOK = 200;

/** The cluster as operators see it. */
export interface ClusterReport {
  readonly own: string;
  readonly copies: number;
  /** How many slots as many living members cover as are to, and how many fewer: at least one, or none. */
  readonly coverage: { readonly full: number; readonly fewer: number; readonly none: number };
  /** Of the slots that we hold, those of which not all storage servers are asked, as another member is first. */
  readonly spared: number;
  /** All that have been seen lately. */
  readonly members: readonly MemberReport[];
}

/** A member as operators see it. */
export interface MemberReport {
  readonly name: string;
  /** Tells one run of its process from the next. */
  readonly run: string;
  readonly state: MemberRow['state'] | 'dead';
  readonly address: string;
  readonly version: string;
  /** Slots that it covers; and those of which it sends the pushes. */
  readonly covers: number;
  readonly first: number;
  /** Unix seconds. */
  readonly started: number;
  readonly seen: number;
}

/**
 * This hivemind as one of several: who else is there, which slots are ours, and who sends first. Others are known by
 * their signs of life in the database; while that is away everybody goes on with what was last known.
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
  #work: Promise<void> = Promise.resolve();
  #looking = false;
  #beats = 0;
  #trouble: string | undefined;
  #connected: ReadonlySet<number> = new Set();
  /** Slots with changes of which the others are not told yet. */
  #changed = new Set<number>();
  #hint: Timer | undefined;
  #stopped = false;

  constructor(modules: ClusterModules) {
    this.#modules = modules;
    this.duty = new Duties(modules.own.name);
    this.#roster = new Roster(modules.clock, modules.own.name);
  }

  /** Whether the subscriptions of that slot belong in memory here. */
  holdsSlot(slot: number): boolean {
    return this.#slots.has(slot);
  }

  /** The same of any of these. @param slots 32 bytes, a bit for each slot */
  holdsAnyOf(slots: Buffer): boolean {
    for (let slot = 0; slot < SLOTS; slot++) if (this.#slots.has(slot) && hasSlot(slots, slot)) return true;
    return false;
  }

  /** The same of an account, 33 bytes. */
  holds(account: Uint8Array, offset = 0): boolean {
    return this.#slots.has(slotOf(account, offset));
  }

  /** Those that live, by name; we ourselves among them. */
  get living(): KnownMember[] {
    return this.#roster.members.filter(({ living }) => living);
  }

  /** Whether another one lives that has joined the network. */
  get othersWork(): boolean {
    return this.living.some(({ name, state }) => name !== this.#modules.own.name && state === 'ready');
  }

  /**
   * Finds out who is there, and brings the subscriptions of our slots into memory.
   * @throws StoreError
   */
  async start(): Promise<void> {
    await this.#beatOnce();
    this.#follow();
    await this.#work;
    if (this.#trouble !== undefined) throw new Error(this.#trouble);
    this.#timer = this.#modules.clock.setInterval(() => void this.#round(), BEAT);
  }

  /** We have joined the network: what we cover counts from now on. */
  ready(): void {
    if (this.#state === 'starting') this.#state = 'ready';
    void this.#round();
  }

  /**
   * Gives our slots to the others: from now on they send first.
   *
   * @param patience how long to wait for it at most, ms
   * @returns whether others cover all that we do
   */
  async leave(patience: number): Promise<boolean> {
    const { clock, links, own } = this.#modules;
    const end = clock.monotonic() + patience;
    this.#state = 'leaving';
    for (;;) {
      await this.#round();
      const others = this.living.filter(({ name }) => name !== own.name);
      for (const { name } of others) links.send(name, 'cluster.leaving', encodeLeaving(own));
      const heirs = others.filter(({ state }) => state === 'ready');
      const isCovered = [...this.#slots.covered].every((slot) => heirs.some((member) => coversSlot(member, slot)));
      if (isCovered || heirs.length === 0 || clock.monotonic() >= end) return isCovered;
      await new Promise<void>((resolve) => clock.setTimeout(resolve, LEAVING_LOOK));
    }
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
    this.#hint?.cancel();
  }

  /** Another member is about to stop, or has news for another reason: the database has them. */
  look(): void {
    void this.#round();
  }

  /** A subscription of that slot was changed by us, and committed. */
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

  /** What an operator should know, a sentence each. */
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
      for (let slot = 0; slot < SLOTS; slot++) {
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

  /** A sign of life, and whatever follows from what came back. Never throws. */
  #round(): Promise<void> {
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
      // The store reports its troubles itself. We go on with what was last known.
    }
    if (this.#stopped) return;
    this.#follow();
    if (this.#beats++ % LOOK_EVERY === 0 || this.#slots.covered.size < this.#slots.held.size) void this.#look();
  }

  async #beatOnce(): Promise<void> {
    const before = this.#roster.members;
    const { now, members } = await this.#modules.beat({ state: this.#state, covers: slotBits(this.#slots.covered) });
    if (this.#roster.take(now, members)) this.#tell(before);
  }

  /** Follows from who is alive: which slots are ours, whom to connect to, who sends first. */
  #follow(): void {
    const { own, copies, links, setSlots, spareSlots, clock } = this.#modules;
    const { members } = this.#roster;
    const names = this.#roster.holders.filter((name) => name !== own.name || this.#state !== 'leaving');
    if (!this.#holders.are(names)) this.#holders = new Holders(names);
    const holders = this.#holders;
    links.update(this.living.filter(({ name }) => name !== own.name));
    const covers = this.#coversOf();
    // Who is about to stop keeps what it has: it is needed until others have it.
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
        if (!this.#stopped && this.#timer) this.#follow();
      } catch (error) {
        this.#slots.failed(slots);
        this.#trouble = `the subscriptions of ${slots.size} slots cannot be loaded: ${(error as Error).message}`;
        log.warn(this.#trouble);
        // Some may have come in: nobody keeps them up to date.
        await this.#remove(slots);
      }
    });
  }

  #drop(slots: ReadonlySet<number>): void {
    this.#modules.log.info(`${slots.size} slots are now covered by others, and are released`);
    this.#work = this.#work.then(() => this.#remove(slots));
  }

  /**
   * Takes these slots out of memory, even if they are ours again already: changes that came in between were passed
   * over, and they are loaded after this.
   */
  async #remove(slots: ReadonlySet<number>): Promise<void> {
    const { devices } = this.#modules;
    let next: number | undefined = 0;
    while (next !== undefined && !this.#stopped) {
      next = devices.removeElsewhere((bytes, offset) => slots.has(slotOf(bytes, offset)), next);
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  /** Sees which of our slots are covered, and lets the others know at once of any change. */
  async #look(): Promise<void> {
    if (this.#looking || this.#state === 'starting') return;
    this.#looking = true;
    try {
      const uncovered = await this.#modules.uncovered();
      if (uncovered === undefined || this.#stopped) return;
      const before = slotBits(this.#slots.covered);
      this.#slots.setCovered([...this.#slots.held].filter((slot) => !uncovered.has(slot)));
      if (!before.equals(slotBits(this.#slots.covered))) void this.#round();
    } finally {
      this.#looking = false;
    }
  }

  #coversOf(): (name: string, slot: number) => boolean {
    return coversOf(this.#roster.members, this.#modules.own.name, this.#slots.covered);
  }

  #coverage(): ClusterReport['coverage'] {
    const covers = this.#coversOf();
    const { living } = this;
    const counts = { full: 0, fewer: 0, none: 0 };
    for (let slot = 0; slot < SLOTS; slot++) {
      const count = living.filter(({ name }) => covers(name, slot)).length;
      if (count === 0) counts.none++;
      else if (count < this.#modules.copies) counts.fewer++;
      else counts.full++;
    }
    return counts;
  }

  /** Says what is other than before. */
  #tell(before: readonly KnownMember[]): void {
    const { own, log } = this.#modules;
    const were = new Map(before.map((member) => [member.name, member]));
    for (const { name, living, state, run, version } of this.#roster.members) {
      const was = were.get(name);
      if (name === own.name) continue;
      if (living && (!was?.living || was.run !== run)) log.info(`the hivemind ${name} (${version}) is there`);
      else if (!living && was?.living)
        log.warn(`the hivemind ${name} ${state === 'stopped' ? 'has stopped' : 'no longer gives a sign of life'}`);
      else if (living && state === 'leaving' && was?.state !== 'leaving')
        log.info(`the hivemind ${name} is about to stop`);
    }
  }
}
