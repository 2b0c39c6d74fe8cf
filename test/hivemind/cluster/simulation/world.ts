import { AT_ONCE } from '../../../../src/hivemind/cluster/feed.ts';
import type { DeviceRow } from '../../../../src/hivemind/devices/device.ts';
import { ENOUGH } from '../../../../src/hivemind/monitoring/sparing.ts';
import type { PushedDevice } from '../../../../src/hivemind/notifications/outbox/push.ts';
import { PAGE } from '../../../../src/hivemind/store/cluster-statements.ts';
import { accepted, type Delivery, type Outcome, refused, retry } from '../../../../src/notifiers/runtime/backend.ts';
import { messageHash } from '../../../../src/session/message-hash.ts';
import type { Notification } from '../../../../src/session/notification.ts';
import { openPayload } from '../../../../src/session/payload.ts';
import type { ServiceNodes } from '../../../../src/session/service-nodes.ts';
import { holdersOf, SLOTS, slotOf } from '../../../../src/session/slots.ts';
import { SwarmSpace } from '../../../../src/session/swarm.ts';
import { FakeClock } from '../../../support/fake-clock.ts';
import type { Random } from '../../../support/random.ts';
import { makeRow } from '../../../support/rows.ts';
import { keyOf, SimulatedDatabase, type Split } from './database.ts';
import { HEIRS_WITHIN, SimulatedMember } from './member.ts';
import { SERVICE, SimulatedNotifier } from './notifier.ts';
import { StorageServer } from './storage-server.ts';
import { Way } from './ways.ts';

export const SECOND = 1_000;
export const MINUTE = 60 * SECOND;

const DAY = 24 * 60 * MINUTE;
/** A subscription that was made or removed so long ago (ms) is known to all that live. */
const KNOWN_AFTER = 5 * SECOND;
/** How long (ms) a client waits for an answer before it asks elsewhere. */
const PATIENCE = 3 * SECOND;
/** The servers of a swarm store a message within so long (ms). */
const STORED_WITHIN = 300;
const EVENTS_SHOWN = 60;

export interface WorldOptions {
  readonly names: readonly string[];
  readonly copies: number;
  /** Accounts in the beginning. */
  readonly accounts: number;
  readonly limits: { readonly maxBytes: number; readonly maxAge: number };
  /** Pushes that a notifier takes at a time of one hivemind. */
  readonly window: number;
  /** How long (ms) the provider takes at most. */
  readonly latency: number;
}

/** What a client was told of its subscription, and when. */
interface Subscribed {
  row: DeviceRow;
  /** Since when the hiveminds have said so; undefined if the last answer was an error, or none. */
  since: number | undefined;
}

/** A push as it should be made: a message for a device. */
export interface ExpectedPush {
  readonly message: Message;
  readonly serviceId: string;
  /** Whether its subscription was made well before the message, and not touched since. */
  isSettled: boolean;
  /** The runs of members that were told of it by a storage server while they had the subscription. */
  readonly heardBy: Set<SimulatedMember>;
  /** Each time that it was given to the provider. */
  readonly sent: Given[];
}

/** A push as a notifier gave it to the provider. */
interface Given {
  readonly by: SimulatedNotifier;
  readonly at: number;
  readonly doubt: number;
  /** Whether the notifier lived on until the provider had it. */
  arrived: boolean;
}

interface Message extends Notification {
  readonly storedAt: number;
}

