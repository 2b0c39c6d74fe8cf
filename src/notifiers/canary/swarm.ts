import type { Clock } from '../../clock.ts';
import type { Address } from '../../oxenmq/address.ts';
import type { KeyPair } from '../../oxenmq/keys.ts';
import { type Connection, Peers } from '../../oxenmq/peers.ts';
import { addressTrouble } from '../../session/node-address.ts';
import { parseServiceNodes, SERVICE_NODES_REQUEST, type ServiceNode } from '../../session/service-nodes.ts';
import { SwarmSpace } from '../../session/swarm.ts';

/** Why a message could not be stored; each is a result in the metrics. */
export type StoreFailure = 'no_swarm' | 'wrong_swarm' | 'clock' | 'refused' | 'unreachable';

/** A message could not be stored; the error's message says why. */
export class StoreError extends Error {
  readonly failure: StoreFailure;

  constructor(failure: StoreFailure, message: string, options?: ErrorOptions) {
    super(message, options);
    this.failure = failure;
  }
}

/** The swarm that keeps the canary's account. */
export interface Swarm {
  /**
   * Stores a message in namespace 0 at one member of the swarm, which passes it on to the others.
   *
   * @param sending called right before each attempt
   * @throws StoreError if no member took it
   */
  store(body: Buffer, sending: () => void): Promise<void>;
  close(): Promise<void>;
}

/** How long a list of nodes is used, ms. */
const LIST_LIFETIME = 600_000;
/** How many members are tried until one takes the message. */
const ATTEMPTS = 3;
const HELLO_TIMEOUT = 5_000;
const REQUEST_TIMEOUT = 10_000;
/** How long the storage servers are to keep a message, ms. */
const TTL = 600_000;

/**
 * Finds the account's swarm by oxend's list, and stores messages there.
 *
 * @param options.account 33 bytes
 * @param options.keys the pair by which oxend knows the hivemind
 */
export function swarmOf(options: {
  account: Buffer;
  oxend: Address;
  keys: KeyPair;
  allowPrivate: boolean;
  clock: Clock;
  random: (bytes: number) => Buffer;
}): Swarm {
  const { account, oxend, keys, allowPrivate, clock, random } = options;
  const routingId = Buffer.concat([Buffer.from('C'), random(16)]);
  const toOxend = new Peers({ clock, keys, routingId, helloTimeout: HELLO_TIMEOUT, commands: {} });
  // With a random key: to storage servers the canary is a stranger, like anybody who writes to a phone.
  const toServers = new Peers({ clock, helloTimeout: HELLO_TIMEOUT, commands: {} });
  let known: { readonly members: readonly ServiceNode[]; readonly at: number } | undefined;

  async function members(): Promise<readonly ServiceNode[]> {
    if (known && clock.monotonic() - known.at < LIST_LIFETIME) return known.members;
    let connection: Connection | undefined;
    try {
      connection = toOxend.connect(oxend);
      const list = parseServiceNodes(await connection.request('rpc.get_service_nodes', [SERVICE_NODES_REQUEST]));
      const space = new SwarmSpace(list.swarms);
      const swarm = space.ids[space.closest(account)];
      const usable = list.nodes.filter(
        (node) => node.swarm === swarm && node.port > 0 && addressTrouble(node.host, allowPrivate) === undefined,
      );
      known = { members: usable, at: clock.monotonic() };
      return usable;
    } catch (error) {
      // An old list is better than none.
      if (known) return known.members;
      throw new StoreError('no_swarm', `oxend does not say which swarm: ${(error as Error).message}`, { cause: error });
    } finally {
      connection?.close();
    }
  }

  async function storeAt({ host, port, publicKey }: ServiceNode, request: string): Promise<void> {
    let connection: Connection | undefined;
    const place = `the storage server at ${host}:${port}`;
    let reply: Buffer[];
    try {
      connection = toServers.connect({ protocol: 'tcp', host, port, publicKey });
      reply = await connection.request('storage.store', [request], REQUEST_TIMEOUT);
    } catch (error) {
      throw new StoreError('unreachable', `${place} does not answer: ${(error as Error).message}`, { cause: error });
    } finally {
      connection?.close();
    }
    const [first, text] = reply;
    if (reply.length === 1) return;
    const words = `${place} answered ${String(first).slice(0, 20)}: ${String(text).slice(0, 200)}`;
    throw new StoreError(failureOf(String(first)), words);
  }

  return {
    async store(body, sending) {
      const nodes = shuffled(await members(), random).slice(0, ATTEMPTS);
      let last = new StoreError('no_swarm', 'oxend lists no storage server of the swarm that can be reached');
      for (const node of nodes) {
        const now = Math.floor(clock.now());
        const data = body.toString('base64');
        sending();
        try {
          const request = { pubkey: account.toString('hex'), namespace: 0, timestamp: now, ttl: TTL, data };
          await storeAt(node, JSON.stringify(request));
          return;
        } catch (error) {
          if (!(error instanceof StoreError)) throw error;
          last = error;
        }
      }
      // The list may be outdated: oxend is asked for it again the next time.
      if (known) known = { ...known, at: Number.NEGATIVE_INFINITY };
      throw last;
    },
    async close() {
      await toOxend.close();
      await toServers.close();
    },
  };
}

/** What the status of a refusal means (docs/spec/network.md, section 8). */
function failureOf(status: string): StoreFailure {
  if (status === '421') return 'wrong_swarm';
  return status === '406' ? 'clock' : 'refused';
}

function shuffled<T>(list: readonly T[], random: (bytes: number) => Buffer): T[] {
  return list
    .map((one) => ({ one, place: random(4).readUInt32LE() }))
    .sort((a, b) => a.place - b.place)
    .map(({ one }) => one);
}
