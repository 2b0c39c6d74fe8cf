import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { rename, stat } from 'node:fs/promises';
import http from 'node:http';
import net from 'node:net';
import { test } from 'node:test';
import { encryptOnion } from '../../src/session/onion.ts';
import { x25519Public } from '../../src/session/sodium.ts';
import type { ServerOptions } from '../../src/web/server.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { ask as askHttp } from '../support/http.ts';
import { closed, once } from '../support/once.ts';
import { until } from '../support/until.ts';
import { connect, fakeHivemind, type Scope, serve } from './fake-hivemind.ts';

const onionKey = randomBytes(32);

async function start(t: Scope, options: Partial<ServerOptions> = {}) {
  const fake = await fakeHivemind(t, (command, request) => request.reply(`${command} ${request.parts[0]!.length}`));
  await fake.start();
  const { hivemind, untilConnected } = connect(t, fake.address);
  await untilConnected(true);
  return { ...fake, ...(await serve(t, hivemind, onionKey, options)) };
}

/** A POST, unless the options say otherwise. */
const ask: typeof askHttp = (where, options, write) => askHttp(where, { method: 'POST', ...options }, write);

test('a body is passed on unread, whatever its content type', async (t) => {
  const { url, asked } = await start(t);
  const types = [
    'application/json',
    'text/plain',
    'application/x-www-form-urlencoded',
    'multipart/form-data',
    'no type at all',
    '',
    undefined,
  ];
  for (const type of types) {
    const headers = { 'content-length': '8', ...(type === undefined ? {} : { 'content-type': type }) };
    const answer = await ask(`${url}/subscribe`, { headers }, (request) => request.end('{"a": 1}'));
    assert.deepEqual([answer.status, answer.body], [200, 'push.subscribe 8'], type);
    assert.equal(answer.headers['content-type'], 'application/json');
    assert.equal(asked.at(-1)!.body.toString(), '{"a": 1}');
  }
  const binary = Buffer.from([0, 255, 254, 10]);
  assert.equal((await ask(`${url}/unsubscribe`, {}, (request) => request.end(binary))).body, 'push.unsubscribe 4');
  assert.deepEqual(asked.at(-1)!.body, binary);
});

test('an empty body is passed on if its sender says that it is one, and a request without a body is told so', async (t) => {
  const { url } = await start(t);
  const empty = await ask(`${url}/subscribe`, { headers: { 'content-length': '0' } });
  assert.equal(empty.body, 'push.subscribe 0');
  const none = await ask(`${url}/subscribe`, {}, (request) => {
    request.removeHeader('content-length');
    request.useChunkedEncodingByDefault = false;
    request.end();
  });
  assert.deepEqual(
    [none.status, none.body, none.headers['content-type']],
    [200, '{"error":1,"message":"Invalid request: request body missing"}\n', 'application/json'],
  );
});

test('a body in chunks of undeclared length is accepted up to the limit', async (t) => {
  const { url } = await start(t);
  const chunked = (size: number) =>
    ask(`${url}/subscribe`, {}, (request) => {
      request.on('error', () => undefined);
      for (let sent = 0; sent < size; sent += 10_000) request.write(' '.repeat(Math.min(10_000, size - sent)));
      request.end();
    });
  assert.equal((await chunked(100_000)).body, 'push.subscribe 100000');
  const large = await chunked(100_001);
  assert.deepEqual([large.status, large.body], [200, '{"error":1,"message":"Invalid request: request too large"}\n']);
});

test('a body above the limit is refused, before it is sent if its length is declared', async (t) => {
  const { url, asked } = await start(t);
  const answer = await ask(`${url}/subscribe`, { headers: { 'content-length': '100001' } }, (request) => {
    request.on('error', () => undefined);
    request.flushHeaders();
  });
  assert.deepEqual([answer.status, answer.body], [200, '{"error":1,"message":"Invalid request: request too large"}\n']);
  assert.equal(answer.headers.connection, 'close');
  assert.deepEqual(asked, []);
});

