import type { Clock } from '../../clock.ts';
import { addressTrouble } from '../../session/node-address.ts';
import type { ServiceNode, ServiceNodes } from '../../session/service-nodes.ts';
import { swarmsOfSlots } from '../../session/slots.ts';
import type { Monitoring } from '../monitoring/monitoring.ts';
import type { Channel } from '../monitoring/swarm-member.ts';
import type { Defer } from '../monitoring/swarms.ts';
import { SLICE } from '../slice.ts';
import { ListDoubt } from './list-doubt.ts';
import { type Connect, Node, type NodeReport, reportNode } from './node.ts';

export interface NodesOptions {
  readonly clock: Clock;
  /** Uniform in [0, 1). */
  readonly jitter: () => number;
  readonly defer: Defer;
  /** How many connections may be in the making at a time; 0 = none are made at all. */
  readonly maxConnects: number;
  /** Whether servers may have private or loopback addresses. */
  readonly allowPrivate: boolean;
  readonly connect: Connect;
  /** Told which servers there are, and which of them are up. */
  readonly monitoring: Monitoring;
  /** Called with a server that did us harm and is left alone for an hour. */
  readonly cutOff: (node: Node, reason: string) => void;
}

/**
 * How long a server rests after its first, second, … failed connection in a row, in ms (docs/spec/network.md, section
 * 5).
 */
const COOLDOWNS = [10_000, 30_000, 60_000];
const LONGEST_COOLDOWN = 120_000;
/** How long a server that did us harm is left alone, in ms. */
const CUT_OFF = 60 * 60_000;

/**
 * The storage servers of the network and our connections to them. Trouble with one does not affect the others.
 */
export class Nodes {
  readonly #options: NodesOptions;
  readonly #doubt: ListDoubt;
  readonly #nodes = new Map<string, Node>();
  readonly #queue = new Set<Node>();
  /**
   * Until when (monotonic ms) servers are cut off, by key. Not kept in {@link Node}, so that leaving the list does not
   * shorten it.
   */
  readonly #cutOff = new Map<string, number>();
  /** The slots that we look after, if we are one of several hiveminds; undefined: all accounts are ours. */
  #slots: ReadonlySet<number> | undefined;
  #swarms: readonly bigint[] = [];
  /** The swarms that keep accounts of those slots. */
  #needed: ReadonlySet<bigint> = new Set();
  #pending = 0;
  /** Time (ms) spent on lists and connections since connecting last yielded, and whether it is yielding now. */
  #spent = 0;
  #isYielding = false;
  #stopped = false;
  readonly counters = {
    connects: 0,
    failures: 0,
    handshakes: 0,
    losses: 0,
    joined: 0,
    left: 0,
    moved: 0,
    readdressed: 0,
    cutOff: 0,
  };

  constructor(options: NodesOptions) {
    this.#options = options;
    this.#doubt = new ListDoubt(options.clock);
  }

