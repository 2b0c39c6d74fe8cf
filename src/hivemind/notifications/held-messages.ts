import type { Clock, Timer } from '../../clock.ts';
import { KeyCounts } from '../../key-counts.ts';
import type { Notification } from '../../session/notification.ts';
import { SLICE } from '../slice.ts';

/** A copy that waits for another storage server to confirm it. */
export interface HeldCopy<Server> {
  readonly message: Notification;
  /** The server that sent it. */
  readonly server: Server;
  /** Bytes of the frame. */
  readonly size: number;
}

export interface HeldMessagesOptions<Server> {
  readonly clock: Clock;
  /** Called with the copies of one account and hash when their wait is over, in the order in which they came. */
  readonly onDue: (copies: readonly HeldCopy<Server>[]) => void;
}

/** What {@link HeldMessages.hold} did with a doubtful copy. */
export type HoldOutcome<Server> =
  /** It is held. */
  | 'held'
  /** The same server has sent this hash before. */
  | 'repeated'
  /** Too much of this server's is held already. */
  | 'full'
  /** A second server says the same: `confirmed` is the copy that was held, `others` those that said something else. */
  | { readonly confirmed: HeldCopy<Server>; readonly others: readonly HeldCopy<Server>[] };

/** How long (ms) a copy is held. The other members of a swarm usually send theirs within milliseconds. */
export const WAIT = 1_000;
/** The most bytes of memory for what is held: in all, and for one server, so that it takes many to fill it. */
const MAX_BYTES = 64 * 1024 * 1024;
const MAX_SERVER_BYTES = 4 * 1024 * 1024;
/** What a copy takes besides its frame, in bytes: objects, views, its place in the map. */
const OVERHEAD = 1_000;

/**
 * Holds doubtful copies, by account and hash. Each waits until a second server says the same, a proven copy replaces
 * it, or its time is over. Of each server only one copy of a hash counts.
 */
export class HeldMessages<Server extends object> {
  readonly #options: HeldMessagesOptions<Server>;
  /** By {@link keyOf}, oldest first. */
  readonly #held = new Map<string, { readonly since: number; readonly copies: HeldCopy<Server>[] }>();
  readonly #bytesOf = new KeyCounts<Server>();
  #bytes = 0;
  #size = 0;
  #timer: Timer | undefined;

  constructor(options: HeldMessagesOptions<Server>) {
    this.#options = options;
  }

  /** How many copies are held. */
  get size(): number {
    return this.#size;
  }

  /** The memory that they take, in bytes. */
  get bytes(): number {
    return this.#bytes;
  }

  /**
   * Takes a doubtful copy.
   * @param message kept if it is held, and with it its frame, which must be in memory of its own
   * @param size of the frame, in bytes
   */
  hold(server: Server, message: Notification, size: number): HoldOutcome<Server> {
    const key = keyOf(message);
    const held = this.#held.get(key);
    if (held?.copies.some((copy) => copy.server === server)) return 'repeated';
    const confirmed = held?.copies.find((copy) => saysTheSame(copy.message, message));
    if (held && confirmed) {
      this.#remove(key, held.copies);
      return { confirmed, others: held.copies.filter((copy) => copy !== confirmed) };
    }
    const bytes = size + OVERHEAD;
    if (this.#bytesOf.get(server) + bytes > MAX_SERVER_BYTES) return 'full';
    const copy = { message, server, size };
    if (held) held.copies.push(copy);
    else this.#held.set(key, { since: this.#options.clock.monotonic(), copies: [copy] });
    this.#bytesOf.add(server, bytes);
    this.#bytes += bytes;
    this.#size++;
    // With many liars about, the oldest copies wait less long.
    while (this.#bytes > MAX_BYTES) this.#releaseOldest();
    this.#arm();
    return 'held';
  }

  /** Removes and gives all copies of this account and hash, because a proven one has come. */
  settle(message: Notification): readonly HeldCopy<Server>[] {
    if (this.#size === 0) return [];
    const key = keyOf(message);
    const held = this.#held.get(key);
    if (!held) return [];
    this.#remove(key, held.copies);
    return held.copies;
  }

  /** Ends every wait at once. */
  stop(): void {
    while (this.#held.size > 0) this.#releaseOldest();
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #arm(): void {
    if (this.#timer) return;
    for (const { since } of this.#held.values()) {
      const { clock } = this.#options;
      this.#timer = clock.setTimeout(() => this.#release(), since + WAIT - clock.monotonic());
      return;
    }
  }

  #release(): void {
    this.#timer = undefined;
    const { clock } = this.#options;
    const now = clock.monotonic();
    for (const { since } of this.#held.values()) {
      if (since + WAIT > now || clock.monotonic() - now > SLICE) break;
      this.#releaseOldest();
    }
    this.#arm();
  }

  #releaseOldest(): void {
    for (const [key, { copies }] of this.#held) {
      this.#remove(key, copies);
      this.#options.onDue(copies);
      return;
    }
  }

  #remove(key: string, copies: readonly HeldCopy<Server>[]): void {
    this.#held.delete(key);
    for (const { server, size } of copies) {
      this.#bytes -= size + OVERHEAD;
      this.#size--;
      this.#bytesOf.add(server, -(size + OVERHEAD));
    }
  }
}

function keyOf({ account, hash }: Notification): string {
  return account.toString('latin1') + hash.toString('latin1');
}

/** Whether both have the same namespace and body. The times may differ: the better ones count. */
function saysTheSame(a: Notification, b: Notification): boolean {
  if (a.namespace !== b.namespace) return false;
  return a.data === null || b.data === null ? a.data === b.data : a.data.equals(b.data);
}
