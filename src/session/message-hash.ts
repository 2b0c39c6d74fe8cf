/**
 * The hash by which storage servers know a message: unpadded base64 of BLAKE2b-256 over the account, the namespace in
 * decimal unless it is 0, and the body (docs/spec/network.md, section 4; test/vectors/message-hash.json). It shows
 * whether account, namespace and body belong together. It does not cover the times, and anybody can compute it, so it
 * does not prove that the message was ever stored.
 */

import { ACCOUNT_SIZE } from './account.ts';
import { blake2b } from './sodium.ts';

/** Characters of a hash. */
const HASH_SIZE = 43;
/** Longest namespace: `-32768`. */
const NAMESPACE_SIZE = 6;
/** A body of more bytes than this matches no hash and is not hashed: no storage server takes more than 76,800. */
const MAX_HASHED = 100_000;

const BASE64 = Buffer.from('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/');

// What is hashed, in one piece; in use only within one call.
const scratch = Buffer.alloc(ACCOUNT_SIZE + NAMESPACE_SIZE + MAX_HASHED);

/**
 * The hash of a message, 43 characters.
 *
 * @param account 33 bytes
 * @param namespace int16
 * @param body at most 100,000 bytes
 * @throws RangeError if account or body have another size
 */
export function messageHash(account: Uint8Array, namespace: number, body: Uint8Array): Buffer {
  if (account.length !== ACCOUNT_SIZE || body.length > MAX_HASHED)
    throw new RangeError(`a message of ${body.length} bytes for an account of ${account.length}`);
  return Buffer.from(digest(account, namespace, body).toString('base64').slice(0, HASH_SIZE));
}

/** Whether a message of this account (33 bytes), namespace and body has that hash; about 2 µs for a body of 1 kB. */
export function fitsMessageHash(account: Uint8Array, namespace: number, body: Uint8Array, hash: Uint8Array): boolean {
  if (hash.length !== HASH_SIZE || account.length !== ACCOUNT_SIZE || body.length > MAX_HASHED) return false;
  const bytes = digest(account, namespace, body);
  // Six bits a character; the last one has only four, followed by two zeros.
  for (let at = 0, bit = 0; at < HASH_SIZE; at++, bit += 6) {
    const index = bit >> 3;
    const pair = (bytes[index]! << 8) | (bytes[index + 1] ?? 0);
    if (hash[at] !== BASE64[(pair >> (10 - (bit & 7))) & 63]) return false;
  }
  return true;
}

function digest(account: Uint8Array, namespace: number, body: Uint8Array): Buffer {
  scratch.set(account);
  let end = ACCOUNT_SIZE;
  if (namespace !== 0) end += scratch.write(String(namespace), end, 'latin1');
  scratch.set(body, end);
  return blake2b(32, scratch.subarray(0, end + body.length));
}
