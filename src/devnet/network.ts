import type { Clock } from '../clock.ts';
import type { Notification } from '../session/notification.ts';
import { INVALID_SWARM, SwarmSpace } from '../session/swarm.ts';
import { type ListedNode, type Oxend, startOxend } from './oxend.ts';
import { envelope, type StorageServer, startStorageServer } from './storage-server.ts';
import type { Contact } from './swarm-view.ts';

/** A simulated service node network: an oxend, and storage servers in swarms. */
export interface Network {
  readonly oxend: Oxend;
  readonly servers: readonly Member[];
  /** The swarm ids, ascending. */
  readonly swarms: readonly bigint[];
  /** The servers that hold that account's messages. */
  membersFor(account: Uint8Array): readonly StorageServer[];
  /** Stores a message at each member of the account's swarm. Returns how many notifications were sent. */
  deliver(message: Notification): number;
  /** Moves a server to another swarm, which may be new. Others learn of it with the next block. */
  move(member: Member, swarm: bigint): void;
  stop(): Promise<void>;
}

/** A storage server and its swarm. */
export interface Member {
  readonly server: StorageServer;
  swarm: bigint;
}

/**
 * Starts an oxend and storage servers, evenly distributed over swarms whose ids are spread over the whole 64-bit space.
 *
 * @param modules.verify false makes the servers accept every signature, for benchmarks
 */
export async function startNetwork(modules: {
  clock: Clock;
  random: (bytes: number) => Buffer;
  servers: number;
  swarms: number;
  host?: string;
  verify?: boolean;
}): Promise<Network> {
  const { clock, random } = modules;
  const ids = spread(modules.swarms, random);
  const servers: Member[] = [];
  for (let i = 0; i < modules.servers; i++) {
    const server = await startStorageServer({ ...modules, secretKey: random(32), spread: storeInSwarm });
    servers.push({ server, swarm: ids[i % ids.length] ?? INVALID_SWARM });
  }
  const oxend = await startOxend({ clock, random, onBlock: takeOver });
  let space: SwarmSpace;
  let bySwarm: Map<bigint, StorageServer[]>;

  /** Stores what a client asked one member to store. */
  function storeInSwarm(message: Notification): readonly StorageServer[] {
    network.deliver(message);
    return network.membersFor(message.account);
  }

  function arrange(): void {
    bySwarm = new Map();
    for (const { server, swarm } of servers) bySwarm.set(swarm, [...(bySwarm.get(swarm) ?? []), server]);
    space = new SwarmSpace([...bySwarm.keys()].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0)));
    oxend.nodes = servers.map(listed);
  }

  /** With a block the storage servers learn what oxend lists. Before the first block they take every account. */
  function takeOver(): void {
    const swarms = new Map<bigint, Contact[]>();
    for (const { publicKey, host, port, swarm } of oxend.nodes) {
      const members = swarms.get(swarm) ?? [];
      swarms.set(swarm, members);
      if (host !== undefined && port !== undefined) members.push({ publicKey, host, port });
    }
    for (const { server } of servers) {
      const own = oxend.nodes.find(({ publicKey }) => publicKey.equals(server.publicKey));
      if (own) server.takeOver({ own: own.swarm, swarms });
    }
  }

  const network: Network = {
    oxend,
    servers,
    get swarms() {
      return space.ids;
    },
    membersFor(account) {
      const swarm = space.ids[space.closest(account)];
      return (swarm !== undefined && bySwarm.get(swarm)) || [];
    },
    deliver(message) {
      const stored = envelope(message);
      let reports = 0;
      for (const server of network.membersFor(message.account)) reports += server.store(stored);
      return reports;
    },
    move(member, swarm) {
      member.swarm = swarm;
      arrange();
    },
    async stop() {
      await oxend.stop();
      await Promise.all(servers.map(({ server }) => server.stop()));
    },
  };
  arrange();
  return network;
}

/** As oxend lists it. */
export function listed({ server, swarm }: Member): ListedNode {
  return { publicKey: server.publicKey, host: server.host, port: server.port, swarm };
}

/**
 * Evenly spread ids with a random start: with two or more, one is always above 2^63, which JSON's numbers cannot hold.
 */
function spread(count: number, random: (bytes: number) => Buffer): bigint[] {
  const start = random(8).readBigUInt64BE();
  const step = 2n ** 64n / BigInt(count);
  return Array.from({ length: count }, (_, i) => BigInt.asUintN(64, start + BigInt(i) * step));
}
