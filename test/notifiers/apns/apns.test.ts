import assert from 'node:assert/strict';
import { constants } from 'node:http2';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type ApnsAnswer, type FakeApnsOptions, HIGHEST, startFakeApns } from '../../../src/devnet/providers/apns.ts';
import { create } from '../../../src/notifiers/apns/apns.ts';
import type { BackendContext, Outcome } from '../../../src/notifiers/runtime/backend.ts';
import { MAX_BODY } from '../../../src/session/payload.ts';
import { until } from '../../support/until.ts';
import { vectors } from '../../support/vectors.ts';
import { apnsToken, brief, contextOf, delivery, FakeClock, folder } from '../support.ts';

async function setUp(
  t: TestContext,
  options: FakeApnsOptions = {},
  keys: Record<string, string> = {},
  more: Partial<BackendContext> = {},
) {
  const fake = await startFakeApns(options);
  const settings = await fake.settings(await folder(t));
  const backend = await create(contextOf('apns', { ...settings, connections: '1', ...keys }, more));
  t.after(async () => {
    // What hangs keeps a graceful end waiting; the fake ends first.
    await fake.close();
    await backend.close!();
  });
  const send = async (token = apnsToken(1), more = {}): Promise<Outcome> =>
    (await backend.send([delivery(token, more)]))[0]!;
  return { fake, backend, send, settings };
}

interface PushVector {
  name: string;
  requests: { device_token: string; body: string; init: { topic: string }; priority: string; push_type: string }[];
}

test('a push is what the original sends, with an expiry', async (t) => {
  const { fake, send } = await setUp(t);
  const [expected] = vectors<{ pushes: PushVector[] }>('notifiers.json').pushes.find(
    ({ name }) => name === 'apns with data',
  )!.requests;
  const body = JSON.parse(expected!.body);
  const expiry = Date.now() + 1_000_500;
  assert.deepEqual(await send(expected!.device_token, { payload: Buffer.from(body.enc_payload, 'base64'), expiry }), {
    kind: 'accepted',
  });
  const [push] = fake.taken.pushes;
  assert.equal(push!.token, expected!.device_token);
  assert.deepEqual(push!.body, body);
  assert.equal(push!.headers['apns-topic'], expected!.init.topic);
  assert.equal(push!.headers['apns-priority'], expected!.priority);
  assert.equal(push!.headers['apns-push-type'], expected!.push_type);
  assert.equal(push!.headers['apns-expiration'], String(Math.floor(expiry / 1000)));
  assert.equal(push!.headers[':path'], `/3/device/${expected!.device_token}`);
});

test('the largest payload that a hivemind seals fits, and nothing larger is sent', async (t) => {
  const { fake, send } = await setUp(t);
  // 2,500 bytes of body, metadata and padding: docs/spec/notifiers.md, section 2.
  assert.equal(MAX_BODY, 2500);
  assert.deepEqual(await send(apnsToken(1), { payload: Buffer.alloc(2856) }), { kind: 'accepted' });
  assert.ok(JSON.stringify(fake.taken.pushes[0]!.body).length <= 4096);
  assert.equal(brief(await send(apnsToken(2), { payload: Buffer.alloc(3000) })), 'refused: larger than 4096 bytes');
  assert.equal(fake.requests, 1);
});

test('a message that never expires is kept as long as Apple keeps it', async (t) => {
  const { fake, send } = await setUp(t);
  await send(apnsToken(1), { expiry: 0 });
  const expiration = Number(fake.taken.pushes[0]!.headers['apns-expiration']);
  assert.ok(Math.abs(expiration - Date.now() / 1000 - 30 * 86_400) < 60);
});

test('an invalid token is not sent: the device is gone', async (t) => {
  const { fake, send } = await setUp(t);
  for (const token of ['z'.repeat(64), '../'.repeat(21), 'a b'.padEnd(64), '']) {
    const outcome = await send(token);
    assert.equal(brief(outcome), 'gone: not a device token');
    assert.equal(outcome.kind === 'gone' && outcome.local, true);
  }
  assert.equal(fake.requests, 0);
});

