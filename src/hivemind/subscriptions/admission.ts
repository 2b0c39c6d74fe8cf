import type { Clock } from '../../clock.ts';
import { KeyCounts } from '../../key-counts.ts';
import { FairQueue, type Ticket } from './fair-queue.ts';

/** The most bytes of clients' requests at once, those that wait for the start included. */
const MAX_BYTES = 64 * 1024 * 1024;
/** Of these, the most for large requests. */
const MAX_LARGE_BYTES = MAX_BYTES * 0.75;
/** A client may have this many times what is left: one alone may have most, and two share. */
const CLIENT_SHARE = 4;
/** The bytes that a request takes besides its body. */
const OVERHEAD = 2_000;
/** A request of more bytes is large. That is some ten devices; phones send one for each of their accounts. */
const SMALL_BYTES = 8_000;
/** The bytes of an element, 500 to 700 in fact, by which their number is estimated before a request is read. */
const ELEMENT_BYTES = 600;
/** Clients that would wait longer than this, in ms, are told to retry instead. */
const MAX_WAIT_MS = 5_000;
/** After this long, in ms, nothing more of a request is begun: clients give up after 10 to 15 seconds. */
const PATIENCE_MS = 10_000;

/** Requests whose clients were told to retry, by reason. */
export interface ShedCounters {
  /** They would have had to wait too long. */
  wait: number;
  /** There was no room for them. */
  room: number;
  /** They had invalid elements, and had to make room for others. */
  invalid: number;
}

/** A request that was admitted. */
export interface Place {
  readonly ticket: Ticket;
  /** Gives the place back; harmless if done twice. */
  leave(): void;
}

/**
 * Admits requests before they are read. Those admitted are finished, and those turned away have cost next to nothing.
 * Neither one client nor large or invalid requests can take all the room.
 */
export class Admission {
  readonly shed: ShedCounters = { wait: 0, room: 0, invalid: 0 };
  readonly queue: FairQueue;
  readonly #places = new Set<Place>();
  readonly #byClient = new KeyCounts();
  #bytes = 0;
  #largeBytes = 0;

  constructor(modules: { clock: Clock; open: () => boolean; isDoubtful: (error: unknown) => boolean }) {
    this.queue = new FairQueue(modules);
  }

  /**
   * Admits a request, if there is room and the wait is not too long.
   * @param client who sent it, as far as clients can be told apart
   * @param bytes the size of the whole request
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
    this.#byClient.add(client, size);
  }

  #hasRoom(client: string, size: number, lane: 'small' | 'large'): boolean {
    const left = MAX_BYTES - this.#bytes - size;
    return (
      (lane === 'small' || this.#largeBytes + size <= MAX_LARGE_BYTES) &&
      this.#byClient.get(client) + size <= CLIENT_SHARE * left
    );
  }

  /** Makes room by giving up requests with invalid elements. */
  #removeInvalid(): void {
    for (const place of [...this.#places]) {
      if (!place.ticket.doubtful) continue;
      this.shed.invalid++;
      place.ticket.cancel();
      place.leave();
    }
  }
}
