import assert from 'node:assert/strict';
import { generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { request } from 'node:https';
import { test } from 'node:test';
import { startFakeWebPush } from '../../../src/devnet/providers/webpush.ts';
import { encrypt } from '../../../src/notifiers/webpush/encryption.ts';
import { vapidPublicKey } from '../../../src/settings/vapid-key.ts';
import { folder } from '../../notifiers/support.ts';

interface Asked {
  readonly method?: string;
  readonly headers: Readonly<Record<string, string | undefined>>;
  readonly body: Buffer;
}

/** Sends a request with nothing of ours in between, and gives the status. */
function ask(url: string, ca: Buffer, { method = 'POST', headers, body }: Asked): Promise<number> {
  const given = Object.fromEntries(Object.entries(headers).filter(([, value]) => value !== undefined));
  return new Promise((resolve, reject) => {
    const outgoing = request(url, { method, ca, headers: given as Record<string, string> }, (incoming) => {
      incoming.resume().on('end', () => resolve(incoming.statusCode!));
    });
    outgoing.on('error', reject);
    outgoing.end(body);
  });
}

function token(key: KeyObject, claims: object, header: object = { typ: 'JWT', alg: 'ES256' }): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${part(header)}.${part(claims)}`;
  const signature = sign('sha256', Buffer.from(signed), { key, dsaEncoding: 'ieee-p1363' });
  return `vapid t=${signed}.${signature.toString('base64url')}, k=${vapidPublicKey(key)}`;
}

test('the fake push service accepts only what a real one accepts and an app could read', async (t) => {
  const fake = await startFakeWebPush();
  t.after(() => fake.close());
  const { ca_file } = await fake.settings(await folder(t));
  const ca = readFileSync(ca_file!);
  const { token: name, info } = fake.subscribe(randomBytes);
  const recipient = { p256dh: Buffer.from(info.p256dh, 'base64url'), auth: Buffer.from(info.auth, 'base64url') };
  const seal = (text: string, to = recipient) => encrypt(Buffer.from(text), to, randomBytes);
  const good = seal('{"enc_payload":"AAEC","spns":"1"}');
  const aud = `https://localhost:${fake.port}`;
  const exp = Math.floor(Date.now() / 1000) + 3_600;
  const sub = 'mailto:push@example.org';
  const headers = {
    authorization: token(fake.key, { aud, exp, sub }),
    'content-encoding': 'aes128gcm',
    'content-type': 'application/octet-stream',
    'content-length': String(good.length),
    ttl: '60',
    urgency: 'high',
  };
  const send = ({ url = info.endpoint, ...asked }: Partial<Asked> & { url?: string }) => {
    const { body = good } = asked;
    const length = { 'content-length': String(body.length) };
    return ask(url, ca, { body, ...asked, headers: { ...headers, ...length, ...asked.headers } });
  };

  assert.equal(await send({ method: 'PUT' }), 405);
  assert.equal(await send({ url: `${info.endpoint}x` }), 404);
  const other = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
  for (const [authorization, status] of [
    [undefined, 401],
    ['vapid', 401],
    [headers.authorization.replace('vapid', 'WebPush'), 401],
    [token(other, { aud, exp, sub }), 403],
    [token(other, { aud, exp, sub }).replace(/k=.*/, `k=${vapidPublicKey(fake.key)}`), 401],
    [token(fake.key, { aud, exp, sub }, { typ: 'JWT', alg: 'none' }), 401],
    [token(fake.key, { aud: 'https://localhost', exp, sub }), 401],
    [token(fake.key, { aud, exp: exp - 7_200, sub }), 401],
    [token(fake.key, { aud, exp: exp + 24 * 3_600, sub }), 401],
    [token(fake.key, { aud, exp }), 401],
  ] as const) {
    assert.equal(await send({ headers: { authorization } }), status, authorization);
  }
  for (const changed of [
    { ttl: undefined },
    { ttl: '-1' },
    { ttl: '2419201' },
    { urgency: undefined },
    { urgency: 'HIGH' },
    { topic: 'x' },
    { 'content-encoding': 'aesgcm' },
    { 'content-encoding': undefined },
    { 'content-type': 'application/json' },
  ]) {
    assert.equal(await send({ headers: changed }), 400, JSON.stringify(changed));
  }
  assert.equal(await send({ body: Buffer.concat([good, Buffer.alloc(4096)]) }), 413);
  const cut = Buffer.from(good);
  cut[good.length - 1]! ^= 1;
  for (const body of [
    Buffer.alloc(0),
    Buffer.alloc(100),
    cut,
    good.subarray(0, -1),
    seal('AAEC'),
    seal('{"enc_payload":"AAE","spns":"1"}'),
    seal('{"enc_payload":"AAEC"}'),
    seal('{"enc_payload":"AAEC","spns":1}'),
    seal('{"enc_payload":"AAEC","spns":"1","more":1}'),
    seal('{"enc_payload":"AAEC","spns":"1"}', { ...recipient, auth: randomBytes(16) }),
  ]) {
    assert.equal(await send({ body }), 400, body.toString('hex').slice(0, 60));
  }
  assert.equal(fake.taken.count, 0);
  assert.equal(await send({}), 201);
  assert.deepEqual(fake.taken.pushes[0]!.payload, Buffer.from([0, 1, 2]));
  assert.equal(fake.taken.pushes[0]!.token, name);
});
