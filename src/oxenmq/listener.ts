/** One bound ROUTER, on which every client has the same rights. */

import type { Router } from 'zeromq';
import type { Clock } from '../clock.ts';
import { formatBindAddress, parseBindAddress } from './bind-address.ts';
import { type Counters, newCounters } from './counters.ts';
import { Dispatch, type Stray } from './dispatch.ts';
import { checkIpcPath, ipcPath, ownIpcFile } from './ipc.ts';
import { type KeyPair, toZ85 } from './keys.ts';
import { Link, newWire, type Wire } from './link.ts';
import { readMessage } from './message.ts';
import type { Access, Commands, Remote } from './remote.ts';
import { excess, MAX_MESSAGE_SIZE, NOTIFY_DISCONNECT, openRouter, receiveAll, sizeOf } from './socket.ts';
import { type Admission, type Allow, admit } from './zap.ts';

export interface ListenerOptions {
  readonly clock: Clock;
  /** Where to listen, as {@link parseBindAddress} reads it. */
  readonly address: string;
  /**
   * What every client of this socket is granted. A message does not show which key its connection has proven, and
   * clients choose their own routing ids, so rights cannot differ within a socket.
   */
  readonly access: Access;
  /** Makes the socket a CURVE server with this pair. */
  readonly keys?: KeyPair;
  /** With `keys`: which client keys may connect; all if not given. */
  readonly allow?: Allow;
  readonly commands: Commands;
  /** In bytes, of all parts together; 10 MiB if not given. A client that sends a single larger part is cut off. */
  readonly maxMessageSize?: number;
  /**
   * The permissions of an ipc socket, such as 0o660. libzmq leaves them to the umask, and with the usual one only the
   * owner may connect.
   */
  readonly mode?: number;
  readonly on?: {
    /**
     * The client went. Whatever is sent to this remote now is dropped; if the client comes back, it is another remote.
     */
    disconnect?(remote: Remote): void;
    /** Something odd came in, or a handler failed; it has been counted. */
    stray?: Stray;
  };
}

/** The events with which a socket has let go of its address. */
const UNBOUND: ReadonlySet<string> = new Set(['close', 'close:error', 'end']);

export class Listener {
  readonly counters: Counters = newCounters();
  readonly #options: ListenerOptions;
  readonly #socket: Router;
  readonly #maxMessageSize: number;
  readonly #wire: Wire;
  readonly #dispatch: Dispatch;
  /** Clients that were heard, or asked for by {@link Listener.remote}, and have not gone. */
  readonly #clients = new Map<string, Client>();
  #admission: Admission | undefined;
  #endpoint: string | undefined;
  #unlink: (() => void) | undefined;
  #loop: Promise<void> | undefined;
  #closed: Promise<void> | undefined;

  constructor(options: ListenerOptions) {
    this.#options = options;
    this.#maxMessageSize = options.maxMessageSize ?? MAX_MESSAGE_SIZE;
    this.#socket = openRouter(this.#maxMessageSize, NOTIFY_DISCONNECT);
    // With `handover` a second client can take over a routing id, and if the first then sends more and hangs up, libzmq
    // 4.3.5 aborts the process (`!_io_error`). So a routing id stays with its first client until that is seen to have
    // gone: at once on ipc; on TCP by its FIN, or by missing heartbeats within 45 s. Only then can it come back.
    this.#socket.handover = false;
    this.#wire = newWire(this.#socket, options.clock, this.counters);
    this.#dispatch = new Dispatch(options.commands, options.access, this.counters, (reason) => this.#stray(reason));
  }

