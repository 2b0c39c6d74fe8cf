/** The one policy by which every notifier tries again. All times in milliseconds. */
export interface RetryPolicy {
  /** The ceiling of the first random wait; each further one is twice as high. */
  readonly base: number;
  /** The highest that ceiling gets. */
  readonly cap: number;
  /** A push that has been tried for so long is given up, even if it has not expired: the user has looked by then. */
  readonly lifetime: number;
}

/** Google asks to give up after 60 minutes; Apple's and Huawei's services recover or do not in the same time. */
export const RETRY: RetryPolicy = { base: 2_000, cap: 5 * 60_000, lifetime: 60 * 60_000 };

/** What the policy must know of a push. */
export interface Attempted {
  /** Attempts made, at least 1. */
  readonly attempts: number;
  /** The first one, by the monotonic clock. */
  readonly firstTried: number;
  /** Unix milliseconds after which the push is pointless; 0 if never. */
  readonly expiry: number;
}

/** Now, by both clocks, in milliseconds. */
export interface Moment {
  readonly wall: number;
  readonly monotonic: number;
}

/**
 * How long to wait before the next attempt: exponential with full jitter, so that what failed together does not come
 * back together. What the provider asked for is waited in full, and the jitter comes on top of it.
 * @param after milliseconds that the provider asked to wait, 0 if it did not
 * @returns milliseconds, or why there will be no further attempt
 */
export function nextAttempt(
  push: Attempted,
  after: number,
  now: Moment,
  random: (bytes: number) => Buffer,
  policy: RetryPolicy = RETRY,
): number | 'expired' | 'retried-too-long' {
  const delay = after + jitter(ceiling(push.attempts, policy), random);
  if (push.expiry > 0 && now.wall + delay >= push.expiry) return 'expired';
  if (now.monotonic + delay - push.firstTried > policy.lifetime) return 'retried-too-long';
  return delay;
}

/** The ceiling of the wait after the `count`th failure in a row, in milliseconds. */
export function ceiling(count: number, policy: RetryPolicy = RETRY): number {
  return Math.min(policy.cap, policy.base * 2 ** Math.min(Math.max(count, 1) - 1, 30));
}

/** A random number of milliseconds, at least 0 and below `below`. */
export function jitter(below: number, random: (bytes: number) => Buffer): number {
  return Math.floor((random(4).readUInt32LE() / 2 ** 32) * below);
}

/**
 * The longest that a provider can make us wait, in milliseconds: it may be mistaken, and people wait for their
 * messages.
 */
export const LONGEST_WAIT = 60 * 60_000;

/** A wait that somebody else named, in milliseconds, made one that can be waited: 0 to {@link LONGEST_WAIT}. */
export function bounded(ms: number): number {
  return ms > 0 ? Math.min(ms, LONGEST_WAIT) : 0;
}

/**
 * Reads the Retry-After header of an answer (RFC 9110, section 10.2.3): seconds, or an HTTP date. A date is one of the
 * provider's clock: it counts from the answer's own Date, and only without one from our time.
 * @param headers of the answer, names in lower case
 * @param now Unix milliseconds
 * @returns milliseconds from now, 0 to {@link LONGEST_WAIT}; undefined if there is none or it makes no sense
 */
export function retryAfter(headers: Readonly<Record<string, unknown>>, now: number): number | undefined {
  const text = first(headers['retry-after']);
  if (text !== undefined && /^\s*\d+\s*$/.test(text)) return bounded(Number(text) * 1000);
  const date = httpDate(text);
  return date === undefined ? undefined : bounded(date - (httpDate(first(headers.date)) ?? now));
}

function first(header: unknown): string | undefined {
  const text = Array.isArray(header) ? header[0] : header;
  return typeof text === 'string' ? text : undefined;
}

/** Only real dates: Date.parse would make a year out of "1.5". */
function httpDate(text: string | undefined): number | undefined {
  if (text === undefined || !/^\s*[A-Za-z]{3,9},? /.test(text)) return undefined;
  const date = Date.parse(text);
  return Number.isNaN(date) ? undefined : date;
}
