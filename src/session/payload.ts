/** The encrypted payload that a provider carries to a device (docs/spec/notifiers.md, section 2). */

import { type Bencoded, BencodeError, decode, encode } from '../codec/bencode.ts';
import { parseJson } from '../codec/json.ts';
import type { Notification } from './notification.ts';
import { pythonString } from './python-json.ts';
import { xchachaDecrypt, xchachaEncrypt } from './sodium.ts';

/**
 * The largest message, in bytes, that goes into a payload; of a larger one the device only learns that it exists.
 */
export const MAX_BODY = 2500;

/** The plaintext is padded to a multiple of this many bytes, so that its length tells little. */
const PADDING = 256;

/**
 * Namespaces of an account's and a group's settings, keys and members, and of removals from a group: nothing for a
 * person to read.
 */
const CONFIGURATION: ReadonlySet<number> = new Set([2, 3, 4, 5, 12, 13, 14, -11]);
/** Messages to a person and to a group. */
const MESSAGES: ReadonlySet<number> = new Set([0, 11]);

/** The parts of a message that decide what an app does with a push; `data` is null if absent or not wanted. */
export type Showable = Pick<Sealable, 'namespace' | 'data'>;

/** Whether the message itself goes into the payload, not only its metadata. */
function carriesBody({ data }: Pick<Showable, 'data'>): boolean {
  return data !== null && data.length > 0 && data.length <= MAX_BODY;
}

/**
 * Whether apps show something for this push: only then is it worth waking a phone at once (docs/spec/upstream.md,
 * section 3.4). If an app shows nothing for its urgent pushes, Google begins to delay them.
 */
export function isShown(message: Showable): boolean {
  return MESSAGES.has(message.namespace) && carriesBody(message);
}

/**
 * Whether a push of this message would only do harm at a device that asked for content: settings without their content
 * are announced as a new message on Android, though there is none, and discarded on iOS (docs/spec/notifiers.md,
 * section 2). Apps fetch settings when they are opened.
 */
export function isFalseAlarm(message: Showable): boolean {
  return CONFIGURATION.has(message.namespace) && !carriesBody(message);
}

/** What a device learns of a message besides its content. */
export interface PayloadMetadata {
  /** The account id, in hex. */
  readonly account: string;
  readonly hash: string;
  readonly namespace: number;
  /** When it was stored: unix milliseconds. */
  readonly timestamp: number | bigint;
  /** When it will be deleted: unix milliseconds. */
  readonly expiry: number | bigint;
  /** The message's size in bytes; undefined if there was no message. */
  readonly length: number | undefined;
  /** Whether the message was larger than {@link MAX_BODY}. */
  readonly tooBig: boolean;
}

/** What a payload needs of a notification: for a message over {@link MAX_BODY} bytes, its length is enough. */
export type Sealable = Omit<Notification, 'data'> & { readonly data: Buffer | { readonly length: number } | null };

/**
 * Encrypts a notification for one device.
 *
 * With a message of 1 to {@link MAX_BODY} bytes the metadata is JSON, byte for byte as the original's Python writes it.
 * Without one it is a bencoded dictionary, as the original's: its documentation promises JSON there too, but today's
 * apps handle the dictionary best. Negative namespaces are kept; the original loses them (test/vectors/payload.json).
 *
 * @param notification whose `data` is null if the device did not ask for it
 * @param encKey the device's key, 32 bytes
 * @param nonce 24 random bytes, never used before with this key
 * @returns the nonce and the ciphertext
 */
export function sealPayload(notification: Sealable, encKey: Uint8Array, nonce: Uint8Array): Buffer {
  const ciphertext = xchachaEncrypt(payloadPlaintext(notification), nonce, encKey);
  const payload = Buffer.allocUnsafe(nonce.length + ciphertext.length);
  payload.set(nonce);
  payload.set(ciphertext, nonce.length);
  return payload;
}

/**
 * Decrypts what {@link sealPayload} or the original made, as a device does.
 *
 * @param encKey 32 bytes
 * @returns `data` is null if the payload came without the message
 * @throws BencodeError or JsonError if the payload was not made for this key, or holds something else
 */