test('onion requests that are far too long take a bounded share of memory, and nothing from the usual ones', async (t) => {
  const { url, server, registry } = await start(t);
  const onion = `${url}/oxen/v4/lsrpc`;
  const long = Buffer.alloc(10 * 1024 * 1024);
  const begun: http.ClientRequest[] = [];
  for (let i = 0; i < 6; i++) {
    const arrived = once(server.server, 'request');
    const request = http.request(onion, {
      agent: false,
      method: 'POST',
      headers: { 'content-length': long.length },
    });
    request.on('error', () => undefined);
    request.flushHeaders();
    begun.push(request);
    await arrived;
  }
  const refusal = (length: number) =>
    ask(onion, { headers: { 'content-length': String(length) } }, (request) => {
      request.on('error', () => undefined);
      request.flushHeaders();
    });
  const room = 64 * 1024 * 1024 - 6 * long.length;
  const refused = await refusal(room + 1);
  assert.deepEqual([refused.status, refused.headers['retry-after'], refused.headers.connection], [503, '15', 'close']);
  assert.match(await registry.metrics(), /spns_web_onion_failures_total\{reason="busy"\} 1/);
  const fits = http.request(onion, { agent: false, method: 'POST', headers: { 'content-length': room } });
  const arrived = once(server.server, 'request');
  fits.on('error', () => undefined);
  fits.flushHeaders();
  await arrived;
  // What is 64 KiB longer than the longest body counts as usual.
  const usual = 100_000 + 64 * 1024;
  assert.equal((await refusal(usual + 1)).status, 503);
  assert.equal((await ask(onion, {}, (request) => request.end(Buffer.alloc(usual)))).status, 400);
  fits.destroy();
  const { body } = encryptOnion(Buffer.from('l2:{}e'), x25519Public(onionKey), 'xchacha20');
  assert.equal((await ask(onion, {}, (request) => request.end(body))).status, 200);

  const given = begun.pop()!;
  const answered = once(given, 'response');
  given.end(long);
  const [response] = (await answered) as [http.IncomingMessage];
  assert.equal(response.statusCode, 400);
  response.resume();
  await once(response, 'close');
  assert.equal((await ask(onion, {}, (request) => request.end(long))).status, 400, 'there is room again');
  for (const request of begun) request.destroy();
});

test('a body in pieces of one byte counts as what it occupies', async (t) => {
  const { url, server, registry } = await start(t);
  // A million pieces are much work, which may take longer than a client may take for a request.
  server.server.requestTimeout = 0;
  const { host } = new URL(url);
  const [hostname, port] = host.split(':');
  const socket = net.connect(Number(port), hostname);
  t.after(() => socket.destroy());
  socket.on('error', () => undefined).resume();
  const gone = closed(socket);
  socket.write('POST /oxen/v4/lsrpc HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n');
  const pieces = Buffer.from('1\r\nx\r\n'.repeat(10_000));
  // A million bytes, a tenth of what an onion request may have, would take half a gigabyte.
  for (let i = 0; i < 100 && !socket.destroyed; i++) {
    if (!socket.write(pieces)) await Promise.race([new Promise((resolve) => socket.once('drain', resolve)), gone]);
  }
  socket.end();
  await gone;
  assert.match(await registry.metrics(), /spns_web_crowded_out_total\{listener="http"\} 1/);
});

test('what was received of a body counts with 512 bytes for each piece, until the request is answered', async (t) => {
  const { url, registry } = await start(t);
  const { hostname, port } = new URL(url);
  const socket = net.connect(Number(port), hostname);
  t.after(() => socket.destroy());
  let answer = '';
  socket.on('error', () => undefined).on('data', (data) => (answer += data));
  const bytes = async (figure: number) =>
    (await registry.metrics()).includes(`spns_web_unfinished_request_bytes{listener="http"} ${figure}\n`);
  socket.write(`POST /subscribe HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n${'x'.repeat(1_000)}`);
  await until(() => bytes(1_512));
  socket.write('x'.repeat(999));
  await until(() => bytes(3_023));
  socket.write('x');
  await until(() => answer.endsWith('push.subscribe 2000'));
  await until(() => bytes(0));
});

