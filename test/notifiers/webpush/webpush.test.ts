import assert from 'node:assert/strict';
import { createECDH, randomBytes } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import { HTML_PAGE } from '../../../src/devnet/providers/http.ts';
import { startFakeWebPush } from '../../../src/devnet/providers/webpush.ts';
import type { BackendContext, Delivery, Outcome } from '../../../src/notifiers/runtime/backend.ts';
import { create } from '../../../src/notifiers/webpush/webpush.ts';
import { startConnectProxy } from '../../support/connect-proxy.ts';
import { startNameServer } from '../../support/name-server.ts';
import { type AnswerRow, brief, checkAnswers, contextOf, delivery, folder, keepLog } from '../support.ts';

async function setUp(t: TestContext, keys: Record<string, string> = {}, more: Partial<BackendContext> = {}) {
  const fake = await startFakeWebPush();
  const settings = { ...(await fake.settings(await folder(t))), ...keys };
  const { log, lines } = keepLog();
  const backend = await create(contextOf('webpush', settings, { log, ...more }));
  t.after(async () => {
    await backend.close!();
    await fake.close();
  });
  /** An app's subscription, and how it is pushed to. */
  const subscribe = (change = {}) => {
    const { token, info } = fake.subscribe(randomBytes);
    const { id, data } = backend.validate({ ...info, ...change });
    const send = async (push: Partial<Delivery> = {}): Promise<Outcome> =>
      (await backend.send([delivery(id, { data: Buffer.from(data!), ...push })]))[0]!;
    return { token, info, id, data, send };
  };
  return { fake, backend, settings, lines, subscribe };
}

test('the app decrypts what was sealed for it, and the service accepts every header', async (t) => {
  const { fake, subscribe } = await setUp(t);
  const { token, send } = subscribe();
  const payload = randomBytes(600);
  assert.deepEqual(await send({ payload, expiry: Date.now() + 90_500 }), { kind: 'accepted' });
  assert.deepEqual(await send({ urgent: false }), { kind: 'accepted' });
  const [first, second] = fake.taken.pushes;
  assert.equal(first!.token, token);
  assert.deepEqual(first!.payload, payload);
  assert.deepEqual(first!.body, { enc_payload: payload.toString('base64'), spns: '1' });
  assert.match(String(first!.headers.ttl), /^(90|89|88)$/);
  assert.equal(first!.headers.urgency, 'high');
  assert.equal(second!.headers.urgency, 'normal');
});

test('the largest payload that a hivemind seals fits, and nothing larger is sent', async (t) => {
  const { fake, subscribe } = await setUp(t);
  const { send } = subscribe();
  assert.deepEqual(await send({ payload: randomBytes(2856) }), { kind: 'accepted' });
  assert.ok(Number(fake.taken.pushes[0]!.headers['content-length']) <= 4096);
  assert.equal(brief(await send({ payload: randomBytes(3000) })), 'refused: larger than 4096 bytes');
  assert.equal(fake.requests, 1);
});

test('time to live is within what services keep', async (t) => {
  const { fake, subscribe } = await setUp(t);
  const { send } = subscribe();
  for (const expiry of [0, Date.now() + 1e12, Date.now() - 5]) await send({ expiry });
  assert.deepEqual(
    fake.taken.pushes.map(({ headers }) => headers.ttl),
    ['2419200', '2419200', '0'],
  );
});

const REDIRECT = { location: 'https://localhost:1/elsewhere' };

/** Every row of the table of answers (providers: Web Push). */
const ROWS: AnswerRow[] = [
  [{ status: 200 }, 'accepted'],
  [{ status: 202, body: HTML_PAGE }, 'accepted'],
  [{ status: 404 }, 'gone: 404'],
  [{ status: 410, body: HTML_PAGE }, 'gone: 410'],
  [{ status: 403 }, 'refused: 403: registered with another VAPID key'],
  [{ status: 413 }, 'refused: 413: too large'],
  ...[400, 405, 411, 415].map((status): AnswerRow => [{ status }, `refused: ${status}`]),
  [{ status: 418 }, 'refused: 4xx'],
  [{ status: 429 }, 'retry: 429', 60_000, 'device'],
  [{ status: 429, headers: { 'retry-after': '7' } }, 'retry: 429', 7_000, 'device'],
  [{ status: 503 }, 'retry: 503', 10_000],
  [{ status: 503, headers: { 'retry-after': '9' } }, 'retry: 503', 9_000, 'everyone'],
  [{ status: 507 }, 'retry: 507: nobody listens', 300_000, 'device'],
  [{ status: 500, body: HTML_PAGE }, 'retry: 5xx', 10_000],
  [{ status: 502, headers: { 'retry-after': '3' } }, 'retry: 5xx', 3_000],
  [{ status: 408 }, 'retry: 408', 10_000],
  [{ status: 301, headers: REDIRECT }, 'refused: 3xx: redirects are not followed'],
  [{ status: 307, headers: REDIRECT }, 'refused: 3xx: redirects are not followed'],
  [{ status: 304 }, 'refused: 3xx: redirects are not followed'],
  [{ status: 201, endless: 'flood' }, 'accepted'],
  [{ status: 410, endless: 'flood' }, 'gone: 410'],
  [{ cut: true }, 'retry: connection trouble (ECONNRESET)', 0],
];

