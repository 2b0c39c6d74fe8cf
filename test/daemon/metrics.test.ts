import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { createServer } from 'node:net';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import perfHooks from 'node:perf_hooks';
import { type TestContext, test } from 'node:test';
import { Counter, Registry } from 'prom-client';
import { createRegistry, type MetricsOptions, type Readiness, serveMetrics } from '../../src/daemon/metrics.ts';
import { formatListen, type ListenAddress, parseListen } from '../../src/settings/listen-address.ts';
import { ask as askHttp } from '../support/http.ts';
import { once } from '../support/once.ts';

interface Reply {
  status: number;
  type: string | undefined;
  body: string;
}

async function ask(address: ListenAddress, path: string, method = 'GET'): Promise<Reply> {
  const where = 'path' in address ? { socketPath: address.path } : address;
  const { status, headers, body } = await askHttp({ ...where, path, method });
  return { status, type: headers['content-type'], body };
}

async function serve(t: TestContext, options: Partial<MetricsOptions> = {}): Promise<ListenAddress> {
  const server = await serveMetrics({
    listen: '127.0.0.1:0',
    registry: new Registry(),
    ready: () => ({ ok: true, reasons: [] }),
    ...options,
  });
  t.after(() => server.close());
  return server.address;
}

test('metrics are text for Prometheus, including those of the process', async (t) => {
  const registry = createRegistry(true);
  new Counter({ name: 'spns_test_total', help: 'A test', registers: [registry] }).inc(3);
  const reply = await ask(await serve(t, { registry }), '/metrics');
  assert.equal(reply.status, 200);
  assert.match(reply.type!, /^text\/plain; version=0\.0\.4/);
  assert.match(reply.body, /^spns_test_total 3$/m);
  assert.match(reply.body, /^process_resident_memory_bytes \d+$/m);
  assert.match(reply.body, /^nodejs_eventloop_lag_p99_seconds /m);
});

test('the lag of the event loop is measured every 50 ms, so that an idle process is not woken more often', (t) => {
  const monitor = t.mock.method(perfHooks, 'monitorEventLoopDelay');
  createRegistry(true);
  assert.deepEqual(
    monitor.mock.calls.map((call) => call.arguments),
    [[{ resolution: 50 }]],
  );
});

test('ready is 200, or 503 with the reasons; live is 200 either way', async (t) => {
  let state: Readiness = { ok: false, reasons: ['oxend does not answer', 'no notifier'] };
  const address = await serve(t, { ready: () => state });
  const unready = await ask(address, '/ready');
  assert.equal(unready.status, 503);
  assert.deepEqual(JSON.parse(unready.body), { ready: false, reasons: ['oxend does not answer', 'no notifier'] });
  assert.equal((await ask(address, '/live')).status, 200);
  state = { ok: true, reasons: [] };
  const ready = await ask(address, '/ready');
  assert.equal(ready.status, 200);
  assert.deepEqual(JSON.parse(ready.body), { ready: true, reasons: [] });
});

test('further routes are served, and unknown ones answered as such', async (t) => {
  const address = await serve(t, {
    routes: () => ({
      '/': (url) => ({ type: 'text/html', body: `<p>${url.searchParams.get('x')}` }),
      '/broken': () => {
        throw new Error('secret detail');
      },
    }),
  });
  assert.deepEqual(await ask(address, '/?x=1'), { status: 200, type: 'text/html', body: '<p>1' });
  assert.equal((await ask(address, '/nothing')).status, 404);
  assert.equal((await ask(address, '/constructor')).status, 404);
  assert.equal((await ask(address, '/metrics', 'POST')).status, 405);
  const broken = await ask(address, '/broken');
  assert.equal(broken.status, 500);
  assert.doesNotMatch(broken.body, /secret/);
  const head = await ask(address, '/live', 'HEAD');
  assert.deepEqual([head.status, head.body], [200, '']);
});

test('a Unix socket works too, also over one that a killed process left behind', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'spns-metrics-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'm.sock');
  const first = await serveMetrics({
    listen: `unix:${path}`,
    registry: new Registry(),
    ready: () => ({ ok: true, reasons: [] }),
  });
  assert.equal((await ask({ path }, '/live')).status, 200);
  await assert.rejects(
    serve(t, { listen: `unix:${path}` }),
    /cannot listen on unix:.*another process already listens there/,
  );
  assert.equal((await ask({ path }, '/live')).status, 200, 'the first one goes on');
  await first.close();
  assert.equal(existsSync(path), false);
  writeFileSync(path, 'no socket');
  await assert.rejects(serve(t, { listen: `unix:${path}` }), /cannot listen/);
});