/** A whole cluster with all around it, on a clock that is moved by hand; what happens is drawn from `random`. */
export class ClusterWorld {
  readonly clock = new FakeClock();
  readonly random: Random;
  readonly options: WorldOptions;
  readonly database: SimulatedDatabase;
  readonly servers: StorageServer[] = [];
  /** Those that run now, by name. */
  readonly members = new Map<string, SimulatedMember>();
  /** Every one that has ever run. */
  readonly runs: SimulatedMember[] = [];
  /** Those that have stopped in order. */
  readonly stopped = new Map<SimulatedMember, { readonly leftOver: number }>();
  notifiers: SimulatedNotifier[] = [];
  readonly pushes = new Map<string, ExpectedPush>();
  readonly subscribed = new Map<string, Subscribed>();
  /** When the provider answers again; monotonic ms. */
  providerSilentUntil = 0;
  /** Whether everything is covered, as far as that is up to the members: then no message is to be lost. */
  isWhole = false;
  /** Whether a notifier came, went or was cut off: then a push may reach the provider twice. */
  notifiersChanged = false;
  /** Told of an error that nothing of it may throw. */
  failure: Error | undefined;
  readonly #events: string[] = [];
  readonly #ways = new Map<string, Way>();
  readonly #space: SwarmSpace;
  readonly #byId = new Map<string, DeviceRow[]>();
  readonly #encKeys = new Map<string, Buffer>();
  readonly #messages = new Map<string, Message>();
  readonly #given = new WeakMap<Delivery, Given>();
  /** How many pushes each run of a member was told of, the same one with another doubt counted again. */
  readonly #heardOf = new WeakMap<SimulatedMember, number>();
  #count = 0;
  #height = 1_000;

  constructor(random: Random, options: WorldOptions) {
    this.random = random;
    this.options = options;
    const { clock } = this;
    this.database = new SimulatedDatabase(clock);
    const swarms = Array.from({ length: 2 + random.int(4) }, () => random.bytes(8).readBigUInt64BE());
    this.#space = new SwarmSpace(swarms);
    for (const swarm of this.#space.ids) {
      for (let n = 5 + random.int(3); n > 0; n--) {
        this.servers.push(new StorageServer(clock, random, this.servers.length, swarm));
      }
    }
    for (let n = 0; n < options.accounts; n++) {
      const row = this.#newRow();
      const transaction = this.database.begin();
      transaction.upsert(row);
      transaction.end(true);
      this.#remember(row);
      this.subscribed.set(keyOf(row), { row, since: Number.NEGATIVE_INFINITY });
    }
    for (let n = 0; n < 2; n++) this.startNotifier();
    for (const name of options.names) this.start(name);
  }

  /** Says what happens, for whoever has to find out why something went wrong. */
  note(text: string): void {
    this.#events.push(`${(this.clock.monotonic() / SECOND).toFixed(3)} s: ${text}`);
    if (this.#events.length > EVENTS_SHOWN) this.#events.shift();
  }

  get events(): readonly string[] {
    return this.#events;
  }

  /** Does something in `from` to `to` ms. */
  later(from: number, to: number, what: () => void): void {
    this.clock.setTimeout(what, from + this.random.int(to - from + 1));
  }

  way(from: string, to: string): Way {
    const key = `${from}>${to}`;
    let way = this.#ways.get(key);
    if (!way) {
      way = new Way(this.clock, this.random);
      this.#ways.set(key, way);
    }
    return way;
  }

  /** Whether pushes were given up somewhere for want of room. */
  get wasFull(): boolean {
    return this.runs.some(({ outbox }) => {
      const { overflow = 0, account_share = 0 } = outbox.services.get(SERVICE)?.counters.dropped ?? {};
      return overflow + account_share > 0;
    });
  }

  /** The names that have no process. */
  get absent(): string[] {
    return this.options.names.filter((name) => !this.members.has(name));
  }

  /** Members that are at work, and are to stay. */
  get working(): SimulatedMember[] {
    return [...this.members.values()].filter(({ isReady, isLeaving, stands }) => isReady && !isLeaving && !stands);
  }

  start(name: string): void {
    if (this.members.has(name)) return;
    const { clock, random, database } = this;
    const { copies, limits } = this.options;
    this.note(`${name} starts`);
    const member = new SimulatedMember(name, {
      clock,
      random,
      database,
      copies,
      limits,
      find: (other) => this.members.get(other),
      way: (from, to) => this.way(from, to),
      server: (key) => this.#serverOf(key),
      list: () => this.#list(),
      heard: (by, message, devices) => this.#heard(by, message, devices),
      log: (text) => this.note(text),
    });
    this.members.set(name, member);
    this.runs.push(member);
    this.#mustSucceed(
      member.start().catch((error: Error) => {
        if (member.isDead) return;
        // As systemd does with a start that failed.
        this.note(`${name} could not start: ${error.message}`);
        this.kill(name);
        this.later(SECOND, 3 * SECOND, () => this.start(name));
      }),
    );
  }