test('a client that does not read its answer gives way to others', async (t) => {
  const fake = await fakeHivemind(t, (_, request) => request.reply(Buffer.alloc(8_000_000)));
  await fake.start();
  const { hivemind, untilConnected } = connect(t, fake.address);
  await untilConnected(true);
  const { url, registry } = await serve(t, hivemind, onionKey, { maxConnections: 2 });
  const { host } = new URL(url);
  const [hostname, port] = host.split(':');
  for (let i = 0; i < 2; i++) {
    const socket = net.connect(Number(port), hostname);
    t.after(() => socket.destroy());
    socket.on('error', () => undefined).pause();
    socket.write('POST /subscribe HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}');
    await until(async () => (await registry.metrics()).includes(`route="subscribe",status="200"} ${i + 1}`), 0);
  }
  const bytes = async (count: number) =>
    (await registry.metrics()).includes(`spns_web_unfinished_request_bytes{listener="http"} ${count}\n`);
  await until(() => bytes(2 * 8_000_000), 0);
  const answer = await ask(`${url}/subscribe`, {}, (request) => request.end('{}'));
  assert.deepEqual([answer.status, answer.body.length], [200, 8_000_000]);
  assert.match(await registry.metrics(), /spns_web_crowded_out_total\{listener="http"\} 1/);
});

test('the time that a request took is from its whole body to its answer, by plain HTTP or as an onion request', async (t) => {
  const clock = new FakeClock();
  const fake = await fakeHivemind(t, (_, request) => {
    clock.stall(2_500);
    request.reply('{}');
  });
  await fake.start();
  const { hivemind, untilConnected } = connect(t, fake.address);
  await untilConnected(true);
  const { url, registry } = await serve(t, hivemind, onionKey, {}, clock);
  await ask(`${url}/subscribe`, {}, (request) => request.end('{}'));
  const meta = '{"method":"POST","endpoint":"/unsubscribe"}';
  const onion = Buffer.from(`l${meta.length}:${meta}2:{}e`);
  const { body } = encryptOnion(onion, x25519Public(onionKey), 'xchacha20');
  await ask(`${url}/oxen/v4/lsrpc`, {}, (request) => request.end(body));
  const metrics = await registry.metrics();
  for (const route of ['subscribe', 'unsubscribe']) {
    assert.ok(metrics.includes(`spns_web_request_duration_seconds_sum{route="${route}"} 2.5\n`), route);
  }
});

test('when all connections are busy a newcomer is turned away, and those that are there are answered', async (t) => {
  const held: (() => void)[] = [];
  const fake = await fakeHivemind(t, (_, request) => held.push(() => request.reply('late')));
  await fake.start();
  const { hivemind, untilConnected } = connect(t, fake.address);
  await untilConnected(true);
  const { url, registry } = await serve(t, hivemind, onionKey, { maxConnections: 1 });
  const first = ask(`${url}/subscribe`, {}, (request) => request.end('{}'));
  await until(() => held.length === 1, 0);
  await assert.rejects(ask(`${url}/subscribe`, {}, (request) => request.end('{}')));
  assert.match(await registry.metrics(), /spns_web_crowded_out_total\{listener="http"\} 1/);
  held[0]!();
  assert.equal((await first).body, 'late');
  await until(async () => (await registry.metrics()).includes('spns_web_connections{listener="http"} 0'));
  assert.match(await registry.metrics(), /spns_web_unfinished_request_bytes\{listener="http"\} 0\n/);
});

