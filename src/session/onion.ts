/**
 * Onion requests: a client's HTTP request that reaches us through nodes which cannot read it (docs/spec/onionreq.md,
 * sections 4 and 5). The outer layer is encrypted for our key; inside is the "v4" form of a request.
 */

import { createCipheriv, createDecipheriv, createHmac, createSecretKey, randomBytes } from 'node:crypto';
import { BencodeError, BencodeReader, encode } from '../codec/bencode.ts';
import { fromBase32z, fromBase64, fromHex } from '../codec/bytes.ts';
import { JsonError, parseJson } from '../codec/json.ts';
import { pythonString } from './python-json.ts';
import { blake2b, x25519, x25519Public, xchachaDecrypt, xchachaEncrypt } from './sodium.ts';

/** An onion request, or its content, that cannot be read. The message is for our log, not for clients. */
export class OnionError extends Error {
  override readonly name = 'OnionError';
}

/** How the layer for our key is encrypted. */
export type OnionEncryption = 'aes-gcm' | 'xchacha20';

/** Largest onion request, in bytes. */
export const MAX_ONION_SIZE = 10_485_760;

/** The server's X25519 pair, 32 bytes each: the shared key is derived from the public one as well. */
export interface OnionKeys {
  readonly secretKey: Uint8Array;
  readonly publicKey: Uint8Array;
}

/** The key pair of a secret key of 32 bytes. */
export function onionKeys(secretKey: Uint8Array): OnionKeys {
  return { secretKey, publicKey: x25519Public(secretKey) };
}

/** A request that has been decrypted, and the means to answer it. */
export interface OnionRequest {
  readonly plaintext: Buffer;
  /** Encrypts the answer into raw bytes that only the sender of the request can read. */
  reply(plaintext: Uint8Array): Buffer;
}

/**
 * Decrypts an onion request: 4 bytes of length, little-endian; as many bytes of ciphertext; JSON with the sender's
 * ephemeral key and the encryption.
 *
 * @param body as it was posted
 * @param keys the server's
 * @param random makes the nonce of the reply
 * @throws OnionError if it is no such request, or not for our key
 */
export function decryptOnion(
  body: Uint8Array,
  keys: OnionKeys,
  random: (bytes: number) => Buffer = randomBytes,
): OnionRequest {
  const data = Buffer.from(body.buffer, body.byteOffset, body.byteLength);
  if (data.length > MAX_ONION_SIZE) throw new OnionError('onion request too big');
  if (data.length < 4) throw new OnionError('onion request too small');
  const end = 4 + data.readUInt32LE(0);
  // What is shorter than it says has no metadata.
  const meta = parseMeta(data.subarray(end));
  const encryption = parseEncryption(meta.enc_type);
  const clientPublic = parseKey(meta.ephemeral_key);
  const shared = x25519(keys.secretKey, clientPublic);
  if (!shared) throw new OnionError('ephemeral_key is of low order');
  const layer = makeLayer(encryption, deriveOnionKey(encryption, shared, clientPublic, keys.publicKey));
  return { plaintext: open(layer, data.subarray(4, end)), reply: (answer) => layer.seal(answer, random) };
}

/**
 * Makes an onion request as the last node of its path passes it on to the server.
 *
 * @param serverPublic the server's X25519 key, 32 bytes
 * @param random makes the ephemeral secret key (32 bytes), then the nonce
 * @returns the body to post, and a function that decrypts the answer (it throws OnionError for anything else)
 */
export function encryptOnion(
  plaintext: Uint8Array,
  serverPublic: Uint8Array,
  encryption: OnionEncryption,
  random: (bytes: number) => Buffer = randomBytes,
): { readonly body: Buffer; open(answer: Uint8Array): Buffer } {
  const clientSecret = random(32);
  const clientPublic = x25519Public(clientSecret);
  const shared = x25519(clientSecret, serverPublic);
  if (!shared) throw new OnionError("the server's key is of low order");
  const layer = makeLayer(encryption, deriveOnionKey(encryption, shared, clientPublic, serverPublic));
  const ciphertext = layer.seal(plaintext, random);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(ciphertext.length);
  // Android never writes aes-gcm: without enc_type, that is what is meant.
  const enc_type = encryption === 'aes-gcm' ? undefined : encryption;
  const meta = JSON.stringify({ ephemeral_key: clientPublic.toString('hex'), enc_type });
  return {
    body: Buffer.concat([length, ciphertext, Buffer.from(meta)]),
    open: (answer) => open(layer, answer),
  };
}

