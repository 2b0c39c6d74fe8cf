import type { Clock } from '../../../../src/clock.ts';
import { Monitoring } from '../../../../src/hivemind/monitoring/monitoring.ts';
import type { Channel } from '../../../../src/hivemind/monitoring/swarm-member.ts';
import type { ChannelEvents, Node } from '../../../../src/hivemind/network/node.ts';
import { Nodes } from '../../../../src/hivemind/network/nodes.ts';
import { mulberry32 } from '../../../../src/mulberry32.ts';
import type { ServiceNode } from '../../../../src/session/service-nodes.ts';
import { FakeClock } from '../../../support/fake-clock.ts';
import { type FakeAccounts, type FakeMonitor, readRequest, SUCCESS } from './fake-accounts.ts';

/** Seeded numbers, uniform in [0, 1), to choose what happens in a simulation. */
export function seeded(seed: number): () => number {
  const next = mulberry32(seed);
  return () => next() / 2 ** 32;
}

/** What a storage server does with a request: an answer, or nothing. */
export type Behaviour = (request: FakeMonitor[]) => Buffer | undefined;

/** Says yes to everything. */
export const willing: Behaviour = (request) => Buffer.from(`l${SUCCESS.repeat(request.length)}e`);

const LIFETIME = 65 * 60_000;

/** A storage server as the rules see it through a channel, with the memory of a real one. */
export class FakeServer {
  readonly #clock: Clock;
  readonly #network: FakeNetwork;
  address: ServiceNode;
  behave: Behaviour = willing;
  /** How long an answer takes, in ms. */
  delay = 50;
  /** Nobody listens there: connections fail after 10 s. */
  absent = false;
  /** By account number and subscription: until when it is monitored, and with which version. */
  readonly monitors = new Map<string, { until: number; version: number }>();
  /** Every request, with its time. */
  readonly log: { at: number; size: number; elements: FakeMonitor[] }[] = [];
  connects = 0;
  inFlight = 0;
  mostInFlight = 0;
  /** The connection to it. */
  node: Node | undefined;
  events: ChannelEvents | undefined;
  isUp = false;
  /** What it has been asked and not yet answered belongs to this connection. */
  #session = 0;

  constructor(network: FakeNetwork, clock: Clock, address: ServiceNode) {
    this.#network = network;
    this.#clock = clock;
    this.address = address;
  }

  connect(node: Node, events: ChannelEvents): Channel {
    this.connects++;
    this.node = node;
    this.events = events;
    this.isUp = false;
    const session = ++this.#session;
    const isCurrent = () => session === this.#session && this.events === events;
    this.#clock.setTimeout(() => {
      if (!isCurrent() || this.absent) return;
      this.isUp = true;
      events.up();
    }, 20);
    this.#clock.setTimeout(() => {
      if (isCurrent() && !this.isUp) events.failed('connection attempt timed out', false);
    }, 10_000);
    return {
      request: (body, done) => this.#request(body, done),
      close: () => {
        if (this.events !== events) return;
        this.events = undefined;
        this.isUp = false;
        this.#session++;
      },
    };
  }

  /** It tells that it has ended the monitor of an account, which it forgets first. */
  endMonitor(account: number): void {
    for (const key of this.monitors.keys()) if (key.startsWith(`${account}:`)) this.monitors.delete(key);
    if (this.isUp) this.#network.ended(this, account);
  }

  /** The connection breaks and is back after `ms`; a restarted server has forgotten everything. */
  breakConnection(ms: number, forget: boolean): void {
    if (forget) this.monitors.clear();
    if (!this.isUp || !this.events) return;
    const { events } = this;
    this.isUp = false;
    const session = ++this.#session;
    events.down();
    this.#clock.setTimeout(() => {
      if (session !== this.#session || this.events !== events) return;
      this.isUp = true;
      events.up();
    }, ms);
  }

  /** Whether it would tell us of a message for this account. */
  monitorsAccount(account: number, version: number): boolean {
    const entry = this.monitors.get(`${account}:0`);
    return entry !== undefined && entry.until > this.#clock.monotonic() && entry.version === version;
  }

  #request(body: Buffer, done: (reply: Buffer | undefined, failure: string | undefined) => void): void {
    const session = this.#session;
    const elements = readRequest(body);
    this.log.push({ at: this.#clock.monotonic(), size: body.length, elements });
    this.inFlight++;
    this.mostInFlight = Math.max(this.mostInFlight, this.inFlight);
    this.#network.mostBytesBefore = Math.max(this.#network.mostBytesBefore, this.#network.bytesInFlight);
    this.#network.bytesInFlight += body.length;
    this.#network.mostBytesInFlight = Math.max(this.#network.mostBytesInFlight, this.#network.bytesInFlight);
    const finish = (reply: Buffer | undefined, failure: string | undefined) => {
      this.inFlight--;
      this.#network.bytesInFlight -= body.length;
      done(reply, failure);
    };
    if (!this.isUp) {
      this.#clock.setTimeout(() => finish(undefined, 'UNREACHABLE'), 1);
      return;
    }
    const reply = this.behave(elements);
    this.#clock.setTimeout(() => {
      if (session !== this.#session) return this.#timeOut(finish, this.delay);
      if (!reply) return this.#timeOut(finish, this.delay);
      this.#remember(elements, reply);
      finish(reply, undefined);
    }, this.delay);
  }

  #timeOut(finish: (reply: undefined, failure: string) => void, passed: number): void {
    this.#clock.setTimeout(() => finish(undefined, 'TIMEOUT'), Math.max(15_000 - passed, 0));
  }

  #remember(elements: FakeMonitor[], reply: Buffer): void {
    const results = reply.toString('latin1').match(/d7:(successi1e|errcodei\d+e5:error\d+:[^e]*)e/g) ?? [];
    for (const [i, { account, subscription, version }] of elements.entries()) {
      if (results[i] !== SUCCESS) continue;
      this.monitors.set(`${account}:${subscription}`, { until: this.#clock.monotonic() + LIFETIME, version });
    }
  }
}

