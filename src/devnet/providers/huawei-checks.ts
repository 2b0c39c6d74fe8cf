import type { IncomingHttpHeaders } from 'node:http';
import { asObject, hasOnly, type JsonObject, readObject, readPayload } from './checks.ts';
import type { WebAnswer } from './http.ts';

const MAX_BODY = 4096;
const LONGEST_TTL = 1_296_000;

/** A push as a phone would get it. */
export interface HuaweiPush {
  readonly token: string;
  readonly urgency: 'HIGH' | 'NORMAL';
  readonly body: JsonObject;
  readonly payload: Buffer;
}

/** An answer of Huawei Push Kit: HTTP 200 with a code, unless told otherwise. */
export function huaweiCode(code: string, msg = 'Success', status = 200): WebAnswer {
  return { status, body: { code, msg, requestId: '157440955549500001002006' } };
}

/**
 * Checks the body of a push as Huawei does, and its data as Session's app does (docs/spec/notifiers.md, section 6).
 */
export function readPush(headers: IncomingHttpHeaders, text: string): HuaweiPush | WebAnswer {
  if (!/^application\/json\b/.test(headers['content-type'] ?? ''))
    return huaweiCode('80100003', 'Illegal payload', 400);
  const body = readObject(text);
  const message = asObject(body?.message);
  if (!body || !message) return huaweiCode('80100003', 'Illegal payload', 400);
  // With `validate_only` it would only be checked, and never reach a phone.
  if (!hasOnly(body, 'validate_only', 'message') || body.validate_only !== false) return wrong('validate_only');
  if (!hasOnly(message, 'data', 'android', 'token')) return wrong('message');
  const tokens: readonly unknown[] = Array.isArray(message.token) ? message.token : [];
  const [token] = tokens;
  // Ours sends one at a time; with a token listed twice the phone would ring twice.
  if (tokens.length !== 1 || typeof token !== 'string' || token === '') return wrong('token');
  if (Buffer.byteLength(text) - Buffer.byteLength(token) > MAX_BODY) {
    return huaweiCode('80300008', 'Message body size exceeds the default value');
  }
  const android = asObject(message.android);
  const [, ttl] = /^([1-9]\d*)s$/.exec(String(android?.ttl)) ?? [];
  if (!android || ttl === undefined || Number(ttl) > LONGEST_TTL) return wrong('android.ttl');
  const { urgency } = android;
  if (urgency !== 'HIGH' && urgency !== 'NORMAL') return wrong('android.urgency');
  const data = typeof message.data === 'string' ? readObject(message.data) : undefined;
  // Without `spns`, the app looks for what an older server sent.
  const payload = data?.spns === undefined ? undefined : readPayload(data.enc_payload);
  return payload ? { token, urgency, body, payload } : wrong('data');
}

function wrong(field: string): WebAnswer {
  return huaweiCode('80100001', `Parameter error: ${field}`);
}