  /** It is gone from one moment to the next. */
  kill(name: string): void {
    const member = this.members.get(name);
    if (!member) return;
    this.note(`${name} is killed`);
    member.die();
    this.members.delete(name);
    for (const notifier of this.notifiers) notifier.lose(member);
  }

  /** It stops in order; then something else may follow. */
  stop(name: string, then: () => void = () => {}): void {
    this.#mustSucceed(this.#stop(name).then(then));
  }

  async #stop(name: string): Promise<void> {
    const member = this.members.get(name);
    if (!member || member.isLeaving) return;
    if (!member.isReady) {
      // Who has covered nothing yet has nothing to hand over.
      this.kill(name);
      return;
    }
    this.note(`${name} is about to stop`);
    const since = this.clock.monotonic();
    const hasHeirs = this.isWhole && this.working.some((other) => other !== member);
    const { isCovered, waited, leftOver } = await member.leave();
    if (member.isDead) return;
    if (hasHeirs && !isCovered && waited < HEIRS_WITHIN) throw new Error(`${name} did not wait for its heirs`);
    this.note(`${name} has stopped${isCovered ? '' : ', and others do not cover all that it covered'}`);
    if (!isCovered) this.#mayMiss(since);
    if (member.timers > 0) throw new Error(`${name} has left ${member.timers} timers`);
    member.die();
    this.members.delete(name);
    this.stopped.set(member, { leftOver });
    for (const notifier of this.notifiers) notifier.lose(member);
  }

  /** It stands still. */
  pause(name: string, ms: number): void {
    this.note(`${name} stands still for ${ms} ms`);
    this.members.get(name)?.pause(ms);
  }

  /** It is split from the database. */
  split(name: string, how: Split, ms: number): void {
    const connection = this.members.get(name)?.store.connection;
    if (!connection || connection.isSplit) return;
    this.note(`${name} is split from the database (${how}) for ${ms} ms`);
    connection.split(how);
    this.clock.setTimeout(() => connection.heal(), ms);
  }

  /** Two do not reach each other. */
  cut(one: string, other: string, ms: number): void {
    const ways = [this.way(one, other), this.way(other, one)];
    if (ways.some(({ isCut }) => isCut)) return;
    this.note(`${one} and ${other} do not reach each other for ${ms} ms`);
    for (const way of ways) way.cut();
    const notifier = this.notifiers.find(({ name }) => name === one || name === other);
    const member = this.members.get(one) ?? this.members.get(other);
    if (notifier && member) notifier.lose(member);
    this.clock.setTimeout(() => {
      for (const way of ways) way.mend();
    }, ms);
  }

  startNotifier(): void {
    const { clock, random } = this;
    const name = `notifier ${++this.#count}`;
    this.notifiers.push(
      new SimulatedNotifier({
        clock,
        random,
        name,
        window: this.options.window,
        maxAge: this.options.limits.maxAge,
        hiveminds: () => this.members.values(),
        way: (from, to) => this.way(from, to),
        send: (notifier, push, doubt) => this.#provide(notifier, push, doubt),
      }),
    );
  }

  killNotifier(notifier: SimulatedNotifier): void {
    this.note(`${notifier.name} is killed`);
    this.#remove(notifier);
  }

  /** As {@link stop}. */
  stopNotifier(notifier: SimulatedNotifier, then: () => void): void {
    this.#mustSucceed(this.#stopNotifier(notifier).then(then));
  }

  async #stopNotifier(notifier: SimulatedNotifier): Promise<void> {
    this.note(`${notifier.name} is about to stop`);
    this.notifiersChanged = true;
    await notifier.stop();
    this.note(`${notifier.name} has stopped`);
    this.#remove(notifier);
  }

  /** A client does something: subscribes a new or a known device, renews, or goes. */
  client(): void {
    const { random } = this;
    const what = random.int(10);
    const known = [...this.subscribed.values()];
    const one = known.length > 0 ? random.pick(known) : undefined;
    if (!one || what < 3) this.#subscribe(this.#newRow());
    else if (what < 4) this.#subscribe(this.#newRow(one.row.account));
    else if (what < 7) this.#subscribe({ ...one.row, signature: random.bytes(64), signedAt: this.#seconds() });
    else if (known.length > this.options.accounts) this.#unsubscribe(one.row);
  }

  /** Somebody else writes to the database, in a transaction that may take long. */
  original(ms: number): void {
    const transaction = this.database.begin();
    const row = this.#newRow();
    this.#remember(row);
    const subscribed: Subscribed = { row, since: undefined };
    this.subscribed.set(keyOf(row), subscribed);
    transaction.upsert(row);
    this.clock.setTimeout(() => {
      transaction.end(true);
      subscribed.since = this.clock.monotonic();
    }, ms);
  }

  /** A message is stored with the servers of its swarm. */
  message(): void {
    const { random, clock } = this;
    if (this.subscribed.size === 0) return;
    const { account } = random.pick([...this.subscribed.values()]).row;
    const data = Buffer.from(`message ${++this.#count}`);
    const hash = messageHash(account, 0, data);
    const storedAt = clock.monotonic();
    const times = { timestamp: clock.now(), expiry: clock.now() + 14 * DAY };
    const message = { account, hash, namespace: 0, ...times, data, storedAt };
    this.#messages.set(String(hash), message);
    for (const { serviceId } of this.#byId.get(account.toString('hex')) ?? []) {
      const push = this.#expect(String(hash), serviceId);
      push.isSettled = this.#isSettled(account, serviceId);
    }
    for (const server of this.#serversOf(account)) this.later(0, STORED_WITHIN, () => server.store(message));
  }

  /** Throws if something is wrong that may be so at no time. */
  checkNow(): void {
    if (this.failure) throw this.failure;
    const { maxBytes } = this.options.limits;
    for (const member of this.members.values()) {
      const { name, outbox, intake, feed } = member;
      const { standby } = outbox;
      const queue = outbox.services.get(SERVICE)?.queue;
      if ((standby?.bytes ?? 0) > maxBytes) throw new Error(`${name} holds back ${standby?.bytes} bytes`);
      if ((queue?.bytes ?? 0) > maxBytes) throw new Error(`${name} queues ${queue?.bytes} bytes`);
      // Each other member is told the latest of a push, with each doubt: in what is gathered, and in what is under way.
      const mostNews = 2 * (this.options.names.length - 1) * (this.#heardOf.get(member) ?? 0);
      if ((standby?.untold ?? 0) > mostNews) throw new Error(`${name} has ${standby?.untold} news to tell`);
      // While so many wait no more are asked for, and a page has so many at most.
      if (feed.pending >= AT_ONCE + PAGE) throw new Error(`${name} has ${feed.pending} changes to read`);
      if (intake.counters.held > 1_000) throw new Error(`${name} has ${intake.counters.held} copies waiting`);
    }
  }

  /** What keeps the cluster from being whole, in words; undefined if nothing does. */
  trouble(): string | undefined {
    const { copies } = this.options;
    const names = [...this.members.keys()].sort();
    if (names.length === 0) return 'nobody lives';
    for (const member of this.members.values()) {
      const { name, cluster, devices, isReady, isLeaving, stands } = member;
      if (!isReady || isLeaving || stands) return `${name} is not at work`;
      const living = cluster.living.map((one) => one.name).sort();
      if (living.join() !== names.join()) return `${name} takes ${living.join()} to live, and it is ${names.join()}`;
      for (let slot = 0; slot < SLOTS; slot++) {
        const holders = holdersOf(slot, names, copies);
        if (cluster.holdsSlot(slot) !== holders.includes(name)) return `${name} holds slot ${slot} wrongly`;
        const first = cluster.duty.firstOf(slot);
        if (first !== holders[0]) return `${name} takes ${first} for the first of slot ${slot}, not ${holders[0]}`;
      }
      const { full, fewer, none } = cluster.report().coverage;
      if (full !== SLOTS && names.length >= copies) return `${name} sees ${full}, ${fewer}, ${none} slots covered`;
      const stored = [...this.database.subscriptions.values()].filter(({ row }) => cluster.holds(row.account));
      if (devices.size !== stored.length) return `${name} has ${devices.size} subscriptions of ${stored.length}`;
      for (const { row } of stored) {
        const known = devices.get(row.account, row.service, row.serviceId);
        if (!known?.signature.equals(row.signature)) return `${name} does not know the present ${row.serviceId}`;
        const servers = this.#serversOf(row.account);
        const asked = servers.filter((server) => server.isMonitoredBy(member, row.account)).length;
        const isFirst = cluster.duty.firstOf(slotOf(row.account)) === name;
        if (asked < (isFirst || copies === 1 ? servers.length : Math.min(ENOUGH, servers.length)))
          return `${name} has the account of ${row.serviceId} monitored by ${asked} of ${servers.length} servers`;
      }
    }
    return undefined;
  }

  /** What is still on its way, in words; undefined if nothing is. */
  unfinished(): string | undefined {
    for (const { name, outbox, intake, feed } of this.members.values()) {
      const { standby, outstanding } = outbox;
      if (outstanding > 0) return `${name} has ${outstanding} pushes that are not acknowledged`;
      if (standby && standby.size + standby.bytes + standby.unsettled > 0) {
        return `${name} holds back ${standby.size} pushes, ${standby.bytes} bytes, ${standby.unsettled} unsettled`;
      }
      if (standby && standby.untold > 0) return `${name} has ${standby.untold} news to tell`;
      if (intake.counters.held > 0) return `${name} has ${intake.counters.held} copies waiting`;
      if (feed.pending > 0) return `${name} has ${feed.pending} changes to read`;
    }
    // Who is away without having said so may come back, and read them.
    const isWaitedFor = [...this.database.members].some(
      ([name, { position }]) => position !== null && !this.members.has(name),
    );
    const { changes } = this.database;
    if (!isWaitedFor && changes.length > 0) return `${changes.length} changes that all have read are kept`;
    for (const { name, held } of this.notifiers) if (held > 0) return `${name} holds ${held} pushes`;
    return undefined;
  }

  /** Nothing that was simulated has thrown. */
  #mustSucceed(work: Promise<unknown>): void {
    work.catch((error: Error) => {
      this.failure ??= error;
    });
  }

  #remove(notifier: SimulatedNotifier): void {
    this.notifiersChanged = true;
    this.notifiers = this.notifiers.filter((one) => one !== notifier);
    notifier.die();
    for (const member of this.members.values()) {
      this.later(0, 50, () => member.does(() => member.outbox.gone({ ...NOBODY, id: notifier.name })));
    }
  }

  /** The swarm of an account. */
  #serversOf(account: Buffer): StorageServer[] {
    const swarm = this.#space.ids[this.#space.closest(account)];
    return this.servers.filter(({ address }) => address.swarm === swarm);
  }

  #serverOf(key: string): StorageServer {
    const server = this.servers.find((one) => one.key === key);
    if (!server) throw new Error(`there is no storage server ${key}`);
    return server;
  }

  #list(): ServiceNodes {
    const nodes = this.servers.map(({ address }) => address);
    return { height: ++this.#height, blockHash: '', nodes, swarms: nodes.map(({ swarm }) => swarm), skipped: 0 };
  }

  #seconds(): number {
    return Math.floor(this.clock.now() / 1000);
  }

  /** A device that was not there before, of a new account unless one is given. */
  #newRow(account?: Buffer): DeviceRow {
    const { random } = this;
    return makeRow(
      {
        account: account ?? Buffer.concat([Buffer.of(0x03), random.bytes(32)]),
        service: SERVICE,
        serviceId: `device ${String(++this.#count).padStart(32, '0')}`,
        signedAt: this.#seconds(),
        wantData: random.int(4) > 0,
      },
      random,
    );
  }

  /** What phones know of themselves. */
  #remember(row: DeviceRow): void {
    const account = row.account.toString('hex');
    this.#encKeys.set(row.serviceId, row.encKey);
    const rows = this.#byId.get(account) ?? [];
    this.#byId.set(account, [...rows.filter(({ serviceId }) => serviceId !== row.serviceId), row]);
  }

  /** Nobody promises what is stored from that moment on. */
  #mayMiss(since: number): void {
    this.isWhole = false;
    for (const push of this.pushes.values()) if (push.message.storedAt > since - STORED_WITHIN) push.isSettled = false;
  }

  #isSettled(account: Buffer, serviceId: string): boolean {
    const subscribed = this.subscribed.get(keyOf({ account, service: SERVICE, serviceId }));
    if (!this.isWhole) return false;
    return subscribed?.since !== undefined && this.clock.monotonic() - subscribed.since > KNOWN_AFTER;
  }

  #subscribe(row: DeviceRow): void {
    this.#remember(row);
    const key = keyOf(row);
    const subscribed = this.subscribed.get(key) ?? { row, since: undefined };
    subscribed.row = row;
    // A renewal that fails leaves what was there before.
    this.subscribed.set(key, subscribed);
    const answered = this.#ask((member) => member.subscribe(row)).then((done) => {
      if (done) subscribed.since ??= this.clock.monotonic();
    });
    this.#mustSucceed(answered);
  }

  #unsubscribe(row: DeviceRow): void {
    const key = keyOf(row);
    this.subscribed.delete(key);
    for (const push of this.pushes.values()) if (push.serviceId === row.serviceId) push.isSettled = false;
    this.#mustSucceed(this.#ask((member) => member.unsubscribe(row, this.#seconds())));
  }

  /** Asks one hivemind after the other, as web does. @returns whether one of them has done it */
  async #ask(what: (member: SimulatedMember) => Promise<void>): Promise<boolean> {
    for (let attempt = 0; attempt < 5; attempt++) {
      const members = [...this.members.values()].filter(({ isReady, isLeaving }) => isReady && !isLeaving);
      const { promise, resolve } = Promise.withResolvers<boolean>();
      this.clock.setTimeout(() => resolve(false), PATIENCE);
      if (members.length > 0) {
        const member = this.random.pick(members);
        member.does(() => {
          what(member).then(
            () => resolve(true),
            () => resolve(false),
          );
        });
      }
      if (await promise) return true;
    }
    return false;
  }

  /** Any device may get a message that came after it had subscribed. */
  #expect(hash: string, serviceId: string): ExpectedPush {
    const key = `${hash} ${serviceId}`;
    let push = this.pushes.get(key);
    if (!push) {
      const message = this.#messages.get(hash);
      if (!message) throw new Error(`a push for ${serviceId} of a message that was never stored`);
      push = { message, serviceId, isSettled: false, heardBy: new Set(), sent: [] };
      this.pushes.set(key, push);
    }
    return push;
  }

  #heard(by: SimulatedMember, { hash }: Notification, devices: readonly PushedDevice[]): void {
    for (const { serviceId } of devices) this.#expect(String(hash), serviceId).heardBy.add(by);
    this.#heardOf.set(by, (this.#heardOf.get(by) ?? 0) + devices.length);
  }

  /** The provider gets a push, and says what it makes of it, some time later. */
  async #provide(by: SimulatedNotifier, push: Delivery, doubt: number): Promise<Outcome> {
    const { clock, random } = this;
    const { latency } = this.options;
    const expected = this.#read(push);
    let given = this.#given.get(push);
    // What is tried again for a device is one push.
    if (!given) {
      given = { by, at: clock.monotonic(), doubt, arrived: false };
      this.#given.set(push, given);
      expected.sent.push(given);
    }
    const silence = Math.max(0, this.providerSilentUntil - clock.monotonic());
    await new Promise<void>((resolve) => clock.setTimeout(resolve, silence + 5 + random.int(latency)));
    if (by.isDead) return await new Promise<never>(() => {});
    given.arrived = true;
    const luck = random.int(20);
    if (luck === 0) return refused('no');
    if (luck === 1) return retry('not now', 0, 'device');
    return accepted;
  }

  /** As the phone does. */
  #read(push: Delivery): ExpectedPush {
    try {
      const key = this.#encKeys.get(push.id);
      if (!key) throw new Error(`a push for ${push.id}, which never was`);
      return this.#expect(openPayload(push.payload, key).metadata.hash, push.id);
    } catch (error) {
      this.failure ??= error as Error;
      throw error;
    }
  }
}

const NOBODY = { send: () => false, request: () => Promise.reject(new Error('nobody is there')) };
