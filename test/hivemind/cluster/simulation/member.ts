import { Cluster } from '../../../../src/hivemind/cluster/cluster.ts';
import { clusterCommands } from '../../../../src/hivemind/cluster/commands.ts';
import { Feed } from '../../../../src/hivemind/cluster/feed.ts';
import { Hearing } from '../../../../src/hivemind/cluster/hearing.ts';
import { SharedSubscriptions } from '../../../../src/hivemind/cluster/shared-subscriptions.ts';
import type { DeviceKey, DeviceRow } from '../../../../src/hivemind/devices/device.ts';
import { Devices } from '../../../../src/hivemind/devices/devices.ts';
import { Monitoring } from '../../../../src/hivemind/monitoring/monitoring.ts';
import type { ChannelEvents, Node } from '../../../../src/hivemind/network/node.ts';
import { Nodes } from '../../../../src/hivemind/network/nodes.ts';
import { DuplicateFilter } from '../../../../src/hivemind/notifications/duplicate-filter.ts';
import { Intake } from '../../../../src/hivemind/notifications/intake.ts';
import { Outbox } from '../../../../src/hivemind/notifications/outbox/outbox.ts';
import type { PushedDevice } from '../../../../src/hivemind/notifications/outbox/push.ts';
import { waitForNotifiers } from '../../../../src/hivemind/notifiers-at-start.ts';
import type { Membership } from '../../../../src/hivemind/store/cluster-start.ts';
import { loadSubscriptions } from '../../../../src/hivemind/subscriptions/load.ts';
import type { Log } from '../../../../src/log.ts';
import { encodeHeard, encodeProgress } from '../../../../src/session/cluster-protocol.ts';
import type { Notification } from '../../../../src/session/notification.ts';
import type { ServiceNodes } from '../../../../src/session/service-nodes.ts';
import { blake2b } from '../../../../src/session/sodium.ts';
import { isStale } from '../../../../src/session/subscription.ts';
import type { FakeClock } from '../../../support/fake-clock.ts';
import type { Random } from '../../../support/random.ts';
import { SimulatedProcess } from '../../../support/simulated-process.ts';
import { type SimulatedDatabase, SimulatedStore } from './database.ts';
import { SERVICE } from './notifier.ts';
import type { StorageServer } from './storage-server.ts';
import { type Linked, SimulatedLinks, type Way } from './ways.ts';

const SECRET = Buffer.alloc(32, 9);
const VERSION = '2.0.0';
const FILTER_LIFETIME = 600_000;
/** How long (ms) a stop waits for others to cover what only this one covered. */
export const HEIRS_WITHIN = 2_500;
/** How long (s) a start waits for notifiers, if they do not come: `startup_wait`. */
const NOTIFIERS_COME = 10;

export interface MemberOptions {
  readonly clock: FakeClock;
  readonly random: Random;
  readonly database: SimulatedDatabase;
  readonly copies: number;
  readonly limits: { readonly maxBytes: number; readonly maxAge: number };
  readonly find: (name: string) => Linked | undefined;
  readonly way: (from: string, to: string) => Way;
  readonly server: (key: string) => StorageServer;
  /** What oxend tells. */
  readonly list: () => ServiceNodes;
  /** Told of each message that is to be pushed to these devices. */
  readonly heard: (member: SimulatedMember, message: Notification, devices: readonly PushedDevice[]) => void;
  readonly log: (text: string) => void;
}

/**
 * One run of a hivemind of a cluster. Its parts are the real ones, joined as src/hivemind/hivemind.ts and
 * src/hivemind/cluster/join.ts join them, without sockets and without a database.
 */
export class SimulatedMember extends SimulatedProcess implements Linked {
  readonly name: string;
  readonly run: bigint;
  readonly store: SimulatedStore;
  readonly devices: Devices;
  readonly cluster: Cluster;
  readonly feed: Feed;
  readonly hearing: Hearing<Node>;
  readonly monitoring: Monitoring;
  readonly nodes: Nodes;
  readonly seen: DuplicateFilter;
  readonly intake: Intake<Node>;
  readonly outbox: Outbox;
  readonly links: SimulatedLinks;
  readonly commands: Linked['commands'];
  /** It has loaded, and joined the network. */
  isReady = false;
  isLeaving = false;
  readonly #options: MemberOptions;
  readonly #membership: Membership;
  readonly #subscriptions: SharedSubscriptions;
  readonly #stopping = new AbortController();
  readonly #log: Log;
  /** Devices with a client's request in work, and how many. */
  readonly #inWork = new Map<string, number>();

