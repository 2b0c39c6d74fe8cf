import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { startFakeFcm } from '../../../src/devnet/providers/fcm.ts';
import { fcmError, violation } from '../../../src/devnet/providers/fcm-checks.ts';
import { HTML_PAGE, type WebAnswer } from '../../../src/devnet/providers/http.ts';
import type { FakeOptions } from '../../../src/devnet/providers/script.ts';
import { create } from '../../../src/notifiers/firebase/firebase.ts';
import type { Outcome } from '../../../src/notifiers/runtime/backend.ts';
import { vectors } from '../../support/vectors.ts';
import { type AnswerRow, brief, checkAnswers, contextOf, delivery, folder } from '../support.ts';

async function setUp(t: TestContext, keys: Record<string, string> = {}, options: FakeOptions = {}) {
  const fake = await startFakeFcm(options);
  const path = await folder(t);
  const settings = await fake.settings(path);
  const backend = await create(contextOf('firebase', { ...settings, ...keys }));
  t.after(async () => {
    await backend.close!();
    await fake.close();
  });
  const send = async (token = 'token', more = {}): Promise<Outcome> =>
    (await backend.send([delivery(token, more)]))[0]!;
  return { fake, backend, send, settings, path };
}

test('a push is what the original sends, with priority and time to live, and without the request not to send it', async (t) => {
  const { fake, send } = await setUp(t);
  const { pushes } = vectors<{ pushes: { name: string; requests: { body: string }[] }[] }>('notifiers.json');
  const cases = pushes.filter(({ name, requests }) => name.startsWith('firebase') && requests.length > 0);
  assert.ok(cases.length >= 4);
  for (const { requests } of cases) {
    const { message } = JSON.parse(requests[0]!.body);
    const payload = Buffer.from(message.data.enc_payload, 'base64');
    assert.deepEqual(await send(message.token, { payload, expiry: Date.now() + 90_500 }), { kind: 'accepted' });
    const { body, headers } = fake.taken.pushes.at(-1)!;
    const { android, ...same } = (body as { message: Record<string, unknown> & { android: Record<string, string> } })
      .message;
    // Deliberate differences: android is new, and validate_only: false is left out, for that is what FCM takes it for.
    assert.deepEqual(same, message);
    assert.equal(android.priority, 'HIGH');
    assert.match(android.ttl!, /^(90|89|88)s$/);
    assert.equal(headers.authorization, 'Bearer fake-access-token-1');
  }
});

test('only what the app will show wakes the phone at once', async (t) => {
  const { fake, send } = await setUp(t);
  const priorities: unknown[] = [];
  for (const urgent of [true, false]) {
    await send('token', { urgent });
    priorities.push(
      (fake.taken.pushes.at(-1)!.body as { message: { android: { priority: string } } }).message.android.priority,
    );
  }
  assert.deepEqual(priorities, ['HIGH', 'NORMAL']);
});

test('time to live is within what Google accepts', async (t) => {
  const { fake, send } = await setUp(t);
  const ttls: unknown[] = [];
  for (const expiry of [0, Date.now() + 1e12, Date.now() - 5]) {
    await send('token', { expiry });
    ttls.push((fake.taken.pushes.at(-1)!.body as { message: { android: { ttl: string } } }).message.android.ttl);
  }
  assert.deepEqual(ttls, ['2419200s', '2419200s', '0s']);
});

test('a batch of 500 goes over one connection, and each push has its own outcome', async (t) => {
  const { fake, backend } = await setUp(t);
  fake.script.device('d7', fcmError(404, 'NOT_FOUND', 'UNREGISTERED'));
  fake.script.device('d8', fcmError(503, 'UNAVAILABLE', 'UNAVAILABLE'));
  const pushes = Array.from({ length: 500 }, (_, index) => delivery(`d${index}`));
  pushes[9] = delivery('d9', { payload: Buffer.alloc(3100) });
  const outcomes = await backend.send(pushes);
  assert.equal(outcomes.length, 500);
  assert.equal(brief(outcomes[7]!), 'gone: UNREGISTERED');
  assert.equal(brief(outcomes[8]!), 'retry: 503 UNAVAILABLE');
  assert.equal(brief(outcomes[9]!), 'refused: larger than 4096 bytes');
  assert.equal(outcomes.filter(({ kind }) => kind === 'accepted').length, 497);
  // One connection for the access token, one for the batch; and the library did not try again by itself.
  assert.equal(fake.connections, 2);
  assert.equal(fake.requests, 499);
});

const retryIn = (seconds: string): WebAnswer => ({
  ...fcmError(503, 'UNAVAILABLE', 'UNAVAILABLE'),
  headers: { 'retry-after': seconds },
});
const invalid = (words: string, ...details: object[]) =>
  fcmError(400, 'INVALID_ARGUMENT', 'INVALID_ARGUMENT', words, details);
const dead = 'The registration token is not a valid FCM registration token';

