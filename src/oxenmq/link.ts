/** One remote on a ROUTER: what connections made by us and to us have in common. */

import type { Clock } from '../clock.ts';
import type { Counters } from './counters.ts';
import { type Backlog, Outlet, type Sender } from './outlet.ts';
import { Pending } from './pending.ts';
import type { Part, Remote } from './remote.ts';

/** How long a request waits for its reply if it does not say, in milliseconds (the original's default). */
const REQUEST_TIMEOUT = 15_000;

/** The parts which all links of one socket share. */
export interface Wire {
  readonly socket: Sender;
  readonly clock: Clock;
  readonly counters: Counters;
  readonly backlog: Backlog;
}

export abstract class Link implements Remote {
  readonly id: string;
  readonly pending: Pending;
  readonly #route: Buffer;
  readonly #outlet: Outlet;
  readonly #counters: Counters;
  #closed = false;

  /** @param route the routing id under which the ROUTER knows the peer */
  constructor(wire: Wire, route: Buffer) {
    this.id = route.toString('latin1');
    this.pending = new Pending(wire.clock);
    this.#route = route;
    this.#counters = wire.counters;
    this.#outlet = new Outlet(wire.socket, wire.clock, wire.counters, wire.backlog, () => this.gone());
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** False while messages would only pile up for a peer that is not there. */
  protected get sendable(): boolean {
    return !this.#closed;
  }

  /** libzmq no longer knows the peer. */
  protected abstract gone(): void;

  send(command: string, ...parts: Part[]): boolean {
    if (this.sendable) return this.#outlet.send([this.#route, command, ...parts]);
    this.#counters.refused++;
    return false;
  }

  request(command: string, parts: readonly Part[], timeout: number = REQUEST_TIMEOUT): Promise<Buffer[]> {
    const { tag, reply } = this.pending.add(command, timeout);
    if (this.#closed) {
      this.pending.abandon(tag, 'CLOSED', `${command} was not sent: the connection is closed`);
    } else if (!this.sendable || !this.#outlet.send([this.#route, command, tag, ...parts])) {
      this.pending.abandon(tag, 'UNREACHABLE', `${command} was not sent: the peer is unconnected or its queue full`);
    }
    return reply;
  }

  /** True while the peer does not read what it is answered: a request of its own could not be answered now. */
  get congested(): boolean {
    return this.#outlet.congested;
  }

  /**
   * Sends frames that need no connection to be up, and that nobody would send again: replies, refusals and the
   * greetings. They wait while the peer's queue is full; for what finds no room even then, there is a counter.
   */
  transmit(frames: readonly Part[]): void {
    this.#outlet.post([this.#route, ...frames]);
  }

  /** libzmq does not know the peer yet: what is sent waits for {@link opened}. */
  protected wait(): void {
    this.#outlet.shut();
  }

  protected opened(): void {
    this.#outlet.open();
  }

  /** Ends the link for us: nothing is sent any more, and every waiting request fails. */
  protected shut(code: 'UNREACHABLE' | 'CLOSED', reason: string): void {
    this.#closed = true;
    this.#outlet.close();
    this.pending.failAll(code, reason);
  }
}
