import type { Clock } from '../../clock.ts';
import { misconfigured, type Outcome, retry } from './backend.ts';
import { jsonObject, type Reply, trouble } from './http.ts';
import { retryAfter } from './retry.ts';

/** A token is not used any more this long before it ends, in milliseconds. */
const MARGIN = 5 * 60_000;
/**
 * For how long a token is believed to be good, at least and at most, in milliseconds: one that is not accepted any more
 * is replaced at once.
 */
const SHORTEST = 2 * 60_000;
const LONGEST = 24 * 3_600_000;
/** What can be put into a header, in a size that providers accept. */
const TOKEN = /^[\x21-\x7e]{1,8192}$/;

/** There is no access token; `outcome` is what that means for the pushes that wanted one. */
export class TokenError extends Error {
  readonly outcome: Outcome;

  constructor(outcome: Outcome) {
    super('reason' in outcome ? outcome.reason : outcome.kind);
    this.name = 'TokenError';
    this.outcome = outcome;
  }
}

interface Held {
  readonly token: string;
  /** By the monotonic clock, in milliseconds. */
  readonly until: number;
}

/**
 * An OAuth 2 access token that is fetched when it is needed, once for all who wait for it, and kept as long as it is
 * good.
 */
export class AccessToken {
  readonly #ask: () => Promise<Reply>;
  readonly #clock: Clock;
  #held: Held | undefined;
  #fetching: Promise<string> | undefined;

  /** @param ask sends the request for a token */
  constructor(ask: () => Promise<Reply>, clock: Clock) {
    this.#ask = ask;
    this.#clock = clock;
  }

  /** Rejects with {@link TokenError}. */
  get(): Promise<string> {
    if (this.#held && this.#clock.monotonic() < this.#held.until) return Promise.resolve(this.#held.token);
    this.#fetching ??= this.#fetch().finally(() => {
      this.#fetching = undefined;
    });
    return this.#fetching;
  }

  /** The provider did not accept this token. Whoever shows one that has been replaced already changes nothing. */
  discard(token: string): void {
    if (this.#held?.token === token) this.#held = undefined;
  }

  async #fetch(): Promise<string> {
    const reply = await this.#ask().catch((error: unknown) => {
      throw new TokenError(retry(`OAuth: ${trouble(error)}`));
    });
    const json = jsonObject(reply.text);
    const token = json?.access_token;
    if (reply.status === 200 && typeof token === 'string' && TOKEN.test(token) && Number(json?.expires_in) > 0) {
      const lifetime = Math.min(Math.max(Number(json?.expires_in) * 1000, SHORTEST), LONGEST);
      // A short-lived one is used for half of its time.
      const until = this.#clock.monotonic() + Math.max(lifetime - MARGIN, lifetime / 2);
      this.#held = { token, until };
      return token;
    }
    // A word or a number; anything else could hold what is nobody's business.
    const error = /^[\w.-]{1,60}$/.test(String(json?.error ?? '')) ? ` ${json?.error}` : '';
    const reason = `OAuth: ${reply.status}${error}`;
    const passing = reply.status >= 500 || reply.status === 429 || reply.status === 200;
    const after = retryAfter(reply.headers, this.#clock.now());
    throw new TokenError(passing ? retry(reason, after, after ? 'everyone' : 'provider') : misconfigured(reason));
  }
}
