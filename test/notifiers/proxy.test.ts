import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import { createServer } from 'node:tls';
import { systemClock } from '../../src/clock.ts';
import { startFakeApns } from '../../src/devnet/providers/apns.ts';
import { serverCertificate } from '../../src/devnet/providers/certificates.ts';
import { startFakeFcm } from '../../src/devnet/providers/fcm.ts';
import { startFakeHuawei } from '../../src/devnet/providers/huawei.ts';
import type { FakeProvider } from '../../src/devnet/providers/script.ts';
import type { BackendContext } from '../../src/notifiers/runtime/backend.ts';
import { loadBackend } from '../../src/notifiers/runtime/load.ts';
import { parseProxy } from '../../src/notifiers/runtime/proxy.ts';
import { connectThrough } from '../../src/notifiers/runtime/tunnel.ts';
import { type ConnectProxy, startConnectProxy } from '../support/connect-proxy.ts';
import { ownAddress } from '../support/loopback.ts';
import { once } from '../support/once.ts';
import { apnsToken, brief, contextOf, delivery, FakeClock, folder, sectionOf } from './support.ts';

type Fake = FakeProvider & { cut(): void };

const FAKES = { apns: startFakeApns, firebase: startFakeFcm, huawei: startFakeHuawei } as const;
type Service = keyof typeof FAKES;
const SERVICES = Object.keys(FAKES) as Service[];

interface Options {
  readonly context?: Partial<BackendContext>;
  readonly keys?: Readonly<Record<string, string>>;
}

/** A backend of that service behind a proxy, before a fake of its provider. */
async function behind(t: TestContext, service: Service, proxy: string, options: Options = {}) {
  const fake: Fake = await FAKES[service]();
  return { fake, ...(await before(t, service, fake, proxy, options)) };
}

async function before(t: TestContext, service: Service, fake: Fake, proxy: string, { context, keys }: Options = {}) {
  t.after(() => fake.close());
  const settings = { ...(await fake.settings(await folder(t))), proxy, ...keys };
  const create = await loadBackend(service, sectionOf(`notify-${service}`, {}));
  const backend = await create(contextOf(service, settings, context));
  let closed: Promise<unknown> | undefined;
  const close = () => {
    closed ??= Promise.resolve(backend.close?.());
    return closed;
  };
  t.after(close);
  return { backend, close, push: async () => brief((await backend.send([delivery(apnsToken(1))]))[0]!) };
}

for (const service of SERVICES) {
  test(`${service}: everything goes through the proxy, as the user it expects`, async (t) => {
    const proxy = await startConnectProxy(t, { user: 'spns', password: 'p@ss:w%rd/' });
    const { fake, push, close } = await behind(t, service, proxy.url);
    assert.equal(await push(), 'accepted');
    assert.equal(await push(), 'accepted');
    assert.equal(fake.taken.count, 2);
    // The access token, too: the provider and its OAuth server are one here.
    assert.deepEqual(new Set(proxy.asked), new Set([`127.0.0.1:${fake.port}`]));
    assert.ok(proxy.open >= 1);
    await close();
    await proxy.allClosed();
  });

  test(`${service}: a proxy that refuses, answers nonsense or is not there is told apart, and the push kept`, async (t) => {
    const proxy = await startConnectProxy(t, { user: 'spns', password: 'right' });
    const stranger = await behind(t, service, proxy.url.replace('right', 'wrong'));
    assert.match(await stranger.push(), /^retry: .*connection trouble \(ERR_PROXY_407\)$/);
    assert.equal(stranger.fake.taken.count, 0);

    const { push, fake } = await behind(t, service, proxy.url);
    for (const [answer, word] of [
      [403, '403'],
      [502, '502'],
      ['SSH-2.0-x\r\n\r\n', 'NONSENSE'],
      ['x'.repeat(20_000), 'NONSENSE'],
      ['', 'CLOSED'],
    ] as const) {
      proxy.answer = answer;
      assert.match(await push(), new RegExp(`^retry: .*connection trouble \\(ERR_PROXY_${word}\\)$`), word);
    }
    proxy.answer = undefined;
    assert.equal(await push(), 'accepted');
    assert.equal(fake.taken.count, 1);

    const nobody = await behind(t, service, 'http://127.0.0.1:1');
    assert.match(await nobody.push(), /^retry: .*connection trouble \(ERR_PROXY_ECONNREFUSED\)$/);
  });

  test(`${service}: a proxy that dies and comes back costs a retry`, async (t) => {
    const place = ownAddress().replace('tcp://', '');
    const proxy = await startConnectProxy(t, { place });
    const { push, fake } = await behind(t, service, proxy.url);
    assert.equal(await push(), 'accepted');
    await proxy.close();
    assert.match(await push(), /^retry: /);
    await startConnectProxy(t, { place });
    let outcome = await push();
    // A connection that is being torn down may still have been taken for this one.
    for (let tries = 0; outcome !== 'accepted' && tries < 3; tries++) outcome = await push();
    assert.equal(outcome, 'accepted');
    assert.equal(fake.taken.count, 2);
  });
}

test("whoever a proxy connects us with must present the provider's certificate", async (t) => {
  const proxy = await startConnectProxy(t);
  for (const service of SERVICES) {
    // Without the fakes' authority, these are strangers.
    const { push, fake } = await behind(t, service, proxy.url, { keys: { ca_file: '' } });
    assert.match(await push(), /^retry: /);
    assert.equal(fake.requests, 0, service);
  }
});

