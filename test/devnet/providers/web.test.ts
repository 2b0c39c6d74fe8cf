import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { request } from 'node:https';
import { type TestContext, test } from 'node:test';
import { startFakeFcm } from '../../../src/devnet/providers/fcm.ts';
import { startFakeHuawei } from '../../../src/devnet/providers/huawei.ts';
import { readServiceAccount, tokenRequest } from '../../../src/notifiers/firebase/service-account.ts';
import { folder } from '../../notifiers/support.ts';

interface Asked {
  readonly method?: string;
  readonly headers?: Record<string, string>;
  /** Sent as JSON, or as it is if a string. */
  readonly body: unknown;
}

/** Sends a request with nothing of ours in between. */
function ask(url: string, ca: Buffer, { method = 'POST', headers = {}, body }: Asked) {
  return new Promise<{ status: number; text: string }>((resolve, reject) => {
    const outgoing = request(url, { method, ca, headers }, (incoming) => {
      const chunks: Buffer[] = [];
      incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
      incoming.on('end', () => resolve({ status: incoming.statusCode!, text: Buffer.concat(chunks).toString() }));
    });
    outgoing.on('error', reject);
    outgoing.end(typeof body === 'string' ? body : JSON.stringify(body));
  });
}

const FORM = { 'content-type': 'application/x-www-form-urlencoded' };
const JSON_TYPE = { 'content-type': 'application/json' };

async function google(t: TestContext) {
  const fake = await startFakeFcm();
  t.after(() => fake.close());
  const settings = await fake.settings(await folder(t));
  const ca = readFileSync(settings.ca_file!);
  const account = readServiceAccount(settings.token_file!);
  const post = (path: string, asked: Asked) => ask(`https://127.0.0.1:${fake.port}${path}`, ca, asked);
  return { fake, account, post };
}

test('the fake Google gives out access tokens only for a request that its service account has just signed', async (t) => {
  const { fake, account, post } = await google(t);
  const token = (body: string) => post('/token', { headers: FORM, body });
  const { privateKey: another } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const now = Date.now();
  for (const body of [
    '',
    'grant_type=client_credentials',
    tokenRequest(account, now).replace('jwt-bearer', 'other'),
    tokenRequest({ ...account, key: another }, now),
    tokenRequest({ ...account, keyId: 'other' }, now),
    tokenRequest({ ...account, email: 'somebody@else' }, now),
    tokenRequest({ ...account, tokenUri: 'https://127.0.0.1/token' }, now),
    tokenRequest(account, now - 3_700_000),
    tokenRequest(account, now + 3_700_000),
  ]) {
    assert.equal((await token(body)).status, 400, body);
  }
  assert.equal(fake.tokensGiven, 0);
  assert.equal((await token(tokenRequest(account, now))).status, 200);
  assert.equal(fake.tokensGiven, 1);
});

test('the fake Google accepts only what Google accepts and a phone would understand', async (t) => {
  const { fake, account, post } = await google(t);
  const { text } = await post('/token', { headers: FORM, body: tokenRequest(account, Date.now()) });
  const authorization = `Bearer ${JSON.parse(text).access_token}`;
  const path = '/v1/projects/fake-project/messages:send';
  const message = {
    token: 'one',
    data: { enc_payload: 'AAEC', spns: '1' },
    android: { priority: 'HIGH', ttl: '5s' },
  };
  const headers = { ...JSON_TYPE, authorization };
  const send = async (asked: Asked, to = path) => {
    const answer = await post(to, { headers, ...asked });
    const error = answer.text.startsWith('{') ? JSON.parse(answer.text).error : undefined;
    return `${answer.status}${error ? ` ${error.status}` : ''}`;
  };
  const good = { message };
  assert.equal(await send({ method: 'PUT', body: good }), '404 NOT_FOUND');
  assert.equal(await send({ body: good }, '/v1/projects/another/messages:send'), '404');
  assert.equal(await send({ headers: JSON_TYPE, body: good }), '401 UNAUTHENTICATED');
  assert.equal(await send({ headers: { ...headers, authorization: 'Bearer x' }, body: good }), '401 UNAUTHENTICATED');
  assert.equal(await send({ headers: { authorization }, body: good }), '400 INVALID_ARGUMENT');
  for (const body of [
    '',
    '{"message":',
    '[]',
    {},
    { message: [] },
    { ...good, validate_only: true },
    { ...good, other: 1 },
    ...[
      { token: undefined },
      { token: '' },
      { token: 5 },
      { token: 'a b' },
      { token: 'a'.repeat(5_000) },
      { topic: 'all' },
      { notification: {} },
      { android: undefined },
      { android: { ttl: '5s' } },
      { android: { ...message.android, priority: 'LOW' } },
      { android: { ...message.android, ttl: 5 } },
      { android: { ...message.android, ttl: '-5s' } },
      { android: { ...message.android, ttl: '2419201s' } },
      { data: undefined },
      { data: { enc_payload: 'AAEC' } },
      { data: { spns: '1' } },
      { data: { ...message.data, enc_payload: 'AAE' } },
      { data: { ...message.data, spns: 1 } },
      { data: { ...message.data, from: 'x' } },
      { data: { ...message.data, 'google.x': 'x' } },
      { data: { ...message.data, x: 'x'.repeat(4096) } },
    ].map((change) => ({ message: { ...message, ...change } })),
  ]) {
    assert.equal(await send({ body }), '400 INVALID_ARGUMENT', JSON.stringify(body).slice(0, 200));
  }
  assert.equal(fake.taken.count, 0);
  assert.equal(await send({ body: { ...good, validate_only: false } }), '200');
  assert.equal(fake.taken.count, 1);
  fake.expireTokens();
  assert.equal(await send({ body: good }), '401 UNAUTHENTICATED');
  assert.equal(fake.taken.count, 1);
});