/** Every row of the table of Apple's answers (providers: APNs). */
const ROWS: [ApnsAnswer, string][] = [
  [{ status: 410, reason: 'Unregistered', timestamp: 1_600_000_000_123 }, 'gone: Unregistered'],
  [{ status: 410, reason: 'ExpiredToken', timestamp: 1_600_000_000_123 }, 'gone: ExpiredToken'],
  [{ status: 410 }, 'gone: 410'],
  [{ status: 400, reason: 'BadDeviceToken' }, 'gone: BadDeviceToken'],
  [{ status: 400, reason: 'DeviceTokenNotForTopic' }, 'refused: DeviceTokenNotForTopic'],
  ...[
    'BadTopic',
    'MissingTopic',
    'TopicDisallowed',
    'BadCertificate',
    'BadCertificateEnvironment',
    'InvalidProviderToken',
    'MissingProviderToken',
    'UnrelatedKeyIdInToken',
    'BadEnvironmentKeyIdInToken',
    'Forbidden',
    'BadPath',
    'MethodNotAllowed',
  ].map((reason): [ApnsAnswer, string] => [
    { status: reason === 'BadPath' ? 404 : 403, reason },
    `misconfigured: ${reason}`,
  ]),
  [{ status: 403 }, 'misconfigured: 403'],
  ...['BadCollapseId', 'BadExpirationDate', 'BadMessageId', 'BadPriority', 'InvalidPushType', 'PayloadEmpty'].map(
    (reason): [ApnsAnswer, string] => [{ status: 400, reason }, `refused: ${reason}`],
  ),
  [{ status: 413, reason: 'PayloadTooLarge' }, 'refused: PayloadTooLarge'],
  [{ status: 400, reason: 'SomethingNew' }, 'refused: SomethingNew'],
  // What is no word is not repeated.
  [{ status: 400, reason: `no device ${'ab'.repeat(32)}` }, 'refused: 400'],
  [{ status: 410, body: '{"reason":{"a":1}}' }, 'gone: 410'],
  [{ status: 429, reason: 'TooManyRequests' }, 'retry: TooManyRequests'],
  [{ status: 429, reason: 'TooManyProviderTokenUpdates' }, 'retry: TooManyProviderTokenUpdates'],
  [{ status: 500, reason: 'InternalServerError' }, 'retry: 500'],
  [{ status: 503, reason: 'ServiceUnavailable' }, 'retry: 503 ServiceUnavailable'],
  [{ status: 503, reason: 'Shutdown' }, 'retry: 503 Shutdown'],
  [{ status: 503 }, 'retry: 503'],
  [{ status: 400, reason: 'IdleTimeout' }, 'retry: IdleTimeout'],
  [{ status: 502, body: '<html>bad gateway</html>' }, 'retry: 502'],
  [{ status: 429, body: '<html>slow down</html>' }, 'retry: 429'],
  [{ status: 200, body: 'taken, but not said in JSON' }, 'accepted'],
  [{ status: 410, body: '<html>gone</html>' }, 'retry: connection trouble'],
  [{ reset: constants.NGHTTP2_REFUSED_STREAM }, 'retry: connection trouble (NGHTTP2_REFUSED_STREAM)'],
  [{ reset: constants.NGHTTP2_CANCEL }, 'retry: connection trouble (ECONNRESET)'],
  [{ reset: constants.NGHTTP2_NO_ERROR }, 'retry: connection trouble (ECONNRESET)'],
  // Not looked at: it went again over another connection.
  [{ goaway: constants.NGHTTP2_NO_ERROR }, 'accepted'],
  [{ goaway: constants.NGHTTP2_ENHANCE_YOUR_CALM }, 'retry: connection trouble (NGHTTP2_REFUSED_STREAM)'],
  [{ cut: true }, 'retry: connection trouble (ECONNRESET)'],
];

