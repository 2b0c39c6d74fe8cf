import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { TLSSocket } from 'node:tls';
import { gzipSync } from 'node:zlib';
import { startFakeApns } from '../../src/devnet/providers/apns.ts';
import { startFakeFcm } from '../../src/devnet/providers/fcm.ts';
import type { WebAnswer } from '../../src/devnet/providers/http.ts';
import { startFakeHuawei } from '../../src/devnet/providers/huawei.ts';
import { startFakeWebPush } from '../../src/devnet/providers/webpush.ts';
import type { Backend, BackendContext } from '../../src/notifiers/runtime/backend.ts';
import { loadBackend } from '../../src/notifiers/runtime/load.ts';
import { END_HEADERS, END_STREAM, FIELD, FRAME, flood, frame, STATUS_200, startRawServer, words } from './raw-http2.ts';
import { apnsToken, brief, contextOf, delivery, FakeClock, folder, sectionOf } from './support.ts';

const TOKEN = apnsToken(1);

async function backendOf(
  t: TestContext,
  service: string,
  settings: Record<string, string>,
  more: Partial<BackendContext> = {},
): Promise<Backend> {
  const create = await loadBackend(service, sectionOf(`notify-${service}`, {}));
  const backend = await create(contextOf(service, settings, more));
  t.after(() => backend.close?.());
  return backend;
}
const push = async (backend: Backend, token = TOKEN) => (await backend.send([delivery(token)]))[0]!;

/** Each of the two that speak the web's protocols, before a fake of its provider. */
async function webProviders(t: TestContext) {
  const path = await folder(t);
  const fakes = { firebase: await startFakeFcm(), huawei: await startFakeHuawei() };
  return await Promise.all(
    Object.entries(fakes).map(async ([service, fake]) => {
      const backend = await backendOf(t, service, await fake.settings(path));
      t.after(() => fake.close());
      return { service, fake, backend };
    }),
  );
}

test('a body that never ends is cut, and its status decides', async (t) => {
  const apns = await startFakeApns();
  t.after(() => apns.close());
  const apple = await backendOf(t, 'apns', await apns.settings(await folder(t)));
  for (const [status, expected] of [
    [200, 'accepted'],
    [400, 'retry: connection trouble'],
    [410, 'retry: connection trouble'],
    [429, 'retry: 429'],
    [503, 'retry: 503'],
  ] as const) {
    apns.script.next({ status, endless: 'flood' });
    assert.equal(brief(await push(apple)), expected, `Apple, ${status}`);
    assert.equal(brief(await push(apple)), 'accepted');
  }
  for (const { service, fake, backend } of await webProviders(t)) {
    for (const [status, expected] of [
      [200, 'retry: an answer that makes no sense (200)'],
      [503, service === 'huawei' ? 'retry: 503 flow control' : 'retry: 503'],
      [500, 'retry: 500'],
    ] as const) {
      fake.script.next({ status, endless: 'flood', headers: { 'retry-after': '7' } });
      const outcome = await push(backend);
      assert.equal(brief(outcome), expected, `${service}, ${status}`);
      // Its headers are believed, too.
      if (status >= 500) assert.equal(outcome.kind === 'retry' && outcome.after, 7_000);
      assert.equal(brief(await push(backend)), 'accepted');
    }
  }
});

test('an access token with an endless answer is refused', async (t) => {
  for (const { service, fake, backend } of await webProviders(t)) {
    for (const [answer, expected] of [
      [{ endless: 'flood', body: '{"access_token":"x","expires_in":3600,' }, 'retry: OAuth: 200'],
      [{ status: 500, endless: 'flood' }, 'retry: OAuth: 500'],
      [{ body: { access_token: `x\r\ny`, expires_in: 3600 } }, 'retry: OAuth: 200'],
      [{ body: { access_token: 'x'.repeat(50_000), expires_in: 3600 } }, 'retry: OAuth: 200'],
      [{ body: { access_token: 'x', expires_in: -5 } }, 'retry: OAuth: 200'],
      [{ body: { access_token: 'x', expires_in: 'soon' } }, 'retry: OAuth: 200'],
    ] as [WebAnswer, string][]) {
      fake.oauth.next(answer);
      assert.equal(brief(await push(backend)), expected, `${service} ${JSON.stringify(answer).slice(0, 80)}`);
    }
    assert.equal(brief(await push(backend)), 'accepted', service);
  }
});

