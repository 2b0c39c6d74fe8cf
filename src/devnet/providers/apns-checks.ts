import type { KeyObject } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http2';
import { asObject, type JsonObject, readObject, readPayload } from './checks.ts';
import { readJwt } from './jwt.ts';

/** The app, the team and the key that the fake APNs knows. */
export const TOPIC = 'com.loki-project.loki-messenger';
export const TEAM = 'FAKETEAM01';
export const KEY = 'FAKEKEY001';

const MAX_BODY = 4096;
const TOKEN_LIFETIME = 3_600;
/** How long Apple keeps a push at most, and by how much clocks may differ; seconds. */
const LONGEST_STORE = 30 * 86_400;
const SKEW = 300;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** Why Apple would refuse a push: status and reason. */
export interface Objection {
  readonly status: number;
  readonly reason: string;
}

/** A push as a phone would get it. */
export interface ApnsPush {
  readonly device: string;
  readonly body: JsonObject;
  readonly payload: Buffer;
}

/**
 * Checks a request for a push as Apple does, and its body as Session's app for iOS does (docs/spec/notifiers.md,
 * section 4).
 */
export function readPush(headers: IncomingHttpHeaders, body: Buffer): ApnsPush | Objection {
  if (headers[':scheme'] !== 'https') return { status: 400, reason: 'BadPath' };
  if (headers[':method'] !== 'POST') return { status: 405, reason: 'MethodNotAllowed' };
  const [, device] = /^\/3\/device\/([^/]*)$/.exec(String(headers[':path'])) ?? [];
  if (device === undefined) return { status: 404, reason: 'BadPath' };
  if (!/^([0-9a-f]{2}){32,200}$/i.test(device)) return { status: 400, reason: 'BadDeviceToken' };
  const wrong = headerObjection(headers);
  if (wrong !== undefined) return { status: 400, reason: wrong };
  if (body.length === 0) return { status: 400, reason: 'PayloadEmpty' };
  if (body.length > MAX_BODY) return { status: 413, reason: 'PayloadTooLarge' };
  const json = readObject(body.toString());
  const payload = json && phonePayload(json);
  return payload ? { device, body: json, payload } : { status: 400, reason: 'BadPayload' };
}

function headerObjection(headers: IncomingHttpHeaders): string | undefined {
  const text = (name: string) => String(headers[name] ?? '');
  if (text('apns-topic') === '') return 'MissingTopic';
  if (text('apns-topic') !== TOPIC) return 'BadTopic';
  if (text('apns-push-type') !== 'alert') return 'InvalidPushType';
  if (!/^(1|5|10)$/.test(text('apns-priority'))) return 'BadPriority';
  const expiration = text('apns-expiration');
  const latest = Date.now() / 1000 + LONGEST_STORE + SKEW;
  if (!/^\d{1,10}$/.test(expiration) || Number(expiration) > latest) return 'BadExpirationDate';
  if (text('apns-id') !== '' && !UUID.test(text('apns-id'))) return 'BadMessageId';
  if (Buffer.byteLength(text('apns-collapse-id')) > 64) return 'BadCollapseId';
  return undefined;
}

/** The payload that the app would find; undefined if it would show nothing, or something wrong. */
function phonePayload(json: JsonObject): Buffer | undefined {
  const aps = asObject(json.aps);
  const alert = asObject(aps?.alert);
  // Without these, iOS shows nothing, or does not let the app decrypt it first.
  if (typeof alert?.body !== 'string' || aps?.['mutable-content'] !== 1 || json.spns === undefined) return undefined;
  return readPayload(json.enc_payload);
}

/** Checks the provider token (JWT) of a request. @returns Apple's reason for refusing it; undefined if it is good */
export function checkToken(token: string, publicKey: KeyObject): string | undefined {
  const jwt = readJwt(token, publicKey);
  if (jwt?.header.kid !== KEY || jwt.header.alg !== 'ES256' || jwt.claims.iss !== TEAM) return 'InvalidProviderToken';
  const { iat } = jwt.claims;
  const age = Date.now() / 1000 - (typeof iat === 'number' ? iat : Number.NaN);
  if (!(age > -SKEW)) return 'InvalidProviderToken';
  return age < TOKEN_LIFETIME ? undefined : 'ExpiredProviderToken';
}