test('every answer of Apple has its outcome, and the next push is accepted', async (t) => {
  const { fake, send } = await setUp(t);
  for (const [answer, expected] of ROWS) {
    fake.script.next(answer);
    const outcome = await send();
    assert.equal(brief(outcome), expected, JSON.stringify(answer));
    if (outcome.kind === 'gone') {
      const now = Math.abs(outcome.time - Date.now()) < 60_000;
      assert.ok(answer.timestamp === undefined ? now : outcome.time === answer.timestamp, JSON.stringify(answer));
    }
    if (outcome.kind === 'retry') {
      const whom =
        { TooManyRequests: 'device', 429: 'device', TooManyProviderTokenUpdates: 'everyone' }[outcome.reason] ??
        'provider';
      assert.equal(outcome.whom, whom);
      assert.equal((outcome.after ?? 0) >= 60_000, whom !== 'provider');
    }
    assert.deepEqual(await send(), { kind: 'accepted' }, `after ${JSON.stringify(answer)}`);
  }
});

test('a provider token that has expired is renewed once for all, and the pushes are sent again', async (t) => {
  const { fake, backend } = await setUp(t, { auth: 'token' }, { connections: '3' });
  await Promise.all(Array.from({ length: 3 }, (_, index) => backend.send([delivery(apnsToken(index))])));
  assert.equal(fake.tokens.size, 1);
  for (let index = 0; index < 30; index++) {
    fake.script.device(apnsToken(index), { status: 403, reason: 'ExpiredProviderToken' });
  }
  // Tokens made within one second are alike.
  await sleep(1_050);
  const outcomes = await Promise.all(
    Array.from({ length: 30 }, (_, index) => backend.send([delivery(apnsToken(index))])),
  );
  assert.deepEqual(new Set(outcomes.map(([outcome]) => brief(outcome!))), new Set(['accepted']));
  assert.equal(fake.tokens.size, 2);
  assert.equal(fake.requests, 3 + 30 + 30);
});

test('if the new provider token has expired too, our clock is wrong, and no third one is made', async (t) => {
  const { fake, send } = await setUp(t, { auth: 'token' });
  fake.script.all = { status: 403, reason: 'ExpiredProviderToken' };
  for (let index = 0; index < 3; index++) {
    assert.equal(brief(await send()), 'misconfigured: ExpiredProviderToken again; is the clock of this machine right?');
  }
  assert.equal(fake.requests, 6);
  assert.ok(fake.tokens.size <= 2);
});

test('pushes sent before Apple allows more than one stream wait, and all are accepted', async (t) => {
  const { fake, backend } = await setUp(t, {}, { connections: '2' });
  const outcomes = await Promise.all(
    Array.from({ length: 400 }, (_, index) => backend.send([delivery(apnsToken(index))])),
  );
  assert.deepEqual(new Set(outcomes.map(([outcome]) => brief(outcome!))), new Set(['accepted']));
  assert.equal(fake.connections, 2);
});

/**
 * Sends so many pushes at once over one connection, where a first one has been accepted. The fake takes them, and
 * answers none of them until it is told to.
 */
async function inFlight(t: TestContext, count: number, more: FakeApnsOptions = {}) {
  const options: { -readonly [Option in keyof FakeApnsOptions]: FakeApnsOptions[Option] } = { ...more };
  const { fake, backend, send } = await setUp(t, options);
  await send(apnsToken(100_000));
  const { promise, resolve } = Promise.withResolvers<void>();
  options.held = promise;
  /** Has what comes from now on answered at once. */
  const holdNoMore = () => delete options.held;
  /** Has everything answered, what has come before as well. */
  const answer = () => {
    holdNoMore();
    resolve();
  };
  const times = new Map<string, number>();
  fake.taken.onPush = ({ token }) => times.set(token, (times.get(token) ?? 0) + 1);
  const outcomes = Promise.all(
    Array.from({ length: count }, async (_, index) => (await backend.send([delivery(apnsToken(index))]))[0]!),
  );
  /** Every phone rang, and how many rang twice. */
  const check = async () => {
    const kinds = (await outcomes).map(brief);
    return { kinds: new Set(kinds), rang: times.size, twice: [...times.values()].filter((one) => one > 1).length };
  };
  const once = { kinds: new Set(['accepted']), rang: count, twice: 0 };
  return { fake, send, answer, holdNoMore, check, outcomes, once };
}

