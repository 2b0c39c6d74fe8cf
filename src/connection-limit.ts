/** How many connections strangers may hold, and how many bytes of unfinished requests: who goes when there is no room. */

import { isIPv6 } from 'node:net';

/** One connection, as its owner keeps it up to date. */
export interface Held {
  /** Whose it is: see {@link networkOf}; one for all where nobody can be told from another. */
  readonly network: string;
  /** When it last did something useful, monotonic milliseconds. */
  lastActive: number;
  /** Bytes it has sent of what is not whole yet; to be changed by {@link ConnectionLimit.hold} alone. */
  bytes: number;
  /** Something is being done for it: it is not closed now. */
  busy: boolean;
  /** Closes it; {@link ConnectionLimit.release} is called then or later. */
  close(): void;
}

/**
 * When there is no room for one more, the network that holds most loses the connection that has been quiet for longest; so who floods
 * us pays for it himself, and whoever has just come is heard.
 */
export class ConnectionLimit {
  readonly #maxConnections: number;
  readonly #maxBytes: number;
  readonly #held = new Set<Held>();
  #bytes = 0;
  /** Connections that were closed, or not taken, for want of room. */
  crowdedOut = 0;

  constructor(limits: { readonly maxConnections: number; readonly maxBytes: number }) {
    this.#maxConnections = limits.maxConnections;
    this.#maxBytes = limits.maxBytes;
  }

  get size(): number {
    return this.#held.size;
  }

  /** Bytes of all that is unfinished. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Takes a connection in, if need be in the place of another. False if all are busy: then it must be closed. */
  admit(held: Held): boolean {
    if (this.#held.size >= this.#maxConnections && !this.#crowdOut(() => 1)) {
      this.crowdedOut++;
      return false;
    }
    this.#held.add(held);
    return true;
  }

  /** @param bytes what it now holds in all */
  hold(held: Held, bytes: number): void {
    if (!this.#held.has(held)) return;
    this.#bytes += bytes - held.bytes;
    held.bytes = bytes;
    while (this.#bytes > this.#maxBytes && this.#crowdOut((one) => one.bytes));
  }

  release(held: Held): void {
    if (!this.#held.delete(held)) return;
    this.#bytes -= held.bytes;
    held.bytes = 0;
  }

  /** Closes one of those that hold some of what is short. */
  #crowdOut(shareOf: (held: Held) => number): boolean {
    const shares = new Map<string, number>();
    for (const held of this.#held) shares.set(held.network, (shares.get(held.network) ?? 0) + shareOf(held));
    let worst: Held | undefined;
    for (const held of this.#held) {
      if (held.busy || shareOf(held) === 0) continue;
      if (!worst) worst = held;
      const more = shares.get(held.network)! - shares.get(worst.network)! || shareOf(held) - shareOf(worst);
      if (more > 0 || (more === 0 && held.lastActive < worst.lastActive)) worst = held;
    }
    if (!worst) return false;
    this.release(worst);
    this.crowdedOut++;
    worst.close();
    return true;
  }
}

/** The network that an address is counted with: itself, or for IPv6 its /64, which is what one customer has. */
export function networkOf(address: string | undefined): string {
  if (address === undefined) return '';
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address);
  if (mapped) return mapped[1]!;
  if (!isIPv6(address)) return address;
  const [head = '', tail] = address.replace(/%.*$/, '').split('::');
  const groups = head === '' ? [] : head.split(':');
  const after = tail === undefined || tail === '' ? [] : tail.split(':');
  while (tail !== undefined && groups.length + after.length < 8) groups.push('0');
  return [...groups, ...after].slice(0, 4).join(':');
}