test('a proxy that says nothing is given ten seconds', async (t) => {
  const proxy = await startConnectProxy(t);
  proxy.answer = 'hang';
  const clock = new FakeClock();
  const { push } = await behind(t, 'huawei', proxy.url, { context: { clock } });
  const outcome = push();
  await proxy.reached(1);
  await clock.advance(10_000);
  assert.equal(await outcome, 'retry: OAuth: connection trouble (ERR_PROXY_TIMEOUT)');
});

test('a tunnel that was made in time stays, and a long answer comes through it', async (t) => {
  const proxy = await startConnectProxy(t);
  const clock = new FakeClock();
  const fake = await startFakeHuawei();
  const { push } = await before(t, 'huawei', fake, proxy.url, { context: { clock } });
  assert.equal(await push(), 'accepted');
  await clock.advance(10_000);
  assert.equal(await push(), 'accepted');
  assert.equal(proxy.asked.length, 1);
  fake.script.all = { status: 503, endless: 'flood' };
  assert.equal(await push(), 'retry: 503 flow control');
  assert.equal(clock.pending, 0);
});

test('a slow reader gets everything', async (t) => {
  const proxy = await startConnectProxy(t);
  const sent = randomBytes(8_000_000);
  const { ca, ...certificate } = serverCertificate();
  const server = createServer(certificate, (socket) => {
    socket.on('error', () => {});
    socket.end(sent);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  const socket = connectThrough(parseProxy(proxy.url), { host: 'localhost', port }, { ca }, systemClock);
  t.after(() => socket.destroy());
  const chunks: Buffer[] = [];
  for await (const chunk of socket) {
    // So that more has come by then than is held.
    for (let turn = 0; chunks.length < 3 && turn < 200; turn++) await new Promise((resolve) => setImmediate(resolve));
    chunks.push(chunk);
  }
  assert.ok(Buffer.concat(chunks).equals(sent));
});

test('many pushes at a time, and bodies of all sizes, go through the tunnels intact', async (t) => {
  const proxy: ConnectProxy = await startConnectProxy(t);
  for (const service of SERVICES) {
    // Few, since making one costs more than all else here, and each push has to be answered in ten seconds.
    const { backend, fake } = await behind(t, service, proxy.url, { keys: { connections: '4' } });
    const pushes = Array.from({ length: 200 }, (_, index) =>
      delivery(apnsToken(index), { payload: Buffer.alloc(1 + 14 * index, index) }),
    );
    const { batch = 1 } = backend;
    const calls = batch > 1 ? [pushes] : pushes.map((push) => [push]);
    const outcomes = (await Promise.all(calls.map((call) => backend.send(call)))).flat();
    assert.deepEqual(new Set(outcomes.map(brief)), new Set(['accepted']), service);
    assert.deepEqual(
      new Map(fake.taken.pushes.map(({ token, payload }) => [token, payload])),
      new Map(pushes.map(({ id, payload }) => [id, payload])),
      service,
    );
  }
});

test('proxies in the environment do not apply to a notifier', async (t) => {
  const names = ['HTTPS_PROXY', 'https_proxy', 'HTTP_PROXY', 'ALL_PROXY', 'NODE_USE_ENV_PROXY'];
  const before = names.map((name) => [name, process.env[name]] as const);
  t.after(() => {
    for (const [name, value] of before) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  });
  for (const name of names) process.env[name] = name.startsWith('NODE') ? '1' : 'http://127.0.0.1:1';
  for (const service of SERVICES) {
    const { push } = await behind(t, service, '');
    assert.equal(await push(), 'accepted', service);
  }
});

test('an invalid proxy is reported, without what may be a password', () => {
  for (const [text, expected] of [
    ['proxy.example.org:3128', /must be http:\/\/\[user:password@\]host:port/],
    ['https://proxy.example.org', /must begin with http:\/\/: the proxy itself is asked in plain HTTP/],
    ['socks5://proxy.example.org', /must be http/],
    ['http://', /must be http/],
    ['http://proxy/path', /must be http/],
    ['http://proxy/?query', /must be http/],
    ['http://proxy/#fragment', /must be http/],
    ['http://user:50%@proxy', /has a stray %/],
  ] as const) {
    assert.throws(() => parseProxy(text), expected, text);
  }
  assert.deepEqual(parseProxy('http://proxy.example.org'), {
    host: 'proxy.example.org',
    port: 80,
    authorization: undefined,
  });
  assert.deepEqual(parseProxy('http://[::1]:3128/'), { host: '::1', port: 3128, authorization: undefined });
  const basic = (text: string) => `Basic ${Buffer.from(text).toString('base64')}`;
  for (const [who, expected] of [
    ['spns:p%40ss', 'spns:p@ss'],
    ['spns', 'spns:'],
    [':hush', ':hush'],
  ] as const)
    assert.equal(parseProxy(`http://${who}@proxy`).authorization, basic(expected));
  const { section } = contextOf('huawei', { proxy: 'spns:hush@proxy:3128' });
  section.parsed('proxy', parseProxy, { secret: true });
  assert.ok(section.problems.length === 1 && !section.problems[0]!.includes('hush'), section.problems[0]);
});