test('a GOAWAY in two steps, as Apple sends it: no phone rings twice, and none is left out', async (t) => {
  const { fake, answer, check, once } = await inFlight(t, 1_000, { streams: 700 });
  // 700 were taken, the others wait for a stream.
  await fake.taken.reached(1 + 700);
  fake.goaway(HIGHEST);
  await fake.heard();
  fake.goaway();
  answer();
  assert.deepEqual(await check(), once);
  assert.equal(fake.connections, 2);
});

test('what is above the last stream of a GOAWAY was not processed and goes again once', async (t) => {
  const { fake, answer, check, once } = await inFlight(t, 300);
  // The first push was stream 1; 100 of those in flight are at or below stream 201.
  fake.lookUpTo(201);
  await fake.asked(1 + 100);
  fake.goaway();
  answer();
  assert.deepEqual(await check(), once);
  assert.equal(fake.requests, 1 + 300);
});

test('a GOAWAY that names ever lower streams, and the same one again and again', async (t) => {
  const { fake, answer, check, once } = await inFlight(t, 100);
  await fake.taken.reached(1 + 100);
  for (const last of [HIGHEST, HIGHEST, 100_001, 1_001, 801]) fake.goaway(last);
  for (let time = 0; time < 50; time++) fake.goaway();
  answer();
  assert.deepEqual(await check(), once);
});

test('pushes after a GOAWAY go over a new connection at once', async (t) => {
  const { fake, send, answer, check, once } = await inFlight(t, 50);
  await fake.taken.reached(1 + 50);
  fake.goaway(HIGHEST);
  await fake.heard();
  const sent = send(apnsToken(200_000));
  // Before any of those on the connection before is answered.
  await fake.taken.reached(1 + 50 + 1);
  assert.equal(fake.connections, 2);
  answer();
  assert.deepEqual(await sent, { kind: 'accepted' });
  fake.goaway();
  assert.deepEqual(await check(), { ...once, rang: 51 });
});

test('a GOAWAY with an error does not lose the answers that still come', async (t) => {
  const { fake, answer, check, once } = await inFlight(t, 100);
  await fake.taken.reached(1 + 100);
  fake.goaway(undefined, constants.NGHTTP2_ENHANCE_YOUR_CALM);
  answer();
  assert.deepEqual(await check(), once);
});

test('a connection that ends after its GOAWAY leaves only what it had accepted in doubt', async (t) => {
  const { fake, outcomes } = await inFlight(t, 100);
  await fake.taken.reached(1 + 100);
  fake.goaway();
  fake.cut();
  assert.deepEqual(new Set((await outcomes).map(({ kind }) => kind)), new Set(['retry']));
});

test('what is never answered after a GOAWAY is waited for as long as anything else, and goes again', async (t) => {
  const clock = new FakeClock(Date.now());
  const { fake, backend, send } = await setUp(t, {}, { timeout: '0.5' }, { clock });
  await send();
  fake.script.next({ hang: true });
  const hanging = backend.send([delivery(apnsToken(1))]);
  await fake.asked(2);
  fake.goaway();
  await fake.heard();
  await clock.advance(500);
  assert.equal(brief((await hanging)[0]!), 'retry: no answer in time');
  assert.deepEqual(await send(), { kind: 'accepted' });
  assert.equal(fake.connections, 2);
});

test('a stream that is refused before a GOAWAY, or with it, rings once', async (t) => {
  const { fake, backend, send } = await setUp(t);
  await send();
  fake.script.device(apnsToken(7), { goaway: constants.NGHTTP2_NO_ERROR }, { goaway: constants.NGHTTP2_NO_ERROR });
  // A server that always sends GOAWAY is not asked for ever: the common policy has the next attempt.
  assert.match(brief((await backend.send([delivery(apnsToken(7))]))[0]!), /^retry: connection trouble/);
  assert.deepEqual(await send(apnsToken(7)), { kind: 'accepted' });
  assert.equal(fake.taken.count, 2);
});

