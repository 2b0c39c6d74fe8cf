import { createHash, ECDH } from 'node:crypto';
import { BencodeError, decode, encode } from '../../codec/bencode.ts';
import { type Device, Refusal, tokenOf } from '../runtime/backend.ts';
import { AUTH_SECRET, CURVE, PUBLIC_KEY, type Recipient } from './encryption.ts';
import { type Endpoints, endpointTrouble } from './endpoints.ts';

/** What an app got from its push service: where to send pushes, and for whom to encrypt them. */
export interface Subscription extends Recipient {
  readonly endpoint: URL;
}

/** UnifiedPush's limit, in bytes. Browsers' services stay far below it. */
const LONGEST_ENDPOINT = 1_000;
const WRONG = 4;

/**
 * Reads the `service_info` of a client: `endpoint`, `p256dh` and `auth`, as in a PushSubscription of the Push API or
 * UnifiedPush's PushEndpoint.
 *
 * @throws Refusal
 */
export function readSubscription(info: unknown, endpoints: Endpoints): Subscription {
  const text = tokenOf(
    info,
    'endpoint',
    (value) => value !== '' && URL.canParse(value),
    () => 'Invalid endpoint: expected an https:// address',
  );
  const endpoint = new URL(text);
  const trouble = endpointTrouble(endpoint, endpoints);
  if (trouble !== undefined) throw new Refusal(WRONG, `Invalid endpoint: ${trouble}`);
  if (endpoint.href.length > LONGEST_ENDPOINT) {
    throw new Refusal(WRONG, `Invalid endpoint: longer than ${LONGEST_ENDPOINT} bytes`);
  }
  const p256dh = bytesOf(info, 'p256dh', PUBLIC_KEY);
  if (!isPoint(p256dh)) throw new Refusal(WRONG, 'Invalid p256dh: not a public key on the curve P-256');
  return { endpoint, p256dh, auth: bytesOf(info, 'auth', AUTH_SECRET) };
}

/**
 * The device of a subscription. Its id is made from the endpoint alone, so that it is the same device with new keys.
 * The endpoint itself, which is all that anybody needs to send to it, is in the data.
 */
export function deviceOf({ endpoint, p256dh, auth }: Subscription): Device {
  return {
    id: createHash('sha256').update(endpoint.href).digest('base64url'),
    data: encode({ a: auth, e: endpoint.href, p: p256dh }),
  };
}

/** Reads the data of {@link deviceOf}; undefined if it is something else. */
export function readData(data: Buffer | null): Subscription | undefined {
  try {
    const dict = data && decode(data);
    if (!(dict instanceof Map)) return undefined;
    const [auth, endpoint, p256dh] = ['a', 'e', 'p'].map((key) => dict.get(key));
    if (!Buffer.isBuffer(auth) || !Buffer.isBuffer(endpoint) || !Buffer.isBuffer(p256dh)) return undefined;
    return { endpoint: new URL(endpoint.toString()), p256dh, auth };
  } catch (error) {
    if (error instanceof BencodeError || error instanceof TypeError) return undefined;
    throw error;
  }
}

/** Base64 in either alphabet, with or without padding. */
function bytesOf(info: unknown, key: string, length: number): Buffer {
  const text = tokenOf(
    info,
    key,
    (value) => /^[\w+/-]+={0,2}$/.test(value) && Buffer.from(value, 'base64').length === length,
    () => `Invalid ${key}: expected ${length} bytes in base64url`,
  );
  return Buffer.from(text, 'base64');
}

function isPoint(key: Buffer): boolean {
  if (key[0] !== 0x04) return false;
  try {
    ECDH.convertKey(key, CURVE, undefined, undefined, 'compressed');
    return true;
  } catch {
    return false;
  }
}
