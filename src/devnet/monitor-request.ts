import { type Bencoded, BencodeError, decode, type Encodable } from '../codec/bencode.ts';
import { ed25519Verify, edToX25519Public } from '../session/sodium.ts';

/**
 * How a storage server reads `monitor.messages`, written from its own rules (docs/spec/network.md, sections 3 and 6)
 * and not from ours, so that the two check each other.
 */

export interface Monitor {
  /** 33 bytes */
  readonly account: Buffer;
  readonly namespaces: readonly number[];
  readonly wantData: boolean;
}

export interface Refusal {
  readonly errcode: number;
  readonly error: string;
  /** With errcode 6: the swarm that the account belongs to. */
  readonly snodes?: Encodable[];
  readonly swarm?: string;
}

const BAD_ARGS = 1;
const BAD_PUBKEY = 2;
const BAD_NS = 3;
const BAD_TS = 4;
const BAD_SIG = 5;

const TOO_OLD = 14 * 86_400;
const TOO_NEW = 86_400;

/**
 * Splits a request into its elements; `list` says whether it is a list, as its reply is then. A body that is neither a
 * dict nor a list is refused as a whole.
 */
export function readMonitorRequest(
  body: Uint8Array | undefined,
): { readonly list: boolean; readonly elements: readonly Bencoded[] } | Refusal {
  const single = 'Invalid arguments: monitor request takes a single bencoded dict or list parameter';
  if (body === undefined || (body[0] !== 0x64 && body[0] !== 0x6c)) return { errcode: BAD_ARGS, error: single };
  try {
    const value = decode(body);
    return Array.isArray(value) ? { list: true, elements: value } : { list: false, elements: [value] };
  } catch (error) {
    if (!(error instanceof BencodeError)) throw error;
    return { errcode: BAD_ARGS, error: 'Invalid arguments: Failed to parse monitor.messages data value' };
  }
}

/**
 * Checks an element: what to monitor, or why it is refused.
 *
 * @param now unix seconds
 * @param verify false accepts every signature, for benchmarks: checking them costs more than all the rest
 */
export function checkMonitor(value: Bencoded, now: number, verify = true): Monitor | Refusal {
  if (!(value instanceof Map)) return badArgs('expected a dict');
  const p = value.get('p');
  const P = value.get('P');
  if ((p === undefined) === (P === undefined)) return badArgs('exactly one of p and P is required');
  if (P !== undefined && !isBytes(P, 32)) {
    return refuse(BAD_PUBKEY, 'Provided P= Session Ed25519 pubkey must be 32 bytes');
  }
  if (p !== undefined && !isBytes(p, 33)) return refuse(BAD_PUBKEY, 'Provided p= pubkey must be 33 bytes');
  const x25519 = P === undefined ? undefined : converted(P as Buffer);
  if (P !== undefined && !x25519) return refuse(BAD_PUBKEY, 'Invalid P= ed25519 public key');

  const S = value.get('S');
  const T = value.get('T');
  if ((S === undefined) !== (T === undefined)) return badArgs('S and T go together');
  if (S !== undefined && !isBytes(S, 64)) {
    return refuse(BAD_PUBKEY, 'Provided S subaccount signature must be 64 bytes');
  }
  if (T !== undefined && !isBytes(T, 36)) return refuse(BAD_PUBKEY, 'Provided T subaccount token must be 36 bytes');

  const d = value.get('d') ?? 0;
  const n = value.get('n');
  const s = value.get('s');
  const t = value.get('t');
  if (d !== 0 && d !== 1) return badArgs('d must be 0 or 1');
  if (!Array.isArray(n) || n.length === 0 || !n.every(isInt16)) return badArgs('n must be a list of namespaces');
  const namespaces = n as number[];
  if (namespaces.some((one, i) => one <= (namespaces[i - 1] ?? Number.NEGATIVE_INFINITY))) {
    return refuse(BAD_NS, 'Invalid n= namespace list: namespaces must be ascending');
  }
  if (typeof t !== 'number') return badArgs('t must be a timestamp');
  if (t < now - TOO_OLD) return refuse(BAD_TS, 'Invalid t= signature timestamp: timestamp is too old');
  if (t > now + TOO_NEW) return refuse(BAD_TS, 'Invalid t= signature timestamp: timestamp is in the future');
  if (!isBytes(s, 64)) return refuse(BAD_SIG, 'Provided s= signature must be 64 bytes');

  const account = x25519 ? Buffer.concat([Buffer.of(5), x25519]) : (p as Buffer);
  const monitor = { account, namespaces, wantData: d === 1 };
  if (!verify) return monitor;

  const message = Buffer.from(`MONITOR${account.toString('hex')}${t}${d}${namespaces.join(',')}`);
  const accountKey = P !== undefined ? (P as Buffer) : account.subarray(1);
  let key = accountKey;
  if (T !== undefined) {
    const tag = T as Buffer;
    const failure = subaccountFailure(account, accountKey, tag, S as Buffer);
    if (failure) return refuse(BAD_SIG, `Subaccount verification failed: ${failure}`);
    key = tag.subarray(4);
  }
  return ed25519Verify(s, message, key) ? monitor : refuse(BAD_SIG, 'Signature verification failed');
}

/** All servers of a swarm convert the same keys, and here they share a process: once is enough. */
const conversions = new Map<string, Buffer | undefined>();
const MAX_CONVERSIONS = 100_000;

function converted(ed25519: Buffer): Buffer | undefined {
  const key = ed25519.toString('latin1');
  if (!conversions.has(key)) {
    if (conversions.size >= MAX_CONVERSIONS) conversions.clear();
    conversions.set(key, edToX25519Public(ed25519));
  }
  return conversions.get(key);
}

function subaccountFailure(account: Buffer, key: Buffer, tag: Buffer, signature: Buffer): string | undefined {
  const [READ, ANY_PREFIX] = [1, 8];
  const [prefix, flags = 0] = tag;
  if ((flags & READ) === 0) return 'this subaccount does not have read permission';
  if ((flags & ANY_PREFIX) === 0 && prefix !== account[0]) return 'mismatched network prefix';
  return ed25519Verify(signature, tag, key) ? undefined : 'signature of the subaccount';
}

function isBytes(value: Bencoded | undefined, size: number): value is Buffer {
  return Buffer.isBuffer(value) && value.length === size;
}

function isInt16(value: Bencoded): boolean {
  return typeof value === 'number' && value >= -32_768 && value <= 32_767;
}

function badArgs(text: string): Refusal {
  return refuse(BAD_ARGS, `Invalid arguments: ${text}`);
}

function refuse(errcode: number, error: string): Refusal {
  return { errcode, error };
}
