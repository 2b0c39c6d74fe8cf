import type { Clock, Timer } from '../../clock.ts';
import { mulberry32 } from '../../mulberry32.ts';
import { formatAddress, parseAddress } from '../../oxenmq/address.ts';
import type { Counters } from '../../oxenmq/counters.ts';
import { keyPairFromSecret } from '../../oxenmq/keys.ts';
import { type Connection, Peers } from '../../oxenmq/peers.ts';
import type { Commands, Handler } from '../../oxenmq/remote.ts';
import type { ServiceNodes } from '../../session/service-nodes.ts';
import { blake2b } from '../../session/sodium.ts';
import type { MonitoringSummary } from '../monitoring/freshness.ts';
import type { Link } from '../monitoring/member.ts';
import { type MonitoredAccounts, Monitoring } from '../monitoring/monitoring.ts';
import type { LinkEvents, Node, NodeReport } from './node.ts';
import { Nodes } from './nodes.ts';
import { Oxend, type OxendConnection, type OxendEvents } from './oxend.ts';
import { unreadOfThisProcess } from './unread.ts';

export interface NetworkOptions {
  readonly clock: Clock;
  readonly random: (bytes: number) => Buffer;
  readonly accounts: MonitoredAccounts;
  /** The hivemind's X25519 private key, 32 bytes. */
  readonly secret: Uint8Array;
  /** Who we are among several with that key; not given for one that is alone. */
  readonly identity?: Identity | undefined;
  /** OxenMQ address of oxend. */
  readonly oxend: string;
  /** So many connections to storage servers are established at a time; 0 = none at all, a dry run. */
  readonly maxConnects: number;
  /** Whether storage servers may have addresses of a private network, or of this machine. */
  readonly allowPrivate: boolean;
  /** How long renewals that are due may wait for each other, in ms. */
  readonly interval: number;
  readonly log: { info(text: string): void; warn(text: string): void; debug(text: string): void };
  /** Bytes that may lie unread of what storage servers sent; {@link MAX_UNREAD} if not given. */
  readonly maxUnread?: number;
  /** A storage server sent a `notify.message`; `body` is its part. */
  readonly onNotification: (node: Node, body: Buffer) => void;
}

/** A hivemind among several, which all have the same key: no two processes ever have the same name and generation. */
export interface Identity {
  readonly name: string;
  readonly generation: bigint;
}

/**
 * 200,000 notifications that come in a few seconds are 190 MB at most (docs/spec/platform.md, section 6). Beyond this a
 * server is heard no more, for the others of its swarm tell the same (docs/decisions/38).
 */
const MAX_UNREAD = 512 * 1024 ** 2;
/** How often it is looked at, in ms: a look costs a third of a millisecond. */
const UNREAD_LOOK = 1000;
const MONITOR_TIMEOUT = 15_000;
const MAX_MESSAGE = 10 * 1024 * 1024;
/** What a connection carries: whom to tell about it, and whose it is. */
interface Attached {
  readonly events: LinkEvents | OxendEvents;
  readonly node?: Node;
  greeted: boolean;
}

