import type { Clock } from '../../clock.ts';
import { misconfigured, type Outcome, retry } from './backend.ts';
import { jsonObject, type Reply, trouble } from './http.ts';
import { retryAfter } from './retry.ts';

/** How long before a token expires it is no longer used, in milliseconds. */
const MARGIN = 5 * 60_000;
/**
 * The shortest and longest lifetime that we believe, in milliseconds: a token that is no longer accepted is replaced at
 * once anyway.
 */
const SHORTEST = 2 * 60_000;
const LONGEST = 24 * 3_600_000;
/** What may go into a header, and is no longer than servers accept. */
const TOKEN = /^[\x21-\x7e]{1,8192}$/;

/** No access token could be had; `outcome` is what that means for the pushes that needed one. */
export class TokenError extends Error {
  readonly outcome: Outcome;

  constructor(outcome: Outcome) {
    super('reason' in outcome ? outcome.reason : outcome.kind);
    this.name = 'TokenError';
    this.outcome = outcome;
  }
}

interface CachedToken {
  readonly token: string;
  /** By the monotonic clock, in milliseconds. */
  readonly until: number;
}

/**
 * An OAuth 2 access token that is fetched when it is needed, once for all who wait for it, and kept while it is valid.
 */
export class AccessToken {
  readonly #ask: () => Promise<Reply>;
  readonly #clock: Clock;
  #cached: CachedToken | undefined;
  #fetching: Promise<string> | undefined;

  /** @param ask sends the request for a token */
  constructor(ask: () => Promise<Reply>, clock: Clock) {
    this.#ask = ask;
    this.#clock = clock;
  }

  /** @throws TokenError if it cannot be fetched */
  get(): Promise<string> {
    if (this.#cached && this.#clock.monotonic() < this.#cached.until) return Promise.resolve(this.#cached.token);
    this.#fetching ??= this.#fetch().finally(() => {
      this.#fetching = undefined;
    });
    return this.#fetching;
  }

  /**
   * The provider did not accept this token: the next {@link get} fetches a new one, unless that has happened already.
   */
  discard(token: string): void {
    if (this.#cached?.token === token) this.#cached = undefined;
  }

  async #fetch(): Promise<string> {
    const reply = await this.#ask().catch((error: unknown) => {
      throw new TokenError(retry(`OAuth: ${trouble(error)}`));
    });
    const json = jsonObject(reply.text);
    const token = json?.access_token;
    if (reply.status === 200 && typeof token === 'string' && TOKEN.test(token) && Number(json?.expires_in) > 0) {
      const lifetime = Math.min(Math.max(Number(json?.expires_in) * 1000, SHORTEST), LONGEST);
      // A short-lived token is used for half of its lifetime.
      const until = this.#clock.monotonic() + Math.max(lifetime - MARGIN, lifetime / 2);
      this.#cached = { token, until };
      return token;
    }
    // Only a word or a number is repeated: anything else could hold a secret.
    const error = /^[\w.-]{1,60}$/.test(String(json?.error ?? '')) ? ` ${json?.error}` : '';
    const reason = `OAuth: ${reply.status}${error}`;
    const passing = reply.status >= 500 || reply.status === 429 || reply.status === 200;
    const after = retryAfter(reply.headers, this.#clock.now());
    throw new TokenError(passing ? retry(reason, after, after ? 'everyone' : 'provider') : misconfigured(reason));
  }
}
