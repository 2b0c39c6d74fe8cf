import type { Clock } from '../clock.ts';
import { stringifySorted } from '../codec/json.ts';
import { Listener } from '../oxenmq/listener.ts';
import type { Incoming, Remote } from '../oxenmq/remote.ts';

/** A service node as oxend lists it. `host` and `port` are missing if oxend has no uptime proof of it. */
export interface ListedNode {
  /** X25519, 32 bytes */
  readonly publicKey: Buffer;
  readonly host?: string;
  readonly port?: number;
  readonly swarm: bigint;
}

/** A simulated oxend: what the hivemind asks of one, over plain OxenMQ (docs/spec/network.md, section 1). */
export interface Oxend {
  /** For `[hivemind] oxend_rpc`; stays the same when it is stopped and started again. */
  readonly address: string;
  readonly height: number;
  /** hex */
  readonly blockHash: string;
  /** What get_service_nodes lists from now on. Subscribers are told with the next block. */
  nodes: readonly ListedNode[];
  /** The reply to get_service_nodes, if set, instead of the true one. */
  answer: readonly (string | Buffer)[] | undefined;
  /** Mines a block, and notifies the subscribers. */
  mine(): void;
  /** Stops listening and, as a restarted oxend does, forgets its subscribers. */
  stop(): Promise<void>;
  start(): Promise<void>;
  readonly counters: { pings: number; lists: number; subscriptions: number; blocksTold: number };
}

/** How long a subscription to blocks lasts, ms. */
const SUBSCRIPTION = 30 * 60_000;

/** Starts an oxend that listens on a port of the system's choice. */
export async function startOxend(modules: {
  clock: Clock;
  random: (bytes: number) => Buffer;
  nodes?: readonly ListedNode[];
  height?: number;
  /** Called with each new block, before the subscribers are notified. */
  onBlock?: () => void;
  /** The ZeroMQ address to bind; a free port on 127.0.0.1 unless given. */
  listen?: string;
}): Promise<Oxend> {
  const { clock, random } = modules;
  const subscribers = new Map<string, { remote: Remote; until: number }>();
  const counters = { pings: 0, lists: 0, subscriptions: 0, blocksTold: 0 };
  let listener: Listener | undefined;
  let address = modules.listen ?? 'tcp://127.0.0.1:*';
  let height = modules.height ?? 1_758_000;
  let hash = random(32);

  function subscribe(request: Incoming): void {
    const { remote } = request;
    counters.subscriptions++;
    const known = (subscribers.get(remote.id)?.until ?? 0) > clock.monotonic();
    subscribers.set(remote.id, { remote, until: clock.monotonic() + SUBSCRIPTION });
    request.reply(known ? 'ALREADY' : 'OK');
  }

  function list(request: Incoming): void {
    counters.lists++;
    request.reply(...(oxend.answer ?? truth(request.parts)));
  }

  function truth(parts: readonly Buffer[]): string[] {
    if (parts.length > 1 || !isJson(parts[0])) return ['400', 'Unable to parse request: invalid JSON'];
    const states = shuffled(oxend.nodes, random).map(({ publicKey, host, port, swarm }) => ({
      pubkey_x25519: publicKey.toString('hex'),
      public_ip: host,
      storage_lmq_port: port,
      swarm_id: swarm,
    }));
    const body = { block_hash: oxend.blockHash, height, service_node_states: states, status: 'OK' };
    return ['200', stringifySorted(body)];
  }

  const oxend: Oxend = {
    get address() {
      return address;
    },
    get height() {
      return height;
    },
    get blockHash() {
      return hash.toString('hex');
    },
    nodes: modules.nodes ?? [],
    answer: undefined,
    mine() {
      height++;
      hash = random(32);
      modules.onBlock?.();
      for (const [id, { remote, until }] of subscribers) {
        if (until <= clock.monotonic()) subscribers.delete(id);
        else if (remote.send('notify.block', String(height), hash)) counters.blocksTold++;
      }
    },
    async stop() {
      await listener?.close();
      listener = undefined;
      subscribers.clear();
    },
    async start() {
      if (listener) return;
      listener = new Listener({
        clock,
        address,
        access: 'basic',
        commands: {
          ping: {
            access: 'none',
            commands: {
              ping: {
                kind: 'request',
                handler(request) {
                  counters.pings++;
                  request.reply('pong');
                },
              },
            },
          },
          rpc: { access: 'basic', commands: { get_service_nodes: { kind: 'request', handler: list } } },
          sub: { access: 'basic', commands: { block: { kind: 'request', handler: subscribe } } },
        },
      });
      await listener.bind();
      address = listener.endpoint;
    },
    counters,
  };
  await oxend.start();
  return oxend;
}

function isJson(part: Buffer | undefined): boolean {
  if (part === undefined) return false;
  try {
    JSON.parse(part.toString());
    return true;
  } catch {
    return false;
  }
}

/** A real oxend lists its nodes in a different order each time. */
function shuffled<T>(list: readonly T[], random: (bytes: number) => Buffer): T[] {
  const dice = random(4 * list.length);
  return list
    .map((item, i) => ({ item, dice: dice.readUInt32LE(4 * i) }))
    .sort((a, b) => a.dice - b.dice)
    .map(({ item }) => item);
}