test('a fault of ours is reported and told as such, and what is too large for no path at all is a bad request', async (t) => {
  const fault = new Error('out of order');
  const hivemind = {
    ask: () => Promise.reject(fault),
    connected: true,
    problem: undefined,
    missing: [],
    inFlight: 0,
    close: async () => undefined,
  };
  const { url, faults } = await serve(t, hivemind, onionKey);
  const failed = await ask(`${url}/subscribe`, {}, (request) => request.end('{}'));
  assert.deepEqual([failed.status, failed.body], [500, 'Internal server error\n']);
  assert.deepEqual(faults, ['a request failed', fault]);
  const large = await ask(`${url}/elsewhere`, {}, (request) => request.end(Buffer.alloc(100_001)));
  assert.deepEqual([large.status, large.body, faults.length], [413, 'Bad request\n', 2]);
});

test('a connection that sends requests by the thousand is cut off, and one that sends a few at once is answered', async (t) => {
  const { url } = await start(t);
  const { host } = new URL(url);
  const [hostname, port] = host.split(':');
  const answers = async (count: number): Promise<number> => {
    const socket = net.connect(Number(port), hostname);
    t.after(() => socket.destroy());
    let received = '';
    socket.on('error', () => undefined);
    socket.on('data', (chunk) => {
      received += chunk;
    });
    const gone = closed(socket);
    const last = 'GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n';
    socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(count - 1) + last);
    await gone;
    return received.split('HTTP/1.1 404').length - 1;
  };
  assert.equal(await answers(16), 16);
  assert.ok((await answers(17)) <= 16);
  assert.ok((await answers(2000)) <= 16);
  assert.equal(await answers(1), 1);
});

test('a client that does not finish its headers or its body is disconnected when its time is over, not half a minute later', async (t) => {
  const { url, server } = await start(t);
  assert.equal(server.server.headersTimeout, 10_000);
  assert.equal(server.server.requestTimeout, 30_000);
  assert.equal(server.server.keepAliveTimeout, 75_000);
  server.server.headersTimeout = 1;
  server.server.requestTimeout = 1;
  // Node looks for such connections every 30 s unless it is told otherwise.
  assert.equal((server.server as http.ServerOptions).connectionsCheckingInterval, 1_000);
  const { hostname, port } = new URL(url);
  for (const unfinished of ['', 'Content-Length: 9\r\n\r\n']) {
    const socket = net.connect(Number(port), hostname);
    t.after(() => socket.destroy());
    socket.on('error', () => undefined).resume();
    socket.write(`POST /subscribe HTTP/1.1\r\nHost: x\r\n${unfinished}`);
    await closed(socket);
  }
});

test('what is refused before it is looked at is counted, too', async (t) => {
  const { url, registry } = await start(t, { rateLimit: () => 1 });
  const post = (body: string) => ask(`${url}/subscribe`, {}, (request) => request.end(body));
  assert.equal((await post(' '.repeat(100_001))).status, 200);
  assert.equal((await post('{}')).status, 429);
  const metrics = await registry.metrics();
  assert.match(metrics, /spns_web_request_duration_seconds_bucket\{le="10",route="subscribe"\} 2\n/);
  for (const status of ['200', '429']) {
    assert.match(
      metrics,
      new RegExp(`spns_web_requests_total\\{via="plain",route="subscribe",status="${status}"\\} 1`),
    );
  }
});

test('other methods and other paths are answered as the original does', async (t) => {
  const { url } = await start(t);
  const cases: [string, string, number][] = [
    ['GET', '/subscribe', 405],
    ['HEAD', '/subscribe', 405],
    ['PUT', '/unsubscribe', 405],
    ['DELETE', '/oxen/v4/lsrpc?x=1', 405],
    ['OPTIONS', '/subscribe', 200],
    ['GET', '/', 404],
    ['POST', '/', 404],
    ['POST', '/subscribe/', 404],
    ['POST', '/loki/v3/lsrpc', 404],
    ['POST', '/constructor', 404],
    ['POST', '/subscribe%zz', 404],
    ['GET', '/%ff?x=%zz', 404],
  ];
  for (const [method, path, status] of cases) {
    const answer = await ask(url + path, { method });
    assert.equal(answer.status, status, `${method} ${path}`);
    if (status !== 404) assert.equal(answer.headers.allow, 'POST, OPTIONS', `${method} ${path}`);
    if (status === 404) assert.match(answer.body, /^<!doctype html>\n<html lang=en>\n<title>404 Not Found</);
  }
});