test('every answer of a push service has its outcome, and the next push is accepted', async (t) => {
  const { fake, subscribe } = await setUp(t);
  const { send } = subscribe();
  await checkAnswers(ROWS, fake, send);
});

test('a redirect is not followed', async (t) => {
  const { fake, subscribe } = await setUp(t);
  const [one, other] = [subscribe(), subscribe()];
  fake.script.next({ status: 308, headers: { location: other.info.endpoint } });
  assert.equal(brief(await one.send()), 'refused: 3xx: redirects are not followed');
  assert.equal(fake.requests, 1);
});

test('a service that does not answer in time is retried', async (t) => {
  const { fake, subscribe } = await setUp(t, { timeout: '0.2' });
  const { send } = subscribe();
  for (const answer of [{ hang: true }, { endless: 'drip' }] as const) {
    fake.script.next(answer);
    assert.equal(brief(await send()), 'retry: no answer in time');
  }
});

test('a service is shown one token for all pushes, and another once that is no longer accepted', async (t) => {
  const { fake, subscribe } = await setUp(t);
  const [one, other] = [subscribe(), subscribe()];
  await Promise.all(Array.from({ length: 50 }, (_, index) => (index % 2 ? one : other).send()));
  assert.equal(fake.tokens.size, 1);
  fake.script.next({ status: 401 });
  assert.deepEqual(await one.send(), { kind: 'accepted' });
  assert.equal(fake.tokens.size, 2);
  fake.script.next({ status: 401 }, 2);
  assert.equal(brief(await one.send()), 'misconfigured: 401: the VAPID token');
  assert.deepEqual(await one.send(), { kind: 'accepted' });
});

test('connections are kept alive', async (t) => {
  const { fake, subscribe } = await setUp(t);
  const { send } = subscribe();
  for (let count = 0; count < 20; count++) assert.deepEqual(await send(), { kind: 'accepted' });
  assert.equal(fake.connections, 1);
  fake.cut();
  assert.ok((await send()).kind === 'accepted' || (await send()).kind === 'accepted');
});

test('a device is identified by its endpoint, however that is spelt, with keys that may change', async (t) => {
  const { fake, subscribe } = await setUp(t);
  const first = subscribe();
  const again = subscribe({ endpoint: first.info.endpoint.replace('https://localhost', 'HTTPS://LOCALHOST') });
  assert.equal(again.id, first.id);
  assert.notDeepEqual(again.data, first.data);
  assert.notEqual(subscribe().id, first.id);
  assert.match(first.id, /^[\w-]{43}$/);
  // Base64 of any kind.
  const base64 = (text: string) => Buffer.from(text, 'base64url').toString('base64');
  const { info } = first;
  const padded = subscribe({ endpoint: info.endpoint, p256dh: base64(info.p256dh), auth: base64(info.auth) });
  assert.deepEqual([padded.id, padded.data], [first.id, first.data]);
  assert.deepEqual(await first.send(), { kind: 'accepted' });
  assert.equal(fake.taken.count, 1);
});

