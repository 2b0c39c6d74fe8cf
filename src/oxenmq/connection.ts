/** One connection that we made, from HI to its end. */

import { randomInt } from 'node:crypto';
import type { Timer } from '../clock.ts';
import type { Address } from './address.ts';
import { ipcTrouble } from './ipc-trouble.ts';
import { Link, type Wire } from './link.ts';
import { FAILED_LINGER, LINGER } from './socket.ts';

/** How long a connection may stay broken before it is given up, in milliseconds. */
const LOST_TIMEOUT = 60_000;
/** When to say HI again over a broken connection, in milliseconds: the second time, and every further time. */
const GREET_SOON = 1000;
const GREET_AGAIN = 10_000;

/** For {@link Connection.saw}: an attempt to connect was refused, or nothing answered it. */
export const NO_CONNECTION = 'no connection could be made';

/** What the owner of a connection is told. */
export interface ConnectionOwner {
  handshake(connection: Connection): void;
  hello(connection: Connection): void;
  disconnect(connection: Connection): void;
  failure(connection: Connection, reason: string, offence: boolean): void;
  /**
   * The connection is closed, by either side: its socket has to forget it.
   *
   * @param linger how long queued messages may still take to leave, in milliseconds
   */
  released(connection: Connection, linger: number): void;
}

/**
 * A connection is up when the peer has been heard over it: a TCP connection proves nothing. libzmq reports by an empty
 * message that something happened to a connection, but not what: it came up, broke, or another attempt failed in its
 * CURVE handshake; and a peer can send an empty message, too. So an empty message only ever takes a connection down. To
 * find out whether it is up again we send another HI, which waits in libzmq's queue until the peer is there; whatever
 * comes in then is the proof.
 */
export class Connection extends Link {
  readonly address: Address;
  readonly label: string;
  /** The owner's own. */
  data: unknown;
  /** What libzmq calls this connection; not set if it could not be made. */
  endpoint: string | undefined;
  readonly #wire: Wire;
  readonly #owner: ConnectionOwner;
  /** Whether the peer was heard since the connection last broke. */
  #heard = false;
  /** Whether HELLO ever came. */
  #greeted = false;
  /** What the attempts to connect met, for the message of a failure; a failed handshake says more than what follows. */
  #seen = 'no answer at all';
  #handshakeFailed = false;
  /** Bytes that came in during the period `#counting`. */
  #taken = 0;
  #counting = 0;
  #deadline: Timer | undefined;
  #greeting: Timer | undefined;

  constructor(wire: Wire, route: Buffer, owner: ConnectionOwner, address: Address, label: string, data: unknown) {
    super(wire, route);
    this.#wire = wire;
    this.#owner = owner;
    this.address = address;
    this.label = label;
    this.data = data;
  }

  /** `connecting` until the first HELLO; `down` while broken, when libzmq tries to restore it for a minute at most. */
  get state(): 'connecting' | 'up' | 'down' | 'closed' {
    if (this.closed) return 'closed';
    if (!this.#greeted) return 'connecting';
    return this.#heard ? 'up' : 'down';
  }

  /** Messages may be queued before the first HELLO, as by the original; after a break they would be stale. */
  protected override get sendable(): boolean {
    return !this.closed && (this.#heard || !this.#greeted);
  }

  /** Closes the connection without telling the owner `failure`. Requests that wait fail with CLOSED. */
  close(): void {
    if (!this.closed) this.#end('CLOSED', 'the connection was closed');
  }

  /** Says HI, which waits until libzmq has made the connection. @param helloTimeout milliseconds */
  start(helloTimeout: number): void {
    if (this.endpoint === undefined) this.wait();
    this.transmit(['HI']);
    this.#deadline = this.#wire.clock.setTimeout(
      () => this.fail(`no HELLO within ${helloTimeout} ms: ${this.#why}`),
      helloTimeout,
    );
  }

  /** libzmq has made the connection. @param endpoint what libzmq calls it */
  made(endpoint: string): void {
    this.endpoint = endpoint;
    this.opened();
  }

  /** Counts a message's bytes. @param counting number of the current period; a new one starts from 0 */
  took(bytes: number, counting: number): void {
    this.#taken = this.taken(counting) + bytes;
    this.#counting = counting;
  }

  /** Bytes that came in during that period. */
  taken(counting: number): number {
    return counting === this.#counting ? this.#taken : 0;
  }

  /** Takes note of how the attempts to connect go. */
  saw(what: string, handshakeFailed: boolean): void {
    if (this.#handshakeFailed && !handshakeFailed) return;
    this.#handshakeFailed = handshakeFailed;
    this.#seen = what;
  }

  /** Something came in that only the peer can have sent, so the connection is up. */
  hear(): void {
    if (this.#heard || this.closed) return;
    this.#heard = true;
    this.#greeting?.cancel();
    if (this.#greeted) this.#deadline?.cancel();
    this.#wire.counters.handshakes++;
    this.#owner.handshake(this);
  }

  hello(): void {
    this.hear();
    if (this.#greeted || this.closed) return;
    this.#greeted = true;
    this.#deadline?.cancel();
    this.#owner.hello(this);
  }

  /** An empty message came in: from libzmq, or from a peer, which harms only itself by it. */
  notice(): void {
    if (!this.#heard || this.closed) return;
    this.#heard = false;
    this.#wire.counters.disconnects++;
    this.pending.failAll('UNREACHABLE', 'the connection broke');
    this.#owner.disconnect(this);
    if (this.closed) return;
    if (this.#greeted) {
      this.#deadline = this.#wire.clock.setTimeout(
        () => this.fail(`the connection broke and was not restored within ${LOST_TIMEOUT} ms: ${this.#why}`),
        LOST_TIMEOUT,
      );
    }
    this.#greet(GREET_SOON);
  }

  /** Gives the connection up. @param offence whether the peer did something at our cost that no honest peer does */
  fail(reason: string, offence = false): void {
    if (this.closed) return;
    this.#wire.counters.failures++;
    this.#end('UNREACHABLE', reason);
    this.#owner.failure(this, reason, offence);
  }

  /** For an ipc address the socket's file says more than libzmq does. */
  get #why(): string {
    const { path } = this.address;
    if (path === undefined) return this.#seen;
    return (
      ipcTrouble(path)?.text ?? (this.#seen === NO_CONNECTION ? `nobody listens at the socket ${path}` : this.#seen)
    );
  }

  protected override gone(): void {
    this.fail('libzmq ended the connection: the peer broke the protocol or sent a message that is too large');
  }

  /**
   * Says HI until the peer is heard. The second one comes soon after the first, to find out whether libzmq has ended
   * the connection for good: then it cannot be sent.
   */
  #greet(next: number): void {
    this.transmit(['HI']);
    this.#greeting = this.#wire.clock.setTimeout(() => this.#greet(GREET_AGAIN), next);
  }

  #end(code: 'UNREACHABLE' | 'CLOSED', reason: string): void {
    this.#deadline?.cancel();
    this.#greeting?.cancel();
    // A peer that never greeted us was only sent HI, which cannot be half sent; and many such may fail at the same
    // time.
    const failed = this.#greeted ? randomInt(...FAILED_LINGER) : 0;
    const linger = code === 'CLOSED' && this.sendable ? LINGER : failed;
    this.shut(code, reason);
    this.#owner.released(this, linger);
  }
}
