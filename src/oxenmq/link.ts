/** One remote on a ROUTER: what connections made by us and those made to us have in common. */

import type { Clock } from '../clock.ts';
import type { Counters } from './counters.ts';
import { type Backlog, Outlet, type Sender } from './outlet.ts';
import { Pending } from './pending.ts';
import type { Part, Remote } from './remote.ts';

/** How long a request waits for its reply unless told otherwise, in milliseconds (the original's default). */
const REQUEST_TIMEOUT = 15_000;

/** What all links of one socket share. */
export interface Wire {
  readonly socket: Sender;
  readonly clock: Clock;
  readonly counters: Counters;
  readonly backlog: Backlog;
}

export function newWire(socket: Sender, clock: Clock, counters: Counters): Wire {
  return { socket, clock, counters, backlog: { bytes: 0 } };
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

  /** True while the peer does not read our answers, so that its requests could not be answered now. */
  get congested(): boolean {
    return this.#outlet.congested;
  }

  /**
   * Sends frames that nobody would send again, whether or not the connection is up: replies, refusals and greetings.
   * They wait while the peer's queue is full; if there is no room to wait either, they are dropped and counted.
   */
  transmit(frames: readonly Part[]): void {
    this.#outlet.post([this.#route, ...frames]);
  }

  /** libzmq does not know the peer yet: what is sent waits for {@link opened}. */
  protected wait(): void {
    this.#outlet.pause();
  }

  protected opened(): void {
    this.#outlet.resume();
  }

  /** Ends the link: nothing is sent any more, and every waiting request fails. */
  protected shut(code: 'UNREACHABLE' | 'CLOSED', reason: string): void {
    this.#closed = true;
    this.#outlet.close();
    this.pending.failAll(code, reason);
  }
}
