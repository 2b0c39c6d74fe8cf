import type { Clock, Timer } from '../../clock.ts';
import type { ServiceNode } from '../../session/service-nodes.ts';
import { type Link, Member } from './member.ts';

/** What a connection tells about itself. */
export interface LinkEvents {
  /** The server greeted us, or a lost connection has been restored: from now on requests make sense. */
  up(): void;
  /** The connection broke; it is being restored without our doing. */
  down(): void;
  /** It never came about and is closed. */
  failed(reason: string): void;
}

/** Makes a connection to a storage server. May throw. */
export type Connect = (node: Node, events: LinkEvents) => Link;

/**
 * - `queued`: waits for its turn to be connected
 * - `connecting`: not greeted yet
 * - `up`
 * - `down`: was up; ZeroMQ is restoring it
 * - `cooldown`: could not be connected, is tried again later
 */
export type NodeState = 'queued' | 'connecting' | 'up' | 'down' | 'cooldown';

/** A storage server of the network, and our connection to it. */
export class Node {
  /** Public key in hex: what makes it the same server. */
  readonly key: string;
  address: ServiceNode;
  /** The swarms that it was in before, until when (ms, monotonic) it may still speak for them. */
  formers: { swarm: bigint; until: number }[] = [];
  readonly member = new Member();
  state: NodeState = 'queued';
  link: Link | undefined;
  /** Since when (unix ms) it is up. */
  upSince: number | undefined;
  /** Connections in a row that failed. */
  failedConnects = 0;
  lastError = '';
  retry: Timer | undefined;

  constructor(key: string, address: ServiceNode) {
    this.key = key;
    this.address = address;
  }
}

export interface NodesOptions {
  readonly clock: Clock;
  /** Uniform in [0, 1). */
  readonly jitter: () => number;
  /** So many connections at most are being established at a time; 0 = none are made at all. */
  readonly maxConnects: number;
  readonly connect: Connect;
  readonly on: {
    added(node: Node): void;
    /** @param from the swarm it was in */
    moved(node: Node, from: bigint): void;
    removed(node: Node): void;
    /** Every completed handshake, the first and those after a loss. */
    up(node: Node, link: Link): void;
    down(node: Node): void;
  };
}

/** How long a server rests after its first, second, … failed connection in a row, in ms (spec/network.md, section 5). */
const COOLDOWNS = [10_000, 30_000, 60_000, 120_000];

/** The storage servers of the network and our connections to them. What goes wrong with one does not touch the others. */
export class Nodes {
  readonly #options: NodesOptions;
  readonly #nodes = new Map<string, Node>();
  readonly #queue = new Set<Node>();
  #pending = 0;
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
  };

  constructor(options: NodesOptions) {
    this.#options = options;
  }

  /** How many connections are being established. */
  get pending(): number {
    return this.#pending;
  }

  get size(): number {
    return this.#nodes.size;
  }

  values(): Iterable<Node> {
    return this.#nodes.values();
  }

  /** Takes over the list of the network's storage servers; only what is different is touched. */
  update(list: readonly ServiceNode[]): void {
    const listed = new Map<string, ServiceNode>();
    for (const address of list) {
      const key = address.publicKey.toString('hex');
      if (!listed.has(key)) listed.set(key, address);
    }
    for (const node of this.#nodes.values()) if (!listed.has(node.key)) this.#remove(node);
    for (const [key, address] of listed) {
      const node = this.#nodes.get(key);
      if (node) this.#change(node, address);
      else this.#add(new Node(key, address));
    }
    this.#connectQueued();
  }

  stop(): void {
    this.#stopped = true;
    for (const node of this.#nodes.values()) this.#disconnect(node);
  }

  #add(node: Node): void {
    this.counters.joined++;
    this.#nodes.set(node.key, node);
    this.#options.on.added(node);
    this.#queue.add(node);
  }

  #remove(node: Node): void {
    this.counters.left++;
    this.#nodes.delete(node.key);
    this.#disconnect(node);
    this.#options.on.removed(node);
  }

  #change(node: Node, address: ServiceNode): void {
    const before = node.address;
    node.address = address;
    if (before.swarm !== address.swarm) {
      this.counters.moved++;
      this.#options.on.moved(node, before.swarm);
    }
    if (before.host === address.host && before.port === address.port) return;
    this.counters.readdressed++;
    const wasUp = node.state === 'up' || node.state === 'down';
    this.#disconnect(node);
    if (wasUp) this.#options.on.down(node);
    node.failedConnects = 0;
    this.#queue.add(node);
  }

  #disconnect(node: Node): void {
    this.#queue.delete(node);
    node.retry?.cancel();
    node.retry = undefined;
    if (node.state === 'connecting') this.#pending--;
    node.state = 'queued';
    node.upSince = undefined;
    const link = node.link;
    node.link = undefined;
    link?.close();
  }

  #connectQueued(): void {
    if (this.#stopped) return;
    for (const node of this.#queue) {
      if (this.#pending >= this.#options.maxConnects) return;
      this.#queue.delete(node);
      this.#connect(node);
    }
  }

  #connect(node: Node): void {
    this.counters.connects++;
    this.#pending++;
    node.state = 'connecting';
    // Events of an earlier connection of the node may still come; they must not be taken for this one's.
    let link: Link | undefined;
    const isCurrent = () => link !== undefined && node.link === link;
    try {
      link = this.#options.connect(node, {
        up: () => isCurrent() && this.#up(node, link!),
        down: () => isCurrent() && this.#down(node),
        failed: (reason) => isCurrent() && this.#failed(node, reason),
      });
      node.link = link;
    } catch (error) {
      this.#failed(node, error instanceof Error ? error.message : String(error));
    }
  }

  #up(node: Node, link: Link): void {
    this.counters.handshakes++;
    if (node.state === 'connecting') this.#pending--;
    node.state = 'up';
    node.upSince = this.#options.clock.now();
    node.failedConnects = 0;
    this.#options.on.up(node, link);
    this.#connectQueued();
  }

  #down(node: Node): void {
    if (node.state !== 'up') return;
    this.counters.losses++;
    node.state = 'down';
    node.upSince = undefined;
    node.lastError = 'connection lost';
    this.#options.on.down(node);
  }

  #failed(node: Node, reason: string): void {
    const { clock, jitter, on } = this.#options;
    this.counters.failures++;
    const { state } = node;
    this.#disconnect(node);
    if (state === 'up' || state === 'down') on.down(node);
    node.state = 'cooldown';
    node.lastError = reason;
    const cooldown = COOLDOWNS[Math.min(node.failedConnects++, COOLDOWNS.length - 1)]!;
    node.retry = clock.setTimeout(
      () => {
        node.retry = undefined;
        node.state = 'queued';
        this.#queue.add(node);
        this.#connectQueued();
      },
      cooldown * (1 + jitter() / 4),
    );
    this.#connectQueued();
  }
}
