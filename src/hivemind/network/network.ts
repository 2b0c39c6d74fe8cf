import type { Clock, Timer } from '../../clock.ts';
import { mulberry32 } from '../../mulberry32.ts';
import { formatAddress, parseAddress } from '../../oxenmq/address.ts';
import type { Counters } from '../../oxenmq/counters.ts';
import { keyPairFromSecret } from '../../oxenmq/keys.ts';
import { type Connection, Peers } from '../../oxenmq/peers.ts';
import type { Commands, Handler, Incoming } from '../../oxenmq/remote.ts';
import type { ServiceNodes } from '../../session/service-nodes.ts';
import { blake2b } from '../../session/sodium.ts';
import type { MonitoringSummary } from '../monitoring/freshness.ts';
import { type MonitoredAccounts, Monitoring } from '../monitoring/monitoring.ts';
import type { Channel } from '../monitoring/swarm-member.ts';
import type { ChannelEvents, Node, NodeReport } from './node.ts';
import { Nodes } from './nodes.ts';
import { Oxend, type OxendConnection, type OxendEvents } from './oxend.ts';
import { unreadOfThisProcess } from './unread.ts';

export interface NetworkOptions {
  readonly clock: Clock;
  readonly random: (bytes: number) => Buffer;
  readonly accounts: MonitoredAccounts;
  /** The hivemind's X25519 private key, 32 bytes. */
  readonly secret: Uint8Array;
  /** Identifies us among several hiveminds with that key; undefined if we are the only one. */
  readonly identity?: HivemindIdentity | undefined;
  /** OxenMQ address of oxend. */
  readonly oxend: string;
  /** How many connections to storage servers may be in the making at a time; 0 = none are made, a dry run. */
  readonly maxConnects: number;
  /** Whether storage servers may have private or loopback addresses. */
  readonly allowPrivate: boolean;
  /** How long due renewals may be gathered into one request, in ms. */
  readonly interval: number;
  readonly log: { info(text: string): void; warn(text: string): void; debug(text: string): void };
  /** How many bytes from storage servers may lie unread; {@link MAX_UNREAD} if not given. */
  readonly maxUnread?: number;
  /** Called when a storage server has sent a `notify.message`; `body` is its one part. */
  readonly onNotification: (node: Node, body: Buffer) => void;
}

/** A hivemind among several with the same key. No two processes ever have the same name and generation. */
export interface HivemindIdentity {
  readonly name: string;
  readonly generation: bigint;
}

/**
 * How many bytes may lie unread before the server that sends most is cut off; the others of its swarm report the same
 * messages (docs/decisions/38). A burst of 200,000 notifications is 190 MB at most (docs/spec/platform.md, section 6).
 */
const MAX_UNREAD = 512 * 1024 ** 2;
/** How often that is checked, in ms: a check takes a third of a millisecond. */
const UNREAD_CHECK = 1000;
const MONITOR_TIMEOUT = 15_000;
const MAX_MESSAGE = 10 * 1024 * 1024;

/** What we attach to each connection. */
interface Attached {
  readonly events: ChannelEvents | OxendEvents;
  /** The server at the other end; undefined for oxend. */
  readonly node?: Node;
  greeted: boolean;
}

/** The network in a few figures. */
export type Summary = MonitoringSummary &
  ReturnType<Nodes['summary']> & {
    /** -1 and empty before oxend's first answer. */
    blockHeight: number;
    blockHash: string;
  };

/** The network side of the hivemind: the sockets to oxend and the storage servers. */
export class Network {
  /** What the storage servers monitor for us. */
  readonly monitoring: Monitoring;
  readonly #options: NetworkOptions;
  readonly #nodes: Nodes;
  readonly #oxend: Oxend;
  readonly #toOxend: Peers;
  readonly #toNodes: Peers;
  readonly #unread = unreadOfThisProcess();
  #unreadTimer: Timer | undefined;

