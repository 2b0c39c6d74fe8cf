import { fitsMessageHash } from '../../session/message-hash.ts';
import type { Notification } from '../../session/notification.ts';

/**
 * How doubtful one copy of a message is, taken by itself; higher is worse. A message passed on because of a doubtful
 * copy may be passed on again for a better copy, never for one as doubtful.
 */
export const Doubt = {
  /** Account, namespace and body match the hash, and the times can be true. */
  none: 0,
  /** There is no body, or it does not match the hash: the server may have left out or changed it, or the namespace. */
  unproven: 1,
  /** The times, which the hash does not cover, would let the push expire on its way or live for ever. */
  untimely: 2,
} as const;

export type Doubt = (typeof Doubt)[keyof typeof Doubt];

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
/**
 * A message that expires sooner may be a lie to keep phones asleep. Many do so honestly (disappearing messages, calls).
 */
const SHORT_LIFE = 12 * HOUR;
/** Storage servers keep nothing longer than 30 days; a day more for wrong clocks. */
const LONGEST_LIFE = 31 * DAY;
/** How far ahead of our clock a message may have been stored. It may also be old, if a server sends it late. */
const CLOCK_ERROR = HOUR;

/**
 * How doubtful a copy is at least, found without computing the hash.
 * @param now unix ms
 */
export function leastDoubt({ timestamp, expiry, data }: Notification, now: number): Doubt {
  if (expiry <= now + SHORT_LIFE || expiry > now + LONGEST_LIFE) return Doubt.untimely;
  if (timestamp <= now - LONGEST_LIFE || timestamp > now + CLOCK_ERROR) return Doubt.untimely;
  return data === null ? Doubt.unproven : Doubt.none;
}

/** Whether the copy has a body, and account, namespace and body match its hash. */
export function isProven({ account, namespace, data, hash }: Notification): boolean {
  return data !== null && fitsMessageHash(account, namespace, data, hash);
}

/**
 * Whether a message had expired before it was stored, and has by our clock too: a push for it would not be delivered.
 * Our clock alone does not count, since it may be wrong. A message without an expiry (0 or less) never has.
 *
 * @param now unix ms
 */
export function isExpired({ timestamp, expiry }: Notification, now: number): boolean {
  return expiry > 0 && expiry <= now && expiry <= timestamp;
}
