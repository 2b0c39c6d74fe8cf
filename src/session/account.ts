/** Account ids: a prefix byte (05 for a person, 03 for a group, …) and a public key of 32 bytes. */

import { Code, RequestError } from './errors.ts';
import { edToX25519Public } from './sodium.ts';

/** Bytes of an account id. */
export const ACCOUNT_SIZE = 33;

/**
 * The prefix of a person's account, whose id is an X25519 key and who signs with the Ed25519 key that converts to it.
 */
export const SESSION_PREFIX = 0x05;

/**
 * The account id (33 bytes, prefix 05) of an Ed25519 public key of 32 bytes.
 *
 * @throws RequestError (4) with the original's text, if the key does not convert
 */
export function accountFromEd25519(ed25519: Uint8Array): Buffer {
  const x25519 = edToX25519Public(ed25519);
  if (!x25519) throw new RequestError(Code.ERROR, 'Failed to convert session_ed25519 to x25519 pubkey');
  return Buffer.concat([Buffer.of(SESSION_PREFIX), x25519]);
}

/**
 * Makes sure that an Ed25519 public key belongs to an account (docs/spec/network.md, section 6).
 *
 * @param account 33 bytes
 * @param ed25519 32 bytes
 * @throws RequestError (4) with the original's text, if the account does not begin with 05 or the key does not convert
 *   to it
 */
export function checkSessionEd25519(account: Uint8Array, ed25519: Uint8Array): void {
  if (account[0] !== SESSION_PREFIX) {
    throw new RequestError(Code.ERROR, 'session_ed25519 may only be used with 05-prefixed session IDs');
  }
  if (!accountFromEd25519(ed25519).equals(account)) {
    throw new RequestError(
      Code.ERROR,
      'account_id/session_ed25519 mismatch: session_ed25519 does not convert to given account_id',
    );
  }
}

/**
 * The Ed25519 key (32 bytes) that an account signs with: the one given with a 05 account, or else the one in the id
 * itself.
 */
export function verificationKey(account: Uint8Array, sessionEd25519: Uint8Array | null): Uint8Array {
  return sessionEd25519 ?? account.subarray(1);
}
