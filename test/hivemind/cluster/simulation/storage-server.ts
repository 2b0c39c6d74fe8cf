import type { Clock } from '../../../../src/clock.ts';
import { type Bencoded, decode } from '../../../../src/codec/bencode.ts';
import type { Channel } from '../../../../src/hivemind/monitoring/swarm-member.ts';
import type { ChannelEvents } from '../../../../src/hivemind/network/node.ts';
import { encodeNotification, type Notification } from '../../../../src/session/notification.ts';
import type { ServiceNode } from '../../../../src/session/service-nodes.ts';
import type { Random } from '../../../support/random.ts';

/** How long (ms) a storage server keeps a monitor that is not renewed. */
const LIFETIME = 65 * 60_000;
const GIVEN_UP = 10_000;
const TIMEOUT = 15_000;

/** What a server monitors for one routing id, by account (latin1): until when, and whether with the body. */
type Monitors = Map<string, { readonly until: number; readonly wantsData: boolean }>;

/** Who connects to a storage server. */
export interface Caller {
  readonly name: string;
  /** Gets what comes in, unless it is dead, and later if it stands still. */
  does(what: () => void): void;
  readonly isDead: boolean;
}

interface Connection {
  readonly caller: Caller;
  readonly events: ChannelEvents;
  readonly onNotification: (frame: Buffer) => void;
  isUp: boolean;
  /** Whether what the server tells goes elsewhere, although it answers here. */
  isDeaf: boolean;
  /** Raised by every break: what was under way before it is lost. */
  session: number;
}

/** A storage server: it knows who asked for which accounts by routing ids, and forgets them in a restart. */
export class StorageServer {
  readonly address: ServiceNode;
  readonly key: string;
  /** What it answers to all that is asked, if not that it monitors it; undefined: nothing at all. */
  answer: 'success' | number | undefined = 'success';
  /** How long (ms) an answer takes. */
  delay = 50;
  /** Members that cannot reach it. */
  readonly lostTo = new Set<string>();
  isDown = false;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #monitors = new Map<string, Monitors>();
  readonly #connections = new Map<string, Connection>();

  constructor(clock: Clock, random: Random, index: number, swarm: bigint) {
    this.#clock = clock;
    this.#random = random;
    const publicKey = Buffer.alloc(32);
    publicKey.writeUInt32BE(index + 1);
    this.key = publicKey.toString('hex');
    this.address = { publicKey, host: `10.0.0.${index + 1}`, port: 22020, swarm };
  }

