import type { FirebaseError } from 'firebase-admin/app';
import { gone, misconfigured, type Outcome, refused, retry } from '../runtime/backend.ts';
import { retryAfter } from '../runtime/retry.ts';

const FCM_ERROR = 'type.googleapis.com/google.firebase.fcm.v1.FcmError';
const FIELD_VIOLATIONS = 'type.googleapis.com/google.rpc.BadRequest';
/** The waits that Google's documentation asks for if an answer names none, in milliseconds. */
const QUOTA_PAUSE = 60_000;
const SERVER_PAUSE = 10_000;

/** The reason after which a new access token is fetched and the push sent once more. */
export const UNAUTHENTICATED = 'UNAUTHENTICATED';

/**
 * What an error of firebase-admin's means, read from the HTTP answer behind it (docs/spec/providers.md).
 *
 * @param asked when the push was sent, in Unix milliseconds: Google's answer holds as of then
 * @param now Unix milliseconds, against which a Retry-After date is read
 */
export function readError(error: FirebaseError | undefined, asked: number, now: number): Outcome {
  const response = error?.httpResponse;
  if (!response) return retry(trouble(error));
  const { status, headers } = response;
  const { code, word, message, details } = readBody(response.data);
  const after = retryAfter(headers, now);
  const reason = code ?? word;
  switch (reason) {
    case 'UNREGISTERED':
    case 'UNREGISTERED_FID':
      // Only with FCM's own error code: a 404 from a gateway or a wrong address says nothing about the device.
      return code === undefined ? misconfigured(`${status} ${word}`) : gone(reason, asked);
    case 'INVALID_ARGUMENT':
      return isDeadToken(message, details) ? gone('not a valid FCM registration token', asked) : refused(reason);
    case 'SENDER_ID_MISMATCH':
    case 'THIRD_PARTY_AUTH_ERROR':
      return refused(reason);
    case 'QUOTA_EXCEEDED':
    case 'RESOURCE_EXHAUSTED':
      return retry(reason, after ?? QUOTA_PAUSE, 'everyone');
    case UNAUTHENTICATED:
    case 'PERMISSION_DENIED':
      return misconfigured(reason);
  }
  if (status === 429) return retry('429', after ?? QUOTA_PAUSE, 'everyone');
  if (status >= 500) return retry(reason === undefined ? String(status) : `${status} ${reason}`, after ?? SERVER_PAUSE);
  if (status === 401) return misconfigured(UNAUTHENTICATED);
  if (status === 403) return misconfigured(reason ?? '403');
  if (status === 404) return word === undefined ? retry('404 without an FCM error') : misconfigured(`404 ${word}`);
  if (status >= 400) return refused(`${status}${reason === undefined ? '' : ` ${reason}`}`);
  return retry(`an answer that makes no sense (${status})`);
}

/** What went wrong below HTTP, in a few words; of the library's own text, only a proxy's error is repeated. */
function trouble(error: FirebaseError | undefined): string {
  if (error?.code === 'app/network-timeout') return 'no answer in time';
  const [proxy] = /\bERR_PROXY_\w{1,20}/.exec(error?.message ?? '') ?? [];
  return `connection trouble${proxy === undefined ? '' : ` (${proxy})`}`;
}

interface Body {
  /** FCM's own error code. */
  readonly code?: string;
  /** Google's canonical status, such as NOT_FOUND. */
  readonly word?: string;
  readonly message: string;
  readonly details: readonly Record<string, unknown>[];
}

function readBody(data: unknown): Body {
  const error = isObject(data) ? data.error : undefined;
  if (!isObject(error)) return { message: '', details: [] };
  const details = Array.isArray(error.details) ? error.details.filter(isObject) : [];
  const code = details.find((detail) => detail['@type'] === FCM_ERROR)?.errorCode;
  return {
    ...(isWord(code) ? { code } : {}),
    ...(isWord(error.status) ? { word: error.status } : {}),
    message: typeof error.message === 'string' ? error.message : '',
    details,
  };
}

/**
 * Google calls a token that it has never seen an invalid argument. If it names the fields that it means, they decide,
 * whatever its message says; if it names none, the message does.
 */
function isDeadToken(message: string, details: Body['details']): boolean {
  const named = details.filter((detail) => detail['@type'] === FIELD_VIOLATIONS);
  if (named.length === 0) return /registration token is not a valid FCM registration token/i.test(message);
  const violations = named.flatMap(({ fieldViolations }) => (Array.isArray(fieldViolations) ? fieldViolations : []));
  return violations.some((violation) => isObject(violation) && violation.field === 'message.token');
}

function isWord(value: unknown): value is string {
  return typeof value === 'string' && /^[A-Z][A-Z0-9_]{0,60}$/.test(value);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}