/** The nodes and the monitoring of a network without sockets, joined as `Network` joins them. */
function joined(monitoring: Monitoring, nodes: Nodes) {
  return {
    get counters() {
      return { ...monitoring.counters, nodes: nodes.counters };
    },
    get size() {
      return { nodes: nodes.summary().nodes, swarms: monitoring.swarms };
    },
    uncoveredSlots: () => monitoring.uncoveredSlots(),
    spareSlots: monitoring.spareSlots.bind(monitoring),
    askedSince: ({ swarmMember }: Node, slot: number) => monitoring.askedSince(swarmMember, slot),
    setSlots: nodes.setSlots.bind(nodes),
    reconnect: nodes.reconnect.bind(nodes),
    update: nodes.update.bind(nodes),
    nodes: () => nodes.reports(() => ({})),
    summary: () => ({ ...nodes.summary(), ...monitoring.summary() }),
    accepts: ({ swarmMember }: Node, id: number) => monitoring.accepts(swarmMember, id),
    hasOthers: ({ swarmMember }: Node, id: number) => monitoring.hasOthers(swarmMember, id),
    ended: (node: Node, parts: readonly Buffer[]) => {
      const offence = monitoring.ended(node.swarmMember, parts);
      if (offence !== undefined) nodes.cutOff(node, offence);
    },
    stop: () => {
      nodes.stop();
      monitoring.stop();
    },
  };
}

/** Storage servers without sockets, and our monitoring of them. */
export class FakeNetwork {
  readonly clock = new FakeClock();
  readonly monitoring: ReturnType<typeof joined>;
  readonly servers = new Map<string, FakeServer>();
  bytesInFlight = 0;
  mostBytesInFlight = 0;
  /** In flight when another request was sent. */
  mostBytesBefore = 0;
  /** How long making a connection holds the event loop, in ms. */
  connectTakes = 0;
  /** Height of the latest list. */
  height = 1000;
  /** How often a storage server made us doubt the list. */
  suspected = 0;
  /** Told when that happens, and of servers that are cut off. */
  onSuspect = (): void => {};
  readonly cutOff: string[] = [];
  readonly #accounts: FakeAccounts;

  constructor(
    accounts: FakeAccounts,
    options: {
      seed?: number;
      maxConnects?: number;
      interval?: number;
      jitter?: () => number;
      allowPrivate?: boolean;
      rank?: (key: string) => number;
    } = {},
  ) {
    const { clock } = this;
    this.#accounts = accounts;
    const jitter = options.jitter ?? seeded(options.seed ?? 1);
    const monitoring = new Monitoring({
      clock,
      accounts,
      jitter,
      defer: (work) => void clock.setTimeout(work, 0),
      interval: options.interval ?? 30_000,
      rank: options.rank,
      suspect: () => {
        this.suspected++;
        this.onSuspect();
      },
    });
    const nodes = new Nodes({
      clock,
      jitter,
      defer: (work) => void clock.setTimeout(work, 0),
      maxConnects: options.maxConnects ?? 500,
      allowPrivate: options.allowPrivate ?? true,
      monitoring,
      cutOff: (_node, reason) => this.cutOff.push(reason),
      connect: (node, events) => {
        clock.stall(this.connectTakes);
        return this.servers.get(node.key)!.connect(node, events);
      },
    });
    this.monitoring = joined(monitoring, nodes);
  }

  /** A new storage server, which is not in the list before {@link publish} is called. */
  add(swarm: bigint): FakeServer {
    const index = this.servers.size + 1;
    const publicKey = Buffer.alloc(32);
    publicKey.writeUInt32BE(index);
    const address = { publicKey, host: `10.0.${index >> 8}.${index & 255}`, port: 22020, swarm };
    const server = new FakeServer(this, this.clock, address);
    this.servers.set(publicKey.toString('hex'), server);
    return server;
  }

  /** oxend's list changes to these servers, all there are if none are given. Gives what speaks against it. */
  publish(servers: Iterable<FakeServer> = this.servers.values()): string | undefined {
    return this.list(Array.from(servers, (server) => server.address));
  }

  /** oxend lists these. */
  list(nodes: readonly ServiceNode[], height = ++this.height): string | undefined {
    const swarms = nodes.map(({ swarm }) => swarm);
    return this.monitoring.update({ height, blockHash: '', nodes, swarms, skipped: 0 });
  }

  ended(server: FakeServer, account: number): void {
    const bytes = this.#accounts.bytesOf(account);
    this.monitoring.ended(server.node!, [Buffer.concat([Buffer.from('d1:@33:'), bytes, Buffer.from('7:errcodei6ee')])]);
  }
}
