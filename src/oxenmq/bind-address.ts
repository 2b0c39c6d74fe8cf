/**
 * Where a listener binds, and where to connect to it. Read in one place, so that libzmq's sockets, Node's sockets and
 * those who connect agree.
 */

import { isIPv4, isIPv6 } from 'node:net';
import { networkInterfaces } from 'node:os';
import { type Address, AddressError } from './address.ts';

/**
 * `host` is an IPv4 address, an IPv6 address without brackets, or a name to be resolved; port 0 is any that is free.
 */
export type BindAddress =
  | { readonly protocol: 'ipc'; readonly path: string }
  | { readonly protocol: 'tcp'; readonly host: string; readonly port: number };

/** The longest path of a socket, in bytes: the kernel's `sun_path` without the final NUL. */
export const MAX_IPC_PATH = 107;

/**
 * Reads `tcp://HOST:PORT` or `ipc://PATH` as libzmq's bind takes them. HOST is `*` (any IPv4 address), an IPv4 address,
 * an IPv6 address in brackets, the name of a network interface, which stands for its first address, or a host name.
 * PATH may be relative, or `@NAME` for an abstract socket. IPv4 addresses must be written as four decimal numbers, and
 * ports that libzmq would silently cut to 16 bits are refused.
 *
 * @throws AddressError with a sentence that can follow the name of a setting
 */
export function parseBindAddress(text: string): BindAddress {
  if (text.startsWith('ipc://')) return { protocol: 'ipc', path: checkedPath(text.slice(6)) };
  const match = /^tcp:\/\/(.+):([^:]*)$/.exec(text);
  if (!match) throw new AddressError('must be an address such as tcp://127.0.0.1:PORT or ipc:///path');
  const [, host = '', digits = ''] = match;
  if (!/^(\d+|\*)$/.test(digits)) throw new AddressError('must end in a colon and a port');
  const port = digits === '*' ? 0 : Number(digits);
  if (port > 65535) throw new AddressError('the port must be 65535 at most');
  return { protocol: 'tcp', host: bindHost(host), port };
}

function checkedPath(path: string): string {
  if (path === '' || path === '@') throw new AddressError('must name the path of a socket after ipc://');
  if (path === '*') throw new AddressError('must name a path: nobody could find a socket at a generated one');
  if (path.endsWith('/')) throw new AddressError('must name a socket, not a folder');
  if (Buffer.byteLength(path) > MAX_IPC_PATH) {
    throw new AddressError(`the path of an ipc socket can have ${MAX_IPC_PATH} bytes at most: use a shorter one`);
  }
  return path;
}

function bindHost(host: string): string {
  if (host === '*') return '0.0.0.0';
  const bracketed = /^\[(.*)\]$/.exec(host)?.[1];
  if (bracketed !== undefined) {
    if (!isIPv6(bracketed) || bracketed.includes('%'))
      throw new AddressError('must have an IPv6 address, and no zone, in its brackets');
    // The canonical spelling: [0::0] becomes [::].
    const plain = new URL(`http://[${bracketed}]`).hostname.slice(1, -1);
    if (plain.startsWith('ff')) throw new AddressError('names a multicast address: nobody can connect to that');
    return plain;
  }
  if (isIPv6(host)) throw new AddressError('must have its IPv6 address in brackets, as in tcp://[::1]:PORT');
  if (isIPv4(host)) {
    if (Number(host.split('.')[0]) >= 224)
      throw new AddressError('names a multicast address: nobody can connect to that');
    return host;
  }
  const ofInterface = networkInterfaces()[host] ?? [];
  const found = ofInterface.find(({ family }) => family === 'IPv4') ?? ofInterface[0];
  if (found) return found.address;
  // Not left to the resolvers: libzmq's and Node's may choose different addresses.
  if (host === 'localhost') return '127.0.0.1';
  if (/^[\d.]+$/.test(host) || !/^[a-z\d]([a-z\d._-]*[a-z\d])?$/i.test(host)) {
    throw new AddressError('must name *, an IP address, a network interface or a host between tcp:// and the port');
  }
  return host;
}

/** The address as libzmq's bind takes it. */
export function formatBindAddress(address: BindAddress): string {
  if (address.protocol === 'ipc') return `ipc://${address.path}`;
  return `tcp://${bracket(address.host)}:${address.port}`;
}

/**
 * Where to connect to a listener at `bound` on this machine: if it listens on every address, by loopback.
 *
 * @param bound as {@link parseBindAddress} reads it
 * @throws AddressError as {@link parseBindAddress}, and for port 0, since only the listener knows its real port
 */
export function connectAddress(bound: string): Address {
  const address = parseBindAddress(bound);
  if (address.protocol === 'ipc') return address;
  if (address.port === 0) throw new AddressError('must name its port, or nobody could connect');
  const isAny = address.host === '0.0.0.0' || address.host === '::';
  return { ...address, host: isAny ? '127.0.0.1' : bracket(address.host) };
}

function bracket(host: string): string {
  return isIPv6(host) ? `[${host}]` : host;
}