test('the request limit is by client address, and onion requests have none', async (t) => {
  let perMinute = 2;
  const { url } = await start(t, { rateLimit: () => perMinute, trustProxy: 'loopback' });
  const from = (address: string, path = '/subscribe', body: Uint8Array | string = '{}') =>
    ask(url + path, { headers: { 'x-forwarded-for': address } }, (request) => request.end(body));
  assert.equal((await from('192.0.2.1')).status, 200);
  assert.equal((await from('192.0.2.1', '/unsubscribe')).status, 200);
  const refused = await from('192.0.2.1');
  assert.equal(refused.status, 429);
  assert.equal(JSON.parse(refused.body).error, 2);
  assert.ok(Number(refused.headers['retry-after']) > 0);
  assert.equal((await from('192.0.2.2')).status, 200);
  assert.equal((await from('2001:db8::1')).status, 200);
  assert.equal((await from('2001:db8::2')).status, 200);
  assert.equal((await from('2001:db8::3')).status, 429, 'a /64 is one client');
  const { body } = encryptOnion(Buffer.from('l2:{}e'), x25519Public(onionKey), 'xchacha20');
  for (let i = 0; i < 10; i++) assert.equal((await from('192.0.2.1', '/oxen/v4/lsrpc', body)).status, 200);
  perMinute = 0;
  assert.equal((await from('192.0.2.1')).status, 200, 'no limit any more');
});

test('without a trusted proxy nobody is believed about their address', async (t) => {
  const { url } = await start(t, { rateLimit: () => 1 });
  const from = (address: string) =>
    ask(`${url}/subscribe`, { headers: { 'x-forwarded-for': address } }, (request) => request.end('{}'));
  assert.equal((await from('192.0.2.1')).status, 200);
  assert.equal((await from('192.0.2.2')).status, 429);
});

test('listens on a Unix socket, where whoever reaches it is the proxy in front', async (t) => {
  const fake = await fakeHivemind(t, (command, request) => request.reply(command));
  await fake.start();
  const { hivemind, untilConnected } = connect(t, fake.address);
  await untilConnected(true);
  const path = `${fake.folder}/web.sock`;
  // What a process that was killed leaves: a socket file that nobody listens to.
  const before = net.createServer();
  await new Promise<void>((resolve) => before.listen(`${path}.before`, resolve));
  await rename(`${path}.before`, path);
  await new Promise((resolve) => before.close(resolve));
  const { url } = await serve(t, hivemind, onionKey, {
    listen: { path },
    trustProxy: 'loopback',
    rateLimit: () => 1,
  });
  assert.equal(url, `unix:${path}`);
  assert.equal((await stat(path)).mode & 0o777, 0o666, 'as open as a port');
  const from = (address: string) =>
    ask(
      { socketPath: path },
      { path: '/subscribe', headers: { 'x-forwarded-for': `203.0.113.9, ${address}` } },
      (request) => request.end('{}'),
    );
  assert.equal((await from('192.0.2.1')).status, 200);
  assert.equal((await from('192.0.2.1')).status, 429);
  assert.equal((await from('192.0.2.2')).status, 200);
});

test('on a Unix socket without a trusted proxy there is no limit, for clients cannot be told apart', async (t) => {
  const fake = await fakeHivemind(t, (command, request) => request.reply(command));
  await fake.start();
  const { hivemind, untilConnected } = connect(t, fake.address);
  await untilConnected(true);
  const socketPath = `${fake.folder}/web.sock`;
  await serve(t, hivemind, onionKey, { listen: { path: socketPath }, rateLimit: () => 1 });
  for (let i = 0; i < 3; i++) {
    const answer = await ask({ socketPath }, { path: '/subscribe' }, (request) => request.end('{}'));
    assert.equal(answer.status, 200);
  }
});