  /**
   * A report on every storage server.
   * @param recordOf further fields for its report
   */
  reports<T extends object>(recordOf: (node: Node) => T): (NodeReport & T)[] {
    const { monitoring } = this.#options;
    return Array.from(this.#nodes.values(), (node) => ({
      ...reportNode(node, monitoring.report(node.swarmMember)),
      ...recordOf(node),
    }));
  }

  /** How many servers there are, and how many are in which {@link NodeState}; `pending` are connecting. */
  summary() {
    let [connected, unusable, cutOff, unneeded] = [0, 0, 0, 0];
    for (const { state } of this.#nodes.values()) {
      if (state === 'up') connected++;
      if (state === 'unusable') unusable++;
      if (state === 'cut-off') cutOff++;
      if (state === 'unneeded') unneeded++;
    }
    return { nodes: this.#nodes.size, connected, pending: this.#pending, unusable, cutOff, unneeded };
  }

  /** From now on connects only to storage servers that keep accounts of these slots; undefined: to all. */
  setSlots(slots: ReadonlySet<number> | undefined): void {
    this.#slots = slots && new Set(slots);
    this.#findNeeded();
    for (const node of this.#nodes.values()) this.#review(node);
    this.#connectQueued();
  }

  /** The server with that public key, in hex. */
  find(key: string): Node | undefined {
    return this.#nodes.get(key);
  }

  /** Reconnects to a server under a new routing id; one that is not up will be reconnected anyway. */
  reconnect(node: Node): void {
    if (node.state !== 'up') return;
    node.reconnects++;
    this.#disconnect(node);
    this.#options.monitoring.down(node.swarmMember);
    this.#enqueue(node);
    this.#connectQueued();
  }

  /**
   * Takes over the list of the network's storage servers; what has not changed is left alone.
   * @returns why the list is doubted, in words; nothing has changed then
   */
  update(list: ServiceNodes): string | undefined {
    const { clock, monitoring } = this.#options;
    const now = clock.monotonic();
    const doubt = this.#doubt.judge(list);
    if (doubt !== undefined) return doubt;
    monitoring.setSwarms(list.swarms);
    this.#swarms = list.swarms;
    this.#findNeeded();
    const listed = new Map<string, ServiceNode>();
    for (const address of list.nodes) {
      const key = address.publicKey.toString('hex');
      const other = listed.get(key);
      if (!other || this.#isBefore(other, address)) listed.set(key, address);
    }
    for (const [key, until] of this.#cutOff) if (until <= now) this.#cutOff.delete(key);
    for (const node of this.#nodes.values()) if (!listed.has(node.key)) this.#remove(node);
    for (const [key, address] of listed) {
      const node = this.#nodes.get(key);
      if (node) {
        this.#change(node, address);
        this.#review(node);
      } else this.#add(new Node(key, address, monitoring.newSwarmMember(key)));
    }
    // After a list that took long, connecting begins in the next turn of the event loop.
    this.#spent += clock.monotonic() - now;
    this.#connectQueued();
    return undefined;
  }

  /** Disconnects from a server that did us harm, and leaves it alone for an hour. */
  cutOff(node: Node, reason: string): void {
    if (node.channel) this.#failed(node, reason, true);
  }

  stop(): void {
    this.#stopped = true;
    for (const node of this.#nodes.values()) this.#disconnect(node);
  }

  #add(node: Node): void {
    this.counters.joined++;
    this.#nodes.set(node.key, node);
    this.#admit(node);
  }

  /** Starts monitoring and connecting to a server, if its address can be used. */
  #admit(node: Node): void {
    const trouble = this.#troubleOf(node.address);
    node.lastError = trouble ?? '';
    if (trouble !== undefined) return;
    this.#options.monitoring.added(node.swarmMember, node.address.swarm);
    this.#enqueue(node);
  }

  /**
   * Whether `b` counts rather than `a`, if a server is listed twice. Any usable entry will do, but it must be the same
   * one each time, and the list comes in random order.
   */
  #isBefore(a: ServiceNode, b: ServiceNode): boolean {
    const [canA, canB] = [this.#troubleOf(a) === undefined, this.#troubleOf(b) === undefined];
    if (canA !== canB) return canB;
    if (a.host !== b.host) return a.host < b.host;
    if (a.port !== b.port) return a.port < b.port;
    return a.swarm < b.swarm;
  }

  #troubleOf({ host, port }: ServiceNode): string | undefined {
    if (host === '') return 'oxend knows no address';
    const trouble = addressTrouble(host, this.#options.allowPrivate);
    return trouble && `${trouble}: ${host}:${port}`;
  }

  #findNeeded(): void {
    if (this.#slots) this.#needed = swarmsOfSlots(this.#swarms, this.#slots);
  }

  #isNeeded({ address }: Node): boolean {
    return this.#slots === undefined || this.#needed.has(address.swarm);
  }

  /** Called when its swarm or our slots may have changed: it may be needed now, or no longer. */
  #review(node: Node): void {
    const { state } = node;
    if (state === 'unusable' || this.#isNeeded(node) === (state !== 'unneeded')) return;
    if (state !== 'unneeded') {
      this.#disconnect(node);
      if (state === 'up' || state === 'down') this.#options.monitoring.down(node.swarmMember);
    }
    this.#enqueue(node);
  }

  /** Has a server connected when its turn comes; one that is cut off, when its time is over. */
  #enqueue(node: Node): void {
    if (!this.#isNeeded(node)) {
      node.state = 'unneeded';
      return;
    }
    const rest = (this.#cutOff.get(node.key) ?? 0) - this.#options.clock.monotonic();
    if (rest <= 0) {
      node.state = 'queued';
      this.#queue.add(node);
      return;
    }
    node.state = 'cut-off';
    this.#retryIn(node, rest);
  }

  #remove(node: Node): void {
    this.counters.left++;
    this.#nodes.delete(node.key);
    this.#discharge(node);
  }

  /** Stops monitoring and disconnects a server, which may stay in the list. */
  #discharge(node: Node): void {
    const wasAdmitted = node.state !== 'unusable';
    this.#disconnect(node);
    node.state = 'unusable';
    if (wasAdmitted) this.#options.monitoring.removed(node.swarmMember);
  }

  #change(node: Node, listed: ServiceNode): void {
    const before = node.address;
    const { host, port } = listed.host === '' ? before : listed;
    const address = { ...listed, host, port };
    node.address = address;
    const isAdmitted = node.state !== 'unusable';
    if (before.swarm !== address.swarm) {
      this.counters.moved++;
      if (isAdmitted) this.#options.monitoring.moved(node.swarmMember, address.swarm);
    }
    if (before.host === host && before.port === port) return;
    this.counters.readdressed++;
    node.failedConnects = 0;
    const trouble = this.#troubleOf(address);
    if (!isAdmitted || trouble !== undefined) {
      this.#discharge(node);
      this.#admit(node);
      return;
    }
    const wasUp = node.state === 'up' || node.state === 'down';
    this.#disconnect(node);
    if (wasUp) this.#options.monitoring.down(node.swarmMember);
    this.#enqueue(node);
  }

  #disconnect(node: Node): void {
    this.#queue.delete(node);
    node.retry?.cancel();
    node.retry = undefined;
    if (node.state === 'connecting') this.#pending--;
    node.state = 'queued';
    node.upSince = undefined;
    const channel = node.channel;
    node.channel = undefined;
    channel?.close();
  }

  #connectQueued(): void {
    const { clock, maxConnects, defer } = this.#options;
    for (const node of this.#queue) {
      if (this.#stopped || this.#isYielding || this.#pending >= maxConnects) return;
      if (this.#spent >= SLICE) {
        this.#isYielding = true;
        defer(() => {
          this.#isYielding = false;
          this.#spent = 0;
          this.#connectQueued();
        });
        return;
      }
      this.#queue.delete(node);
      const before = clock.monotonic();
      this.#connect(node);
      this.#spent += clock.monotonic() - before;
    }
  }

  #connect(node: Node): void {
    this.counters.connects++;
    this.#pending++;
    node.state = 'connecting';
    // Late events of an earlier connection must not count as this one's.
    let channel: Channel | undefined;
    const isCurrent = () => channel !== undefined && node.channel === channel;
    try {
      channel = this.#options.connect(node, {
        up: () => channel && isCurrent() && this.#up(node, channel),
        down: () => isCurrent() && this.#down(node),
        failed: (reason, offence) => isCurrent() && this.#failed(node, reason, offence),
      });
      node.channel = channel;
    } catch (error) {
      this.#failed(node, error instanceof Error ? error.message : String(error), false);
    }
  }

  #up(node: Node, channel: Channel): void {
    this.counters.handshakes++;
    if (node.state === 'connecting') this.#pending--;
    node.state = 'up';
    node.upSince = this.#options.clock.now();
    node.failedConnects = 0;
    this.#options.monitoring.up(node.swarmMember, channel);
    this.#connectQueued();
  }

  #down(node: Node): void {
    if (node.state !== 'up') return;
    this.counters.losses++;
    node.state = 'down';
    node.upSince = undefined;
    node.lastError = 'connection lost';
    this.#options.monitoring.down(node.swarmMember);
  }

  #failed(node: Node, reason: string, offence: boolean): void {
    const { clock, jitter, monitoring, cutOff } = this.#options;
    this.counters.failures++;
    const { state } = node;
    this.#disconnect(node);
    if (state === 'up' || state === 'down') monitoring.down(node.swarmMember);
    node.lastError = reason;
    const longer = 1 + jitter() / 4;
    if (offence) {
      this.counters.cutOff++;
      cutOff(node, reason);
      this.#cutOff.set(node.key, clock.monotonic() + CUT_OFF * longer);
      this.#enqueue(node);
    } else {
      node.state = 'cooldown';
      this.#retryIn(node, (COOLDOWNS[node.failedConnects++] ?? LONGEST_COOLDOWN) * longer);
    }
    this.#connectQueued();
  }

  #retryIn(node: Node, ms: number): void {
    node.retry = this.#options.clock.setTimeout(() => {
      node.retry = undefined;
      this.#enqueue(node);
      this.#connectQueued();
    }, ms);
  }
}
