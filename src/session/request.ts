/**
 * Requests to subscribe and to unsubscribe, from parsed JSON to typed values (docs/spec/hivemind.md, sections 1.1 and
 * 1.2).
 */

import { BytesError, bytesParameter } from '../codec/bytes.ts';
import { ACCOUNT_SIZE, checkSessionEd25519, SESSION_PREFIX } from './account.ts';
import { Code, RequestError, UnavailableError } from './errors.ts';
import { checkOwnedSubscription, type Subaccount, type Subscription, type Unsubscription } from './subscription.ts';

export { Code, RequestError, UnavailableError, UntimelyError } from './errors.ts';
export { checkOwnedUnsubscription } from './subscription.ts';

/**
 * A device's request for pushes, checked on its own; only the notifier can say whether its service takes the device.
 */
export interface SubscribeRequest extends Subscription {
  /** Name of the notifier. */
  readonly service: string;
  /** Passed on to the notifier unread. */
  readonly serviceInfo: unknown;
  /** 32 bytes: the key to encrypt the pushes with. */
  readonly encKey: Buffer;
}

/**
 * A device's request for no more pushes. Its key belongs to its account, but its signature is **not verified yet**:
 * {@link checkOwnedUnsubscription} does that, after the notifier's answer.
 */
export interface UnsubscribeRequest extends Unsubscription {
  /** Name of the notifier. */
  readonly service: string;
  /** Passed on to the notifier unread. */
  readonly serviceInfo: unknown;
}

/** What reading a request depends on, besides the request. */
export interface Known {
  /** Whether a notifier of that name is registered. */
  service(name: string): boolean;
  /**
   * Whether that Ed25519 key (32 bytes) is already known to belong to that account (33 bytes), so that it need not be
   * converted again. Without this function each key is converted.
   */
  owner?(account: Buffer, sessionEd25519: Buffer): boolean;
}

/**
 * Reads and verifies one element of a push.subscribe request. The order of the checks is the original's: clients see
 * which one fails first (test/vectors/hivemind-replies.json).
 *
 * @param value the parsed JSON
 * @param nowSeconds unix seconds
 * @throws RequestError: 1 for what is missing or of the wrong type, 2 for an unknown service, 4 for the rest
 */
export function parseSubscribe(value: unknown, nowSeconds: number, known: Known): SubscribeRequest {
  const fields = object(value);
  const common = parseUnsubscribe(fields, known);
  const encKey = bytes(fields, 'enc_key', 32);
  const namespaces = parseNamespaces(fields.namespaces);
  const wantData = fields.data;
  if (typeof wantData !== 'boolean') throw invalid('data', 'true or false');
  const request = { ...common, encKey, namespaces, wantData };
  checkOwnedSubscription(request, nowSeconds);
  return request;
}

/**
 * Reads one element of a push.unsubscribe request, without verifying its signature.
 *
 * @param value the parsed JSON
 * @throws RequestError: 1 for what is missing or of the wrong type, 2 for an unknown service, 4 for the rest
 */
export function parseUnsubscribe(value: unknown, known: Known): UnsubscribeRequest {
  const fields = object(value);
  const account = bytes(fields, 'pubkey', ACCOUNT_SIZE);
  const sessionEd25519 = account[0] === SESSION_PREFIX ? bytes(fields, 'session_ed25519', 32) : null;
  const subaccount = parseSubaccount(fields);
  const signature = bytes(fields, 'signature', 64);
  if (sessionEd25519 && !known.owner?.(account, sessionEd25519)) checkSessionEd25519(account, sessionEd25519);
  const signedAt = parseTime(fields.sig_ts);
  const { service, service_info: serviceInfo } = fields;
  if (typeof service !== 'string') throw invalid('service', 'a string');
  if (serviceInfo === undefined) throw invalid('service_info', 'a value');
  if (!known.service(service)) throw new UnavailableError(service);
  return { account, sessionEd25519, subaccount, signature, signedAt, service, serviceInfo };
}

type Fields = Record<string, unknown>;

function object(value: unknown): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new RequestError(Code.BAD_INPUT, 'Invalid request: expected an object');
  }
  return value as Fields;
}

function bytes(fields: Fields, name: string, size: number): Buffer {
  const value = fields[name];
  if (typeof value !== 'string') throw invalid(name, 'a string');
  try {
    return bytesParameter(value, size);
  } catch (error) {
    if (!(error instanceof BytesError)) throw error;
    throw invalid(name, `${size} bytes, as hex or base64`);
  }
}

/** The mere presence of `subaccount` counts, even as null; `subaccount_sig` alone does not. */
function parseSubaccount(fields: Fields): Subaccount | null {
  if (fields.subaccount === undefined) return null;
  if (fields.subaccount_sig === undefined) {
    throw new RequestError(Code.ERROR, 'Cannot specify subaccount without subaccount_sig');
  }
  return { tag: bytes(fields, 'subaccount', 36), signature: bytes(fields, 'subaccount_sig', 64) };
}

/** Fractions are cut, and integers wrapped to int64, as by the original's library. */
function parseTime(value: unknown): number {
  if (typeof value === 'bigint') return Number(BigInt.asIntN(64, value));
  if (typeof value !== 'number') throw invalid('sig_ts', 'a number');
  return Math.trunc(value);
}

/** Fractions are cut, booleans become 1 and 0, and integers are wrapped to int16, as by the original's library. */
function parseNamespaces(value: unknown): number[] {
  if (!Array.isArray(value)) throw invalid('namespaces', 'an array of numbers');
  return value.map((namespace: unknown) => {
    if (typeof namespace === 'bigint') return Number(BigInt.asIntN(16, namespace));
    if (typeof namespace !== 'number' && typeof namespace !== 'boolean') {
      throw invalid('namespaces', 'an array of numbers');
    }
    return (Number(namespace) << 16) >> 16;
  });
}

function invalid(name: string, expected: string): RequestError {
  return new RequestError(Code.BAD_INPUT, `Invalid or missing '${name}': expected ${expected}`);
}