test('a body that comes drop by drop is waited for as long as any other', async (t) => {
  const apns = await startFakeApns();
  t.after(() => apns.close());
  const clock = new FakeClock(Date.now());
  const settings = { ...(await apns.settings(await folder(t))), timeout: '0.4', connections: '1' };
  const apple = await backendOf(t, 'apns', settings, { clock });
  assert.equal(brief(await push(apple)), 'accepted');
  for (const [status, expected] of [
    [503, 'retry: 503'],
    [400, 'retry: no answer in time'],
  ] as const) {
    apns.script.next({ status, endless: 'drip' });
    const dripping = push(apple);
    // It is answered over the same connection, so the headers of the other answer have come by then.
    assert.equal(brief(await push(apple)), 'accepted');
    await clock.advance(200);
    // None of the drops that come now may make the wait longer.
    await sleep(100);
    await clock.advance(200);
    assert.equal(brief(await dripping), expected);
  }
  assert.equal(brief(await push(apple)), 'accepted');
});

test('bytes that are not text, archives and parts are malformed answers, and nothing is unpacked', async (t) => {
  const bomb = gzipSync(Buffer.alloc(50_000_000, ' '));
  for (const { service, fake, backend } of await webProviders(t)) {
    for (const answer of [
      { status: 500, body: Buffer.from([0xff, 0xfe, 0x80, 0xc0]) },
      { status: 500, body: bomb, headers: { 'content-encoding': 'gzip' } },
      { status: 500, body: Buffer.from([1, 2, 3]), headers: { 'content-encoding': 'gzip' } },
      {
        status: 500,
        body: 'x',
        headers: { 'content-encoding': 'deflate', 'content-type': 'multipart/mixed; boundary=b' },
      },
      { status: 500, body: '--b\r\n', headers: { 'content-type': 'multipart/mixed; boundary=b' } },
      { status: 500, body: '--b\r\n', headers: { 'content-type': 'multipart/mixed; boundary=' } },
      { status: 500, body: '{"error":{"details":[null,5,{"@type":[]}],"status":{},"message":[]},"code":{},"msg":5}' },
      { status: 500, body: `${'['.repeat(40_000)}` },
    ] as WebAnswer[]) {
      fake.script.next(answer);
      // Google's library stumbles over some JSON before it tells the status.
      const outcome = brief(await push(backend));
      assert.match(outcome, /^retry: (500|connection trouble)$/, `${service} ${JSON.stringify(answer).slice(0, 120)}`);
      assert.equal(brief(await push(backend)), 'accepted', service);
    }
    // Nobody is sent elsewhere with our credentials.
    fake.script.next({ status: 307, headers: { location: 'https://localhost:1/' } });
    assert.equal(brief(await push(backend)), 'retry: an answer that makes no sense (307)', service);
  }
});

/** What an HTTP/2 server can send on and on, once it has been asked for something. */
const FLOODS: Record<string, (socket: TLSSocket, stream: number) => void> = {
  'answers that are not the last (1xx)': (socket, stream) =>
    flood(socket, frame(FRAME.headers, END_HEADERS, stream, Buffer.from([0x08, 0x03, 0x31, 0x30, 0x33]))),
  'headers without end': (socket, stream) => {
    socket.write(frame(FRAME.headers, 0, stream, STATUS_200));
    flood(socket, frame(FRAME.continuation, 0, stream, Buffer.concat(Array(2_000).fill(FIELD))));
  },
  'headers, many': (socket, stream) =>
    void socket.write(
      frame(FRAME.headers, END_HEADERS | END_STREAM, stream, Buffer.concat([STATUS_200, ...Array(2_000).fill(FIELD)])),
    ),
  settings: (socket) => flood(socket, frame(FRAME.settings, 0, 0, Buffer.from([0, 3, 0, 0, 0, 100]))),
  pings: (socket) => flood(socket, frame(FRAME.ping, 0, 0, Buffer.alloc(8))),
  'data of nothing': (socket, stream) => {
    socket.write(frame(FRAME.headers, END_HEADERS, stream, Buffer.from([0x8e])));
    flood(socket, frame(FRAME.data, 0, stream));
  },
  'GOAWAYs that process nothing': (socket) => flood(socket, frame(FRAME.goaway, 0, 0, words(0, 0))),
  'GOAWAYs with ENHANCE_YOUR_CALM': (socket) => flood(socket, frame(FRAME.goaway, 0, 0, words(2 ** 31 - 1, 11))),
  'no stream at all': (socket) => void socket.write(frame(FRAME.settings, 0, 0, Buffer.from([0, 3, 0, 0, 0, 0]))),
  'as many streams as there can be': (socket) =>
    void socket.write(frame(FRAME.settings, 0, 0, Buffer.from([0, 3, 0xff, 0xff, 0xff, 0xff]))),
  noise: (socket) => flood(socket, Buffer.alloc(16_384, 0xa5)),
};

