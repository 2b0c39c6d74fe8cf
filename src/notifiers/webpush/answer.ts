import { accepted, gone, misconfigured, type Outcome, refused, retry } from '../runtime/backend.ts';
import type { Reply } from '../runtime/http.ts';
import { retryAfter } from '../runtime/retry.ts';

/** Waits in milliseconds where the push service names none. */
const DEVICE_PAUSE = 60_000;
const SERVER_PAUSE = 10_000;
/** ntfy's answer while no phone listens: it may be off for long. */
const NOBODY_LISTENS = 507;
const NOBODY_PAUSE = 5 * 60_000;

/** The outcome that calls for a new token before the same push is sent once more. */
export const UNAUTHORIZED = misconfigured('401: the VAPID token');

/** Refusals that have a name of their own in the metrics; anybody's server could answer any number. */
const REFUSALS: Readonly<Record<number, string>> = {
  400: '400',
  403: '403: registered with another VAPID key',
  405: '405',
  411: '411',
  413: '413: too large',
  415: '415',
};

/**
 * What a push service's answer means (providers: Web Push). Here "everyone" and "provider" are that one push service.
 * @param asked when the push was sent, in Unix milliseconds: what the service says is true as of then
 * @param now Unix milliseconds, against which a Retry-After date is read
 */
export function readReply({ status, headers }: Reply, asked: number, now: number): Outcome {
  if (status >= 200 && status < 300) return accepted;
  if (status === 404 || status === 410) return gone(String(status), asked);
  if (status === 401) return UNAUTHORIZED;
  const after = retryAfter(headers, now);
  // By UnifiedPush a limit of the one endpoint, not of its host.
  if (status === 429) return retry('429', after ?? DEVICE_PAUSE, 'device');
  if (status === NOBODY_LISTENS) return retry('507: nobody listens', after ?? NOBODY_PAUSE, 'device');
  if (status === 503) return retry('503', after ?? SERVER_PAUSE, after === undefined ? 'provider' : 'everyone');
  if (status === 408 || status >= 500) return retry(status === 408 ? '408' : '5xx', after ?? SERVER_PAUSE);
  // Whoever follows a redirect sends the push somewhere that nobody has checked.
  if (status >= 300 && status < 400) return refused('3xx: redirects are not followed');
  return refused(REFUSALS[status] ?? '4xx');
}
