import { accepted, gone, misconfigured, type Outcome, refused, retry } from '../runtime/backend.ts';
import type { Reply } from '../runtime/http.ts';
import { retryAfter } from '../runtime/retry.ts';

/** How long to wait if the push service does not say, in milliseconds. */
const DEVICE_PAUSE = 60_000;
const SERVER_PAUSE = 10_000;
/** ntfy's answer while no phone listens, which may be off for long. */
const NOBODY_LISTENS = 507;
const NOBODY_PAUSE = 5 * 60_000;

/** The outcome after which the push is sent once more with a new token. */
export const UNAUTHORIZED = misconfigured('401: the VAPID token');

/** Refusals with their own name in the metrics; all others share one, since anybody's server can answer any number. */
const REFUSALS: Readonly<Record<number, string>> = {
  400: '400',
  403: '403: registered with another VAPID key',
  405: '405',
  411: '411',
  413: '413: too large',
  415: '415',
};

/**
 * What a push service's answer means (docs/spec/providers.md). "Everyone" and "provider" mean that one push service.
 *
 * @param asked when the push was sent, in Unix milliseconds: the answer holds as of then
 * @param now Unix milliseconds, against which a Retry-After date is read
 */
export function readReply({ status, headers }: Reply, asked: number, now: number): Outcome {
  if (status >= 200 && status < 300) return accepted;
  if (status === 404 || status === 410) return gone(String(status), asked);
  if (status === 401) return UNAUTHORIZED;
  const after = retryAfter(headers, now);
  // In UnifiedPush this is a limit of the one endpoint, not of its host.
  if (status === 429) return retry('429', after ?? DEVICE_PAUSE, 'device');
  if (status === NOBODY_LISTENS) return retry('507: nobody listens', after ?? NOBODY_PAUSE, 'device');
  if (status === 503) return retry('503', after ?? SERVER_PAUSE, after === undefined ? 'provider' : 'everyone');
  if (status === 408 || status >= 500) return retry(status === 408 ? '408' : '5xx', after ?? SERVER_PAUSE);
  // Following a redirect would send the push to an address that nobody has checked.
  if (status >= 300 && status < 400) return refused('3xx: redirects are not followed');
  return refused(REFUSALS[status] ?? '4xx');
}