test('the hivemind is told who asks; an address that floods it with large requests leaves places for all others, and for small ones', async (t) => {
  const held: (() => void)[] = [];
  const names = new Set<string>();
  const fake = await fakeHivemind(t, (_, request) => {
    names.add(String(request.parts[1]));
    if (request.parts[0]!.length > 1_000) held.push(() => request.reply('late'));
    else request.reply('at once');
  });
  await fake.start();
  const { hivemind, untilConnected } = connect(t, fake.address, { limit: 100 });
  await untilConnected(true);
  const { url } = await serve(t, hivemind, onionKey, { trustProxy: true });
  const post = (from: string, bytes: number) =>
    ask(`${url}/subscribe`, { headers: { 'x-forwarded-for': from, 'content-length': String(bytes) } }, (request) =>
      request.end(Buffer.alloc(bytes, 'x')),
    );
  const flood = Promise.all(Array.from({ length: 50 }, () => post('192.0.2.1', 50_000)));
  await until(() => held.length >= 7);
  assert.equal((await post('192.0.2.1', 100)).body, 'at once');
  assert.equal((await post('192.0.2.2', 100)).body, 'at once');
  assert.equal((await post('2001:db8::7', 100)).body, 'at once');
  assert.deepEqual(names, new Set(['192.0.2.1', '192.0.2.2', '2001:db8:0:0']));
  let answers: Awaited<typeof flood> | undefined;
  void flood.then((all) => (answers = all));
  await until(() => {
    for (const release of held.splice(0)) release();
    return answers !== undefined;
  });
  const statuses = answers!.map(({ status }) => status);
  assert.ok(statuses.includes(503) && statuses.includes(200));
});

test('no header makes a request fail, over TCP or a Unix socket, with and without a trusted proxy', async (t) => {
  const odd = [
    '',
    ' ',
    ',',
    ', ,',
    'unknown',
    '_hidden',
    '::',
    '[::1]:80',
    '1.2.3.4:5',
    '999.1.1.1',
    'a'.repeat(9_000),
    '%00',
  ];
  const { folder, ...fake } = await fakeHivemind(t, (_, request) => request.reply('ok'));
  await fake.start();
  const { hivemind, untilConnected } = connect(t, fake.address);
  await untilConnected(true);
  let sent = 0;
  for (const [index, trustProxy] of [true, false, 'loopback', '192.0.2.1'].entries()) {
    for (const listen of [{ path: `${folder}/web-${index}.sock` }, { host: '127.0.0.1', port: 0 }]) {
      const options = { listen, trustProxy, rateLimit: () => 1_000 };
      const { url, faults, registry } = await serve(t, hivemind, onionKey, options);
      const { path } = listen;
      const at = path === undefined ? `${url}/subscribe` : { socketPath: path, path: '/subscribe' };
      const counted = async () => (await registry.getSingleMetric('spns_web_requests_total')!.get()).values;
      let here = 0;
      for (const value of [undefined, ...odd]) {
        for (const name of ['x-forwarded-for', 'x-forwarded-host', 'x-forwarded-proto', 'forwarded', 'content-type']) {
          const headers = value === undefined ? {} : { [name]: value };
          const answer = await ask(at, { headers }, (request) => request.end('{}'));
          assert.deepEqual([answer.status, answer.body], [200, 'ok'], `${trustProxy} ${JSON.stringify(headers)}`);
          here++;
        }
      }
      const total = (await counted()).reduce((sum, { value }) => sum + value, 0);
      assert.equal(total, here, 'every answer is counted');
      assert.deepEqual(faults, []);
      sent += here;
    }
  }
  assert.ok(sent > 400);
});
