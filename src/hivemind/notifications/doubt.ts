import { fitsMessageHash } from '../../session/message-hash.ts';
import type { Notification } from '../../session/notification.ts';

/**
 * What can be said against a copy of a message, by itself. What went on a doubtful copy may go once more on a better
 * one, never on one as doubtful.
 */
export const Doubt = {
  /** Account, namespace and body fit the hash, and the times can be true. */
  none: 0,
  /**
   * There is no body, or one that does not fit: it may have been left out, or changed, or the namespace may be another
   * one.
   */
  unproven: 1,
  /** No hash covers the times, and these would let the push die on its way, or live for ever. */
  untimely: 2,
} as const;

export type Doubt = (typeof Doubt)[keyof typeof Doubt];

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
/**
 * What ends sooner may be a lie that is to keep phones asleep; it is common enough (messages that disappear, calls).
 */
const SHORT_LIFE = 12 * HOUR;
/** Storage servers keep nothing longer than 30 days; some more for clocks that are wrong. */
const LONGEST_LIFE = 31 * DAY;
/** A message was stored just now, or long ago if a server tells it late; by a clock that may be ahead of ours. */
const CLOCK_ERROR = HOUR;

/**
 * The least doubt that is possible, found without computing the hash.
 * @param now unix ms
 */
export function leastDoubt({ timestamp, expiry, data }: Notification, now: number): Doubt {
  if (expiry <= now + SHORT_LIFE || expiry > now + LONGEST_LIFE) return Doubt.untimely;
  if (timestamp <= now - LONGEST_LIFE || timestamp > now + CLOCK_ERROR) return Doubt.untimely;
  return data === null ? Doubt.unproven : Doubt.none;
}

/** Whether account, namespace and body of a copy that has a body fit its hash. */
export function isProven({ account, namespace, data, hash }: Notification): boolean {
  return data !== null && fitsMessageHash(account, namespace, data, hash);
}

/**
 * Whether it was over before it was stored, and is so by our clock as well: a push for it would not be delivered. Where
 * only our clock says so, that may be wrong. Without an expiry (0 or less) it never is.
 */
export function isExpired({ timestamp, expiry }: Notification, now: number): boolean {
  return expiry > 0 && expiry <= now && expiry <= timestamp;
}
