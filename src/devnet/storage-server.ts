import type { Clock } from '../clock.ts';
import { encode } from '../codec/bencode.ts';
import { stringifySorted } from '../codec/json.ts';
import { type KeyPair, keyPairFromSecret } from '../oxenmq/keys.ts';
import { Listener } from '../oxenmq/listener.ts';
import type { Incoming, Remote } from '../oxenmq/remote.ts';
import { encodeNotification, type Notification } from '../session/notification.ts';
import { blake2b } from '../session/sodium.ts';
import { checkMonitor, type Refusal, readMonitorRequest } from './monitor-request.ts';
import { readStoreRequest, type StoreRefusal } from './store-request.ts';
import { judgeOf, nodeEd25519, type SwarmView } from './swarm-view.ts';

/** A message for all members of a swarm, encoded once for all of them. */
export interface Envelope {
  /** The account's bytes as a latin1 string. */
  readonly key: string;
  readonly namespace: number;
  /** The notification with the message's data. */
  readonly full: () => Buffer;
  /** The notification without it. */
  readonly bare: () => Buffer;
}

/** Prepares a message's notification to be sent many times. */
export function envelope(message: Notification): Envelope {
  let full: Buffer | undefined;
  let bare: Buffer | undefined;
  return {
    key: Buffer.from(message.account).toString('latin1'),
    namespace: message.namespace,
    full: () => (full ??= encodeNotification(message)),
    bare: () => (bare ??= encodeNotification({ ...message, data: null })),
  };
}

/** How a storage server misbehaves. */
export interface Behaviour {
  /** Accepts requests and never answers. */
  silent: boolean;
  /** Refuses every monitor request with this. */
  refuse: Refusal | undefined;
  /** Refuses every store request with this. */
  refuseStore: StoreRefusal | undefined;
  /** How long it waits before it answers a monitor request, ms. */
  delay: number;
}

/**
 * A simulated storage server: it checks and keeps monitors, and notifies them of each message that it stores
 * (docs/spec/network.md, sections 3 and 4).
 */
export interface StorageServer {
  /** X25519, 32 bytes */
  readonly publicKey: Buffer;
  readonly host: string;
  readonly port: number;
  readonly behaviour: Behaviour;
  /** How many (account, connection) pairs it monitors, including those that have expired. */
  readonly monitors: number;
  /** How many connections monitor that account and namespace here now. */
  monitorsOf(account: Uint8Array, namespace: number): number;
  /** Stores a message, and notifies whoever monitors its account and namespace. Returns how many were notified. */
  store(message: Envelope): number;
  /**
   * Takes over a new view of the swarms, as with a block: it announces which monitored accounts are no longer its own,
   * and from now on accepts only its own. Without a view, as at first, it accepts every account; with an empty one,
   * none.
   */
  takeOver(view: SwarmView | undefined): void;
  /** Forgets all monitors, as when it is restarted, but keeps its connections. */
  forget(): void;
  /** Stops listening, and forgets all monitors. */
  stop(): Promise<void>;
  /** Listens again with the same key and port. */
  start(): Promise<void>;
  readonly counters: {
    requests: number;
    accepted: number;
    refused: number;
    reported: number;
    unreported: number;
    ended: number;
    /** Messages stored at a client's request. */
    stored: number;
  };
}

interface Monitor {
  /** By the monotonic clock, ms. */
  until: number;
  namespaces: readonly number[];
  wantData: boolean;
}

/** How long a monitor lasts after its last renewal, ms. */
const LIFETIME = 65 * 60_000;

const SUCCESS = { success: 1 };

/**
 * Starts a storage server on a port of the system's choice.
 *
 * @param modules.verify false accepts every signature, for benchmarks
 * @param modules.spread stores a message at every member of this server's swarm and returns them; without it, the
 *   server is the only one
 */
