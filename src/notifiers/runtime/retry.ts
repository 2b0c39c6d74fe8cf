/** The one policy by which every notifier retries. All times in milliseconds. */
export interface RetryPolicy {
  /** The ceiling of the first random wait; each further one is twice as high. */
  readonly base: number;
  /** The highest ceiling. */
  readonly cap: number;
  /** How long a push is tried before it is given up, even if it has not expired: the user has looked by then. */
  readonly lifetime: number;
}

/** Google asks to give up after 60 minutes; Apple's and Huawei's services recover in the same time, or not at all. */
export const RETRY: RetryPolicy = { base: 2_000, cap: 5 * 60_000, lifetime: 60 * 60_000 };

/** What the policy must know about a push. */
export interface Attempted {
  /** Attempts made so far. */
  readonly attempts: number;
  /** When the first one was, by the monotonic clock. */
  readonly firstTried: number;
  /** Unix milliseconds after which the push is pointless; 0 if never. */
  readonly expiry: number;
}

/** The present, by both clocks, in milliseconds. */
export interface Moment {
  readonly wall: number;
  readonly monotonic: number;
}

/**
 * How long to wait before the next attempt: exponential with full jitter, so that pushes which failed together do not
 * come back together. The jitter comes on top of any wait that the provider asked for.
 *
 * @param after milliseconds that the provider asked to wait, 0 if it did not
 * @returns milliseconds, or why there is no further attempt
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
 * The longest wait that a provider can ask for, in milliseconds: it may be mistaken, and people wait for their
 * messages.
 */
export const LONGEST_WAIT = 60 * 60_000;

/** Bounds a wait that somebody else asked for, in milliseconds: 0 to {@link LONGEST_WAIT}. */
export function bounded(ms: number): number {
  return ms > 0 ? Math.min(ms, LONGEST_WAIT) : 0;
}

/**
 * Reads the Retry-After header of an answer (RFC 9110, section 10.2.3): seconds, or an HTTP date. A date is by the
 * provider's clock, so it counts from the answer's own Date, or without one from our time.
 *
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

/** Reads a date, but only what looks like one: Date.parse takes "1.5" for a year. */
function httpDate(text: string | undefined): number | undefined {
  if (text === undefined || !/^\s*[A-Za-z]{3,9},? /.test(text)) return undefined;
  const date = Date.parse(text);
  return Number.isNaN(date) ? undefined : date;
}
