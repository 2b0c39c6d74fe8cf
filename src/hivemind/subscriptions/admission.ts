import type { Clock } from '../../clock.ts';
import { FairQueue, type Ticket } from './fair-queue.ts';

/** Bytes of clients' requests that may be in work, or wait for the start-up to end. */
const MAX_BYTES = 64 * 1024 * 1024;
/** Of these, what large requests may have. */
const MAX_LARGE_BYTES = MAX_BYTES * 0.75;
/** A client may have so many times what is left, so that one alone may have most, and two share. */
const CLIENT_SHARE = 4;
/** What a request takes beside its body, in bytes. */
const OVERHEAD = 2_000;
/**
 * A request of more bytes is a large one: it holds some ten devices, where phones send one for each of their accounts.
 */
const SMALL_BYTES = 8_000;
/** A device in a request has some 500 to 700 bytes; that many are expected before it was read. */
const ELEMENT_BYTES = 600;
/** Clients who would wait longer than this, in milliseconds, are told to retry instead. */
const MAX_WAIT_MS = 5_000;
/** Clients give up after 10 to 15 seconds: what was not begun by then, in milliseconds, is not begun. */
const PATIENCE_MS = 10_000;

/** Requests whose clients were told to retry, by why. */
export interface ShedCounters {
  /** Requests that would have had to wait too long. */
  wait: number;
  /** Requests for which there was no room. */
  room: number;
  /** Requests with invalid elements that had to make room for others. */
  invalid: number;
}

/** A request that was let in. */
export interface Place {
  readonly ticket: Ticket;
  /** Gives the place back; harmless if done twice. */
  leave(): void;
}

/**
 * Decides about whole requests, before they are read: what is let in is finished, and what is not has cost next to
 * nothing. No client, large request or flood of invalid ones takes all the room.
 */
export class Admission {
  readonly shed: ShedCounters = { wait: 0, room: 0, invalid: 0 };
  readonly queue: FairQueue;
  readonly #places = new Set<Place>();
  readonly #byClient = new Map<string, number>();
  #bytes = 0;
  #largeBytes = 0;

  constructor(modules: { clock: Clock; open: () => boolean; isDoubtful: (error: unknown) => boolean }) {
    this.queue = new FairQueue(modules);
  }

  /**
   * @param client who sent it, as far as clients can be told apart
   * @param bytes of the whole request
   * @returns undefined if the client must retry later
   */
  enter(client: string, bytes: number): Place | undefined {
    const lane = bytes > SMALL_BYTES ? 'large' : 'small';
    const size = bytes + OVERHEAD;
    if (!this.#hasRoom(client, size, lane)) this.#removeInvalid();
    if (!this.#hasRoom(client, size, lane)) {
      this.shed.room++;
      return undefined;
    }
    const elements = Math.ceil(bytes / ELEMENT_BYTES);
    if (this.queue.wait(client, lane, elements) > MAX_WAIT_MS) {
      this.shed.wait++;
      return undefined;
    }
    return this.#place(client, size, lane, elements);
  }

  #place(client: string, size: number, lane: 'small' | 'large', elements: number): Place {
    const ticket = this.queue.ticket(client, lane, elements, PATIENCE_MS);
    this.#take(client, size, lane);
    const place: Place = {
      ticket,
      leave: () => {
        if (!this.#places.delete(place)) return;
        ticket.close();
        this.#take(client, -size, lane);
      },
    };
    this.#places.add(place);
    return place;
  }

  #take(client: string, size: number, lane: 'small' | 'large'): void {
    this.#bytes += size;
    if (lane === 'large') this.#largeBytes += size;
    const held = (this.#byClient.get(client) ?? 0) + size;
    if (held > 0) this.#byClient.set(client, held);
    else this.#byClient.delete(client);
  }

  #hasRoom(client: string, size: number, lane: 'small' | 'large'): boolean {
    const left = MAX_BYTES - this.#bytes - size;
    return (
      left >= 0 &&
      (lane === 'small' || this.#largeBytes + size <= MAX_LARGE_BYTES) &&
      (this.#byClient.get(client) ?? 0) + size <= CLIENT_SHARE * left
    );
  }

  #removeInvalid(): void {
    for (const place of [...this.#places]) {
      if (!place.ticket.doubtful) continue;
      this.shed.invalid++;
      place.ticket.cancel();
      place.leave();
    }
  }
}
