/** Every outgoing connection of a process, over one ROUTER. */

import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Router } from 'zeromq';
import type { Clock } from '../clock.ts';
import { type Address, formatAddress, zmqAddress } from './address.ts';
import { BetweenMessages } from './between-messages.ts';
import { Connection, type ConnectionOwner, NO_CONNECTION } from './connection.ts';
import { type Counters, newCounters } from './counters.ts';
import { Dispatch, type Stray } from './dispatch.ts';
import { ipcTrouble } from './ipc-trouble.ts';
import { type KeyPair, randomKeyPair, toZ85 } from './keys.ts';
import { newWire, type Wire } from './link.ts';
import { readMessage } from './message.ts';
import type { Commands } from './remote.ts';
import {
  excess,
  LINGER,
  MAX_MESSAGE_SIZE,
  NOTIFY_CONNECT_AND_DISCONNECT,
  openRouter,
  quietly,
  receiveAll,
  sizeOf,
  unreadSize,
} from './socket.ts';

export { Connection } from './connection.ts';

/** The owner's callbacks. They may close connections and make new ones. */
export interface PeersEvents {
  /**
   * The peer was heard over a fresh connection: the first one, or one that libzmq restored after a break. A peer that
   * restarted has forgotten us: ask it again for whatever it should remember. On the first, comes just before `hello`.
   */
  handshake?(connection: Connection): void;
  /** The first HELLO: the peer speaks OxenMQ. Once per connection. */
  hello?(connection: Connection): void;
  /** The connection broke. Requests that waited have failed with UNREACHABLE; libzmq tries to restore it. */
  disconnect?(connection: Connection): void;
  /**
   * The connection is given up and closed: no HELLO in time, connect() failed, broken for too long, the peer said BYE,
   * or it was cut off.
   *
   * @param offence it was cut off for something that would cost us as much again if we connected again
   */
  failure?(connection: Connection, reason: string, offence: boolean): void;
  /** Something odd came in, or a handler failed; it has been counted. */
  stray?: Stray;
}

export interface PeersOptions {
  readonly clock: Clock;
  /** Our own CURVE pair; a random one if not given, as with the original. */
  readonly keys?: KeyPair;
  /**
   * The id by which peers know us, 1 to 255 bytes, the first not zero. They send what is meant for us to anybody with
   * this id, so where that matters it must be secret. The original's if not given: `L` and our public key.
   */
  readonly routingId?: Buffer;
  /** In bytes, of all parts together; 10 MiB if not given. A peer that sends more loses its connection. */
  readonly maxMessageSize?: number;
  /** How long to wait for HELLO, in milliseconds; 10,000 if not given. */
  readonly helloTimeout?: number;
  /** What peers may call; they are granted `basic`, as the original grants it. */
  readonly commands: Commands;
  readonly on?: PeersEvents;
}

export interface ConnectOptions {
  /** The beginning of the connection's id; the address if not given. */
  readonly label?: string;
  /** For the owner's own use, see {@link Connection.data}. */
  readonly data?: unknown;
  /** The id by which this peer alone knows us. */
  readonly routingId?: Buffer;
}

/**
 * libzmq fixes the key, the routing ids and all other options of a connection when it is made, so one ROUTER can hold
 * thousands of connections, each with its own server key: one file descriptor each, and one loop that receives.
 */
export class Peers {
  readonly counters: Counters = newCounters();
  readonly #socket: Router;
  readonly #wire: Wire;
  readonly #dispatch: Dispatch;
  readonly #on: PeersEvents;
  readonly #routingId: Buffer;
  readonly #helloTimeout: number;
  readonly #maxMessageSize: number;
  readonly #connections = new Map<string, Connection>();
  /** By libzmq's name for them; see {@link Peers.#claim}. */
  readonly #endpoints = new Map<string, Connection>();
  readonly #owner: ConnectionOwner;
  readonly #between = new BetweenMessages();
  readonly #loops: Promise<unknown>;
  #numbered = 0;
  #counting = 0;
  #closed: Promise<void> | undefined;

