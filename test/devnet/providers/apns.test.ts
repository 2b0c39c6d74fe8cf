import assert from 'node:assert/strict';
import { createPrivateKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { type ClientHttp2Session, connect, type OutgoingHttpHeaders } from 'node:http2';
import { type TestContext, test } from 'node:test';
import { type FakeApnsOptions, startFakeApns } from '../../../src/devnet/providers/apns.ts';
import { folder } from '../../notifiers/support.ts';

const DEVICE = 'ab'.repeat(32);
const HEADERS = {
  ':method': 'POST',
  ':path': `/3/device/${DEVICE}`,
  'apns-topic': 'com.loki-project.loki-messenger',
  'apns-push-type': 'alert',
  'apns-priority': '10',
  'apns-expiration': '0',
};
const ALERT = { title: 'Session', body: 'x' };
const BODY = { aps: { alert: ALERT, 'mutable-content': 1 }, spns: 1, enc_payload: 'AAEC' };

async function setUp(t: TestContext, options: FakeApnsOptions = {}) {
  const fake = await startFakeApns(options);
  const settings = await fake.settings(await folder(t));
  const open = (tls: object = {}) => {
    const session = connect(`https://127.0.0.1:${fake.port}`, { ca: readFileSync(settings.ca_file!), ...tls });
    session.on('error', () => {});
    t.after(() => session.destroy());
    return session;
  };
  t.after(() => fake.close());
  return { fake, settings, open };
}

/** Status, and what Apple says for it. */
function ask(session: ClientHttp2Session, headers: OutgoingHttpHeaders, body: unknown = BODY): Promise<string> {
  return new Promise((resolve, reject) => {
    const stream = session.request({ ...HEADERS, ...headers });
    let status: unknown;
    let text = '';
    stream.setEncoding('utf8');
    stream.on('response', (response) => {
      status = response[':status'];
    });
    stream.on('data', (chunk) => {
      text += chunk;
    });
    stream.on('end', () => resolve(text === '' ? String(status) : `${status} ${JSON.parse(text).reason}`));
    stream.on('error', reject);
    stream.end(typeof body === 'string' ? body : JSON.stringify(body));
  });
}

test('the fake Apple accepts what Apple accepts and a phone would show', async (t) => {
  const { fake, settings, open } = await setUp(t);
  const pem = readFileSync(settings.cert_file!);
  const session = open({ cert: pem, key: pem });
  const month = Math.floor(Date.now() / 1000) + 30 * 86_400;
  for (const headers of [
    {},
    { ':path': `/3/device/${'AB'.repeat(54)}` },
    { ':path': `/3/device/${'0'.repeat(400)}` },
    { 'apns-id': crypto.randomUUID(), 'apns-collapse-id': 'x'.repeat(64), 'apns-expiration': String(month) },
  ]) {
    assert.equal(await ask(session, headers), '200', JSON.stringify(headers));
  }
  assert.equal(fake.taken.count, 4);
  assert.deepEqual(fake.taken.pushes[0]!.payload, Buffer.from([0, 1, 2]));
});

test('the fake Apple refuses everything else, and counts none of it', async (t) => {
  const { fake, settings, open } = await setUp(t);
  const pem = readFileSync(settings.cert_file!);
  const session = open({ cert: pem, key: pem });
  const now = Math.floor(Date.now() / 1000);
  for (const [headers, expected] of [
    [{ ':method': 'PUT' }, '405 MethodNotAllowed'],
    [{ ':path': '/3/devices/ab' }, '404 BadPath'],
    [{ ':scheme': 'http' }, '400 BadPath'],
    ...['z'.repeat(64), 'ab'.repeat(31), 'a'.repeat(65), 'a'.repeat(402), '', `${'ab'.repeat(32)}%20`].map(
      (token) => [{ ':path': `/3/device/${token}` }, '400 BadDeviceToken'] as const,
    ),
    [{ 'apns-topic': '' }, '400 MissingTopic'],
    [{ 'apns-topic': 'com.example' }, '400 BadTopic'],
    [{ 'apns-push-type': 'background' }, '400 InvalidPushType'],
    [{ 'apns-priority': '3' }, '400 BadPriority'],
    [{ 'apns-expiration': '' }, '400 BadExpirationDate'],
    [{ 'apns-expiration': 'tomorrow' }, '400 BadExpirationDate'],
    [{ 'apns-expiration': String(now + 31 * 86_400) }, '400 BadExpirationDate'],
    [{ 'apns-expiration': String(Date.now()) }, '400 BadExpirationDate'],
    [{ 'apns-id': 'one' }, '400 BadMessageId'],
    [{ 'apns-collapse-id': 'x'.repeat(65) }, '400 BadCollapseId'],
  ] as const) {
    assert.equal(await ask(session, headers), expected, JSON.stringify(headers));
  }
  for (const [body, expected] of [
    ['', '400 PayloadEmpty'],
    [{ ...BODY, more: 'x'.repeat(4096) }, '413 PayloadTooLarge'],
    ['{"aps":', '400 BadPayload'],
    ['[]', '400 BadPayload'],
    [{ ...BODY, aps: undefined }, '400 BadPayload'],
    [{ ...BODY, aps: { alert: ALERT } }, '400 BadPayload'],
    [{ ...BODY, aps: { 'mutable-content': 1 } }, '400 BadPayload'],
    [{ ...BODY, spns: undefined }, '400 BadPayload'],
    ...[undefined, '', 5, 'AAE', '*A=='].map((text) => [{ ...BODY, enc_payload: text }, '400 BadPayload'] as const),
  ] as const) {
    assert.equal(await ask(session, {}, body), expected, JSON.stringify(body).slice(0, 100));
  }
  assert.equal(fake.taken.count, 0);
});

test('the fake Apple refuses clients without a certificate issued by it', async (t) => {
  const { fake, open } = await setUp(t);
  assert.equal(await ask(open(), {}), '403 BadCertificate');
  assert.equal(fake.taken.count, 0);
});

test('the fake Apple refuses a provider token that is not signed with the key, by the team, within the hour', async (t) => {
  const { fake, settings, open } = await setUp(t, { auth: 'token' });
  const session = open();
  const good = createPrivateKey(readFileSync(settings.key_file!));
  const { privateKey: another } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const now = Math.floor(Date.now() / 1000);
  const jwt = (header = {}, claims = {}, key: KeyObject = good) => {
    const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const head = { alg: 'ES256', kid: settings.key_id!, ...header };
    const text = `${part(head)}.${part({ iss: settings.team_id!, iat: now, ...claims })}`;
    return `${text}.${sign('sha256', Buffer.from(text), { key, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
  };
  const bearer = (token: string) => ({ authorization: `bearer ${token}` });
  for (const [headers, expected] of [
    [{}, '403 MissingProviderToken'],
    [{ authorization: jwt() }, '403 MissingProviderToken'],
    [bearer('x'), '403 InvalidProviderToken'],
    [bearer(jwt({}, {}, another)), '403 InvalidProviderToken'],
    [bearer(jwt({ alg: 'none' })), '403 InvalidProviderToken'],
    [bearer(jwt({ kid: 'OTHERKEY01' })), '403 InvalidProviderToken'],
    [bearer(jwt({}, { iss: 'OTHERTEAM1' })), '403 InvalidProviderToken'],
    [bearer(jwt({}, { iat: now + 3_600 })), '403 InvalidProviderToken'],
    [bearer(jwt({}, { iat: undefined })), '403 InvalidProviderToken'],
    [bearer(jwt({}, { iat: String(now) })), '403 InvalidProviderToken'],
    [bearer(jwt({}, { iat: now - 3_601 })), '403 ExpiredProviderToken'],
    [bearer(jwt()), '200'],
  ] as const) {
    assert.equal(await ask(session, headers), expected, JSON.stringify(headers));
  }
  assert.equal(fake.taken.count, 1);
});
