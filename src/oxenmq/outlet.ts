/** The way out to one peer through a ROUTER: what is done when ZeroMQ turns a message away. */

import type { Clock, Timer } from '../clock.ts';
import type { Counters } from './counters.ts';
import type { Part } from './remote.ts';

/** How many messages may be handed to ZeroMQ in one turn of the event loop, before its word on the first is heard. */
const IN_ONE_TURN = 1000;
/** What may wait for one peer in our hands, on top of ZeroMQ's queue for it: messages, and bytes. */
const WAITING_MESSAGES = 10_000;
const WAITING_BYTES = 16 * 1024 * 1024;
/** What may wait for all peers of a socket together, in bytes. */
const WAITING_BYTES_OF_ALL = 128 * 1024 * 1024;
/** A peer for which so much waits is asked to read before it asks for more: see {@link Outlet.congested}. */
const CONGESTED_MESSAGES = 1000;
const CONGESTED_BYTES = 4 * 1024 * 1024;
/** What a message takes beside its parts, in bytes. */
const OVERHEAD = 200;
/** How long to wait, in milliseconds, before a full queue is tried again: at first, and at most. */
const RETRY_FIRST = 10;
const RETRY_MAX = 250;

type Frames = readonly Part[];

/** A ROUTER, as far as sending goes: a failed send rejects with libzmq's code, EAGAIN for a full queue. */
export interface Sender {
  send(frames: Buffer[]): Promise<void>;
  readonly closed: boolean;
}

/** What waits for the peers of one socket, in bytes. */
export interface Backlog {
  bytes: number;
}

/**
 * With `sendTimeout: 0` zeromq.js hands a message to libzmq, or fails, before `send()` returns, so sends need not wait
 * for each other; but only the promise says what came of it, after the caller has had its answer. Hence the queue here:
 * a message that was taken and then turned away because the peer's queue was full (EAGAIN) is held, and while any is
 * held no further command is taken: its sender knows what else to do with it. Nobody else would keep an answer, so it
 * waits here, as long as there is room.
 */
export class Outlet {
  readonly #socket: Sender;
  readonly #clock: Clock;
  readonly #counters: Counters;
  readonly #backlog: Backlog;
  readonly #gone: () => void;
  /** Handed to ZeroMQ, in order, its word on them not yet heard: that comes before the event loop turns. */
  readonly #sent: Frames[] = [];
  readonly #held: Frames[] = [];
  /** How many of them ZeroMQ has taken since the queue began to be emptied. */
  #taken = 0;
  #heldBytes = 0;
  #retryDelay = RETRY_FIRST;
  #retry: Timer | undefined;
  #emptying = false;
  #shut = false;
  #closed = false;

  /**
   * @param backlog shared by the outlets of a socket
   * @param gone called once libzmq says that it has no such peer (EHOSTUNREACH)
   */
  constructor(socket: Sender, clock: Clock, counters: Counters, backlog: Backlog, gone: () => void) {
    this.#socket = socket;
    this.#clock = clock;
    this.#counters = counters;
    this.#backlog = backlog;
    this.#gone = gone;
  }