  constructor(options: PeersOptions) {
    const keys = options.keys ?? randomKeyPair();
    this.#on = options.on ?? {};
    this.#routingId = checkRoutingId(options.routingId ?? Buffer.concat([Buffer.from('L'), keys.publicKey]));
    this.#helloTimeout = options.helloTimeout ?? 10_000;
    this.#maxMessageSize = options.maxMessageSize ?? MAX_MESSAGE_SIZE;
    this.#socket = openRouter(this.#maxMessageSize, NOTIFY_CONNECT_AND_DISCONNECT);
    this.#socket.curvePublicKey = toZ85(keys.publicKey);
    this.#socket.curveSecretKey = toZ85(keys.secretKey);
    this.#wire = newWire(this.#socket, options.clock, this.counters);
    this.#dispatch = new Dispatch(options.commands, 'basic', this.counters, (reason) => this.#stray(reason));
    this.#owner = {
      handshake: (connection) => this.#tell(() => this.#on.handshake?.(connection)),
      hello: (connection) => this.#tell(() => this.#on.hello?.(connection)),
      disconnect: (connection) => this.#tell(() => this.#on.disconnect?.(connection)),
      failure: (connection, reason, offence) => this.#tell(() => this.#on.failure?.(connection, reason, offence)),
      released: (connection, linger) => this.#release(connection, linger),
    };
    this.#loops = Promise.all([
      this.#watch(),
      receiveAll(
        this.#socket,
        (frames) => this.#receive(frames),
        (error) => this.#stray(`receiving ended: ${error.message}`),
      ),
    ]);
  }

  /** How many connections there are, in whatever state. */
  get size(): number {
    return this.#connections.size;
  }

  /**
   * Connects and says HI. Commands and requests may be sent at once: they follow the HI.
   *
   * @returns the connection; if connect() itself fails, it is closed and `failure` called as a microtask
   * @throws Error if this Peers is closed, RangeError for a routing id that is not 1 to 255 bytes or begins with zero
   */
  connect(address: Address, options: ConnectOptions = {}): Connection {
    if (this.#closed !== undefined) throw new Error('these peers are closed');
    const ownId = options.routingId ? checkRoutingId(options.routingId) : this.#routingId;
    const { publicKey: _, ...place } = address;
    const label = options.label ?? formatAddress(place);
    // libzmq aborts the process if an id is given out again while its connection still exists: the number never
    // repeats.
    const route = Buffer.from(`${label.slice(0, 60)}#${++this.#numbered}`);
    const connection = new Connection(this.#wire, route, this.#owner, address, label, options.data);
    this.#connections.set(connection.id, connection);
    const trouble = address.path === undefined ? undefined : ipcTrouble(address.path);
    // Trouble that lasts is reported at once; for the rest libzmq keeps trying.
    if (trouble?.lasting) {
      queueMicrotask(() => connection.fail(trouble.text));
      return connection;
    }
    // After connections that are still to be ended: a server refuses one with our id while it has another.
    this.#between.afterOthers(() => this.#establish(connection, route, ownId));
    if (!connection.closed) connection.start(this.#helloTimeout);
    return connection;
  }

  /** Starts the count of {@link loudest} from zero. */
  countAnew(): void {
    this.#counting++;
  }

  /** The connection over which most came in since {@link countAnew}, and about how many bytes. */
  loudest(): { connection: Connection; bytes: number } | undefined {
    let loudest: { connection: Connection; bytes: number } | undefined;
    for (const connection of this.#connections.values()) {
      const bytes = connection.taken(this.#counting);
      if (bytes > (loudest?.bytes ?? 0)) loudest = { connection, bytes };
    }
    return loudest;
  }

  /** Resolves when everything that has arrived has been handled; never while more comes than can be handled. */
  caughtUp(): Promise<void> {
    return this.#between.caughtUp();
  }

  /** Closes every connection and the socket; what libzmq still holds has a second to be sent. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    for (const connection of [...this.#connections.values()]) connection.close();
    await this.#between.done();
    // Gives #watch a turn: with some 2,000 unread events, libzmq's thread waits for us to read and close() for it.
    await nextTurn();
    this.#socket.close();
    await this.#loops;
  }

  #establish(connection: Connection, route: Buffer, ownId: Buffer): void {
    if (connection.closed) return;
    try {
      const { address } = connection;
      const endpoint = this.#claim(address);
      this.#open(address, endpoint, route, ownId);
      this.#endpoints.set(endpoint, connection);
      connection.made(endpoint);
    } catch (error) {
      queueMicrotask(() => connection.fail(`connect() failed: ${(error as Error).message}`));
    }
  }

  #open(address: Address, endpoint: string, route: Buffer, ownId: Buffer): void {
    const socket = this.#socket;
    quietly(() => {
      // Unsetting the user name is how libzmq goes back from CURVE to no security.
      if (address.publicKey) socket.curveServerKey = toZ85(address.publicKey);
      else socket.plainUsername = null;
      socket.ipv6 = address.host?.startsWith('[') ?? false;
      // The types only allow strings, which would be sent as UTF-8 and spoil bytes from 0x80.
      socket.routingId = ownId as unknown as string;
      socket.connect(endpoint, { routingId: route as unknown as string });
    });
  }

  /**
   * libzmq disconnects by address, all connections to it at once. To tell several connections to one address apart,
   * each further one spells it differently with the same meaning: another zero before the port, `/` or `./` before the
   * path.
   */
  #claim(address: Address): string {
    if (address.protocol === 'tcp') {
      let port = String(address.port);
      while (this.#endpoints.has(`tcp://${address.host}:${port}`)) port = `0${port}`;
      return `tcp://${address.host}:${port}`;
    }
    let spelled = address;
    while (this.#endpoints.has(zmqAddress(spelled))) {
      const { path = '' } = spelled;
      if (path.startsWith('@')) throw new Error(`there is a connection to ${zmqAddress(spelled)} already`);
      spelled = { ...address, path: path.startsWith('/') ? `/${path}` : `./${path}` };
    }
    return zmqAddress(spelled);
  }

  #release(connection: Connection, linger: number): void {
    this.#connections.delete(connection.id);
    const { endpoint } = connection;
    if (endpoint !== undefined) this.#between.do(() => this.#disconnect(endpoint, linger));
  }

  #disconnect(endpoint: string, linger: number): void {
    this.#endpoints.delete(endpoint);
    try {
      this.#socket.linger = linger;
      this.#socket.disconnect(endpoint);
    } catch (error) {
      this.#stray(`disconnect() failed: ${(error as Error).message}`);
    }
    this.#socket.linger = LINGER;
  }

  #receive(frames: Buffer[]): void {
    this.#between.begin();
    this.#take(frames);
    this.#between.end();
  }

  #take(frames: Buffer[]): void {
    this.counters.received++;
    const connection = this.#connections.get(frames[0]?.toString('latin1') ?? '');
    // It was closed a moment ago.
    if (!connection) return;
    const size = sizeOf(frames);
    connection.took(unreadSize(size, frames.length), this.#counting);
    const offence = excess(frames, size, this.#maxMessageSize);
    if (offence) {
      this.counters.excessive++;
      connection.fail(`the peer sent ${offence}`, true);
      return;
    }
    const message = readMessage(frames);
    switch (message.kind) {
      case 'notice':
        connection.notice();
        break;
      case 'hello':
        connection.hello();
        break;
      case 'bye':
        connection.fail('the peer said BYE');
        break;
      case 'hi':
        connection.hear();
        connection.transmit(['HELLO']);
        break;
      default:
        connection.hear();
        if (!connection.closed) this.#dispatch.deliver(connection, message, frames);
    }
  }

  /**
   * Follows libzmq's events, for the message of a failure. They carry only the address, after the first attempt in
   * libzmq's own spelling, so nothing else depends on them.
   */
  async #watch(): Promise<void> {
    const { events } = this.#socket;
    for (;;) {
      const event = await events.receive();
      if (event.type === 'end') return;
      const connection = 'address' in event ? this.#endpoints.get(event.address) : undefined;
      const progress = PROGRESS[event.type];
      if (progress) connection?.saw(progress, false);
      else if (event.type.startsWith('handshake:error')) connection?.saw(handshakeTrouble(event), true);
    }
  }

  #tell(callback: () => void): void {
    try {
      callback();
    } catch (error) {
      this.counters.handlerErrors++;
      this.#stray(`a callback failed: ${(error as Error).message}`);
    }
  }

  #stray(reason: string): void {
    try {
      this.#on.stray?.(reason);
    } catch {
      this.counters.handlerErrors++;
    }
  }
}

/** How far an attempt to connect has come, by libzmq's event. */
const PROGRESS: { readonly [event: string]: string } = {
  connect: 'the peer accepted the connection and said nothing',
  'connect:retry': NO_CONNECTION,
  handshake: 'the peer did not answer HI',
};

function handshakeTrouble(event: object): string {
  const error = 'error' in event ? (event.error as NodeJS.ErrnoException & { status?: number }) : undefined;
  // A server that cannot read our first CURVE message hangs up without an answer.
  if (error?.code === 'EPIPE') return 'the peer hung up during the handshake (is its key another one?)';
  return `the handshake failed: ${error?.status ?? error?.code ?? error?.message ?? 'unknown error'}`;
}

function checkRoutingId(id: Buffer): Buffer {
  if (id.length < 1 || id.length > 255 || id[0] === 0) {
    throw new RangeError('a routing id has 1 to 255 bytes, and the first is not zero');
  }
  return id;
}
