import type { IncomingHttpHeaders } from 'node:http2';
import { asObject, hasOnly, type JsonObject, readObject, readPayload } from './checks.ts';
import type { WebAnswer } from './http.ts';

const MAX_DATA = 4096;
const LONGEST_TTL = 2_419_200;

/** A push as a phone would get it. */
export interface FcmPush {
  readonly token: string;
  readonly body: JsonObject;
  readonly payload: Buffer;
}

/**
 * An error as FCM's v1 API gives it.
 * @param status HTTP status
 * @param word the canonical word, such as `NOT_FOUND`
 * @param code the FcmError code, if there is one
 */
export function fcmError(
  status: number,
  word: string,
  code?: string,
  message = word,
  details: object[] = [],
): WebAnswer {
  const type = 'type.googleapis.com/google.firebase.fcm.v1.FcmError';
  const all = code === undefined ? details : [{ '@type': type, errorCode: code }, ...details];
  return {
    status,
    body: { error: { code: status, message, status: word, ...(all.length > 0 ? { details: all } : {}) } },
  };
}

/** A violation of one field of the message, as Google's APIs report it. */
export function violation(field: string, description = 'Invalid value'): object {
  return { '@type': 'type.googleapis.com/google.rpc.BadRequest', fieldViolations: [{ field, description }] };
}

/**
 * Checks the body of a push as Google does, and its data as Session's app for Android does
 * (docs/spec/notifiers.md, section 5).
 */
export function readPush(headers: IncomingHttpHeaders, text: string): FcmPush | WebAnswer {
  if (!/^application\/json\b/.test(headers['content-type'] ?? '')) return invalid('', 'Content-Type is not JSON');
  const body = readObject(text);
  const message = asObject(body?.message);
  if (!body || !message) return invalid('', 'Invalid JSON payload received.');
  if (!hasOnly(body, 'message', 'validate_only') || !hasOnly(message, 'token', 'data', 'android')) {
    return invalid('message', 'Invalid JSON payload received. Unknown name.');
  }
  // It would only be checked, and never reach a phone.
  if (body.validate_only !== undefined && body.validate_only !== false) return invalid('validate_only', 'set');
  const { token } = message;
  if (typeof token !== 'string' || !/^[\x21-\x7e]{1,4096}$/.test(token)) {
    const dead = 'The registration token is not a valid FCM registration token';
    return fcmError(400, 'INVALID_ARGUMENT', 'INVALID_ARGUMENT', dead);
  }
  const android = asObject(message.android);
  if (!android || !hasOnly(android, 'priority', 'ttl') || !/^(HIGH|NORMAL)$/i.test(String(android.priority))) {
    return invalid('message.android.priority');
  }
  const [, ttl] = /^(\d+)(?:\.\d{1,9})?s$/.exec(String(android.ttl)) ?? [];
  if (ttl === undefined || Number(ttl) > LONGEST_TTL) return invalid('message.android.ttl');
  const payload = phonePayload(asObject(message.data));
  return payload ? { token, body, payload } : invalid('message.data');
}

function phonePayload(data: JsonObject | undefined): Buffer | undefined {
  const entries = Object.entries(data ?? {});
  const reserved = entries.some(([key, value]) => typeof value !== 'string' || /^(from$|gcm|google)/.test(key));
  const size = entries.reduce((sum, [key, value]) => sum + Buffer.byteLength(key + String(value)), 0);
  // Without `spns`, the app looks for what an older server sent.
  return reserved || size > MAX_DATA || data?.spns === undefined ? undefined : readPayload(data.enc_payload);
}

function invalid(field: string, description = 'Invalid value'): WebAnswer {
  const details = field === '' ? [] : [violation(field, description)];
  return fcmError(400, 'INVALID_ARGUMENT', 'INVALID_ARGUMENT', `${description} (${field})`, details);
}
