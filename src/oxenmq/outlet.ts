/** Sends to one peer through a ROUTER, and keeps what ZeroMQ turns away for a full queue. */

import type { Clock, Timer } from '../clock.ts';
import type { Counters } from './counters.ts';
import type { Part } from './remote.ts';

/** How many messages may be handed to ZeroMQ in one turn of the event loop, before it has confirmed the first. */
const IN_ONE_TURN = 1000;
/** What we may keep for one peer, on top of ZeroMQ's queue for it: messages, and bytes. */
const WAITING_MESSAGES = 10_000;
const WAITING_BYTES = 16 * 1024 * 1024;
/** What we may keep for all peers of a socket together, in bytes. */
const WAITING_BYTES_OF_ALL = 128 * 1024 * 1024;
/** A peer for which this much waits must read before it may ask for more: see {@link Outlet.congested}. */
const CONGESTED_MESSAGES = 1000;
const CONGESTED_BYTES = 4 * 1024 * 1024;
/** Memory that a message takes besides its parts, in bytes. */
const OVERHEAD = 200;
/** How long to wait before a full queue is tried again, in milliseconds: at first, and at most. */
const RETRY_FIRST = 10;
const RETRY_MAX = 250;

type Frames = readonly Part[];

/** A ROUTER, as far as sending goes: a failed send rejects with libzmq's code, EAGAIN for a full queue. */
export interface Sender {
  send(frames: Buffer[]): Promise<void>;
  readonly closed: boolean;
}

/** How much waits for all peers of one socket, in bytes. */
export interface Backlog {
  bytes: number;
}

/**
 * With `sendTimeout: 0` zeromq.js hands a message to libzmq, or fails, before `send()` returns, so sends need not wait
 * for each other; but only the promise says what came of it, after the caller has had its answer. Hence the queue here:
 * a message that was taken and then turned away because the peer's queue was full (EAGAIN) is held. While any is held
 * no further commands are taken: their senders know what else to do with them. Nobody else would keep an answer, so
 * answers wait here as long as there is room.
 */
export class Outlet {
  readonly #socket: Sender;
  readonly #clock: Clock;
  readonly #counters: Counters;
  readonly #backlog: Backlog;
  readonly #gone: () => void;
  /** Handed to ZeroMQ and not confirmed yet, in order; the confirmations come before the event loop turns. */
  readonly #sent: Frames[] = [];
  readonly #held: Frames[] = [];
  /** How many of the held ones ZeroMQ has taken since `#empty` began. */
  #taken = 0;
  #heldBytes = 0;
  #retryDelay = RETRY_FIRST;
  #retry: Timer | undefined;
  #emptying = false;
  #paused = false;
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
   * True while so many answers wait for the peer to read them that further requests of its could not be answered.
   */
  get congested(): boolean {
    return (
      this.#held.length >= CONGESTED_MESSAGES ||
      this.#heldBytes >= CONGESTED_BYTES ||
      (this.#held.length > 0 && this.#backlog.bytes >= WAITING_BYTES_OF_ALL / 2)
    );
  }

  /**
   * Sends a command or request, at once or not at all.
   *
   * @param frames with the peer's routing id as the first
   * @returns false if the message was not taken, which has been counted
   */
  send(frames: Frames): boolean {
    if (this.#paused && this.#held.length < IN_ONE_TURN && this.#hasRoom(sizeOf(frames))) {
      this.#hold(frames);
      return true;
    }
    if (!this.#closed && this.#held.length === 0 && this.#sent.length < IN_ONE_TURN && this.#hand(frames)) return true;
    this.#counters.refused++;
    return false;
  }

  /**
   * Sends a message that nobody else would keep; it waits if it must.
   *
   * @param frames with the peer's routing id as the first
   * @returns false if there was no room left for it, or the peer is gone, which has been counted
   */
  post(frames: Frames): boolean {
    if (this.#closed) {
      this.#counters.unanswered++;
      return false;
    }
    const isInTurn = !this.#paused && this.#held.length === 0 && this.#sent.length < IN_ONE_TURN;
    if (isInTurn && this.#hand(frames)) return true;
    if (this.#socket.closed || !this.#hasRoom(sizeOf(frames))) {
      this.#counters.unanswered++;
      return false;
    }
    this.#hold(frames);
    return true;
  }

  /** ZeroMQ does not know the peer yet: what is sent waits for {@link resume}. */
  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    for (const frames of this.#takeHeld()) if (!this.#hand(frames)) this.#counters.lost++;
  }

  /** Gives up what is held; what ZeroMQ has taken is out of our hands. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#paused = false;
    this.#retry?.cancel();
    this.#counters.lost += this.#takeHeld().length - this.#taken;
  }

  #takeHeld(): Frames[] {
    this.#backlog.bytes -= this.#heldBytes;
    this.#heldBytes = 0;
    return this.#held.splice(0);
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
    if (!this.#emptying && !this.#paused) this.#retryLater();
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
      this.#taken++;
    }
    this.#letGo();
    this.#retryDelay = RETRY_FIRST;
  }

  /** Drops all held messages that ZeroMQ has taken; returns whether there were any. */
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

/** The memory that a message takes while it is held, in bytes. */
function sizeOf(frames: Frames): number {
  let bytes = OVERHEAD;
  for (const part of frames) bytes += part.length;
  return bytes;
}

function isFull(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'EAGAIN';
}
