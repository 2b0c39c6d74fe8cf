/**
 * OxenMQ addresses: where a peer listens, and with which key (docs/spec/oxenmq.md, section 7;
 * test/vectors/addresses.json).
 */

import { fromBase32z, fromBase64, fromHex, toBase32z } from '../codec/bytes.ts';

/** A parsed address. With `publicKey` the connection is encrypted (CURVE), without one it is plain. */
export interface Address {
  readonly protocol: 'tcp' | 'ipc';
  /** tcp: a name, an IPv4 address, or an IPv6 address in square brackets. */
  readonly host?: string;
  /** tcp: 1 to 65535. */
  readonly port?: number;
  /** ipc: the path of the socket, or `@name` for an abstract one. */
  readonly path?: string;
  /** The peer's X25519 key, 32 bytes. */
  readonly publicKey?: Buffer;
}

/** How {@link formatAddress} writes the key. */
export type KeyEncoding = 'base32z' | 'base64' | 'hex';

/** A text that is not an address; the message is the original's where it refuses the same. */
export class AddressError extends Error {
  override readonly name = 'AddressError';
}

/**
 * Parses `tcp://HOST:PORT`, `curve://HOST:PORT/KEY`, `tcp+curve://…`, `ipc://PATH`, `ipc+curve://PATH/KEY`, and the
 * upper-case forms `TCP://…` and `CURVE://…`, which make smaller QR codes. A key is hex, base32z or base64.
 *
 * @throws AddressError
 */
export function parseAddress(text: string): Address {
  const split = text.indexOf('://');
  if (split < 1) throw new AddressError('Invalid address: no protocol found');
  const protocol = text.slice(0, split);
  const rest = text.slice(split + 3);
  switch (protocol) {
    case 'tcp':
      return parseTcp(needed(rest), false, false);
    case 'curve':
    case 'tcp+curve':
      return parseTcp(needed(rest), true, false);
    case 'TCP':
    case 'CURVE':
      if (!/^[A-Z0-9$:/.-]*$/.test(rest)) {
        throw new AddressError('Found non-QR-alphanumeric value in QR TCP:// or CURVE:// address');
      }
      return parseTcp(needed(rest), protocol === 'CURVE', true);
    case 'ipc':
      return { protocol: 'ipc', path: needed(rest) };
    case 'ipc+curve':
      return parseIpcCurve(needed(rest));
    default:
      throw new AddressError(`Invalid protocol '${protocol}'`);
  }
}

function needed(rest: string): string {
  if (rest === '') throw new AddressError('Invalid address: no value specified after protocol');
  return rest;
}

function parseTcp(text: string, withKey: boolean, qr: boolean): Address {
  let { host, rest } = splitHost(text, qr);
  if (qr) host = host.toLowerCase();
  if (rest.length < 2 || rest[0] !== ':') throw new AddressError('Could not find :port in address string');
  const [digits = ''] = /^[0-9]*/.exec(rest.slice(1)) ?? [];
  if (digits === '') throw new AddressError('Could not find numeric port in address string');
  const port = Number(digits);
  if (port === 0) throw new AddressError('Could not parse numeric port in address string');
  // For a number beyond 32 bits the original's message is the name of the C++ function that refused it.
  if (port > 0x7fffffff) throw new AddressError('stoi');
  if (port > 65535) throw new AddressError('Invalid port: port must be in range 1-65535');
  rest = rest.slice(1 + digits.length);
  if (!withKey) {
    if (rest !== '') throw new AddressError('Invalid address: found unexpected trailing data after port');
    return { protocol: 'tcp', host, port };
  }
  if (rest.length < 2 || rest[0] !== '/') throw new AddressError('Invalid address: expected /PUBKEY after port');
  return { protocol: 'tcp', host, port, publicKey: parseKey(rest.slice(1), qr) };
}

function splitHost(text: string, qr: boolean): { host: string; rest: string } {
  const open = text[0];
  if (open === '[' || (qr && open === '$')) {
    const close = open === '[' ? ']' : '$';
    const end = text.slice(1).search(/[^:.0-9a-fA-F]/) + 1;
    if (end === 0) throw new AddressError(`Could not find terminating ${close} while parsing an IPv6 address`);
    if (text[end] !== close) throw new AddressError(`Expected ${close} to close IPv6 address but found ${text[end]}`);
    return { host: `[${text.slice(1, end)}]`, rest: text.slice(end + 1) };
  }
  const colon = text.indexOf(':');
  if (colon < 0) throw new AddressError("Could not determine host (no following ':port' found)");
  if (colon === 0) throw new AddressError('Host cannot be empty');
  return { host: text.slice(0, colon), rest: text.slice(colon) };
}

/** The encodings in the order in which they are tried; a text that fits more than one is read by the first. */
function parseKey(text: string, qr: boolean): Buffer {
  const hex = text.length >= 64 ? fromHex(text.slice(0, 64)) : undefined;
  if (hex) return ended(hex, text.slice(64));
  const base32z = text.length >= 52 ? fromBase32z(text.slice(0, 52)) : undefined;
  if (base32z) return ended(base32z, text.slice(52));
  const base64 = !qr && text.length >= 43 ? fromBase64(text.slice(0, 43)) : undefined;
  if (base64) return ended(base64, text.slice(text[43] === '=' ? 44 : 43));
  throw new AddressError('Invalid address: the public key is neither hex, base32z nor base64 of 32 bytes');
}

function ended(key: Buffer, rest: string): Buffer {
  if (rest !== '') throw new AddressError('Invalid address: found unexpected trailing data after pubkey');
  return key;
}

/** Paths and base64 keys may both contain slashes: only a key's length tells where it begins. */
function parseIpcCurve(text: string): Address {
  for (const length of [64, 52, 44, 43]) {
    const start = text.length - length;
    if (start < 1 || text[start - 1] !== '/') continue;
    const key = text.slice(start);
    let publicKey: Buffer | undefined;
    if (length === 64) publicKey = fromHex(key);
    else if (length === 52) publicKey = fromBase32z(key);
    else publicKey = fromBase64(key);
    if (publicKey?.length === 32) return { protocol: 'ipc', path: text.slice(0, start - 1), publicKey };
  }
  throw new AddressError(`icp+curve:// requires a trailing /PUBKEY value, got: ${text}`);
}

/** Writes an address that {@link parseAddress} reads back as the same; a base64 key is written without padding. */
export function formatAddress(address: Address, encoding: KeyEncoding = 'base32z'): string {
  const { protocol, host, port, path, publicKey } = address;
  const place = protocol === 'tcp' ? `${host}:${port}` : path;
  if (!publicKey) return `${protocol}://${place}`;
  return `${protocol === 'tcp' ? 'curve' : 'ipc+curve'}://${place}/${encodeKey(publicKey, encoding)}`;
}

function encodeKey(key: Buffer, encoding: KeyEncoding): string {
  if (encoding === 'base32z') return toBase32z(key);
  return encoding === 'hex' ? key.toString('hex') : key.toString('base64').replace(/=+$/, '');
}

/** The address as libzmq's connect and bind take it: `tcp://host:port` or `ipc://path`. */
export function zmqAddress(address: Address): string {
  return address.protocol === 'tcp' ? `tcp://${address.host}:${address.port}` : `ipc://${address.path}`;
}
