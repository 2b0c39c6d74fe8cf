import { accepted, gone, misconfigured, type Outcome, refused, retry } from '../runtime/backend.ts';
import type { ApnsAnswer } from './client.ts';

/** Reasons that say the push itself is wrong: our fault, and another attempt does not help. */
const OUR_MESSAGE = new Set([
  'BadCollapseId',
  'BadExpirationDate',
  'BadMessageId',
  'BadPriority',
  'DuplicateHeaders',
  'InvalidPushType',
  'MissingDeviceToken',
  'PayloadEmpty',
  'PayloadTooLarge',
]);

/** Reasons that say our settings are wrong: no push is accepted until somebody corrects them. */
const OUR_CONFIGURATION = new Set([
  'BadCertificate',
  'BadCertificateEnvironment',
  'BadEnvironmentKeyIdInToken',
  'BadPath',
  'BadTopic',
  'Forbidden',
  'InvalidProviderToken',
  'MethodNotAllowed',
  'MissingProviderToken',
  'MissingTopic',
  'TopicDisallowed',
  'UnrelatedKeyIdInToken',
]);

/** How long a device that got too many pushes is left alone, in milliseconds: Apple does not say how long it wants. */
const DEVICE_PAUSE = 60_000;
/** How long to pause after too many new provider tokens, in milliseconds; then the current one is used again. */
const TOKEN_PAUSE = 60_000;
/** How long to wait after an error of Apple's own, in milliseconds. */
const SERVER_PAUSE = 10_000;

/** The reason after which a new provider token is made and the push sent once more. */
export const EXPIRED_TOKEN = 'ExpiredProviderToken';

/**
 * What an answer of Apple's means (docs/spec/providers.md).
 *
 * @param asked when the push was sent, in Unix milliseconds: Apple's answer holds as of then
 */
export function readAnswer(answer: ApnsAnswer, asked: number): Outcome {
  if (answer.taken) return accepted;
  const { status, timestamp } = answer;
  // The library returns one of the reasons as the message of an error.
  const reason = wordOf(answer.reason) ?? wordOf(answer.error?.message);
  if (status === 410) return gone(reason ?? '410', validTime(timestamp) ?? asked);
  // There is no timestamp, so as of the sending: a newer subscription with the same token stays.
  if (reason === 'BadDeviceToken') return gone(reason, asked);
  // It may be another app's token, or our topic may be wrong: the device is kept.
  if (reason === 'DeviceTokenNotForTopic') return refused(reason);
  if (status === 413 || (reason !== undefined && OUR_MESSAGE.has(reason))) return refused(reason ?? '413');
  if (reason === EXPIRED_TOKEN) return misconfigured(reason);
  if (reason === 'TooManyProviderTokenUpdates') return retry(reason, TOKEN_PAUSE, 'everyone');
  if (status === 429) return retry(reason ?? '429', DEVICE_PAUSE, 'device');
  if (reason !== undefined && OUR_CONFIGURATION.has(reason)) return misconfigured(reason);
  if (status === 403 || status === 404 || status === 405) return misconfigured(reason ?? String(status));
  if (reason === 'IdleTimeout') return retry(reason);
  if (typeof status === 'number' && status >= 500) return serverTrouble(status, reason);
  if (typeof status === 'number' && status >= 400) return refused(reason ?? String(status));
  return retry(trouble(answer));
}

function serverTrouble(status: number, reason: string | undefined): Outcome {
  return retry(reason === undefined ? String(status) : `${status} ${reason}`, SERVER_PAUSE);
}

/**
 * Apple's reasons are single words. Anything else may have any length or contain a token, and cannot name a counter.
 */
function wordOf(text: unknown): string | undefined {
  return typeof text === 'string' && /^\w{1,60}$/.test(text) ? text : undefined;
}

function validTime(timestamp: number | undefined): number | undefined {
  return timestamp !== undefined && Number.isSafeInteger(timestamp) && timestamp > 0 ? timestamp : undefined;
}

/** What went wrong below HTTP, in a few words without addresses and numbers, which would make each one different. */
function trouble({ error, status }: ApnsAnswer): string {
  const chain: string[] = [];
  for (let cause: unknown = error; cause instanceof Error && chain.length < 5; ) {
    chain.push(`${(cause as NodeJS.ErrnoException).code ?? ''} ${cause.message}`);
    const { jse_cause: inner } = cause as { jse_cause?: unknown };
    cause = inner ?? cause.cause;
  }
  const text = chain.join(' ');
  if (/timeout/.test(text)) return 'no answer in time';
  // A proxy's error first: it says more than the errors that follow from it.
  const code =
    /\bERR_PROXY_\w{1,20}/.exec(text) ??
    /\b(NGHTTP2_[A-Z_]+|E[A-Z]{4,}|ERR_[A-Z0-9_]+|[A-Z]+_CERT[A-Z_]*)\b/.exec(text);
  return `connection trouble${code ? ` (${code[0]})` : status ? ` (${status})` : ''}`;
}
