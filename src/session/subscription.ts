/**
 * What a device signs to be notified of an account's messages, and the rules for it (docs/spec/network.md,
 * sections 6 and 7).
 */

import { verificationKey } from './account.ts';
import { Code, RequestError, UntimelyError } from './errors.ts';
import { ed25519Verify } from './sodium.ts';

/** The right to an account's messages, which its owner has given to another key. */
export interface Subaccount {
  /** 36 bytes: network prefix, flags, two reserved, Ed25519 key. */
  readonly tag: Buffer;
  /** 64 bytes: the account's signature of the tag. */
  readonly signature: Buffer;
}

/** A signed request for notifications of an account's messages: all that a storage server needs to know. */
export interface Subscription {
  /** 33 bytes. */
  readonly account: Buffer;
  /** 32 bytes, for accounts that begin with 05; else null. */
  readonly sessionEd25519: Buffer | null;
  readonly subaccount: Subaccount | null;
  /** Ascending, each within int16. */
  readonly namespaces: readonly number[];
  /** Whether the messages themselves are wanted, or only notice of them. */
  readonly wantData: boolean;
  /** Unix seconds. */
  readonly signedAt: number;
  /** 64 bytes. */
  readonly signature: Buffer;
}

/** A signed request for no more notifications. */
export type Unsubscription = Omit<Subscription, 'namespaces' | 'wantData'>;

/**
 * The most namespaces of one subscription. There are 65,536, and apps use about ten (docs/spec/network.md, section 4).
 * Each message of an account is compared with all of them, for each device, so a stranger could keep us busy.
 */
export const MAX_NAMESPACES = 256;

/** Seconds for which a subscription's signature is valid. */
export const SIGNATURE_LIFETIME = 1_209_600;

/**
 * A request that was signed more than this many seconds before the stored one of the same device is a late copy of an
 * old one, or a replay. Within these seconds the order of arrival counts, since phones' clocks go wrong and packets
 * overtake each other, and whoever turns notifications off must get silence (docs/decisions/21).
 */
export const STALE_BEFORE = 60;

/** How many seconds the clock of a device may be wrong. */
export const CLOCK_TOLERANCE = 86_400;

const FLAG_READ = 1;
const FLAG_ANY_PREFIX = 8;

/**
 * Whether a request is too old to change what is stored for the same device (docs/decisions/15, docs/decisions/21).
 *
 * @param signedAt when the request was signed, unix seconds
 * @param storedAt when the stored subscription was signed, unix seconds
 */
export function isStale(signedAt: number, storedAt: number): boolean {
  return signedAt < storedAt - STALE_BEFORE;
}

/**
 * What is signed to subscribe: MONITOR, account in hex, unix seconds, data as 1 or 0, namespaces separated by commas
 * (docs/spec/network.md, section 6).
 */
export function monitorMessage(subscription: Subscription): Buffer {
  const { account, signedAt, wantData, namespaces } = subscription;
  return Buffer.from(`MONITOR${account.toString('hex')}${signedAt}${wantData ? 1 : 0}${namespaces.join(',')}`);
}

/** What is signed to unsubscribe: UNSUBSCRIBE, account in hex, unix seconds (docs/spec/network.md, section 6). */
export function unsubscribeMessage(account: Buffer, signedAt: number): Buffer {
  return Buffer.from(`UNSUBSCRIBE${account.toString('hex')}${signedAt}`);
}

/**
 * Checks a subscription whose key is known to belong to its account: namespaces ascend, the time is within bounds and
 * the signatures are valid, checked in this order (test/vectors/signatures.json).
 *
 * @param nowSeconds unix seconds
 * @throws RequestError (4) with the original's text for the first rule that is broken, as an UntimelyError if that is
 *   its time; the limit on the number of namespaces is ours
 */
export function checkOwnedSubscription(subscription: Subscription, nowSeconds: number): void {
  const { namespaces, signedAt } = subscription;
  if (namespaces.length === 0) throw refused('Subscription: namespaces missing or empty');
  let previous = Number.NEGATIVE_INFINITY;
  for (const namespace of namespaces) {
    if (previous > namespace) throw refused('Subscription: namespaces are not sorted numerically');
    if (previous === namespace) throw refused('Subscription: namespaces contains duplicates');
    previous = namespace;
  }
  if (namespaces.length > MAX_NAMESPACES) throw refused(`Subscription: more than ${MAX_NAMESPACES} namespaces`);
  if (signedAt === 0) throw refused('Subscription: signature timestamp is missing');
  if (signedAt <= nowSeconds - SIGNATURE_LIFETIME) throw untimely('Subscription: sig_ts timestamp is too old');
  if (signedAt >= nowSeconds + CLOCK_TOLERANCE) {
    throw untimely('Subscription: sig_ts timestamp is too far in the future');
  }
  checkSignature(subscription, monitorMessage(subscription));
}

/**
 * Checks an unsubscription whose key is known to belong to its account: the time is within 24 hours and the signatures
 * are valid, checked in this order (docs/spec/hivemind.md, section 1.2).
 *
 * @param nowSeconds unix seconds
 * @throws RequestError (4) with the original's text, as an UntimelyError for its time. As with the original, clients
 *   are not told that it was the time; the error's `cause` says so
 */
export function checkOwnedUnsubscription(unsubscription: Unsubscription, nowSeconds: number): void {
  const { account, signedAt } = unsubscription;
  if (Math.abs(signedAt - nowSeconds) > CLOCK_TOLERANCE) {
    throw new UntimelyError(Code.ERROR, 'An error occured while processing your request', {
      cause: new Error('Invalid unsubscribe: sig_ts is more than 24 hours off'),
    });
  }
  checkSignature(unsubscription, unsubscribeMessage(account, signedAt));
}

/**
 * Without a subaccount the account signs the message. With one the account signs the subaccount's tag, and the key in
 * the tag signs the message.
 */
function checkSignature(signed: Unsubscription, message: Buffer): void {
  const { account, subaccount, signature } = signed;
  const key = verificationKey(account, signed.sessionEd25519);
  if (!subaccount) {
    if (!ed25519Verify(signature, message, key)) throw refused('Signature verification failed');
    return;
  }
  const [prefix, flags = 0] = subaccount.tag;
  if (!(flags & FLAG_READ)) throw refused('Invalid subaccount: this subaccount does not have read permission');
  if (!(flags & FLAG_ANY_PREFIX) && prefix !== account[0]) {
    throw refused('Invalid subaccount: subaccount and main account have mismatched network prefix');
  }
  if (!ed25519Verify(subaccount.signature, subaccount.tag, key)) {
    throw refused('Subaccount auth signature verification failed');
  }
  if (!ed25519Verify(signature, message, subaccount.tag.subarray(4))) {
    throw refused('Subaccount main signature verification failed');
  }
}

function refused(message: string): RequestError {
  return new RequestError(Code.ERROR, message);
}

function untimely(message: string): RequestError {
  return new UntimelyError(Code.ERROR, message);
}
