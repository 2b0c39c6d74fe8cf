import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { HTML_PAGE } from '../../../src/devnet/providers/http.ts';
import { startFakeHuawei } from '../../../src/devnet/providers/huawei.ts';
import { huaweiCode } from '../../../src/devnet/providers/huawei-checks.ts';
import { create } from '../../../src/notifiers/huawei/huawei.ts';
import type { BackendContext, Outcome } from '../../../src/notifiers/runtime/backend.ts';
import { vectors } from '../../support/vectors.ts';
import { type AnswerRow, brief, checkAnswers, contextOf, delivery, FakeClock, folder, keepLog } from '../support.ts';

async function setUp(t: TestContext, keys: Record<string, string> = {}, more: Partial<BackendContext> = {}) {
  const fake = await startFakeHuawei();
  const settings = await fake.settings(await folder(t));
  const { log, lines } = keepLog();
  const backend = await create(contextOf('huawei', { ...settings, ...keys }, { log, ...more }));
  t.after(async () => {
    await backend.close!();
    await fake.close();
  });
  const send = async (token = 'token', more = {}): Promise<Outcome> =>
    (await backend.send([delivery(token, more)]))[0]!;
  return { fake, backend, send, settings, lines };
}

type Body = {
  message: { data: string; android: { urgency: string; ttl: string }; token: string[] };
  validate_only: boolean;
};

test('a push is what the original sends, with a time to live', async (t) => {
  const clock = new FakeClock();
  const { fake, send } = await setUp(t, {}, { clock });
  const { pushes } = vectors<{ pushes: { name: string; requests: { body: string; url: string }[] }[] }>(
    'notifiers.json',
  );
  const [, request] = pushes.find(({ name }) => name.startsWith('huawei with data'))!.requests;
  const expected: Body = JSON.parse(request!.body);
  const payload = Buffer.from(JSON.parse(expected.message.data).enc_payload, 'base64');
  assert.deepEqual(await send(expected.message.token[0], { payload, expiry: clock.now() + 90_500 }), {
    kind: 'accepted',
  });
  const { body, headers } = fake.taken.pushes[0]!;
  const { android, data, ...same } = (body as Body).message;
  assert.deepEqual(same, { token: expected.message.token });
  // The JSON inside the JSON is equal but for the blanks of the original's language.
  assert.deepEqual(JSON.parse(data), JSON.parse(expected.message.data));
  assert.equal((body as Body).validate_only, false);
  assert.equal(android.urgency, 'HIGH');
  assert.equal(android.ttl, '90s');
  assert.equal(headers['content-type'], 'application/json;charset=utf-8');
});

test('the largest payload that a hivemind seals fits, and nothing larger is sent', async (t) => {
  const { fake, send } = await setUp(t);
  assert.deepEqual(await send('t'.repeat(200), { payload: Buffer.alloc(2856) }), { kind: 'accepted' });
  assert.equal(brief(await send('token', { payload: Buffer.alloc(3000) })), 'refused: larger than 4096 bytes');
  assert.equal(fake.requests, 1);
});

test('time to live is within what Huawei accepts', async (t) => {
  const { fake, send } = await setUp(t);
  for (const expiry of [0, Date.now() + 1e12, Date.now() - 5]) await send('token', { expiry });
  assert.deepEqual(
    fake.taken.pushes.map(({ body }) => (body as Body).message.android.ttl),
    ['1296000s', '1296000s', '1s'],
  );
});

const partial = (success: number, illegal: string[]) =>
  huaweiCode('80100000', JSON.stringify({ success, failure: illegal.length, illegal_tokens: illegal }));

