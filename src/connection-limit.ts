/**
 * Bounds how many connections strangers may hold and how many bytes of unfinished requests, and chooses which one is
 * closed when there is no room.
 */

import { isIPv6 } from 'node:net';

/** One connection under a {@link ConnectionLimit}, as its owner keeps it up to date. */
export interface LimitedConnection {
  /** Whose it is: see {@link networkOf}; one for all where clients cannot be told apart. */
  readonly network: string;
  /** When it last did something useful, monotonic milliseconds. */
  lastActive: number;
  /** Bytes it has sent of requests that are not complete yet; only {@link ConnectionLimit.hold} changes this. */
  bytes: number;
  /** A request of this connection is being worked on, so it is not closed to make room. */
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
 * When there is no room for one more, the network that holds most loses the connection that has been quiet longest. So
 * a client that floods us pays for that itself, and a newcomer is heard.
 */
export class ConnectionLimit {
  readonly #maxConnections: number;
  readonly #maxBytes: number;
  /** Each with what its network holds, so that making room looks at each connection once, without another look-up. */
  readonly #connections = new Map<LimitedConnection, Share>();
  readonly #networks = new Map<string, Share>();
  #bytes = 0;
  /** Connections that were closed, or not taken, for want of room. */
  crowdedOut = 0;

  constructor(limits: { readonly maxConnections: number; readonly maxBytes: number }) {
    this.#maxConnections = limits.maxConnections;
    this.#maxBytes = limits.maxBytes;
  }

  get size(): number {
    return this.#connections.size;
  }

  /** Bytes of unfinished requests, over all connections. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Takes a connection in, if need be by closing another. False if all are busy: the caller must close the new one. */
  admit(connection: LimitedConnection): boolean {
    if (this.#connections.size >= this.#maxConnections && !this.#crowdOut('connections')) {
      this.crowdedOut++;
      return false;
    }
    const { network } = connection;
    const share = this.#networks.get(network) ?? { connections: 0, bytes: 0 };
    share.connections++;
    this.#networks.set(network, share);
    this.#connections.set(connection, share);
    return true;
  }

  /**
   * Updates how much a connection holds, and closes connections, perhaps this one, while all hold too much together.
   *
   * @param bytes what it holds now, in all
   */
  hold(connection: LimitedConnection, bytes: number): void {
    const share = this.#connections.get(connection);
    if (!share) return;
    this.#bytes += bytes - connection.bytes;
    share.bytes += bytes - connection.bytes;
    connection.bytes = bytes;
    while (this.#bytes > this.#maxBytes && this.#crowdOut('bytes'));
  }

  release(connection: LimitedConnection): void {
    const share = this.#connections.get(connection);
    if (!share) return;
    this.#connections.delete(connection);
    if (--share.connections === 0) this.#networks.delete(connection.network);
    this.#bytes -= connection.bytes;
    share.bytes -= connection.bytes;
    connection.bytes = 0;
  }

  /** Closes one of the connections that hold some of what is short; false if all of them are busy. */
  #crowdOut(short: keyof Share): boolean {
    const holds = (connection: LimitedConnection) => (short === 'bytes' ? connection.bytes : 1);
    let worst: LimitedConnection | undefined;
    let worstShare = 0;
    for (const [connection, share] of this.#connections) {
      if (connection.busy || holds(connection) === 0) continue;
      const more = worst
        ? share[short] - worstShare || holds(connection) - holds(worst) || worst.lastActive - connection.lastActive
        : 1;
      if (more > 0) {
        worst = connection;
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

/**
 * The network that an address is counted under: the address itself, or for IPv6 its /64, which is what one customer
 * gets. Empty for an unknown address.
 */
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