test('two answers of 500 do not affect the rest on the same connection', async (t) => {
  const { fake, answer, holdNoMore, check, once, send } = await inFlight(t, 50);
  await fake.taken.reached(1 + 50);
  holdNoMore();
  fake.script.device(apnsToken(300_000), { status: 500, reason: 'InternalServerError' });
  fake.script.device(apnsToken(300_001), { status: 500, reason: 'InternalServerError' });
  await Promise.all([send(apnsToken(300_000)), send(apnsToken(300_001))]);
  answer();
  assert.deepEqual(await check(), once);
});

test('a connection that falls silent is given up after its time, and the next push goes over a new one', async (t) => {
  const clock = new FakeClock(Date.now());
  const { fake, send } = await setUp(t, {}, { timeout: '0.5' }, { clock });
  await send();
  fake.freeze();
  await clock.advance(1);
  const unanswered = send();
  await until(() => clock.pending > 0);
  await clock.advance(500);
  assert.equal(brief(await unanswered), 'retry: no answer in time');
  assert.deepEqual(await send(), { kind: 'accepted' });
  assert.equal(fake.connections, 2);
});

test('a server that cannot be reached or trusted is a temporary problem', async (t) => {
  const { fake, settings } = await setUp(t);
  for (const [keys, expected] of [
    [{ ca_file: '' }, /connection trouble/],
    // Too long to be a name: no name server is asked, which might take longer than a push may.
    [{ host: `${'x'.repeat(64)}.invalid` }, /connection trouble/],
    [{ port: '1' }, /connection trouble/],
  ] as const) {
    const backend = await create(contextOf('apns', { ...settings, ...keys }));
    const [outcome] = await backend.send([delivery(apnsToken(1))]);
    assert.equal(outcome!.kind, 'retry');
    assert.match(brief(outcome!), expected);
    await backend.close!();
  }
  assert.equal(fake.requests, 0);
});

test('wrong credentials are reported at the start, in sentences', async (t) => {
  const { settings } = await setUp(t);
  const { settings: token } = await setUp(t, { auth: 'token' });
  const self = new URL('../../../src/clock.ts', import.meta.url).pathname;
  const server = new URL('../../../src/devnet/providers/certificates/server.pem', import.meta.url).pathname;
  const ca = settings.ca_file!;
  for (const [keys, expected] of [
    [{ ...settings, identifier: '' }, /identifier: is required/],
    [{ ...settings, cert_file: '' }, /cert_file: is required and not set: add it, or key_file/],
    [{ ...settings, cert_file: '/no/such' }, /cert_file = \/no\/such: does not exist/],
    [{ ...settings, cert_file: self }, /cert_file.*holds no certificate/],
    [{ ...settings, cert_file: ca }, /cert_file.*holds no private key/],
    [{ ...token, cert_file: settings.cert_file! }, /key_file.*set together with cert_file/],
    [{ ...token, key_file: self }, /key_file.*holds no private key.*\.p8/],
    [{ ...token, key_file: settings.cert_file! }, /key_file.*the wrong kind of key/],
    [{ ...token, key_id: 'short' }, /key_id = short: must be 10 capital/],
    [{ ...token, team_id: '' }, /team_id: is required/],
    [{ ...settings, connections: '0' }, /connections = 0: must be at least 1/],
  ] as const) {
    assert.throws(() => create(contextOf('apns', keys)), expected);
  }
  // A good key of the right kind in the wrong place is not noticed by its form alone: node:crypto takes any EC key.
  assert.doesNotThrow(() => create(contextOf('apns', { ...token, key_file: server })));
});

test('the expiry of a certificate is known, and an expired one is refused', async (t) => {
  const { settings, backend } = await setUp(t);
  assert.equal(backend.credentialExpiry, Date.UTC(2120, 0, 1));
  const clock = new FakeClock(Date.UTC(2120, 0, 2));
  assert.throws(() => create(contextOf('apns', settings, { clock })), /expired on 2120-01-01/);
  clock.jump(-200 * 365 * 86_400_000);
  assert.throws(() => create(contextOf('apns', settings, { clock })), /only valid from 2020-01-01: is the clock right/);
});
