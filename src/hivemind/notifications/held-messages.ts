import type { Clock, Timer } from '../../clock.ts';
import type { Notification } from '../../session/notification.ts';

/** A copy that waits for another storage server's word. */
export interface HeldCopy<Server> {
  readonly message: Notification;
  /** Who sent it. */
  readonly server: Server;
  /** Bytes of the frame. */
  readonly size: number;
}

export interface HeldMessagesOptions<Server> {
  readonly clock: Clock;
  /** Copies whose wait is over, those of one account and hash together, in the order in which they came. */
  readonly onDue: (copies: readonly HeldCopy<Server>[]) => void;
}

/** What became of a doubtful copy. */
export type Told<Server> =
  /** It waits. */
  | 'held'
  /** The same server has sent this hash before. */
  | 'repeated'
  /** This server has too much that waits. */
  | 'full'
  /** A second server says the same: the copy that waited, and those that said something else. */
  | { readonly confirmed: HeldCopy<Server>; readonly others: readonly HeldCopy<Server>[] };

/** The other members of a swarm tell within milliseconds; this long, in ms, one is waited for. */
export const WAIT = 1_000;
/** Memory for what waits, in bytes: all in all, and of one server, of which it takes many to use it up. */
const MAX_BYTES = 64 * 1024 * 1024;
const MAX_SERVER_BYTES = 4 * 1024 * 1024;
/** What a copy takes beside its frame: objects, views, its place in the map. */
const OVERHEAD = 1_000;
/** How long, in ms, what is due may hold the event loop. */
const SLICE = 8;

/**
 * Doubtful copies, by account and hash. Each waits until a second server says the same, a proven copy makes it
 * needless, or its time is over. A server has one say a hash.
 */
export class HeldMessages<Server extends object> {
  readonly #options: HeldMessagesOptions<Server>;
  /** In the order of their times. */
  readonly #held = new Map<string, { readonly since: number; readonly copies: HeldCopy<Server>[] }>();
  readonly #bytesOf = new WeakMap<Server, number>();
  #bytes = 0;
  #size = 0;
  #timer: Timer | undefined;

  constructor(options: HeldMessagesOptions<Server>) {
    this.#options = options;
  }

  /** Copies that wait. */
  get size(): number {
    return this.#size;
  }

  /** Memory that they take. */
  get bytes(): number {
    return this.#bytes;
  }

  /**
   * Takes a doubtful copy.
   * @param message is kept if it has to wait, and with it its frame, which must be in memory of its own
   * @param size of the frame, in bytes
   */
  tell(server: Server, message: Notification, size: number): Told<Server> {
    const key = keyOf(message);
    const held = this.#held.get(key);
    if (held?.copies.some((copy) => copy.server === server)) return 'repeated';
    const confirmed = held?.copies.find((copy) => saysTheSame(copy.message, message));
    if (held && confirmed) {
      this.#remove(key, held.copies);
      return { confirmed, others: held.copies.filter((copy) => copy !== confirmed) };
    }
    const bytes = size + OVERHEAD;
    const ofServer = (this.#bytesOf.get(server) ?? 0) + bytes;
    if (ofServer > MAX_SERVER_BYTES) return 'full';
    const copy = { message, server, size };
    if (held) held.copies.push(copy);
    else this.#held.set(key, { since: this.#options.clock.monotonic(), copies: [copy] });
    this.#bytesOf.set(server, ofServer);
    this.#bytes += bytes;
    this.#size++;
    // With many liars about, the oldest wait less long.
    while (this.#bytes > MAX_BYTES) this.#releaseOldest();
    this.#arm();
    return 'held';
  }

  /** Takes out what waits for that account and hash, whatever it says: a proven copy has come. */
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
      this.#bytesOf.set(server, (this.#bytesOf.get(server) ?? 0) - size - OVERHEAD);
    }
  }
}

function keyOf({ account, hash }: Notification): string {
  return account.toString('latin1') + hash.toString('latin1');
}

/** The times may differ: no hash covers them, and the better ones count. */
function saysTheSame(a: Notification, b: Notification): boolean {
  if (a.namespace !== b.namespace) return false;
  return a.data === null || b.data === null ? a.data === b.data : a.data.equals(b.data);
}