/** Every row of the table of Google's answers (providers: FCM HTTP v1). */
const ROWS: AnswerRow[] = [
  [fcmError(404, 'NOT_FOUND', 'UNREGISTERED'), 'gone: UNREGISTERED'],
  [fcmError(404, 'NOT_FOUND', 'UNREGISTERED_FID'), 'gone: UNREGISTERED_FID'],
  [fcmError(404, 'NOT_FOUND'), 'misconfigured: 404 NOT_FOUND'],
  [{ status: 404, body: HTML_PAGE }, 'retry: 404 without an FCM error', 0],
  [{ status: 404, body: '' }, 'retry: 404 without an FCM error', 0],
  [fcmError(400, 'INVALID_ARGUMENT', 'INVALID_ARGUMENT', 'Invalid value at message.data'), 'refused: INVALID_ARGUMENT'],
  [fcmError(400, 'INVALID_ARGUMENT', 'INVALID_ARGUMENT', dead), 'gone: not a valid FCM registration token'],
  [fcmError(400, 'INVALID_ARGUMENT', undefined, dead), 'gone: not a valid FCM registration token'],
  // Where fields are named, they decide, and not the words.
  ...['', 'Invalid registration token', dead].flatMap((words): AnswerRow[] => [
    [invalid(words, violation('message.token', words)), 'gone: not a valid FCM registration token'],
    [
      invalid(words, violation('message.android.ttl'), violation('message.token')),
      'gone: not a valid FCM registration token',
    ],
    [invalid(words, violation('message.data', 'Invalid registration token')), 'refused: INVALID_ARGUMENT'],
    [invalid(words, violation('message.token.x')), 'refused: INVALID_ARGUMENT'],
    [invalid(words, { ...violation(''), fieldViolations: 'message.token' }), 'refused: INVALID_ARGUMENT'],
    [invalid(words, { ...violation(''), fieldViolations: [null, 5] }), 'refused: INVALID_ARGUMENT'],
  ]),
  [invalid('Invalid registration token', { ...violation('message.token'), '@type': 'x' }), 'refused: INVALID_ARGUMENT'],
  [fcmError(403, 'PERMISSION_DENIED', 'SENDER_ID_MISMATCH'), 'refused: SENDER_ID_MISMATCH'],
  [fcmError(429, 'RESOURCE_EXHAUSTED', 'QUOTA_EXCEEDED'), 'retry: QUOTA_EXCEEDED', 60_000, 'everyone'],
  [
    { ...fcmError(429, 'RESOURCE_EXHAUSTED', 'QUOTA_EXCEEDED'), headers: { 'retry-after': '7' } },
    'retry: QUOTA_EXCEEDED',
    7_000,
    'everyone',
  ],
  [{ status: 429, body: HTML_PAGE }, 'retry: 429', 60_000, 'everyone'],
  [fcmError(503, 'UNAVAILABLE', 'UNAVAILABLE'), 'retry: 503 UNAVAILABLE', 10_000],
  [retryIn('33'), 'retry: 503 UNAVAILABLE', 33_000],
  [{ status: 503, body: HTML_PAGE }, 'retry: 503', 10_000],
  [fcmError(500, 'INTERNAL', 'INTERNAL'), 'retry: 500 INTERNAL', 10_000],
  [{ status: 502, body: HTML_PAGE }, 'retry: 502', 10_000],
  [fcmError(401, 'UNAUTHENTICATED', 'THIRD_PARTY_AUTH_ERROR'), 'refused: THIRD_PARTY_AUTH_ERROR'],
  [fcmError(403, 'PERMISSION_DENIED'), 'misconfigured: PERMISSION_DENIED'],
  [{ status: 403, body: HTML_PAGE }, 'misconfigured: 403'],
  [fcmError(418, 'TEAPOT'), 'refused: 418 TEAPOT'],
  [{ status: 500, body: '{"error":' }, 'retry: 500', 10_000],
  [
    { body: { name: 'projects/fake-project/messages/1' }, truncate: true },
    'retry: an answer that makes no sense (200)',
    0,
  ],
  [{ cut: true }, 'retry: connection trouble', 0],
];

test('every answer of Google has its outcome, and the next push is accepted', async (t) => {
  const { fake, send } = await setUp(t);
  await checkAnswers(ROWS, fake, send);
});

test('Retry-After as a date is respected', async (t) => {
  const { fake, send } = await setUp(t);
  fake.script.next(retryIn(new Date(Date.now() + 1_000_000).toUTCString()));
  const outcome = await send();
  const after = outcome.kind === 'retry' ? (outcome.after ?? 0) : 0;
  assert.ok(after > 900_000 && after <= 1_000_000, JSON.stringify(outcome));
});

