/**
 * How many connections strangers may hold, and how many bytes of unfinished requests: who goes when there is no room.
 */

import { isIPv6 } from 'node:net';

/** One connection, as its owner keeps it up to date. */
export interface Held {
  /** Whose it is: see {@link networkOf}; one for all where clients cannot be told apart. */
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

/** What the connections of one network hold together. */
interface Share {
  connections: number;
  bytes: number;
}

/**
 * When there is no room for one more, the network that holds most loses the connection that has been quiet for longest;
 * so a client that floods us pays for it itself, and one that has just come is heard.
 */
export class ConnectionLimit {
  readonly #maxConnections: number;
  readonly #maxBytes: number;
  /** Each with what its network holds, so that a flood of newcomers costs one look at each connection. */
  readonly #held = new Map<Held, Share>();
  readonly #networks = new Map<string, Share>();
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
    if (this.#held.size >= this.#maxConnections && !this.#crowdOut('connections')) {
      this.crowdedOut++;
      return false;
    }
    const { network } = held;
    const share = this.#networks.get(network) ?? { connections: 0, bytes: 0 };
    share.connections++;
    this.#networks.set(network, share);
    this.#held.set(held, share);
    return true;
  }

  /** @param bytes what it now holds in all */
  hold(held: Held, bytes: number): void {
    const share = this.#held.get(held);
    if (!share) return;
    this.#bytes += bytes - held.bytes;
    share.bytes += bytes - held.bytes;
    held.bytes = bytes;
    while (this.#bytes > this.#maxBytes && this.#crowdOut('bytes'));
  }

  release(held: Held): void {
    const share = this.#held.get(held);
    if (!share) return;
    this.#held.delete(held);
    if (--share.connections === 0) this.#networks.delete(held.network);
    this.#bytes -= held.bytes;
    share.bytes -= held.bytes;
    held.bytes = 0;
  }

  /** Closes one of those that hold some of what is short. */
  #crowdOut(short: keyof Share): boolean {
    const holds = (held: Held) => (short === 'bytes' ? held.bytes : 1);
    let worst: Held | undefined;
    let worstShare = 0;
    for (const [held, share] of this.#held) {
      if (held.busy || holds(held) === 0) continue;
      const more = worst
        ? share[short] - worstShare || holds(held) - holds(worst) || worst.lastActive - held.lastActive
        : 1;
      if (more > 0) {
        worst = held;
        worstShare = share[short];
      }
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
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1];
  if (mapped !== undefined) return mapped;
  if (!isIPv6(address)) return address;
  const [head = '', tail] = address.replace(/%.*$/, '').split('::');
  const groups = head === '' ? [] : head.split(':');
  const after = tail === undefined || tail === '' ? [] : tail.split(':');
  while (tail !== undefined && groups.length + after.length < 8) groups.push('0');
  return [...groups, ...after].slice(0, 4).join(':');
}