for (const [name, send] of Object.entries(FLOODS)) {
  test(`a flood over HTTP/2 ends with its push: ${name}`, async (t) => {
    const apns = await startFakeApns();
    t.after(() => apns.close());
    const settings = { ...(await apns.settings(await folder(t))), timeout: '1', connections: '1' };
    const flooded = new WeakSet<object>();
    const port = await startRawServer(t, (socket, type, stream) => {
      if (type !== FRAME.headers || flooded.has(socket)) return;
      flooded.add(socket);
      send(socket, stream);
    });
    const backend = await backendOf(t, 'apns', { ...settings, port: String(port) });
    const delay = monitorEventLoopDelay();
    delay.enable();
    const outcomes = await Promise.all([1, 2, 3].map((seed) => push(backend, apnsToken(seed))));
    delay.disable();
    for (const outcome of outcomes) assert.match(brief(outcome), /^retry: (no answer in time|connection trouble|500)/);
    t.diagnostic(`event loop held for ${Math.round(delay.max / 1e6)} ms at most, the server in the same process`);
  });
}

test("a flood in Google's place ends with its push, too", async (t) => {
  const fcm = await startFakeFcm();
  t.after(() => fcm.close());
  const settings = await fcm.settings(await folder(t));
  for (const name of ['headers without end', 'settings', 'pings', 'GOAWAYs that process nothing', 'noise']) {
    const port = await startRawServer(t, (socket, type, stream) => {
      if (type === FRAME.headers) FLOODS[name]!(socket, stream);
    });
    const backend = await backendOf(t, 'firebase', { ...settings, url: `https://127.0.0.1:${port}` });
    assert.match(brief(await push(backend)), /^retry: connection trouble/, name);
  }
});

test('a server that speaks HTTP/1.1, or nothing known, in place of HTTP/2 is a connection problem', async (t) => {
  const apns = await startFakeApns();
  t.after(() => apns.close());
  const settings = { ...(await apns.settings(await folder(t))), timeout: '60', connections: '1' };
  for (const reply of [
    'HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n',
    'HTTP/1.1 400 Bad Request\r\n\r\n',
    'SSH-2.0\r\n',
  ]) {
    const port = await startRawServer(t, (socket) => void socket.write(reply), 'http/1.1');
    const backend = await backendOf(t, 'apns', { ...settings, port: String(port) });
    assert.match(brief(await push(backend)), /^retry: connection trouble/, reply);
  }
});

/** What anybody's push service can send on and on over HTTP/1.1, once it has been asked for something. */
const ENDLESS: Record<string, readonly [before: string, again: string]> = {
  'answers that are not the last (1xx)': ['', 'HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n'],
  'a status line': ['HTTP/1.1 200 ', 'x'.repeat(1_000)],
  headers: ['HTTP/1.1 200 OK\r\n', 'x: y\r\n'],
  'a header': ['HTTP/1.1 200 OK\r\nx: ', 'y'.repeat(1_000)],
  'chunks of nothing much': ['HTTP/1.1 503 No\r\ntransfer-encoding: chunked\r\n\r\n', '1;x=y\r\nz\r\n'],
  'extensions of a chunk': ['HTTP/1.1 503 No\r\ntransfer-encoding: chunked\r\n\r\n1;', 'x'.repeat(1_000)],
  trailers: ['HTTP/1.1 503 No\r\ntransfer-encoding: chunked\r\n\r\n0\r\n', 'x: y\r\n'],
  'answers that nobody asked for': ['', 'HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n'],
  noise: ['', '\xa5'.repeat(1_000)],
};

test('whatever an arbitrary push service sends without end, it ends with its push', async (t) => {
  const fake = await startFakeWebPush();
  t.after(() => fake.close());
  const settings = { ...(await fake.settings(await folder(t))), timeout: '1' };
  const backend = await backendOf(t, 'webpush', settings);
  const { info } = fake.subscribe(randomBytes);
  const delay = monitorEventLoopDelay();
  for (const [name, [before, again]] of Object.entries(ENDLESS)) {
    const asked = new WeakSet<object>();
    const port = await startRawServer(
      t,
      (socket) => {
        if (asked.has(socket)) return;
        asked.add(socket);
        socket.write(before, 'latin1');
        flood(socket, Buffer.from(again.repeat(20), 'latin1'));
      },
      'http/1.1',
    );
    const endpoint = `https://localhost:${port}/up`;
    const { id, data } = backend.validate({ ...info, endpoint });
    delay.enable();
    const [outcome] = await backend.send([delivery(id, { data: Buffer.from(data!) })]);
    delay.disable();
    assert.match(brief(outcome!), /^retry: (no answer in time|connection trouble|5xx|503)/, name);
  }
  t.diagnostic(`event loop held for ${Math.round(delay.max / 1e6)} ms at most, the servers in the same process`);
});