  constructor(options: NetworkOptions) {
    this.#options = options;
    const { clock, log } = options;
    const keys = keyPairFromSecret(Buffer.from(options.secret));
    const next = mulberry32(options.random(4).readUInt32LE());
    const jitter = () => next() / 2 ** 32;
    const defer = (work: () => void) => void setImmediate(work);
    const { identity } = options;
    this.monitoring = new Monitoring({
      ...options,
      jitter,
      rank: identity && ((key) => rankOf(key, identity, options.secret)),
      defer,
      suspect: () => this.#oxend.suspect(),
    });
    this.#nodes = new Nodes({
      ...options,
      jitter,
      defer,
      monitoring: this.monitoring,
      connect: (node, events) => this.#connectNode(node, events),
      cutOff: ({ key, address: { host, port } }, reason) =>
        log.warn(`storage server ${key.slice(0, 12)} at ${host}:${port} is cut off for an hour: ${reason}`),
    });
    const oxend = parseAddress(options.oxend);
    this.#oxend = new Oxend({
      clock,
      jitter,
      connect: (events) => this.#connectOxend(oxend, events),
      onList: (list) => this.#update(list),
      defer,
      log,
    });

    const on = peerEvents(log);
    const command = (handler: Handler) => ({ kind: 'command' as const, handler });
    const notify = (commands: Commands['']['commands']) => ({ notify: { access: 'basic' as const, commands } });
    // oxend knows us by the usual id, storage servers by a secret one. On sockets of their own, neither can pose as the
    // other.
    this.#toOxend = new Peers({
      clock,
      keys,
      ...(options.identity && { routingId: routingId('oxend', options.secret, options.identity) }),
      maxMessageSize: MAX_MESSAGE,
      commands: notify({ block: command(() => this.#oxend.block()) }),
      on,
    });
    this.#toNodes = new Peers({
      clock,
      keys,
      routingId: routingId('storage server', options.secret, options.identity),
      maxMessageSize: MAX_MESSAGE,
      commands: notify({
        message: command((message) => this.#notified(message)),
        monitor_ended: command((message) => this.#monitorEnded(message)),
      }),
      on,
    });
  }

  /** Connects to oxend; everything else follows from what it says. */
  start(): void {
    if (this.#options.maxConnects === 0)
      this.#options.log.warn('max_connects is 0: no storage server will be connected');
    this.#unread.settle();
    this.#unreadTimer = this.#options.clock.setInterval(() => this.#checkUnread(), UNREAD_CHECK);
    this.#oxend.start();
  }

  /** Resolves when everything that storage servers have sent so far has been handled. See {@link Peers.caughtUp}. */
  caughtUp(): Promise<void> {
    return this.#toNodes.caughtUp();
  }

  /** Closes every connection. Leaves neither timers nor sockets behind. */
  async stop(): Promise<void> {
    this.#unreadTimer?.cancel();
    this.#oxend.stop();
    this.#nodes.stop();
    this.monitoring.stop();
    await Promise.all([this.#toOxend.close(), this.#toNodes.close()]);
  }

  /** Asks oxend for the service nodes now. */
  refresh(): void {
    this.#oxend.refresh();
  }

  /** See {@link Nodes.setSlots}. */
  setSlots(slots: ReadonlySet<number> | undefined): void {
    this.#nodes.setSlots(slots);
  }

  /** The storage server with that X25519 public key, in hex. */
  find(key: string): Node | undefined {
    return this.#nodes.find(key);
  }

  /** See {@link Nodes.reconnect}. */
  reconnect(node: Node): void {
    this.#nodes.reconnect(node);
  }

  /** Whether oxend is connected and its last answer was valid. */
  get oxendUp(): boolean {
    return this.#oxend.up;
  }

  /** Whether oxend's last list is not believed yet. See {@link ListDoubt}. */
  get listDoubted(): boolean {
    return this.#oxend.doubted;
  }

  /** The counters of each socket, by name. */
  get sockets(): readonly (readonly [string, Counters])[] {
    return [
      ['oxend', this.#toOxend.counters],
      ['nodes', this.#toNodes.counters],
    ];
  }

  /** All figures that only ever grow. */
  get counters() {
    const [oxend, peers, toOxend] = [this.#oxend.counters, this.#toNodes.counters, this.#toOxend.counters];
    return { ...this.monitoring.counters, nodes: this.#nodes.counters, oxend, peers, toOxend };
  }

  /**
   * A report on every storage server.
   * @param recordOf further fields for its report
   */
  nodes<T extends object>(recordOf: (node: Node) => T): (NodeReport & T)[] {
    return this.#nodes.reports(recordOf);
  }

  /** Figures of the whole network; cheap. Ages may be one interval old. */
  summary(): Summary {
    const { height: blockHeight, blockHash } = this.#oxend;
    return { ...this.#nodes.summary(), ...this.monitoring.summary(), blockHeight, blockHash };
  }

  /** What is wrong with the network side, in words. None of it stops subscriptions, or pushes already under way. */
  complaints(): string[] {
    const complaints: string[] = [];
    const { nodes, connected, silent, unusable, cutOff, unneeded } = this.summary();
    if (this.#oxend.problem) complaints.push(`oxend: ${this.#oxend.problem}`);
    if (nodes > unneeded && connected === 0 && this.#options.maxConnects > 0)
      complaints.push('no storage server is connected');
    // A few never have one: anybody can register a node with an invalid address.
    if (unusable > nodes / 2) complaints.push(`${unusable} of ${nodes} storage servers have no address to connect to`);
    if (cutOff > 0) complaints.push(`${cutOff} storage servers are cut off for what they sent`);
    if (silent > 0) complaints.push(`${silent} storage servers are connected but do not answer`);
    return complaints;
  }

  #notified({ remote, parts }: Incoming): void {
    const { node } = (remote as Connection).data as Attached;
    if (node) this.#options.onNotification(node, parts[0] ?? Buffer.alloc(0));
  }

  #monitorEnded({ remote, parts }: Incoming): void {
    const { node } = (remote as Connection).data as Attached;
    const offence = node && this.monitoring.ended(node.swarmMember, parts);
    if (node && offence !== undefined) this.#nodes.cutOff(node, offence);
  }

  #update(list: ServiceNodes): string | undefined {
    const before = this.monitoring.swarms;
    const doubt = this.#nodes.update(list);
    const { swarms } = this.monitoring;
    if (swarms !== before) {
      const { nodes } = this.#nodes.summary();
      this.#options.log.info(`height ${list.height}: ${nodes} storage servers in ${swarms} swarms`);
    }
    return doubt;
  }

  /** If messages come faster than we read them, cuts off the storage server that sends most. */
  #checkUnread(): void {
    const { maxUnread = MAX_UNREAD } = this.#options;
    const unread = this.#unread.estimate();
    if (unread === 0) this.#toNodes.countAnew();
    if (unread <= maxUnread) return;
    const loudest = this.#toNodes.loudest();
    loudest?.connection.fail(
      `messages arrive faster than they are read: about ${megabytes(unread)} MB are waiting, and this server sent most ` +
        `of them (${megabytes(loudest.bytes)} MB)`,
      true,
    );
    // What it sent is freed, but malloc may keep the memory.
    this.#unread.settle();
    this.#toNodes.countAnew();
  }

  #connectNode(node: Node, events: ChannelEvents): Channel {
    const { host, port, publicKey } = node.address;
    const attached: Attached = { events, node, greeted: false };
    const address = { protocol: 'tcp' as const, host, port, publicKey };
    const { secret, identity } = this.#options;
    const connection = this.#toNodes.connect(address, {
      label: `node ${node.key.slice(0, 12)}`,
      data: attached,
      // Never one that we have used before: the server may still hold the old connection.
      ...(node.reconnects > 0 && {
        routingId: routingId(`storage server, ${node.reconnects} times renewed`, secret, identity),
      }),
    });
    return {
      request: (body, done) => {
        connection
          .request('monitor.messages', [body], MONITOR_TIMEOUT)
          .then(
            (parts) => done(parts[0], parts.length === 0 ? 'a reply without content' : undefined),
            (error) => done(undefined, error.code ?? String(error)),
          )
          .catch((error) => this.#options.log.warn(`a storage server's reply could not be processed: ${error}`));
      },
      close: () => connection.close(),
    };
  }

  #connectOxend(address: ReturnType<typeof parseAddress>, events: OxendEvents): OxendConnection {
    this.#options.log.info(`connecting to oxend at ${formatAddress(address)}`);
    const attached: Attached = { events, greeted: false };
    const connection = this.#toOxend.connect(address, { label: 'oxend', data: attached });
    return {
      request: (command, parts) => connection.request(command, parts),
      close: () => connection.close(),
    };
  }
}

/** Passes what happens to a connection on to those who made it. */
function peerEvents(log: NetworkOptions['log']) {
  return {
    handshake: (connection: Connection) => {
      const attached = connection.data as Attached;
      if (attached.greeted) attached.events.up();
    },
    hello: (connection: Connection) => {
      const attached = connection.data as Attached;
      attached.greeted = true;
      attached.events.up();
    },
    disconnect: (connection: Connection) => (connection.data as Attached).events.down(),
    failure: (connection: Connection, reason: string, offence: boolean) =>
      (connection.data as Attached).events.failed(reason, offence),
    stray: (reason: string) => log.debug(`stray message: ${reason}`),
  };
}

/**
 * The routing id by which a kind of peer knows us, 33 bytes. Storage servers send our notifications to whoever has
 * theirs, so nobody may be able to guess it; and it must stay the same over a restart, so that they carry on at once
 * (docs/decisions/12). Each of several hiveminds has ids of its own: libzmq aborts a peer that has two clients with the
 * same one.
 *
 * @param secret the hivemind's X25519 private key, 32 bytes
 */
export function routingId(peer: string, secret: Uint8Array, identity?: HivemindIdentity): Buffer {
  const who = identity ? ` ${identity.name} ${identity.generation}` : '';
  return Buffer.concat([Buffer.from('S'), blake2b(32, Buffer.from(`spns ${peer} routing id${who}`), secret)]);
}

/**
 * A storage server's rank for one of several hiveminds ({@link Sparing}). Nobody can choose a key that ranks first; and
 * each run of a hivemind prefers the same servers, which may still report what the run before asked them for.
 *
 * @param key the server's X25519 public key, in hex
 */
function rankOf(key: string, { name }: HivemindIdentity, secret: Uint8Array): number {
  return blake2b(16, Buffer.from(`spns order of ${name} ${key}`), secret).readUIntBE(0, 6);
}

function megabytes(bytes: number): number {
  return Math.round(bytes / 1024 ** 2);
}