test('the fake Huawei accepts only what Huawei accepts and a phone would understand', async (t) => {
  const fake = await startFakeHuawei();
  t.after(() => fake.close());
  const settings = await fake.settings(await folder(t));
  const ca = readFileSync(settings.ca_file!);
  const oauth = (body: Record<string, string>, headers: Record<string, string> = FORM) =>
    ask(settings.oauth_url!, ca, { headers, body: new URLSearchParams(body).toString() });
  const form = { grant_type: 'client_credentials', client_id: settings.app_id!, client_secret: settings.app_secret! };
  for (const wrong of [{ grant_type: 'x' }, { client_id: '1' }, { client_secret: 'x' }]) {
    assert.equal((await oauth({ ...form, ...wrong })).status, 400, JSON.stringify(wrong));
  }
  assert.equal((await oauth(form, JSON_TYPE)).status, 400);
  assert.equal(fake.tokensGiven, 0);
  const authorization = `Bearer ${JSON.parse((await oauth(form)).text).access_token}`;

  const headers = { ...JSON_TYPE, authorization };
  const url = `${settings.url}/v1/${settings.app_id}/messages:send`;
  const send = async (asked: Asked, to = url) => {
    const answer = await ask(to, ca, { headers, ...asked });
    return answer.text === '' ? String(answer.status) : JSON.parse(answer.text).code;
  };
  const message = {
    data: JSON.stringify({ enc_payload: 'AAEC', spns: '1' }),
    android: { urgency: 'HIGH', ttl: '5s' },
    token: ['one'],
  };
  const good = { validate_only: false, message };
  assert.equal(await send({ method: 'PUT', body: good }), '405');
  assert.equal(await send({ body: good }, `${settings.url}/v1/5/messages:send`), '404');
  assert.equal(await send({ headers: JSON_TYPE, body: good }), '80200001');
  assert.equal(await send({ headers: { ...headers, authorization: 'Bearer x' }, body: good }), '80200003');
  for (const [body, code] of [
    ['', '80100003'],
    ['{', '80100003'],
    ['[]', '80100003'],
    [{ validate_only: false }, '80100003'],
    [{ message }, '80100001'],
    [{ ...good, validate_only: true }, '80100001'],
    [{ ...good, other: 1 }, '80100001'],
    ...[
      [{ token: undefined }, '80100001'],
      [{ token: 'one' }, '80100001'],
      [{ token: [] }, '80100001'],
      [{ token: [''] }, '80100001'],
      [{ token: ['one', 'one'] }, '80100001'],
      [{ android: undefined }, '80100001'],
      [{ android: { ...message.android, urgency: 'high' } }, '80100001'],
      [{ android: { ...message.android, ttl: '0s' } }, '80100001'],
      [{ android: { ...message.android, ttl: '1296001s' } }, '80100001'],
      [{ notification: {} }, '80100001'],
      [{ data: undefined }, '80100001'],
      [{ data: 'no JSON' }, '80100001'],
      [{ data: JSON.stringify({ spns: '1' }) }, '80100001'],
      [{ data: JSON.stringify({ enc_payload: 'AAEC' }) }, '80100001'],
      [{ data: JSON.stringify({ enc_payload: 'AAE', spns: '1' }) }, '80100001'],
      [{ data: 'x'.repeat(4096) }, '80300008'],
    ].map(([change, code]) => [{ ...good, message: { ...message, ...(change as object) } }, code] as const),
  ] as const) {
    assert.equal(await send({ body }), code, JSON.stringify(body).slice(0, 200));
  }
  assert.equal(fake.taken.count, 0);
  fake.highAllowed = false;
  assert.equal(await send({ body: good }), '80300011');
  assert.equal(fake.taken.count, 0);
  fake.highAllowed = true;
  assert.equal(await send({ body: good }), '80000000');
  assert.equal(fake.taken.count, 1);
});
