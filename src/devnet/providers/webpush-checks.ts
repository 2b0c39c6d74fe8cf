import { createDecipheriv, createECDH, createPublicKey, type ECDH, hkdfSync, type KeyObject } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { hasOnly, type JsonObject, readObject, readPayload } from './checks.ts';
import type { WebAnswer } from './http.ts';
import { readJwt } from './jwt.ts';

const MAX_BODY = 4096;
const CURVE = 'prime256v1';
/** How long a VAPID token may be valid (RFC 8292, section 2), and by how much clocks may differ; seconds. */
const LONGEST_TOKEN = 24 * 3_600;
const SKEW = 60;
/** How long Mozilla's and Google's services keep a push, seconds. */
const LONGEST_TTL = 28 * 86_400;

/** The app's end of a subscription. */
export interface AppSubscription {
  readonly token: string;
  readonly keys: ECDH;
  readonly auth: Buffer;
}

/** @param random 32 bytes of a private key, and 16 of a secret */
export function makeSubscription(token: string, random: (bytes: number) => Buffer): AppSubscription {
  const keys = createECDH(CURVE);
  keys.setPrivateKey(random(32));
  return { token, keys, auth: random(16) };
}

/** A push as a phone would get it. */
export interface WebPush {
  readonly token: string;
  readonly body: JsonObject;
  readonly payload: Buffer;
}

/** An answer as Mozilla's service gives it. */
export function webPushError(status: number, message: string): WebAnswer {
  return { status, body: { code: status, error: message } };
}

/**
 * Checks a push as push services do (RFC 8030, sections 5 and 7.2), and its decrypted body as the app does
 * (docs/spec/providers.md, section 5).
 */
export function readPush(
  headers: IncomingHttpHeaders,
  body: Buffer,
  subscription: AppSubscription,
): WebPush | WebAnswer {
  const text = (name: string) => String(headers[name] ?? '');
  if (!/^\d{1,8}$/.test(text('ttl'))) return webPushError(400, 'TTL missing or wrong');
  if (Number(text('ttl')) > LONGEST_TTL) return webPushError(400, 'TTL too long');
  if (!/^(very-low|low|normal|high)$/.test(text('urgency'))) return webPushError(400, 'Urgency');
  // With a topic, one message would replace another.
  if (headers.topic !== undefined) return webPushError(400, 'Topic');
  if (text('content-encoding') !== 'aes128gcm') return webPushError(400, 'Content-Encoding');
  if (text('content-type') !== 'application/octet-stream') return webPushError(400, 'Content-Type');
  if (Number(text('content-length')) !== body.length) return webPushError(411, 'Content-Length');
  if (body.length > MAX_BODY) return webPushError(413, 'Payload too large');
  // A real service cannot look inside; the app would discard it.
  const plaintext = decrypt(body, subscription);
  const json = plaintext && readObject(plaintext.toString());
  const payload = json && hasOnly(json, 'enc_payload', 'spns') && json.spns === '1' && readPayload(json.enc_payload);
  return payload ? { token: subscription.token, body: json, payload } : webPushError(400, 'no app could read it');
}

/** Decrypts a body as an app does (RFC 8291, section 3.4); undefined if it cannot. */
export function decrypt(body: Buffer, { keys, auth }: Pick<AppSubscription, 'keys' | 'auth'>): Buffer | undefined {
  const recordSize = body.length < 21 ? 0 : body.readUInt32BE(16);
  // One record of the given size, with the sender's key as its key id.
  if (recordSize < 18 || body[20] !== 65 || body.length - 86 > recordSize || body.length < 86 + 17) return undefined;
  const salt = body.subarray(0, 16);
  const sender = body.subarray(21, 86);
  try {
    const info = Buffer.concat([Buffer.from('WebPush: info\0'), keys.getPublicKey(), sender]);
    const keying = Buffer.from(hkdfSync('sha256', keys.computeSecret(sender), auth, info, 32));
    const derive = (what: string, length: number) =>
      Buffer.from(hkdfSync('sha256', keying, salt, `Content-Encoding: ${what}\0`, length));
    const decipher = createDecipheriv('aes-128-gcm', derive('aes128gcm', 16), derive('nonce', 12));
    decipher.setAuthTag(body.subarray(-16));
    const padded = Buffer.concat([decipher.update(body.subarray(86, -16)), decipher.final()]);
    let length = padded.length;
    while (length > 0 && padded[length - 1] === 0) length--;
    return padded[length - 1] === 2 ? padded.subarray(0, length - 1) : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Checks the VAPID token of a request (RFC 8292).
 * @param publicKey the key that the app registered with: 65 bytes in base64url
 * @returns the refusal; undefined if the token is good
 */
export function checkVapid(authorization: string, publicKey: string, origin: string): WebAnswer | undefined {
  const [, token = '', key = ''] = /^vapid t=([\w.-]+), ?k=([\w-]+)$/.exec(authorization) ?? [];
  if (token === '') return webPushError(401, 'no VAPID token');
  if (key !== publicKey) return webPushError(403, 'the app registered with another key');
  const jwt = readJwt(token, verifyingKey(publicKey));
  if (jwt?.header.alg !== 'ES256' || jwt.header.typ !== 'JWT') return webPushError(401, 'not signed with that key');
  const { aud, exp, sub } = jwt.claims;
  const left = Number(exp) - Date.now() / 1000;
  if (aud !== origin) return webPushError(401, 'meant for another service');
  if (!(left > -SKEW && left <= LONGEST_TOKEN + SKEW)) return webPushError(401, 'expired, or valid for too long');
  if (!/^(mailto:|https:)/.test(String(sub))) return webPushError(401, 'no contact');
  return undefined;
}

function verifyingKey(publicKey: string): KeyObject {
  const point = Buffer.from(publicKey, 'base64url');
  const part = (start: number) => point.subarray(start, start + 32).toString('base64url');
  return createPublicKey({ format: 'jwk', key: { kty: 'EC', crv: 'P-256', x: part(1), y: part(33) } });
}
