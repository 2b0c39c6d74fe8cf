/**
 * Where strangers connect: ZMTP over Node's own sockets, so that they meet our limits and never reach libzmq.
 */

import { chmodSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { ConnectionLimit, networkOf } from '../connection-limit.ts';
import { parseBindAddress } from './bind-address.ts';
import { type Counters, newCounters } from './counters.ts';
import { Dispatch, type Stray } from './dispatch.ts';
import { checkIpcPath, ipcPath } from './ipc.ts';
import { newWire, type Wire } from './link.ts';
import { readMessage } from './message.ts';
import type { Access, Commands, Part, Remote } from './remote.ts';
import { type Owner, Stranger, type StrangerOptions } from './stranger.ts';
import type { Allow } from './zap.ts';

export interface PublicListenerOptions extends StrangerOptions {
  /** Where to listen, as {@link parseBindAddress} reads it. */
  readonly address: string;
  /** What every client is granted. */
  readonly access: Access;
  /** With `keys`: which client keys may connect; all if not given. */
  readonly allow?: Allow | undefined;
  readonly commands: Commands;
  /** When there are this many, a newcomer takes the place of another, see {@link ConnectionLimit}. */
  readonly maxConnections: number;
  /** The permissions of an ipc socket, such as 0o660. */
  readonly mode?: number;
  readonly on?: {
    /** The client went, or was cut off. */
    disconnect?(remote: Remote): void;
    /** Something odd came in, or a handler failed; it has been counted. */
    stray?: Stray;
  };
}

/** How many bytes the unfinished messages of all clients may hold. */
const MAX_UNFINISHED = 64 * 1024 * 1024;
/** After this many milliseconds of silence TCP probes begin: a client that vanished is noticed ten seconds later. */
const KEEP_ALIVE = 30_000;
/** CURVE handshakes per second, of one network and of all: each takes a millisecond. */
const HANDSHAKES = { network: 50, all: 200 };

/**
 * Takes the place of a {@link Listener} where clients cannot be trusted. libzmq does not limit connections, gathers a
 * message's parts without end, aborts the process when it runs out of file descriptors, and can be made to abort by
 * some of what a client may do. Here every client gets its routing id from us, whatever it calls itself, so nobody can
 * take another's place.
 */
export class PublicListener {
  readonly counters: Counters = newCounters();
  readonly limit: ConnectionLimit;
  readonly #options: PublicListenerOptions;
  readonly #server: Server;
  readonly #wire: Wire;
  readonly #dispatch: Dispatch;
  readonly #strangers = new Map<string, Stranger>();
  readonly #owner: Owner;
  #numbered = 0;
  #handshakes = { since: 0, all: 0, networks: new Map<string, number>() };
  #closed = false;

  constructor(options: PublicListenerOptions) {
    this.#options = options;
    this.limit = new ConnectionLimit({ maxConnections: options.maxConnections, maxBytes: MAX_UNFINISHED });
    const strangers = this.#strangers;
    const socket = {
      closed: false,
      send: (frames: readonly Part[]) => {
        const stranger = strangers.get((frames[0] as Buffer).toString('latin1'));
        const code = stranger ? stranger.write(frames.slice(1)) : 'EHOSTUNREACH';
        return code === undefined ? Promise.resolve() : Promise.reject(Object.assign(new Error(code), { code }));
      },
    };
    this.#wire = newWire(socket, options.clock, this.counters);
    this.#dispatch = new Dispatch(options.commands, options.access, this.counters, (reason) => this.#stray(reason));
    this.#owner = {
      mayShakeHands: (network) => this.#mayShakeHands(network),
      allows: (key) => this.#allows(key),
      message: (stranger, frames) => this.#take(stranger, frames),
      left: (stranger, reason) => {
        this.#strangers.delete(stranger.id);
        this.counters.disconnects++;
        if (reason !== undefined) this.#stray(`a client was cut off: ${reason}`);
        options.on?.disconnect?.(stranger);
      },
    };
    this.#server = createServer({ noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE }, (connection) =>
      this.#welcome(connection),
    );
    // When out of file descriptors, libuv refuses the newcomer and keeps the others.
    this.#server.on('error', (error) => this.#stray(`accepting failed: ${error.message}`));
  }

  /** How many clients are connected. */
  get size(): number {
    return this.#strangers.size;
  }

  /**
   * The network of a client, see {@link networkOf}. Undefined once it has gone, and for clients of a Unix socket.
   */
  networkOf(remote: Remote): string | undefined {
    return this.#strangers.get(remote.id)?.limited.network || undefined;
  }

  /** The address bound, with the real port. */
  get endpoint(): string {
    const bound = this.#server.address();
    if (bound === null) throw new Error(`not listening on ${this.#options.address}`);
    if (typeof bound === 'string') return `ipc://${bound.replace(/^\0/, '@')}`;
    return `tcp://${bound.family === 'IPv6' ? `[${bound.address}]` : bound.address}:${bound.port}`;
  }

  /**
   * Starts to listen. A socket file that a dead process left is replaced.
   *
   * @throws Error with the address and the reason
   */
  async bind(): Promise<void> {
    const { address, mode } = this.#options;
    try {
      const path = ipcPath(address);
      if (path !== undefined) {
        await checkIpcPath(path);
        rmSync(path, { force: true });
      }
      await new Promise<void>((resolve, reject) => {
        this.#server.once('error', reject);
        this.#server.listen({ ...whereToListen(address), backlog: 511 }, () => {
          this.#server.off('error', reject);
          resolve();
        });
      });
      if (path !== undefined && mode !== undefined) chmodSync(path, mode);
    } catch (error) {
      throw new Error(`cannot listen on ${address}: ${(error as Error).message}`, { cause: error });
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const stranger of [...this.#strangers.values()]) stranger.close();
    await closed;
  }

  #welcome(connection: Socket): void {
    const id = Buffer.alloc(5);
    id.writeUInt32BE(++this.#numbered >>> 0, 1);
    const network = networkOf(connection.remoteAddress);
    const stranger = new Stranger(this.#wire, id, connection, network, this.#options, this.limit, this.#owner);
    if (this.limit.admit(stranger.limited)) this.#strangers.set(stranger.id, stranger);
    else connection.destroy();
  }

  #take(stranger: Stranger, frames: Buffer[]): void {
    this.counters.received++;
    const message = readMessage(frames);
    switch (message.kind) {
      case 'hi':
        stranger.transmit(['HELLO']);
        break;
      case 'call':
        // An honest client reads its answers.
        if (stranger.congested) {
          stranger.close('it does not read its answers');
          break;
        }
        if (this.#dispatch.answers(message.name)) stranger.begin();
        this.#dispatch.deliver(stranger, message, frames);
        break;
      case 'reply':
      case 'refusal':
        this.#dispatch.deliver(stranger, message, frames);
        break;
      default:
        this.counters.garbage++;
        stranger.close(message.kind === 'garbage' ? message.reason : `${message.kind} from a client`);
    }
  }

  #mayShakeHands(network: string): boolean {
    const now = this.#options.clock.monotonic();
    if (now - this.#handshakes.since >= 1000) this.#handshakes = { since: now, all: 0, networks: new Map() };
    const { networks } = this.#handshakes;
    const ofNetwork = (networks.get(network) ?? 0) + 1;
    if (this.#handshakes.all >= HANDSHAKES.all || ofNetwork > HANDSHAKES.network) return false;
    this.#handshakes.all++;
    networks.set(network, ofNetwork);
    return true;
  }

  #allows(key: Buffer): boolean {
    const allowed = this.#options.allow?.(key) ?? true;
    if (allowed) this.counters.handshakes++;
    else this.counters.denied++;
    return allowed;
  }

  #stray(reason: string): void {
    try {
      this.#options.on?.stray?.(reason);
    } catch {
      this.counters.handlerErrors++;
    }
  }
}

function whereToListen(address: string): { path: string } | { host: string; port: number } {
  const bound = parseBindAddress(address);
  // Node and the kernel mark an abstract socket with a NUL where libzmq has an @.
  return bound.protocol === 'ipc' ? { path: bound.path.replace(/^@/, '\0') } : bound;
}