/** The whole network in a few figures. */
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
  #looking: Timer | undefined;

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
      log,
    });

    const on = {
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
    const onMessage: Handler = ({ remote, parts }) => {
      const { node } = (remote as Connection).data as Attached;
      if (node) options.onNotification(node, parts[0] ?? Buffer.alloc(0));
    };
    const onEnded: Handler = ({ remote, parts }) => {
      const { node } = (remote as Connection).data as Attached;
      const offence = node && this.monitoring.ended(node.member, parts);
      if (node && offence !== undefined) this.#nodes.cutOff(node, offence);
    };
    const onBlock: Handler = () => this.#oxend.block();
    const command = (handler: Handler) => ({ kind: 'command' as const, handler });
    const notify = (commands: Commands['']['commands']) => ({ notify: { access: 'basic' as const, commands } });
    // oxend knows us by the usual id, the storage servers by a secret one; and neither can pose as the other.
    this.#toOxend = new Peers({
      clock,
      keys,
      ...(options.identity && { routingId: routingId('oxend', options.secret, options.identity) }),
      maxMessageSize: MAX_MESSAGE,
      commands: notify({ block: command(onBlock) }),
      on,
    });
    this.#toNodes = new Peers({
      clock,
      keys,
      routingId: routingId('storage server', options.secret, options.identity),
      maxMessageSize: MAX_MESSAGE,
      commands: notify({ message: command(onMessage), monitor_ended: command(onEnded) }),
      on,
    });
  }

  /** Begins to look for oxend; everything else follows from what it tells. */
  start(): void {
    if (this.#options.maxConnects === 0)
      this.#options.log.warn('max_connects is 0: no storage server will be connected');
    this.#unread.settle();
    this.#looking = this.#options.clock.setInterval(() => this.#look(), UNREAD_LOOK);
    this.#oxend.start();
  }

  /** Closes every connection. Nothing of this is left then, neither timer nor socket. */
  async stop(): Promise<void> {
    this.#looking?.cancel();
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

  /** See {@link Monitoring.spareSlots}. */
  spareSlots(slots: ReadonlySet<number>): void {
    this.monitoring.spareSlots(slots);
  }

  /** The storage server with that X25519 public key, in hex. */
  find(key: string): Node | undefined {
    return this.#nodes.find(key);
  }

  /** See {@link Nodes.listenAnew}. */
  listenAnew(node: Node): void {
    this.#nodes.listenAnew(node);
  }

  /** Whether oxend is connected and its last answer made sense. */
  get oxendUp(): boolean {
    return this.#oxend.up;
  }

  /** Whether oxend's last list is not believed yet, because much of what was known is missing in it. */
  get listDoubted(): boolean {
    return this.#oxend.doubted;
  }

  /** What each of its sockets counts, by name. */
  get sockets(): readonly (readonly [string, Counters])[] {
    return [
      ['oxend', this.#toOxend.counters],
      ['nodes', this.#toNodes.counters],
    ];
  }

  /** All figures that only grow. */
  get counters() {
    const [oxend, peers, toOxend] = [this.#oxend.counters, this.#toNodes.counters, this.#toOxend.counters];
    return { ...this.monitoring.counters, nodes: this.#nodes.counters, oxend, peers, toOxend };
  }

  /**
   * Every storage server, with what it monitors for us.
   * @param recordOf what is known of it elsewhere
   */
  nodes<T extends object>(recordOf: (node: Node) => T): (NodeReport & T)[] {
    return this.#nodes.reports(recordOf);
  }

  /** Figures of the whole; cheap. Ages may be one interval old. */
  summary(): Summary {
    const { height: blockHeight, blockHash } = this.#oxend;
    return { ...this.#nodes.summary(), ...this.monitoring.summary(), blockHeight, blockHash };
  }

  /** What is wrong with the network side, in words; nothing of it hinders subscriptions or pushes already under way. */
  complaints(): string[] {
    const complaints: string[] = [];
    const { nodes, connected, silent, unusable, cutOff, unneeded } = this.summary();
    if (this.#oxend.problem) complaints.push(`oxend: ${this.#oxend.problem}`);
    if (nodes > unneeded && connected === 0 && this.#options.maxConnects > 0)
      complaints.push('no storage server is connected');
    // Some never have one; anybody can register a node with an invalid address.
    if (unusable > nodes / 2) complaints.push(`${unusable} of ${nodes} storage servers have no address to connect to`);
    if (cutOff > 0) complaints.push(`${cutOff} storage servers are cut off for what they sent`);
    if (silent > 0) complaints.push(`${silent} storage servers are connected but do not answer`);
    return complaints;
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

  /** Cuts off the storage server that sends most, if more comes than can be read. */
  #look(): void {
    const { maxUnread = MAX_UNREAD } = this.#options;
    const unread = this.#unread.look();
    if (unread === 0) this.#toNodes.countAnew();
    if (unread <= maxUnread) return;
    const loudest = this.#toNodes.loudest();
    loudest?.connection.fail(
      `messages come faster than they are read, about ${megabytes(unread)} MB are waiting, and this server sent most ` +
        `of those before (${megabytes(loudest.bytes)} MB)`,
      true,
    );
    // What it sent is freed, but the system need not get the memory back.
    this.#unread.settle();
    this.#toNodes.countAnew();
  }

  #connectNode(node: Node, events: LinkEvents): Link {
    const { host, port, publicKey } = node.address;
    const attached: Attached = { events, node, greeted: false };
    const address = { protocol: 'tcp' as const, host, port, publicKey };
    const { secret, identity } = this.#options;
    const connection = this.#toNodes.connect(address, {
      label: `node ${node.key.slice(0, 12)}`,
      data: attached,
      // Never one that it has had of us: a server may still keep the old connection.
      ...(node.renewals > 0 && {
        routingId: routingId(`storage server, ${node.renewals} times renewed`, secret, identity),
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

/**
 * The name by which peers know us. Whoever holds the one for storage servers gets our notifications, so nobody may
 * guess it; and after a restart it must be the same, so that they go on at once (docs/decisions/12). Of several
 * hiveminds each has its own, and never another's: libzmq aborts a peer that has two with one name.
 */
export function routingId(peer: string, secret: Uint8Array, identity?: Identity): Buffer {
  const who = identity ? ` ${identity.name} ${identity.generation}` : '';
  return Buffer.concat([Buffer.from('S'), blake2b(32, Buffer.from(`spns ${peer} routing id${who}`), secret)]);
}

/**
 * Where a storage server stands in the order of one of several hiveminds: nobody can choose a key that comes first, and
 * each run of the same name prefers the same servers, which may still announce what they were asked for before.
 */
function rankOf(key: string, { name }: Identity, secret: Uint8Array): number {
  return blake2b(16, Buffer.from(`spns order of ${name} ${key}`), secret).readUIntBE(0, 6);
}

function megabytes(bytes: number): number {
  return Math.round(bytes / 1024 ** 2);
}
