/** What is left of reading a request that takes long: its signatures, and whose key signed. Any thread can do it. */

import { checkSessionEd25519 } from '../../session/account.ts';
import { ed25519Verify } from '../../session/sodium.ts';

/** A signature (64 bytes) of `message`, up to 65,535 bytes, to be verified with an Ed25519 key (32 bytes). */
export interface SignatureCheck {
  readonly signature: Uint8Array;
  readonly message: Uint8Array;
  readonly key: Uint8Array;
}

/** Whether an Ed25519 key (32 bytes) belongs to an account (33 bytes, the first of them 05). */
export interface OwnerCheck {
  readonly account: Uint8Array;
  readonly key: Uint8Array;
}

export type Check = SignatureCheck | OwnerCheck;

/** Whether all checks of a request come out well. */
export function areGood(checks: readonly Check[]): boolean {
  return checks.every((check) =>
    'signature' in check ? ed25519Verify(check.signature, check.message, check.key) : isOwner(check),
  );
}

function isOwner({ account, key }: OwnerCheck): boolean {
  try {
    checkSessionEd25519(account, key);
    return true;
  } catch {
    return false;
  }
}

// Of each request one byte with the number of its checks; of each check its key, two bytes with the length of the
// message, the message and the signature. Without a message it is an account's key, and the account follows.
const KEY = 32;
const LENGTH = 2;
const SIGNATURE = 64;
const ACCOUNT = 33;

/** The checks of several requests in bytes of their own, which can be handed over to another thread. */
export function encodeChecks(requests: readonly (readonly Check[])[]): Uint8Array<ArrayBuffer> {
  let size = 0;
  for (const checks of requests) {
    size++;
    for (const check of checks)
      size += KEY + LENGTH + ('signature' in check ? check.message.length + SIGNATURE : ACCOUNT);
  }
  const bytes = new Uint8Array(size);
  let at = 0;
  const put = (part: Uint8Array) => {
    bytes.set(part, at);
    at += part.length;
  };
  for (const checks of requests) {
    bytes[at++] = checks.length;
    for (const check of checks) {
      put(check.key);
      const length = 'signature' in check ? check.message.length : 0;
      bytes[at++] = length >> 8;
      bytes[at++] = length;
      if ('signature' in check) {
        put(check.message);
        put(check.signature);
      } else {
        put(check.account);
      }
    }
  }
  return bytes;
}

/**
 * Does the checks of several requests.
 *
 * @returns a byte for each request: 1 if all of its checks come out well, else 0
 */
export function doChecks(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const verdicts: number[] = [];
  let at = 0;
  const take = (size: number) => {
    at += size;
    return bytes.subarray(at - size, at);
  };
  while (at < bytes.length) {
    const [count = 0] = take(1);
    const checks = Array.from({ length: count }, (): Check => {
      const key = take(KEY);
      const [high = 0, low = 0] = take(LENGTH);
      const length = (high << 8) | low;
      return length > 0 ? { key, message: take(length), signature: take(SIGNATURE) } : { key, account: take(ACCOUNT) };
    });
    verdicts.push(areGood(checks) ? 1 : 0);
  }
  return Uint8Array.from(verdicts);
}
