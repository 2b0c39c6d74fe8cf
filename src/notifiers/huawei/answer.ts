import { accepted, gone, misconfigured, type Outcome, refused, retry } from '../runtime/backend.ts';
import { jsonObject, type Reply } from '../runtime/http.ts';
import { retryAfter } from '../runtime/retry.ts';

/** Our credentials, or the access token, are not accepted. */
const AUTHENTICATION = new Set(['80200001', '80200003', '80200005']);
/**
 * Wrong parameters or content, a body that is too large, too many tokens: our fault, and another attempt does not
 * help.
 */
const OUR_MESSAGE = new Set([
  '80100001',
  '80100003',
  '80100004',
  '80100013',
  '80100016',
  '80100017',
  '80100018',
  '80300008',
  '80300010',
]);
/** Huawei's own services fail internally. */
const PASSING = new Set(['80600003', '81000001']);
const SERVER_PAUSE = 5_000;

/** Outcomes after which the push is sent once more, with a new access token or with normal urgency. */
export const AUTHENTICATE = misconfigured('authentication');
export const USE_NORMAL = refused('80300011 no permission for HIGH urgency');

/**
 * What an answer of Push Kit means, by its code and its HTTP status (docs/spec/providers.md).
 *
 * @param token of the device
 * @param asked when the push was sent, in Unix milliseconds
 * @param now Unix milliseconds, against which a Retry-After date is read
 */
export function readReply({ status, headers, text }: Reply, token: string, asked: number, now: number): Outcome {
  const json = jsonObject(text);
  const code = typeof json?.code === 'string' && /^\d{8}$/.test(json.code) ? json.code : undefined;
  if (code === '80000000' && status === 200) return accepted;
  if (code === '80100000') return readPartial(json?.msg, token, asked);
  if (code === '80300007') return gone(code, asked);
  if (code === '80300011') return USE_NORMAL;
  if (code === '80300002') return misconfigured(`${code} the app has no permission`);
  if (code !== undefined && AUTHENTICATION.has(code)) return AUTHENTICATE;
  if (code !== undefined && OUR_MESSAGE.has(code)) return refused(code);
  const after = retryAfter(headers, now);
  if (status === 503 || status === 429) return retry(`${status} flow control`, after ?? SERVER_PAUSE, 'everyone');
  if (code !== undefined && PASSING.has(code)) return retry(code, after ?? SERVER_PAUSE);
  if (status >= 500) return retry(code ?? String(status), after ?? SERVER_PAUSE);
  if (status === 401 || status === 403) return AUTHENTICATE;
  if (code !== undefined) return refused(code);
  if (status === 404) return misconfigured('404');
  if (status >= 400) return refused(String(status));
  return retry(`an answer that makes no sense (${status})`);
}

/** With one token per request a "partial success" is none: either the token is listed as bad, or it was accepted. */
function readPartial(message: unknown, token: string, asked: number): Outcome {
  const detail = typeof message === 'string' ? jsonObject(message) : undefined;
  const illegal = detail?.illegal_tokens;
  if (Array.isArray(illegal) && illegal.includes(token)) return gone('80100000 illegal token', asked);
  return Number(detail?.success) > 0 ? accepted : refused('80100000');
}