  /** @param routingId by what it knows the caller again */
  connect(caller: Caller, routingId: string, events: ChannelEvents, onNotification: (frame: Buffer) => void): Channel {
    const connection: Connection = { caller, events, onNotification, isUp: false, isDeaf: false, session: 0 };
    // Two with one routing id would bring the server down: the world must not let that happen.
    const other = this.#connections.get(routingId);
    if (other && !other.caller.isDead && other.caller !== caller) throw new Error(`two are connected as ${routingId}`);
    this.#connections.set(routingId, connection);
    const isCurrent = () => this.#connections.get(routingId) === connection;
    this.#later(20, 200, () => isCurrent() && this.#up(connection));
    this.#clock.setTimeout(() => {
      if (isCurrent() && connection.session === 0)
        caller.does(() => events.failed('connection attempt timed out', false));
    }, GIVEN_UP);
    return {
      request: (body, done) => this.#request(connection, routingId, body, done),
      close: () => {
        if (isCurrent()) this.#connections.delete(routingId);
        connection.isUp = false;
        connection.session++;
      },
    };
  }

  /** Whether it would tell that caller of a message for this account. */
  isMonitoredBy(caller: Caller, account: Buffer): boolean {
    const now = this.#clock.monotonic();
    for (const [routingId, connection] of this.#connections) {
      if (connection.caller !== caller || !connection.isUp || connection.isDeaf) continue;
      const monitor = this.#monitors.get(routingId)?.get(account.toString('latin1'));
      if (monitor && monitor.until > now) return true;
    }
    return false;
  }

  /** Stores a message, and tells all that monitor its account. */
  store(message: Notification): void {
    if (this.isDown) return;
    const now = this.#clock.monotonic();
    for (const [routingId, monitors] of this.#monitors) {
      const monitor = monitors.get(message.account.toString('latin1'));
      const connection = this.#connections.get(routingId);
      if (!monitor || monitor.until <= now || !connection?.isUp || connection.isDeaf) continue;
      const frame = encodeNotification({ ...message, data: monitor.wantsData ? message.data : null });
      const { session } = connection;
      this.#later(1, 60, () => {
        if (connection.session === session) connection.caller.does(() => connection.onNotification(frame));
      });
    }
  }

  /** It is away for so many ms, and has forgotten everything when it comes back. */
  restart(ms: number): void {
    if (this.isDown) return;
    this.isDown = true;
    this.#monitors.clear();
    for (const connection of this.#connections.values()) this.#break(connection);
    this.#clock.setTimeout(() => {
      this.isDown = false;
      this.#restore();
    }, ms);
  }

  /** That member does not reach it for so many ms. */
  loseTo(name: string, ms: number): void {
    this.lostTo.add(name);
    for (const connection of this.#connections.values()) if (connection.caller.name === name) this.#break(connection);
    this.#clock.setTimeout(() => {
      this.lostTo.delete(name);
      this.#restore();
    }, ms);
  }

  /** What it tells that member goes nowhere, for so many ms or until the member connects anew. */
  goDeaf(caller: Caller, ms: number): void {
    for (const connection of this.#connections.values()) {
      if (connection.caller !== caller) continue;
      connection.isDeaf = true;
      this.#clock.setTimeout(() => {
        connection.isDeaf = false;
      }, ms);
    }
  }

  #restore(): void {
    for (const connection of this.#connections.values()) {
      if (!connection.isUp) this.#later(20, 3_000, () => this.#up(connection));
    }
  }

  #break(connection: Connection): void {
    const { caller, events, isUp } = connection;
    connection.isUp = false;
    if (!isUp) return;
    connection.session++;
    caller.does(() => events.down());
  }

  #up(connection: Connection): void {
    const { caller, events } = connection;
    const isThere = [...this.#connections.values()].includes(connection);
    if (!isThere || connection.isUp || this.isDown || this.lostTo.has(caller.name) || caller.isDead) return;
    connection.isUp = true;
    connection.session++;
    caller.does(() => events.up());
  }

  #request(connection: Connection, routingId: string, body: Buffer, done: Parameters<Channel['request']>[1]): void {
    const { caller, session } = connection;
    let isOver = false;
    const settle = (reply: Buffer | undefined, failure: string | undefined) =>
      caller.does(() => {
        if (isOver) return;
        isOver = true;
        done(reply, failure);
      });
    this.#clock.setTimeout(() => settle(undefined, 'TIMEOUT'), TIMEOUT);
    if (!connection.isUp) {
      this.#later(1, 5, () => settle(undefined, 'UNREACHABLE'));
      return;
    }
    this.#later(this.delay, this.delay + 20, () => {
      if (connection.session !== session || this.answer === undefined) return;
      const results = listOf(decode(body)).map((dict) => this.#monitor(routingId, dict));
      this.#later(1, 20, () => {
        if (connection.session === session) settle(Buffer.from(`l${results.join('')}e`), undefined);
      });
    });
  }

  #monitor(routingId: string, dict: Bencoded): string {
    if (typeof this.answer === 'number') return `d7:errcodei${this.answer}e5:error2:noe`;
    if (!(dict instanceof Map)) throw new Error('an element of a request is no dictionary');
    const account = dict.get('p');
    if (!Buffer.isBuffer(account)) throw new Error('an element of a request has no account');
    let monitors = this.#monitors.get(routingId);
    if (!monitors) {
      monitors = new Map();
      this.#monitors.set(routingId, monitors);
    }
    const now = this.#clock.monotonic();
    const key = account.toString('latin1');
    const before = monitors.get(key);
    const wantsData = dict.get('d') === 1 || (before !== undefined && before.until > now && before.wantsData);
    monitors.set(key, { until: now + LIFETIME, wantsData });
    return 'd7:successi1ee';
  }

  #later(from: number, to: number, what: () => void): void {
    this.#clock.setTimeout(what, from + this.#random.int(to - from + 1));
  }
}

function listOf(value: Bencoded): readonly Bencoded[] {
  if (!Array.isArray(value)) throw new Error('a request is no list');
  return value;
}