/** Every row of the table of Huawei's answers (providers: Huawei Push Kit). */
const ROWS: AnswerRow[] = [
  [huaweiCode('80000000'), 'accepted'],
  [partial(0, ['token']), 'gone: 80100000 illegal token'],
  [partial(1, ['another']), 'accepted'],
  [partial(0, ['another']), 'refused: 80100000'],
  [huaweiCode('80100000', 'not JSON'), 'refused: 80100000'],
  [huaweiCode('80300007', 'All tokens are invalid'), 'gone: 80300007'],
  ...['80100001', '80100003', '80100004', '80100013', '80100016', '80100017', '80100018', '80300008', '80300010'].map(
    (code): AnswerRow => [huaweiCode(code, 'x', code === '80100003' ? 400 : 200), `refused: ${code}`],
  ),
  [huaweiCode('80300002'), 'misconfigured: 80300002 the app has no permission'],
  [huaweiCode('80600003'), 'retry: 80600003', 5_000],
  [huaweiCode('81000001', 'System inner error', 500), 'retry: 81000001', 5_000],
  [{ status: 503, body: HTML_PAGE }, 'retry: 503 flow control', 5_000, 'everyone'],
  [{ status: 503, headers: { 'retry-after': '9' } }, 'retry: 503 flow control', 9_000, 'everyone'],
  [{ status: 500, body: HTML_PAGE }, 'retry: 500', 5_000],
  [{ status: 502, body: HTML_PAGE }, 'retry: 502', 5_000],
  [huaweiCode('89999999'), 'refused: 89999999'],
  [{ status: 404, body: HTML_PAGE }, 'misconfigured: 404'],
  [{ status: 200, body: HTML_PAGE }, 'retry: an answer that makes no sense (200)', 0],
  [{ body: { code: '80000000', msg: 'Success' }, truncate: true }, 'retry: connection trouble (ECONNRESET)', 0],
  [{ cut: true }, 'retry: connection trouble (ECONNRESET)', 0],
];

test('every answer of Huawei has its outcome, and the next push is accepted', async (t) => {
  const { fake, send } = await setUp(t);
  await checkAnswers(ROWS, fake, send);
});

test('an access token that is no longer accepted is renewed once for all, and the push sent again', async (t) => {
  for (const code of ['80200001', '80200003', '80200005']) {
    const { fake, send } = await setUp(t);
    assert.deepEqual(await send(), { kind: 'accepted' });
    const answer = huaweiCode(code, 'x', code === '80200001' ? 200 : 401);
    for (let index = 0; index < 20; index++) fake.script.device(`d${index}`, answer);
    const outcomes = await Promise.all(Array.from({ length: 20 }, (_, index) => send(`d${index}`)));
    assert.deepEqual(new Set(outcomes.map(brief)), new Set(['accepted']), code);
    assert.equal(fake.tokensGiven, 2, code);
  }
});

test('if the new access token is not accepted either, our configuration is wrong', async (t) => {
  const { fake, send } = await setUp(t);
  fake.script.all = huaweiCode('80200003', 'x', 401);
  assert.equal(brief(await send()), 'misconfigured: authentication failed with a new access token');
  assert.equal(fake.requests, 2);
});

test('without permission for urgency HIGH that is logged, and pushes go with NORMAL, from then on at once', async (t) => {
  const { fake, send, lines } = await setUp(t);
  fake.highAllowed = false;
  assert.deepEqual(await send(), { kind: 'accepted' });
  assert.deepEqual(await send(), { kind: 'accepted' });
  assert.deepEqual(
    fake.taken.pushes.map(({ body }) => (body as Body).message.android.urgency),
    ['NORMAL', 'NORMAL'],
  );
  assert.equal(fake.requests, 3);
  assert.equal(lines.filter((line) => line.includes('80300011')).length, 1);
});

test('without an access token nothing is sent, and what the OAuth server says decides', async (t) => {
  const { fake, send } = await setUp(t);
  fake.oauth.next({ status: 502, body: HTML_PAGE });
  assert.equal(brief(await send()), 'retry: OAuth: 502');
  fake.oauth.next({ status: 400, body: { error: 1101, sub_error: 20001 } });
  assert.equal(brief(await send()), 'misconfigured: OAuth: 400 1101');
  fake.oauth.next({ status: 400, body: { error: 'client fake-app-secret is unknown' } });
  assert.equal(brief(await send()), 'misconfigured: OAuth: 400');
  assert.equal(fake.requests, 0);
  assert.deepEqual(await send(), { kind: 'accepted' });
});

test('connections are kept, and no more of them are made than allowed', async (t) => {
  const { fake, send } = await setUp(t, { connections: '5' });
  for (let round = 0; round < 4; round++) {
    const outcomes = await Promise.all(Array.from({ length: 50 }, (_, index) => send(`d${index}`)));
    assert.deepEqual(new Set(outcomes.map(brief)), new Set(['accepted']));
  }
  assert.ok(fake.connections <= 5, `${fake.connections} connections`);
  fake.cut();
  assert.equal((await send()).kind === 'accepted' || (await send()).kind === 'accepted', true);
});

test('what is missing is reported at the start, the secret never', () => {
  assert.throws(
    () => create(contextOf('huawei', { app_id: 'x', url: 'ftp://x' })),
    (error: Error) => {
      assert.match(error.message, /app_id = x: must be the number of the app/);
      assert.match(error.message, /app_secret: is required/);
      assert.match(error.message, /url = ftp:\/\/x: must be an https/);
      return true;
    },
  );
});