export async function startStorageServer(modules: {
  clock: Clock;
  secretKey: Uint8Array;
  spread?: (message: Notification) => readonly StorageServer[];
  host?: string;
  verify?: boolean;
}): Promise<StorageServer> {
  const { clock, verify = true, host = '127.0.0.1' } = modules;
  const keys: KeyPair = keyPairFromSecret(modules.secretKey);
  /**
   * By account, then by routing id: a client that comes back with the same id after a break gets messages again, as
   * from the real one.
   */
  const monitors = new Map<string, Map<string, Monitor>>();
  const remotes = new Map<string, Remote>();
  const behaviour: Behaviour = { silent: false, refuse: undefined, refuseStore: undefined, delay: 0 };
  const counters = { requests: 0, accepted: 0, refused: 0, reported: 0, unreported: 0, ended: 0, stored: 0 };
  /** When what has been stored expires, unix ms, by hash. */
  const stored = new Map<string, number>();
  let judge = judgeOf(undefined);
  let listener: Listener | undefined;
  let port = 0;

  function remoteOf(id: string): Remote | undefined {
    let remote = remotes.get(id);
    if (!remote && listener) {
      remote = listener.remote(Buffer.from(id, 'latin1'));
      remotes.set(id, remote);
    }
    return remote;
  }

  function monitor(request: Incoming): void {
    counters.requests++;
    if (behaviour.silent) return;
    const answer = encode(answerTo(request));
    if (behaviour.delay > 0) clock.setTimeout(() => request.reply(answer), behaviour.delay);
    else request.reply(answer);
  }

  function answerTo({ parts, remote }: Incoming) {
    const read = parts.length > 1 ? readMonitorRequest(undefined) : readMonitorRequest(parts[0]);
    if ('errcode' in read) return { ...read };
    const now = Math.floor(clock.now() / 1000);
    const answers = read.elements.map((element) => {
      const checked = behaviour.refuse ?? checkMonitor(element, now, verify);
      const refusal = 'errcode' in checked ? checked : judge.refusal(checked.account);
      if ('errcode' in checked || refusal) {
        counters.refused++;
        return { ...refusal };
      }
      counters.accepted++;
      renew(remote.id, checked.account.toString('latin1'), checked.namespaces, checked.wantData);
      return SUCCESS;
    });
    const [first] = answers;
    return read.list || first === undefined ? answers : first;
  }

  function store(request: Incoming): void {
    if (behaviour.silent) return;
    const read = behaviour.refuseStore ?? readStoreRequest(request.parts, wrongSwarm, clock.now());
    if ('status' in read) {
      request.reply(String(read.status), read.text);
      return;
    }
    const { message, bencoded } = read;
    const hash = message.hash.toString();
    for (const [known, expiry] of stored) if (expiry < clock.now()) stored.delete(known);
    const already = stored.has(hash);
    stored.set(hash, Number(message.expiry));
    counters.stored++;
    const members = already ? [server] : (modules.spread?.(message) ?? alone(message));
    const word = (publicKey: Buffer) => ({
      ...(already && { already: 1 }),
      expiry: message.expiry,
      hash,
      signature: placeholderSignature(publicKey, hash),
    });
    const swarm = Object.fromEntries(
      members.map(({ publicKey }) => [nodeEd25519(publicKey).toString('hex'), word(publicKey)]),
    );
    request.reply(bencoded ? encode({ hash, swarm }) : stringifySorted({ hash, swarm }));
  }

  function alone(message: Notification): StorageServer[] {
    server.store(envelope(message));
    return [server];
  }

  function wrongSwarm(account: Buffer): StoreRefusal | undefined {
    const refusal = judge.refusal(account);
    if (!refusal) return undefined;
    const { snodes = [], swarm = '' } = refusal;
    return { status: 421, text: stringifySorted({ snodes, swarm }) };
  }

  /** A renewal only adds: namespaces are merged, and data once wanted stays wanted while the monitor is renewed. */
  function renew(id: string, key: string, namespaces: readonly number[], wantData: boolean): void {
    const now = clock.monotonic();
    const here = monitors.get(key) ?? new Map<string, Monitor>();
    if (here.size === 0) monitors.set(key, here);
    const known = here.get(id);
    if (!known || known.until <= now) {
      here.set(id, { until: now + LIFETIME, namespaces, wantData });
      return;
    }
    known.until = now + LIFETIME;
    known.wantData ||= wantData;
    const added = namespaces.filter((namespace) => !known.namespaces.includes(namespace));
    if (added.length > 0) known.namespaces = [...known.namespaces, ...added];
  }

  const server: StorageServer = {
    publicKey: keys.publicKey,
    host,
    get port() {
      return port;
    },
    behaviour,
    get monitors() {
      let count = 0;
      for (const here of monitors.values()) count += here.size;
      return count;
    },
    monitorsOf(account, namespace) {
      const here = monitors.get(Buffer.from(account).toString('latin1'));
      if (!here) return 0;
      const now = clock.monotonic();
      return [...here.values()].filter((one) => one.until > now && one.namespaces.includes(namespace)).length;
    },
    store(message) {
      const here = monitors.get(message.key);
      if (!here) return 0;
      const now = clock.monotonic();
      let reported = 0;
      for (const [id, one] of here) {
        if (one.until <= now) {
          here.delete(id);
        } else if (one.namespaces.includes(message.namespace)) {
          if (remoteOf(id)?.send('notify.message', one.wantData ? message.full() : message.bare())) reported++;
          else counters.unreported++;
        }
      }
      counters.reported += reported;
      return reported;
    },
    takeOver(view) {
      judge = judgeOf(view);
      if (!judge.informed) return;
      for (const [key, here] of monitors) {
        const ended = judge.ended(Buffer.from(key, 'latin1'));
        if (!ended) continue;
        monitors.delete(key);
        for (const id of here.keys()) if (remoteOf(id)?.send('notify.monitor_ended', ended)) counters.ended++;
      }
    },
    forget() {
      monitors.clear();
    },
    async stop() {
      monitors.clear();
      await listener?.close();
      listener = undefined;
      remotes.clear();
    },
    async start() {
      if (listener) return;
      listener = new Listener({
        clock,
        address: `tcp://${host}:${port || '*'}`,
        access: 'none',
        keys,
        commands: {
          monitor: { access: 'none', commands: { messages: { kind: 'request', handler: monitor } } },
          storage: { access: 'none', commands: { store: { kind: 'request', handler: store } } },
        },
        maxMessageSize: 10 * 1024 * 1024,
        on: { disconnect: (remote) => remotes.delete(remote.id) },
      });
      await listener.bind();
      port = Number(listener.endpoint.slice(listener.endpoint.lastIndexOf(':') + 1));
    },
    counters,
  };
  await server.start();
  return server;
}

/** Nothing checks it here: it only has to look like a signature. */
function placeholderSignature(publicKey: Buffer, hash: string): string {
  return blake2b(64, Buffer.concat([publicKey, Buffer.from(hash)])).toString('base64');
}