/**
 * The key (32 bytes) that both sides encrypt with.
 *
 * @param shared the secret that X25519 gives both sides, 32 bytes
 * @param clientPublic the client's ephemeral key, 32 bytes
 * @param serverPublic 32 bytes
 */
export function deriveOnionKey(
  encryption: OnionEncryption,
  shared: Uint8Array,
  clientPublic: Uint8Array,
  serverPublic: Uint8Array,
): Buffer {
  if (encryption === 'aes-gcm') return createHmac('sha256', 'LOKI').update(shared).digest();
  return blake2b(32, Buffer.concat([shared, clientPublic, serverPublic]));
}

/** A request in v4 form. */
export interface V4Request {
  /** In the case that the client used. */
  readonly method: string;
  /** Begins with a slash; may have a query; its percent escapes outside of that are valid UTF-8. */
  readonly endpoint: string;
  /** Names in lower case when read. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

/** A response in v4 form. */
export interface V4Response {
  /** HTTP status. */
  readonly code: number;
  /** Names in lower case when read, and as written. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
}

/**
 * Reads a v4 request: a bencoded list of its metadata in JSON and, perhaps, its body. A single stray byte in place of
 * the body is ignored, as by the original.
 *
 * @returns `body` is a view of `plaintext`
 * @throws OnionError if it is no such request
 */
export function parseV4Request(plaintext: Uint8Array): V4Request {
  const [metadata, body] = parseParts(plaintext);
  const meta = parseMeta(metadata);
  const { method, endpoint } = meta;
  if (typeof method !== 'string') throw new OnionError('v4 request without method');
  if (typeof endpoint !== 'string' || !endpoint.startsWith('/')) throw new OnionError('v4 request without endpoint');
  try {
    decodeURIComponent(endpoint.replace(/\?.*$/s, ''));
  } catch (error) {
    throw new OnionError('v4 request with bad percent escapes in its endpoint', { cause: error });
  }
  return { method, endpoint, headers: parseHeaders(meta.headers), body: body ?? Buffer.alloc(0) };
}

/** Writes a v4 request as a client does. */
export function encodeV4Request(request: Omit<V4Request, 'body'> & { readonly body?: Uint8Array }): Buffer {
  const { method, endpoint, headers, body } = request;
  const metadata = JSON.stringify({ endpoint, method, headers });
  return encode(body ? [metadata, body] : [metadata]);
}

/**
 * Reads a v4 response as strictly as a client does: both parts must be there.
 *
 * @throws OnionError if it is no such response
 */
export function parseV4Response(plaintext: Uint8Array): V4Response & { readonly body: Buffer } {
  const [metadata, body] = parseParts(plaintext);
  const { code, headers } = parseMeta(metadata);
  if (!body) throw new OnionError('v4 response without body');
  if (typeof code !== 'number' || !Number.isInteger(code)) throw new OnionError('v4 response without code');
  return { code, headers: parseHeaders(headers), body };
}

/** Writes a v4 response as the original's Python does: header names in lower case, `content-length` left out. */
export function encodeV4Response(response: V4Response): Buffer {
  const headers = Object.entries(response.headers)
    .map(([name, value]) => [name.toLowerCase(), value] as const)
    .filter(([name]) => name !== 'content-length')
    .map(([name, value]) => `${pythonString(name)}: ${pythonString(value)}`);
  return encode([`{"code": ${response.code}, "headers": {${headers.join(', ')}}}`, response.body]);
}

type Meta = Record<string, unknown>;

function parseMeta(data: Uint8Array): Meta {
  let value: unknown;
  try {
    value = parseJson(data);
  } catch (error) {
    if (!(error instanceof JsonError)) throw error;
    throw new OnionError('metadata is not JSON', { cause: error });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new OnionError('metadata is not an object');
  }
  return value as Meta;
}

function parseEncryption(type: unknown): OnionEncryption {
  switch (type) {
    case undefined:
    case 'aes-gcm':
    case 'gcm':
      return 'aes-gcm';
    case 'xchacha20':
    case 'xchacha20-poly1305':
      return 'xchacha20';
    default:
      throw new OnionError('unknown enc_type');
  }
}

/** Verbatim, hex, base64 or base32z, told apart by length. */
function parseKey(text: unknown): Buffer {
  if (typeof text !== 'string') throw new OnionError('no ephemeral_key');
  let key: Buffer | undefined;
  if (Buffer.byteLength(text) === 32) key = Buffer.from(text);
  else if (text.length === 64) key = fromHex(text);
  else if (text.length === 43 || text.length === 44) key = fromBase64(text);
  else if (text.length === 52) key = fromBase32z(text);
  if (key?.length !== 32) throw new OnionError('ephemeral_key is no key');
  return key;
}

const GCM_IV = 12;
const XCHACHA_NONCE = 24;
const TAG = 16;

/** The encryption that both sides use: the result is nonce, ciphertext and tag, one after the other. */
interface Layer {
  seal(plaintext: Uint8Array, random: (bytes: number) => Buffer): Buffer;
  /** Undefined if the bytes were not made with this key. */
  open(data: Uint8Array): Buffer | undefined;
}

function makeLayer(encryption: OnionEncryption, key: Buffer): Layer {
  return encryption === 'xchacha20' ? xchachaLayer(key) : gcmLayer(key);
}

/** @throws OnionError */
function open(layer: Layer, data: Uint8Array): Buffer {
  const plaintext = layer.open(data);
  if (!plaintext) throw new OnionError('does not decrypt');
  return plaintext;
}

function xchachaLayer(key: Buffer): Layer {
  return {
    seal(plaintext, random) {
      const nonce = random(XCHACHA_NONCE);
      return Buffer.concat([nonce, xchachaEncrypt(plaintext, nonce, key)]);
    },
    open(data) {
      if (data.length < XCHACHA_NONCE + TAG) return undefined;
      return xchachaDecrypt(data.subarray(XCHACHA_NONCE), data.subarray(0, XCHACHA_NONCE), key);
    },
  };
}

function gcmLayer(bytes: Buffer): Layer {
  // A key in bytes costs each cipher 10 to 20 µs more: Node first tries to take it for a key object, which throws.
  const key = createSecretKey(bytes);
  return {
    seal(plaintext, random) {
      const iv = random(GCM_IV);
      const cipher = createCipheriv('aes-256-gcm', key, iv);
      return Buffer.concat([iv, cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
    },
    open(data) {
      if (data.length < GCM_IV + TAG) return undefined;
      const end = data.length - TAG;
      const decipher = createDecipheriv('aes-256-gcm', key, data.subarray(0, GCM_IV), { authTagLength: TAG });
      decipher.setAuthTag(data.subarray(end));
      const plaintext = decipher.update(data.subarray(GCM_IV, end));
      try {
        decipher.final();
      } catch {
        return undefined; // the tag does not match
      }
      return plaintext;
    },
  };
}

/** The one or two strings of a v4 list. */
function parseParts(plaintext: Uint8Array): [metadata: Buffer, body: Buffer | undefined] {
  const end = plaintext.length - 1;
  if (plaintext[0] !== 0x6c || plaintext[end] !== 0x65) throw new OnionError('v4: not a list');
  try {
    const reader = new BencodeReader(plaintext.subarray(0, end), 1);
    const metadata = reader.string();
    if (end - reader.offset <= 1) return [metadata, undefined];
    const body = reader.string();
    reader.expectDone();
    return [metadata, body];
  } catch (error) {
    if (!(error instanceof BencodeError)) throw error;
    throw new OnionError('v4: not a list of one or two strings', { cause: error });
  }
}

function parseHeaders(headers: unknown): Record<string, string> {
  if (headers === undefined) return {};
  if (typeof headers !== 'object' || headers === null || Array.isArray(headers)) {
    throw new OnionError('v4: headers are not an object');
  }
  const entries = Object.entries(headers).map(([name, value]): [string, string] => {
    if (typeof value !== 'string') throw new OnionError('v4: header is not a string');
    return [name.toLowerCase(), value];
  });
  return Object.fromEntries(entries);
}
