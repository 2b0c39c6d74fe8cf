import { accountFromEd25519 } from '../session/account.ts';
import { ed25519KeyPair, ed25519Sign } from '../session/sodium.ts';
import type { Subaccount } from '../session/subscription.ts';

/** An account as one of its devices has it, with what it takes to sign for it. */
export interface Account {
  /** 33 bytes */
  readonly id: Buffer;
  /** Ed25519 key of a session account, 32 bytes; null for a group. */
  readonly sessionEd25519: Buffer | null;
  /** With which a member of a group signs for the group; null for an owner. */
  readonly subaccount: Subaccount | null;
  sign(message: Uint8Array): Buffer;
}

export type Random = (bytes: number) => Buffer;

/** The rights in a subaccount's tag. */
const READ_AND_WRITE = 0x03;

/** A person's account: prefix 05 and the X25519 form of an Ed25519 key. */
export function sessionAccount(random: Random): Account {
  const keys = ed25519KeyPair(random(32));
  return {
    id: accountFromEd25519(keys.publicKey),
    sessionEd25519: keys.publicKey,
    subaccount: null,
    sign: (message) => ed25519Sign(message, keys.secretKey),
  };
}

/** A group as its admin holds it: prefix 03 and an Ed25519 key. */
export function groupAccount(random: Random): Account {
  const keys = ed25519KeyPair(random(32));
  return {
    id: Buffer.concat([Buffer.from([3]), keys.publicKey]),
    sessionEd25519: null,
    subaccount: null,
    sign: (message) => ed25519Sign(message, keys.secretKey),
  };
}

/** A new member of `group`: a key of its own, in a tag that the group's admin has signed. */
export function groupMember(group: Account, random: Random): Account {
  const keys = ed25519KeyPair(random(32));
  const tag = Buffer.concat([group.id.subarray(0, 1), Buffer.of(READ_AND_WRITE, 0, 0), keys.publicKey]);
  return {
    id: group.id,
    sessionEd25519: null,
    subaccount: { tag, signature: group.sign(tag) },
    sign: (message) => ed25519Sign(message, keys.secretKey),
  };
}