test('what is not a subscription, or one that is not pushed to, is refused in words', async (t) => {
  const allowed = '*.push.example.org, ntfy.example.org, *.xn--e1afmkfd.example, 1and1.example';
  const { backend, fake } = await setUp(t, { allowed_endpoints: allowed });
  const { info } = fake.subscribe(randomBytes);
  const otherCurve = createECDH('secp384r1');
  otherCurve.generateKeys();
  const wrongPoint = Buffer.from(info.p256dh, 'base64url');
  wrongPoint[40]! ^= 1;
  const at = (endpoint: unknown) => ({ ...info, endpoint });
  for (const [given, code, message] of [
    [null, 4, 'Invalid service_info: expected an object'],
    [[], 4, 'Invalid service_info: expected an object'],
    [{ ...info, endpoint: undefined }, 4, 'Invalid endpoint: expected an https:// address'],
    [{ p256dh: info.p256dh, auth: info.auth }, 1, "Error: missing required key 'endpoint'"],
    [{ endpoint: info.endpoint, auth: info.auth }, 1, "Error: missing required key 'p256dh'"],
    [{ endpoint: info.endpoint, p256dh: info.p256dh }, 1, "Error: missing required key 'auth'"],
    [at(5), 4, 'Invalid endpoint: expected an https:// address'],
    [at(''), 4, 'Invalid endpoint: expected an https:// address'],
    [at('/wpush'), 4, 'Invalid endpoint: expected an https:// address'],
    [at('http://ntfy.example.org/up'), 4, 'Invalid endpoint: expected an https:// address'],
    [at('ftp://ntfy.example.org/up'), 4, 'Invalid endpoint: expected an https:// address'],
    [at('https://me:you@ntfy.example.org/up'), 4, 'Invalid endpoint: it must not have a user'],
    [at('https://ntfy.example.org/up#x'), 4, 'Invalid endpoint: it must not have a fragment'],
    [at('https://8.8.8.8/up'), 4, 'Invalid endpoint: an IP address is no name of a push service'],
    [at('https://127.1/up'), 4, 'Invalid endpoint: an IP address is no name of a push service'],
    [at('https://0x7f000001/up'), 4, 'Invalid endpoint: an IP address is no name of a push service'],
    [at('https://2130706433/up'), 4, 'Invalid endpoint: an IP address is no name of a push service'],
    [at('https://[::1]/up'), 4, 'Invalid endpoint: an IP address is no name of a push service'],
    [at('https://[::ffff:127.0.0.1]/up'), 4, 'Invalid endpoint: an IP address is no name of a push service'],
    [at('https://metadata/up'), 4, 'Invalid endpoint: its host is not a public name'],
    [at('https://ntfy.example.org./up'), 4, 'Invalid endpoint: its host is not a name'],
    [at('https://ntfy.example.org:22/up'), 4, 'Invalid endpoint: its port is below 1024 and not 443'],
    [at('https://ntfy.example.org:80/up'), 4, 'Invalid endpoint: its port is below 1024 and not 443'],
    [at('https://ntfy.sh/up'), 4, 'Invalid endpoint: this server does not push to that host'],
    [at('https://push.example.org/up'), 4, 'Invalid endpoint: this server does not push to that host'],
    [at('https://evilpush.example.org/up'), 4, 'Invalid endpoint: this server does not push to that host'],
    [at('https://a.ntfy.example.org/up'), 4, 'Invalid endpoint: this server does not push to that host'],
    [at(`https://ntfy.example.org/${'x'.repeat(976)}`), 4, 'Invalid endpoint: longer than 1000 bytes'],
    [{ ...info, auth: 5 }, 4, 'Invalid auth: expected 16 bytes in base64url'],
    [{ ...info, auth: 'AAAA' }, 4, 'Invalid auth: expected 16 bytes in base64url'],
    [{ ...info, auth: `${info.auth.slice(0, -1)}!` }, 4, 'Invalid auth: expected 16 bytes in base64url'],
    [{ ...info, p256dh: info.auth }, 4, 'Invalid p256dh: expected 65 bytes in base64url'],
    [{ ...info, p256dh: otherCurve.getPublicKey('base64url') }, 4, 'Invalid p256dh: expected 65 bytes in base64url'],
    [{ ...info, p256dh: wrongPoint.toString('base64url') }, 4, 'Invalid p256dh: not a public key on the curve P-256'],
    [
      { ...info, p256dh: Buffer.alloc(65, 4).toString('base64url') },
      4,
      'Invalid p256dh: not a public key on the curve P-256',
    ],
  ] as const) {
    assert.throws(() => backend.validate(given), { name: 'Refusal', code, message }, JSON.stringify(given));
  }
  for (const endpoint of [
    'https://updates.push.example.org/wpush/v2/x',
    'https://ntfy.example.org/upABC?up=1',
    'https://ntfy.example.org:8443/upABC?up=1',
    'https://a.пример.example/up',
    'https://1and1.example/up',
    `https://ntfy.example.org/${'x'.repeat(975)}`,
    info.endpoint,
  ]) {
    assert.ok(backend.validate(at(endpoint)).id, endpoint);
  }
});

