/** The way out to one peer through a ROUTER: what is done when ZeroMQ turns a message away. */

import type { Router } from 'zeromq';
import type { Clock, Timer } from '../clock.ts';
import type { Counters } from './counters.ts';
import type { Part } from './remote.ts';

/** How many messages may be in our hands, on top of the 1,000 in ZeroMQ's queue for the peer. */
const HELD_MAX = 1000;
/** How long to wait, in milliseconds, before a full queue is tried again: at first, and at most. */
const RETRY_FIRST = 10;
const RETRY_MAX = 250;

type Frames = readonly Part[];

/**
 * With `sendTimeout: 0` zeromq.js hands a message to libzmq, or fails, before `send()` returns, so sends need not wait for
 * each other; but what came of it is told by the promise alone, after the caller has had its answer. Hence the queue
 * here: a message that was taken and then turned away because the peer's queue was full (EAGAIN) is held, and while
 * any is held no further one is taken.
 */
export class Outlet {
  readonly #socket: Router;
  readonly #clock: Clock;
  readonly #counters: Counters;
  readonly #gone: () => void;
  /** Handed to ZeroMQ, in order, its word on them not yet heard: that comes before the event loop turns. */
  readonly #sent: Frames[] = [];
  readonly #held: Frames[] = [];
  #retryDelay = RETRY_FIRST;
  #retry: Timer | undefined;
  #closed = false;

  /** @param gone called once libzmq says that it has no such peer (EHOSTUNREACH) */
  constructor(socket: Router, clock: Clock, counters: Counters, gone: () => void) {
    this.#socket = socket;
    this.#clock = clock;
    this.#counters = counters;
    this.#gone = gone;
  }

  /**
   * @param frames with the peer's routing id as the first
   * @returns false if the message was not taken
   */
  send(frames: Frames): boolean {
    if (this.#closed || this.#held.length > 0 || this.#sent.length >= HELD_MAX) {
      this.#counters.refused++;
      return false;
    }
    let sending: Promise<void>;
    try {
      sending = this.#socket.send(frames as Part[] as Buffer[]);
    } catch {
      // The socket is closed.
      this.#counters.refused++;
      return false;
    }
    this.#sent.push(frames);
    sending.then(this.#confirm, this.#turnedAway);
    return true;
  }

  /** Gives up what is held; what ZeroMQ has taken is its own. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#retry?.cancel();
    this.#counters.lost += this.#held.length;
    this.#held.length = 0;
  }

  readonly #confirm = (): void => {
    this.#sent.shift();
    this.#counters.sent++;
  };

  readonly #turnedAway = (error: unknown): void => {
    const frames = this.#sent.shift();
    if (frames && !this.#closed && isFull(error)) {
      this.#held.push(frames);
      this.#retryLater();
      return;
    }
    this.#counters.lost++;
    if (!this.#closed) this.#gone();
  };

  #retryLater(): void {
    this.#retry ??= this.#clock.setTimeout(() => {
      this.#retry = undefined;
      void this.#empty();
    }, this.#retryDelay);
  }

  async #empty(): Promise<void> {
    while (this.#held.length > 0) {
      try {
        await this.#socket.send(this.#held[0] as Part[] as Buffer[]);
      } catch (error) {
        if (this.#closed) return;
        if (isFull(error)) {
          this.#retryDelay = Math.min(this.#retryDelay * 2, RETRY_MAX);
          this.#retryLater();
        } else {
          this.#gone();
        }
        return;
      }
      this.#counters.sent++;
      // Closed while the message was on its way: the rest has been counted as lost, this one with it.
      if (this.#closed) return;
      this.#held.shift();
    }
    this.#retryDelay = RETRY_FIRST;
  }
}

function isFull(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'EAGAIN';
}