  /**
   * True while so many answers wait for the peer to read them that a further request of its own could not be answered.
   */
  get congested(): boolean {
    return (
      this.#held.length >= CONGESTED_MESSAGES ||
      this.#heldBytes >= CONGESTED_BYTES ||
      (this.#held.length > 0 && this.#backlog.bytes >= WAITING_BYTES_OF_ALL / 2)
    );
  }

  /**
   * @param frames with the peer's routing id as the first
   * @returns false if the message was not taken, which has been counted
   */
  send(frames: Frames): boolean {
    if (this.#shut && this.#held.length < IN_ONE_TURN && this.#hasRoom(sizeOf(frames))) {
      this.#hold(frames);
      return true;
    }
    if (!this.#closed && this.#held.length === 0 && this.#sent.length < IN_ONE_TURN && this.#hand(frames)) return true;
    this.#counters.refused++;
    return false;
  }

  /**
   * Sends what nobody else would keep; it waits if it must.
   *
   * @param frames with the peer's routing id as the first
   * @returns false if there was no room left for it, or the peer is gone; it has been counted
   */
  post(frames: Frames): boolean {
    if (this.#closed) {
      this.#counters.unanswered++;
      return false;
    }
    const isInTurn = !this.#shut && this.#held.length === 0 && this.#sent.length < IN_ONE_TURN;
    if (isInTurn && this.#hand(frames)) return true;
    if (this.#socket.closed || !this.#hasRoom(sizeOf(frames))) {
      this.#counters.unanswered++;
      return false;
    }
    this.#hold(frames);
    return true;
  }

  /** ZeroMQ does not know the peer yet: what is sent waits for {@link open}. */
  shut(): void {
    this.#shut = true;
  }

  open(): void {
    this.#shut = false;
    this.#backlog.bytes -= this.#heldBytes;
    this.#heldBytes = 0;
    for (const frames of this.#held.splice(0)) if (!this.#hand(frames)) this.#counters.lost++;
  }

  /** Gives up what is held; what ZeroMQ has taken is its own. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#shut = false;
    this.#retry?.cancel();
    this.#counters.lost += this.#held.length - this.#taken;
    this.#backlog.bytes -= this.#heldBytes;
    this.#held.length = 0;
    this.#heldBytes = 0;
  }

  #hand(frames: Frames): boolean {
    let sending: Promise<void>;
    try {
      sending = this.#socket.send(frames as Part[] as Buffer[]);
    } catch {
      // The socket is closed.
      return false;
    }
    this.#sent.push(frames);
    sending.then(this.#confirm, this.#turnedAway);
    return true;
  }

  readonly #confirm = (): void => {
    this.#sent.shift();
    this.#counters.sent++;
  };

  readonly #turnedAway = (error: unknown): void => {
    const frames = this.#sent.shift();
    if (frames && !this.#closed && isFull(error)) {
      this.#hold(frames);
      return;
    }
    this.#counters.lost++;
    if (!this.#closed) this.#gone();
  };

  #hasRoom(bytes: number): boolean {
    return (
      this.#held.length < WAITING_MESSAGES &&
      this.#heldBytes + bytes <= WAITING_BYTES &&
      this.#backlog.bytes + bytes <= WAITING_BYTES_OF_ALL
    );
  }

  #hold(frames: Frames): void {
    const bytes = sizeOf(frames);
    this.#held.push(frames);
    this.#heldBytes += bytes;
    this.#backlog.bytes += bytes;
    if (!this.#emptying && !this.#shut) this.#retryLater();
  }

  #retryLater(): void {
    this.#retry ??= this.#clock.setTimeout(() => {
      this.#retry = undefined;
      void this.#empty();
    }, this.#retryDelay);
  }

  async #empty(): Promise<void> {
    this.#emptying = true;
    while (this.#taken < this.#held.length) {
      const frames = this.#held[this.#taken];
      try {
        await this.#socket.send(frames as Part[] as Buffer[]);
      } catch (error) {
        if (this.#closed) return;
        const progress = this.#letGo();
        if (isFull(error)) {
          this.#retryDelay = progress ? RETRY_FIRST : Math.min(this.#retryDelay * 2, RETRY_MAX);
          this.#retryLater();
        } else {
          this.#gone();
        }
        return;
      }
      this.#counters.sent++;
      // Closed while the message was on its way: the rest has been counted as lost, this one with it.
      if (this.#closed) return;
      this.#taken++;
    }
    this.#letGo();
    this.#retryDelay = RETRY_FIRST;
  }

  /** Lets go of what ZeroMQ has taken, all at once; returns whether that was anything. */
  #letGo(): boolean {
    this.#emptying = false;
    let bytes = 0;
    const taken = this.#held.splice(0, this.#taken);
    for (const frames of taken) bytes += sizeOf(frames);
    this.#taken = 0;
    this.#heldBytes -= bytes;
    this.#backlog.bytes -= bytes;
    return taken.length > 0;
  }
}

/** The bytes that a message holds until ZeroMQ takes it. */
function sizeOf(frames: Frames): number {
  let bytes = OVERHEAD;
  for (const part of frames) bytes += part.length;
  return bytes;
}

function isFull(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'EAGAIN';
}