test('a port that is taken, or that we may not use, is explained in words', async (t) => {
  const other = createServer();
  await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
  t.after(() => other.close());
  const { port } = other.address() as { port: number };
  await assert.rejects(
    serve(t, { listen: `127.0.0.1:${port}` }),
    new RegExp(`^Error: cannot listen on 127\\.0\\.0\\.1:${port}: another process already listens there`),
  );
  await assert.rejects(serve(t, { listen: '192.0.2.1:0' }), /this machine has no such address/);
  await assert.rejects(serve(t, { listen: 'unix:/nowhere/at/all' }), /the folder does not exist, or this user may not/);
});

test('addresses: host and port, IPv6 in brackets, Unix sockets', () => {
  assert.deepEqual(parseListen('127.0.0.1:80'), { host: '127.0.0.1', port: 80 });
  assert.deepEqual(parseListen('[::1]:80'), { host: '::1', port: 80 });
  assert.deepEqual(parseListen('localhost:0'), { host: 'localhost', port: 0 });
  assert.deepEqual(parseListen('unix:/run/x.sock'), { path: '/run/x.sock' });
  assert.equal(formatListen({ host: '::1', port: 80 }), '[::1]:80');
  assert.equal(formatListen({ path: '/x' }), 'unix:/x');
  for (const bad of [
    '80',
    ':80',
    '::1:80',
    'h:',
    'h:99999',
    'http://h:80',
    'unix:',
    'h:80/',
    'a b:80',
    `unix:/${'x'.repeat(120)}`,
  ]) {
    assert.throws(() => parseListen(bad), Error, bad);
  }
});

test('only requests under our own name are answered, so that no web page can read us by rebinding its name', async (t) => {
  const registry = createRegistry(false);
  const server = await serveMetrics({
    listen: '127.0.0.1:0',
    registry,
    ready: () => ({ ok: true, reasons: [] }),
    routes: () => ({ '/': () => ({ type: 'text/html', body: 'status' }) }),
  });
  t.after(() => server.close());
  const { port } = server.address as { port: number };
  const status = (host: string, path: string) =>
    new Promise<number>((resolve, reject) => {
      http
        .get({ host: '127.0.0.1', port, path, headers: { host } }, (response) => {
          response.resume().on('end', () => resolve(response.statusCode!));
        })
        .on('error', reject);
    });
  for (const path of ['/metrics', '/live', '/ready', '/']) {
    for (const host of [
      `127.0.0.1:${port}`,
      '10.1.2.3',
      '[::1]:9180',
      'localhost',
      'LocalHost:80',
      'localhost.',
      hostname(),
    ]) {
      assert.equal(await status(host, path), 200, `${host} ${path}`);
    }
    for (const host of [
      'evil.example',
      `evil.example:${port}`,
      'localhost.evil.example',
      '127.0.0.1.evil.example',
      `${hostname()}.evil.example`,
      'x@localhost',
      '[evil]',
    ]) {
      assert.equal(await status(host, path), 421, `${host} ${path}`);
    }
  }
  const { values } = await registry.getSingleMetric('spns_metrics_foreign_host_total')!.get();
  assert.equal(values[0]?.value, 28);
});

test('a name in metrics_listen is accepted as ours, and on a Unix socket any name is', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'spns-metrics-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const ready = () => ({ ok: true, reasons: [] });
  for (const listen of ['ip6-localhost:0', `unix:${folder}/metrics.sock`]) {
    const server = await serveMetrics({ listen, registry: createRegistry(false), ready }).catch(() => undefined);
    // Not every machine has this name.
    if (!server) continue;
    t.after(() => server.close());
    const where = 'path' in server.address ? { socketPath: server.address.path } : server.address;
    const host = 'path' in server.address ? 'any.example' : 'ip6-localhost:9180';
    const request = http.get({ ...where, path: '/live', headers: { host } });
    const [response] = (await once(request, 'response')) as [http.IncomingMessage];
    assert.equal(response.resume().statusCode, 200);
  }
});