export function openPayload(
  payload: Uint8Array,
  encKey: Uint8Array,
): { readonly metadata: PayloadMetadata; readonly data: Buffer | null } {
  const nonce = payload.subarray(0, 24);
  const padded = nonce.length === 24 ? xchachaDecrypt(payload.subarray(24), nonce, encKey) : undefined;
  if (!padded) throw new BencodeError('Invalid payload: it does not decrypt');
  let length = padded.length;
  while (padded[length - 1] === 0) length--;
  const list = decode(padded.subarray(0, length));
  const [first, data = null] = Array.isArray(list) ? list : [];
  if (data !== null && !Buffer.isBuffer(data)) throw new BencodeError('Invalid payload: the message is no string');
  return { metadata: readMetadata(first), data };
}

/** Runs once for each device and message, so it fills one buffer, once. */
function payloadPlaintext(notification: Sealable): Buffer {
  const { data } = notification;
  if (!Buffer.isBuffer(data) || data.length === 0 || data.length > MAX_BODY) return bodyless(notification);
  const metadata = jsonMetadata(notification, data.length);
  const head = `l${metadata.length}:${metadata}${data.length}:`;
  const length = head.length + data.length + 1;
  const plaintext = Buffer.alloc(Math.ceil(length / PADDING) * PADDING);
  plaintext.write(head, 'latin1');
  plaintext.set(data, head.length);
  plaintext[length - 1] = 0x65;
  return plaintext;
}

/** All ASCII, so that its length in characters is its length in bytes. */
function jsonMetadata(notification: Sealable, length: number): string {
  const { account, hash, namespace, timestamp, expiry } = notification;
  return (
    `{"@": "${account.toString('hex')}", "#": ${hashText(hash)}, "n": ${namespace}, ` +
    `"t": ${timestamp}, "z": ${expiry}, "l": ${length}}`
  );
}

/** The hash as a JSON string. Nearly every one is base64, which needs no escapes; invalid UTF-8 is replaced. */
function hashText(hash: Buffer): string {
  const text = hash.toString('latin1');
  return /^[ !#-[\]-~]*$/.test(text) ? `"${text}"` : pythonString(hash.toString());
}

function bodyless({ account, hash, namespace, timestamp, expiry, data }: Sealable): Buffer {
  const tooBig = data !== null && data.length > 0;
  const dict = {
    '#': hash,
    '@': account.toString('hex'),
    B: tooBig ? 1 : undefined,
    l: tooBig ? data.length : undefined,
    n: namespace,
    t: timestamp,
    z: expiry,
  };
  const list = encode([dict]);
  const plaintext = Buffer.alloc(Math.ceil(list.length / PADDING) * PADDING);
  plaintext.set(list);
  return plaintext;
}

/** Reads metadata from JSON, or from the dictionary of a payload without a message. */
function readMetadata(value: Bencoded | undefined): PayloadMetadata {
  const fields = value instanceof Map ? value : new Map(Object.entries(metadataJson(value)));
  const text = (key: string): string => {
    const part = fields.get(key);
    if (typeof part !== 'string' && !Buffer.isBuffer(part)) throw badMetadata(key);
    return part.toString();
  };
  const integer = (key: string): number | bigint => {
    const part = fields.get(key);
    if (typeof part !== 'number' && typeof part !== 'bigint') throw badMetadata(key);
    return part;
  };
  return {
    account: text('@'),
    hash: text('#'),
    namespace: Number(integer('n')),
    timestamp: integer('t'),
    expiry: integer('z'),
    length: fields.has('l') ? Number(integer('l')) : undefined,
    tooBig: Boolean(fields.get('B')),
  };
}

function metadataJson(value: Bencoded | undefined): object {
  const json = Buffer.isBuffer(value) ? parseJson(value) : null;
  if (typeof json !== 'object' || json === null) throw new BencodeError('Invalid payload: no metadata');
  return json;
}

function badMetadata(key: string): BencodeError {
  return new BencodeError(`Invalid payload: missing or wrong metadata ${JSON.stringify(key)}`);
}
