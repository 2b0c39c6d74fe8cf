import { type Bencoded, BencodeError, decode } from '../../src/codec/bencode.ts';
import { ACCOUNT_SIZE, accountFromEd25519 } from '../../src/session/account.ts';
import { RequestError } from '../../src/session/errors.ts';
import type { Subaccount, Subscription } from '../../src/session/subscription.ts';

/**
 * The reverse of encodeMonitor, for one dictionary, by the rules of storage servers. Its byte strings are views of
 * `data`.
 *
 * @throws BencodeError if keys are missing, or of the wrong type or size. The signature is not looked at
 */
export function decodeMonitor(data: Uint8Array): Subscription {
  const dict = decode(data);
  if (!(dict instanceof Map)) throw new BencodeError('Invalid monitor request: expected a dictionary');
  const sessionEd25519 = dict.has('P') ? sized(dict, 'P', 32) : null;
  if (sessionEd25519 && dict.has('p')) throw new BencodeError('Invalid monitor request: both p and P');
  const subaccount: Subaccount | null =
    dict.has('S') || dict.has('T') ? { tag: sized(dict, 'T', 36), signature: sized(dict, 'S', 64) } : null;
  const namespaces = dict.get('n');
  const signedAt = dict.get('t');
  if (!Array.isArray(namespaces) || !namespaces.every((namespace) => typeof namespace === 'number')) {
    throw new BencodeError('Invalid monitor request: expected a list of integers as n');
  }
  if (typeof signedAt !== 'number') throw new BencodeError('Invalid monitor request: expected an integer as t');
  return {
    account: sessionEd25519 ? accountOf(sessionEd25519) : sized(dict, 'p', ACCOUNT_SIZE),
    sessionEd25519,
    subaccount,
    namespaces,
    wantData: dict.get('d') === 1,
    signedAt,
    signature: sized(dict, 's', 64),
  };
}

function sized(dict: Map<string, Bencoded>, key: string, size: number): Buffer {
  const value = dict.get(key);
  if (!Buffer.isBuffer(value) || value.length !== size) {
    throw new BencodeError(`Invalid monitor request: expected ${size} bytes as ${key}`);
  }
  return value;
}

function accountOf(ed25519: Buffer): Buffer {
  try {
    return accountFromEd25519(ed25519);
  } catch (error) {
    if (!(error instanceof RequestError)) throw error;
    throw new BencodeError('Invalid monitor request: P is no Ed25519 key', { cause: error });
  }
}