  /**
   * The address bound, with the real port.
   *
   * @throws Error before {@link Listener.bind} has finished
   */
  get endpoint(): string {
    if (this.#endpoint === undefined) throw new Error(`not listening on ${this.#options.address} yet`);
    return this.#endpoint;
  }

  /** How many clients are known. */
  get size(): number {
    return this.#clients.size;
  }

  /**
   * Starts to listen. A socket file that a dead process left is replaced.
   *
   * @throws Error with the address and the reason; the listener is closed then
   */
  async bind(): Promise<void> {
    const { address, keys, allow, mode } = this.#options;
    const socket = this.#socket;
    const path = ipcPath(address);
    try {
      const endpoint = formatBindAddress(parseBindAddress(address));
      if (path !== undefined) await checkIpcPath(path);
      socket.ipv6 = endpoint.includes('[');
      if (keys) {
        this.#admission = admit((key) => this.#allows(key, allow));
        socket.curveServer = true;
        socket.curveSecretKey = toZ85(keys.secretKey);
        socket.zapDomain = this.#admission.domain;
        // Without this a missing handler would admit everybody.
        socket.zapEnforceDomain = true;
      }
      await socket.bind(endpoint);
      this.#endpoint = socket.lastEndpoint ?? endpoint;
      if (path !== undefined) this.#unlink = ownIpcFile(path, mode);
    } catch (error) {
      await this.close();
      throw new Error(`cannot listen on ${address}: ${(error as Error).message}`, { cause: error });
    }
    this.#loop = receiveAll(
      socket,
      (frames) => this.#take(frames),
      (error) => this.#stray(`receiving ended: ${error.message}`),
    );
  }

  /** The client with this routing id, whether or not it was heard; if there is none, messages to it are dropped. */
  remote(routingId: Buffer): Remote {
    return this.#client(routingId);
  }

  /** Stops listening and lets go of every client; when it has finished, the address is free again. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    for (const client of [...this.#clients.values()]) client.end('CLOSED', 'the listener was closed');
    this.#clients.clear();
    const socket = this.#socket;
    if (this.#endpoint !== undefined) {
      const { events } = socket;
      // zeromq.js's unbind would let another thread at a socket that is in use; this is done at once.
      socket.disconnect(this.#endpoint);
      while (!UNBOUND.has((await events.receive()).type));
      // Reads the events that came meanwhile, for the reason given in Peers.
      socket.close();
      while (!events.closed) await events.receive();
    } else {
      socket.close();
    }
    await this.#loop;
    this.#unlink?.();
    this.#admission?.release();
  }

  #client(routingId: Buffer): Client {
    const id = routingId.toString('latin1');
    let client = this.#clients.get(id);
    if (!client) {
      client = new Client(this.#wire, routingId, (gone) => this.#gone(gone));
      this.#clients.set(id, client);
    }
    return client;
  }

  #gone(client: Client): void {
    this.#clients.delete(client.id);
    this.counters.disconnects++;
    try {
      this.#options.on?.disconnect?.(client);
    } catch (error) {
      this.counters.handlerErrors++;
      this.#stray(`a callback failed: ${(error as Error).message}`);
    }
  }

  #take(frames: Buffer[]): void {
    const id = frames[0] as Buffer;
    this.counters.received++;
    const offence = excess(frames, sizeOf(frames), this.#maxMessageSize);
    if (offence) {
      // A bound ROUTER cannot end one client's connection; libzmq knows no call for it.
      this.counters.excessive++;
      this.#stray(offence);
      return;
    }
    const message = readMessage(frames);
    switch (message.kind) {
      case 'notice':
        // From libzmq, or from a client, which harms only itself by it.
        this.#clients.get(id.toString('latin1'))?.leave();
        break;
      case 'hi':
        this.#client(id).transmit(['HELLO']);
        break;
      case 'hello':
      case 'bye':
        this.#stray(`${message.kind.toUpperCase()} from a client`);
        this.counters.garbage++;
        break;
      case 'garbage':
        // Not delivered, since that would create a remote for it.
        this.counters.garbage++;
        this.#stray(message.reason);
        break;
      default:
        this.#dispatch.deliver(this.#client(id), message, frames);
    }
  }

  #allows(key: Buffer, allow: Allow | undefined): boolean {
    let allowed = false;
    try {
      allowed = !allow || allow(key);
    } finally {
      if (!allowed) this.counters.denied++;
    }
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

/** Somebody who connected to us. */
class Client extends Link {
  readonly #left: (client: Client) => void;

  constructor(wire: Wire, route: Buffer, left: (client: Client) => void) {
    super(wire, route);
    this.#left = left;
  }

  leave(): void {
    this.end('UNREACHABLE', 'the client went');
    this.#left(this);
  }

  end(code: 'UNREACHABLE' | 'CLOSED', reason: string): void {
    this.shut(code, reason);
  }

  protected override gone(): void {
    this.leave();
  }
}