test('an access token that is no longer accepted is renewed once for all, and only what failed is sent again', async (t) => {
  const { fake, backend } = await setUp(t);
  await backend.send([delivery('first')]);
  fake.expireTokens();
  const batch = () => backend.send(Array.from({ length: 50 }, (_, index) => delivery(`d${index}`)));
  const outcomes = (await Promise.all([batch(), batch(), batch(), batch()])).flat();
  assert.deepEqual(new Set(outcomes.map(brief)), new Set(['accepted']));
  assert.equal(fake.tokensGiven, 2);
  assert.equal(fake.taken.count, 201);
  fake.script.next(fcmError(401, 'UNAUTHENTICATED'), 1);
  const { requests } = fake;
  assert.deepEqual((await batch()).map(brief), Array(50).fill('accepted'));
  assert.equal(fake.requests, requests + 51);
});

test('if the new access token is not accepted either, our configuration is wrong', async (t) => {
  const { fake, send } = await setUp(t);
  fake.script.all = fcmError(401, 'UNAUTHENTICATED');
  assert.equal(brief(await send()), 'misconfigured: UNAUTHENTICATED with a new token');
  assert.equal(fake.requests, 2);
});

test('without an access token nothing is sent, and what the OAuth server says decides', async (t) => {
  const { fake, send } = await setUp(t);
  for (const [answer, expected] of [
    [{ status: 503, body: HTML_PAGE }, 'retry: OAuth: 503'],
    [{ status: 429, headers: { 'retry-after': '5' } }, 'retry: OAuth: 429'],
    [{ status: 400, body: { error: 'invalid_grant' } }, 'misconfigured: OAuth: 400 invalid_grant'],
    [{ status: 401, body: { error: 'invalid_client' } }, 'misconfigured: OAuth: 401 invalid_client'],
    [{ body: '{"access_token":"x' }, 'retry: OAuth: 200'],
    [{ cut: true }, 'retry: OAuth: connection trouble (ECONNRESET)'],
  ] as [WebAnswer, string][]) {
    fake.oauth.next(answer);
    assert.equal(brief(await send()), expected);
  }
  assert.equal(fake.requests, 0);
  assert.deepEqual(await send(), { kind: 'accepted' });
});

test('a GOAWAY in the middle of a batch: what Google had accepted is known to be, and the rest goes again', async (t) => {
  const { promise: held, resolve: answer } = Promise.withResolvers<void>();
  const options: { held?: Promise<void> } = {};
  const { fake, backend, send } = await setUp(t, {}, options);
  // With an access token, whose answer is not held back.
  await send('first');
  options.held = held;
  const tokens = Array.from({ length: 250 }, (_, index) => `d${index}`);
  const sending = backend.send(tokens.map((token) => delivery(token)));
  await fake.taken.reached(1 + 100);
  fake.goaway();
  fake.goaway();
  answer();
  const outcomes = await sending;
  const accepted = tokens.filter((_, index) => outcomes[index]!.kind === 'accepted');
  const taken = fake.taken.pushes.slice(1).map(({ token }) => token);
  assert.deepEqual(taken.sort(), accepted.sort());
  assert.equal(accepted.length, 100);
  for (const outcome of outcomes) assert.match(brief(outcome), /^(accepted|retry: connection trouble)$/);
});

test('a connection that is cut in the middle fails what was on it at once', async (t) => {
  const { fake, backend } = await setUp(t);
  fake.script.device('hangs', { hang: true });
  const sending = backend.send([delivery('hangs'), delivery('d1')]);
  await fake.taken.reached(1);
  fake.cut();
  // Whether the other's answer was still on its way is chance.
  const [first, second] = await sending;
  assert.equal(brief(first!), 'retry: connection trouble');
  assert.match(brief(second!), /^(accepted|retry: connection trouble)$/);
});

test('a service-account file that cannot be used is reported at the start, in sentences', async (t) => {
  const { settings, path } = await setUp(t);
  const good = JSON.parse(await (await import('node:fs/promises')).readFile(settings.token_file!, 'utf8'));
  const file = join(path, 'account.json');
  for (const [content, expected] of [
    ['not JSON', /token_file.*is not a JSON file/],
    ['null', /has no private_key/],
    [JSON.stringify({ ...good, project_id: undefined }), /has no project_id/],
    [JSON.stringify({ ...good, project_id: 'a/b' }), /has an invalid project_id/],
    [JSON.stringify({ ...good, client_email: 5 }), /has no client_email/],
    [JSON.stringify({ ...good, private_key: 'x' }), /private_key that cannot be read/],
    [JSON.stringify({ ...good, token_uri: 'http://x' }), /token_uri that is not an https/],
  ] as const) {
    await writeFile(file, content);
    assert.throws(() => create(contextOf('firebase', { ...settings, token_file: file })), expected);
  }
  assert.throws(() => create(contextOf('firebase', {})), /token_file: is required/);
  assert.throws(() => create(contextOf('firebase', { token_file: '/no/such' })), /does not exist/);
  assert.throws(
    () => create(contextOf('firebase', { ...settings, url: 'http://x' })),
    /url = http:\/\/x: must be an https/,
  );
});
