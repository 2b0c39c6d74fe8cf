/**
 * Rules in their plainest form, against which src/hivemind/devices/upstream.ts and src/session/swarm.ts are tested:
 * those apply them to packed records and to numbers.
 */

import { encode } from '../../src/codec/bencode.ts';
import type { Subscription } from '../../src/session/subscription.ts';

/** Whether whoever asks for `a` also gets what `b` asks for (test/vectors/covers.json, `intended`). */
export function covers(a: Subscription, b: Subscription): boolean {
  return (
    sameSubaccount(a, b) &&
    (a.wantData || !b.wantData) &&
    b.namespaces.every((namespace) => a.namespaces.includes(namespace))
  );
}

/** Whether `a` and `b` ask for the same, whenever and by whatever signature. */
export function isSame(a: Subscription, b: Subscription): boolean {
  return (
    a.wantData === b.wantData &&
    a.namespaces.length === b.namespaces.length &&
    a.namespaces.every((namespace, index) => namespace === b.namespaces[index]) &&
    sameSubaccount(a, b)
  );
}

/** The owner's signature of the tag does not matter: it may differ from one signing to the next. */
function sameSubaccount(a: Subscription, b: Subscription): boolean {
  if (!a.subaccount || !b.subaccount) return a.subaccount === b.subaccount;
  return a.subaccount.tag.equals(b.subaccount.tag);
}

/**
 * Encodes a subscription as a storage server reads it: a dict. A request is one of these, or a list of them.
 *
 * Accounts that begin with 05 are named by their Ed25519 key, all others by themselves
 * (test/vectors/monitor-request.json).
 */
export function encodeMonitor(subscription: Subscription): Buffer {
  const { account, sessionEd25519, subaccount, namespaces, wantData, signedAt, signature } = subscription;
  return encode({
    P: sessionEd25519 ?? undefined,
    S: subaccount?.signature,
    T: subaccount?.tag,
    d: wantData ? 1 : undefined,
    n: namespaces,
    p: sessionEd25519 ? undefined : account,
    s: signature,
    t: signedAt,
  });
}

/**
 * The place of an account in the swarm space, an unsigned 64-bit number: the XOR of the four big-endian quarters of its
 * key. The prefix byte does not count.
 *
 * @param account holds the 33 bytes of an account id
 * @param offset where in `account` they begin
 */
export function swarmSpace(account: Uint8Array, offset = 0): bigint {
  const key = Buffer.from(account.subarray(offset + 1, offset + 33));
  return [0, 8, 16, 24].reduce((space, quarter) => space ^ key.readBigUInt64BE(quarter), 0n);
}