test('an endpoint that is no longer allowed is not pushed to, nor is what was never one', async (t) => {
  const { fake, backend, subscribe } = await setUp(t);
  const { id, data } = subscribe();
  const other = await setUp(t, { private_endpoints: '', allowed_endpoints: 'ntfy.example.org' });
  const refused = { kind: 'refused', reason: 'an endpoint not allowed' };
  assert.deepEqual(await other.backend.send([delivery(id, { data: Buffer.from(data!) })]), [refused]);
  for (const wrong of [null, Buffer.from('x'), Buffer.from('de'), Buffer.from('d1:a1:x1:e3:abc1:p1:xe')]) {
    assert.deepEqual(await backend.send([delivery(id, { data: wrong })]), [
      { kind: 'refused', reason: 'no subscription' },
    ]);
    assert.equal(backend.lane!(delivery(id, { data: wrong })), '');
  }
  assert.equal(fake.requests + other.fake.requests, 0);
});

test('a host at a private address is refused when its name is looked up, at each connection anew', async (t) => {
  let addresses: readonly string[] | 'hang' = [];
  const { address, asked } = await startNameServer(t, () => addresses);
  const { fake, subscribe } = await setUp(t, { name_server: address });
  const endpoint = `https://push.example.org:${fake.port}/wpush/v2/x`;
  const { send } = subscribe({ endpoint });
  for (const one of [
    '127.0.0.1',
    '10.1.2.3',
    '192.168.1.1',
    '169.254.169.254',
    '0.0.0.0',
    '::1',
    'fe80::1',
    'fd00:ec2::254',
    '::ffff:7f00:1',
    '64:ff9b::7f00:1',
  ]) {
    addresses = [one];
    assert.equal(brief(await send()), 'refused: the host is at no public address', one);
  }
  assert.equal(fake.connections, 0);
  assert.ok(asked.length >= 20, `${asked.length} questions`);
  addresses = [];
  assert.equal(brief(await send()), 'retry: connection trouble (ENOTFOUND)');
  addresses = 'hang';
  const impatient = (await setUp(t, { name_server: address, timeout: '2' })).subscribe({ endpoint });
  assert.match(brief(await impatient.send()), /^retry: (no answer in time|connection trouble \(ETIMEOUT\))$/);
});

test("the operator's own push service may be anywhere, found as the system finds it", async (t) => {
  const { asked, address } = await startNameServer(t, () => []);
  const { fake, subscribe } = await setUp(t, { name_server: address });
  assert.deepEqual(await subscribe().send(), { kind: 'accepted' });
  assert.equal(fake.taken.count, 1);
  assert.deepEqual(asked, []);
});

test('a proxy is used for endpoints that are named in the settings, and only then', async (t) => {
  const proxy = await startConnectProxy(t);
  const { fake, subscribe } = await setUp(t, { proxy: proxy.url, allowed_endpoints: 'localhost' });
  assert.deepEqual(await subscribe().send(), { kind: 'accepted' });
  assert.deepEqual(proxy.asked, [`localhost:${fake.port}`]);
  await proxy.close();
  fake.cut();
  let outcome = brief(await subscribe().send());
  if (outcome === 'retry: connection trouble (ECONNRESET)') outcome = brief(await subscribe().send());
  assert.equal(outcome, 'retry: connection trouble (ERR_PROXY_ECONNREFUSED)');

  const settings = await fake.settings(await folder(t));
  assert.throws(
    () => create(contextOf('webpush', { ...settings, proxy: proxy.url })),
    /proxy = \(not shown\): needs allowed_endpoints/,
  );
});

test('what is missing or wrong is reported at the start, and the public key for the apps is logged', async (t) => {
  assert.throws(
    () =>
      create(contextOf('webpush', { contact: 'me', allowed_endpoints: 'https://ntfy.sh', private_endpoints: '*.x' })),
    (error: Error) => {
      assert.match(error.message, /vapid_key_file: is required/);
      assert.match(error.message, /contact = me: must be a mailto: or https: address/);
      assert.match(error.message, /allowed_endpoints = .*: https:\/\/ntfy\.sh is not a host name/);
      assert.match(error.message, /private_endpoints = \*\.x: \*\.x is not a host name/);
      return true;
    },
  );
  assert.throws(() => create(contextOf('webpush', {})), /contact: is required/);
  const { lines } = await setUp(t);
  assert.ok(lines.some((line) => /apps register with the VAPID key B[\w-]{86}/.test(line)));
});