  constructor(name: string, options: MemberOptions) {
    super(options.clock);
    const { random, database, copies, limits } = options;
    const { clock } = this;
    const log: Log = {
      debug: () => {},
      info: () => {},
      warn: (text) => options.log(`${name}: ${text}`),
      error: (text) => options.log(`${name}: ${text}`),
    };
    this.#options = options;
    this.#log = log;
    this.name = name;
    this.#membership = database.join(name);
    this.run = this.#membership.run;
    const own = { name, run: this.run, version: VERSION };
    const defer = (work: () => void) => void clock.setTimeout(work, 0);
    const jitter = () => random.int(2 ** 30) / 2 ** 30;
    const bytes = (size: number) => random.bytes(size);

    this.store = new SimulatedStore(database, this, random, this.#membership);
    this.devices = new Devices({ random: bytes });
    this.seen = new DuplicateFilter({ clock, random: bytes, lifetime: FILTER_LIFETIME });
    this.monitoring = new Monitoring({
      clock,
      jitter,
      defer,
      accounts: this.devices,
      interval: 30_000,
      rank: (key) => blake2b(16, Buffer.from(`${name} ${key}`)).readUIntBE(0, 6),
      suspect: () => options.clock.setTimeout(() => this.does(() => this.refresh()), 1_000),
    });
    this.nodes = new Nodes({
      clock,
      jitter,
      defer,
      maxConnects: 100,
      allowPrivate: true,
      monitoring: this.monitoring,
      connect: (node, events) => this.#connect(node, events),
      cutOff: (node, reason) => options.log(`${name}: ${node.key} is cut off: ${reason}`),
    });
    this.links = new SimulatedLinks({ own: this, find: options.find, way: options.way });
    this.cluster = new Cluster({
      clock,
      own,
      copies,
      beat: (sign) => this.store.cluster.beat(sign),
      load: (slots) => this.#load(slots),
      devices: this.devices,
      uncovered: () => this.monitoring.uncoveredSlots(),
      setSlots: (slots) => this.nodes.setSlots(slots),
      spareSlots: (slots) => this.monitoring.spareSlots(slots),
      links: this.links,
      log,
    });
    this.feed = new Feed({
      clock,
      store: this.store,
      cluster: this.store.cluster,
      devices: this.devices,
      holds: (slot) => this.cluster.holdsSlot(slot),
      inWork: (service, serviceId) => this.#inWork.has(`${service} ${serviceId}`),
      log,
    });
    this.hearing = new Hearing<Node>({
      clock,
      othersOf: (slot) => this.cluster.duty.othersOf(slot),
      serverOf: (key) => this.nodes.find(key),
      askedSince: (node, slot) => this.monitoring.askedSince(node.swarmMember, slot),
      reconnect: (node) => this.nodes.reconnect(node),
      tell: (member, servers) => this.links.send(member, 'cluster.heard', encodeHeard({ ...own, servers })),
      log,
    });
    this.outbox = new Outbox({
      clock,
      random: bytes,
      limits,
      breaker: { share: 1, minimum: 1e9 },
      log: { info: () => {}, warn: log.warn },
      defer,
      cluster: {
        duty: this.cluster.duty,
        secret: SECRET,
        tell: (member, news) => this.links.request(member, 'cluster.progress', encodeProgress({ ...own, ...news })),
      },
    });
    this.intake = new Intake<Node>({
      clock,
      possibleTimes: () => [clock.now()],
      devices: this.devices,
      seen: this.seen,
      outbox: {
        add: (message, devices, doubt) => {
          options.heard(this, message, devices);
          this.outbox.add(message, devices, doubt);
        },
      },
      accepts: (node, account) => this.monitoring.accepts(node.swarmMember, account),
      hasOthers: (node, account) => this.monitoring.hasOthers(node.swarmMember, account),
      nameOf: ({ key }) => key.slice(0, 12),
      log,
    });
    this.commands = clusterCommands({
      own,
      onProgress: (progress) => this.outbox.standby?.onProgress(progress),
      onChanged: ({ slots }) => {
        if (this.cluster.holdsAnyOf(slots)) this.feed.hint();
      },
      onLeaving: () => this.cluster.refresh(),
      onHeard: (heard) => this.hearing.take(heard),
      log,
    });
    this.#subscriptions = new SharedSubscriptions({
      devices: this.devices,
      store: { find: this.store.find.bind(this.store), countDevices: async () => ({ all: 0, alike: 0 }) },
      cluster: this.cluster,
    });
  }

  /**
   * As src/hivemind/lifecycle.ts starts it.
   * @throws what ends the process then
   */
  async start(): Promise<void> {
    await this.cluster.start();
    if (this.isDead) return;
    this.feed.start();
    await waitForNotifiers({
      clock: this.clock,
      expected: [SERVICE],
      wait: NOTIFIERS_COME,
      outbox: this.outbox,
      othersWork: () => this.cluster.othersWork,
      stopping: this.#stopping.signal,
    });
    if (this.isDead) return;
    this.refresh();
    this.cluster.ready();
    this.isReady = true;
  }

  /**
   * As src/hivemind/lifecycle.ts stops it.
   * @returns whether others cover what it covered, how long (ms) it waited for that, and how many pushes it left to
   *   others that may not send them either
   */
  async leave(): Promise<{ isCovered: boolean; waited: number; leftOver: number }> {
    this.isLeaving = true;
    this.#stopping.abort();
    const since = this.clock.monotonic();
    const isCovered = await this.cluster.leave(HEIRS_WITHIN);
    const waited = this.clock.monotonic() - since;
    this.nodes.stop();
    this.monitoring.stop();
    this.intake.stop();
    await this.outbox.stop(5_000, 6_000);
    this.cluster.stop();
    this.hearing.stop();
    this.links.close();
    await this.feed.stop();
    await this.store.cluster.leave().catch(() => {});
    await this.store.close();
    const { shutdown, unreported } = this.outbox.close();
    const left = this.outbox.standby?.counters.left ?? 0;
    return { isCovered, waited, leftOver: shutdown + unreported + left };
  }

  /** Asks oxend for the list. */
  refresh(): void {
    if (!this.isDead && !this.isLeaving) this.nodes.update(this.#options.list());
  }

  /** A client's request, as src/hivemind/subscriptions/subscriptions.ts carries it out. @throws StoreError */
  subscribe(row: DeviceRow): Promise<void> {
    return this.#during(row, async () => {
      if ((await this.store.upsert(row)) === 'stale') return;
      this.#subscriptions.replace(row, Math.floor(this.clock.now() / 1000));
    });
  }

  /** As {@link subscribe}. */
  unsubscribe(key: DeviceKey, signedAt: number): Promise<void> {
    const { account, service, serviceId } = key;
    return this.#during(key, async () => {
      const deleted = await this.store.remove(account, service, serviceId, signedAt);
      const kept = this.#subscriptions.get(account, service, serviceId);
      if (deleted || (kept !== undefined && !isStale(signedAt, kept.signedAt)))
        this.#subscriptions.remove(account, service, serviceId);
    });
  }

  async #during(key: Pick<DeviceKey, 'service' | 'serviceId'>, work: () => Promise<void>): Promise<void> {
    const name = `${key.service} ${key.serviceId}`;
    this.#inWork.set(name, (this.#inWork.get(name) ?? 0) + 1);
    try {
      await work();
    } finally {
      const left = (this.#inWork.get(name) ?? 1) - 1;
      if (left > 0) this.#inWork.set(name, left);
      else this.#inWork.delete(name);
    }
  }

  #load(slots: ReadonlySet<number>): Promise<void> {
    const clock = { monotonic: () => this.clock.monotonic(), raiseFloor: () => {} };
    const { store, devices } = this;
    return loadSubscriptions({ clock, store, devices, stopping: this.#stopping.signal, log: this.#log }, slots);
  }

  #connect(node: Node, events: ChannelEvents) {
    const { name, generation } = this.#membership;
    const routingId = `${name} ${generation} ${node.reconnects}`;
    return this.#options.server(node.key).connect(this, routingId, events, (frame) => {
      this.hearing.heard(node, frame);
      this.intake.handle(node, frame);
    });
  }
}
