import { BencodeError, decode } from '../codec/bencode.ts';
import { fromBase64, fromHex } from '../codec/bytes.ts';
import { JsonError, parseJson } from '../codec/json.ts';
import { messageHash } from '../session/message-hash.ts';
import type { Notification } from '../session/notification.ts';

/** How a storage server reads `storage.store`, from its own rules (docs/spec/network.md, section 8). */

/** Why nothing is stored: an HTTP status and its text. */
export interface StoreRefusal {
  readonly status: number;
  readonly text: string;
}

/** What to store, and whether the answer is to be bencoded. */
export interface StoreRequest {
  readonly message: Notification & { readonly data: Buffer };
  readonly bencoded: boolean;
}

const MAX_BODY = 76_800;
const TTL_MINIMUM = 10_000;
const TTL_MAXIMUM = 14 * 86_400_000;
/** How far the sender's clock may be ahead, and how long ago the message may have expired; ms. */
const TOLERANCE = 10_000;

/**
 * Reads and checks a request.
 *
 * @param elsewhere gives the refusal if the account is not of this server's swarm; asked before the times are checked
 * @param now unix ms
 */
export function readStoreRequest(
  parts: readonly Buffer[],
  elsewhere: (account: Buffer) => StoreRefusal | undefined,
  now: number,
): StoreRequest | StoreRefusal {
  const [part] = parts;
  if (!part || parts.length !== 1) return bad('Invalid request: expected one part');
  const bencoded = part[0] === 0x64;
  let fields: ReadonlyMap<string, unknown>;
  try {
    fields = fieldsOf(part, bencoded);
  } catch (error) {
    if (!(error instanceof BencodeError || error instanceof JsonError)) throw error;
    return bad(`Invalid request: ${error.message}`);
  }
  const text = (key: string): string | undefined => {
    const value = fields.get(key);
    return typeof value === 'string' ? value : Buffer.isBuffer(value) ? value.toString() : undefined;
  };
  const integer = (key: string): number | undefined => {
    const value = fields.get(key);
    return typeof value === 'number' && Number.isInteger(value) ? value : undefined;
  };

  const account = fromHex(text('pubkey') ?? '');
  if (account?.length !== 33) return bad('Invalid pubkey: expected 66 hex digits');
  const given = fields.get('data');
  const data = bencoded && Buffer.isBuffer(given) ? given : fromBase64(text('data') ?? '-');
  if (!data) return bad('Required field [data] missing or invalid');
  if (data.length > MAX_BODY) return bad(`Message body exceeds maximum allowed length of ${MAX_BODY} bytes`);
  const timestamp = integer('timestamp');
  const ttl = integer('ttl');
  const expiry = integer('expiry') ?? (timestamp === undefined || ttl === undefined ? undefined : timestamp + ttl);
  if (timestamp === undefined || expiry === undefined) return bad('Required field [timestamp] or [ttl] missing');
  const namespace = integer('namespace') ?? 0;

  const wrongSwarm = elsewhere(account);
  if (wrongSwarm) return wrongSwarm;
  if (expiry - timestamp < TTL_MINIMUM || expiry - timestamp > TTL_MAXIMUM) {
    return { status: 403, text: 'Provided expiry/TTL is not valid.' };
  }
  if (timestamp > now + TOLERANCE || expiry < now - TOLERANCE) {
    return { status: 406, text: 'Timestamp error: check your clock' };
  }
  if (namespace % 10 !== 0)
    return { status: 401, text: `store: signature required to store to namespace ${namespace}` };
  const hash = messageHash(account, namespace, data);
  return { message: { account, hash, namespace, timestamp, expiry, data }, bencoded };
}

function fieldsOf(part: Buffer, bencoded: boolean): ReadonlyMap<string, unknown> {
  const value: unknown = bencoded ? decode(part) : parseJson(part);
  if (value instanceof Map) return value;
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new JsonError('expected an object');
  return new Map(Object.entries(value));
}

function bad(text: string): StoreRefusal {
  return { status: 400, text };
}
