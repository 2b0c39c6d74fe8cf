import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type TestContext, test } from 'node:test';
import { keyPairFromSecret } from '../../src/oxenmq/keys.ts';
import { addressOf, openPeers } from '../oxenmq/support.ts';
import { post } from '../support/http.ts';
import { ownAddress } from '../support/loopback.ts';
import { ended, once } from '../support/once.ts';
import { until } from '../support/until.ts';
import { fakeHivemind } from './fake-hivemind.ts';

/**
 * A real front-end in a process of its own that may have so many file descriptors, beside a hivemind that answers all.
 */
async function front(t: TestContext, { descriptors }: { descriptors: number }) {
  const clients: string[] = [];
  const fake = await fakeHivemind(t, (_, request) => {
    clients.push(String(request.parts[1]));
    request.reply(`${request.parts[0]!.length}`);
  });
  await fake.start();
  const secret = randomBytes(32);
  writeFileSync(join(fake.folder, 'onionreq.key'), secret);
  writeFileSync(
    join(fake.folder, 'spns.ini'),
    [
      `[hivemind]\nlisten = ${fake.address}\nlisten_curve_public = ${ownAddress()}`,
      `[keys]\nonionreq = ${fake.folder}/onionreq.key`,
      '[web]\nlisten = 127.0.0.1:0\nmetrics_listen = 127.0.0.1:0',
      '[log]\nformat = json',
    ].join('\n'),
  );
  const main = join(import.meta.dirname, '../../src/web/main.ts');
  const child = spawn('sh', ['-c', `ulimit -n ${descriptors} && exec "$0" "$1"`, process.execPath, main], {
    env: { ...process.env, SPNS_CONFIG: join(fake.folder, 'spns.ini') },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => child.kill('SIGKILL'));
  void ended(child).then((how) => failed(new Error(`the front-end ended with ${how}`)));
  let failed = (_error: Error) => {};
  const dead = new Promise<never>((_, reject) => (failed = reject));
  dead.catch(() => {});

  const found = new Map<string, string>();
  const told = (async () => {
    for await (const line of createInterface(child.stdout)) {
      const { msg, address, listen } = JSON.parse(line);
      found.set(msg, address ?? listen ?? '');
      if (found.has('connected to the hivemind') && found.has('listening for anonymous clients')) return;
    }
  })();
  await Promise.race([told, dead]);
  const http = found.get('listening')!;
  const metrics = async (name: string) => {
    const text = await (await fetch(`http://${found.get('metrics and health')}/metrics`)).text();
    return Number(new RegExp(`^${name.replace(/[{}]/g, '\\$&')} (\\S+)$`, 'm').exec(text)?.[1]);
  };
  return {
    http: http.replace(/^http:\/\//, ''),
    curve: addressOf(found.get('listening for anonymous clients')!, keyPairFromSecret(secret).publicKey),
    pid: child.pid,
    metrics,
    dead,
    clients,
  };
}

/** Opens so many connections to a port and says nothing, or what is given; as fast as they are taken. */
async function crowd(t: TestContext, port: number, count: number, words = '', host = '127.0.0.1'): Promise<Socket[]> {
  const sockets: Socket[] = [];
  t.after(() => {
    for (const socket of sockets) socket.destroy();
  });
  const one = async () => {
    while (sockets.length < count) {
      const socket = connect({ port, host, localAddress: '127.0.0.9' });
      sockets.push(socket);
      socket.on('error', () => {}).resume();
      if (words !== '') socket.write(words);
      await Promise.race([once(socket, 'connect').catch(() => {}), once(socket, 'close').catch(() => {})]);
    }
  };
  await Promise.all(Array.from({ length: 50 }, one));
  return sockets;
}

test('thousands of silent connections neither end the front-end nor shut honest clients out, with few file descriptors', async (t) => {
  const { http, curve, metrics, dead, clients } = await front(t, { descriptors: 256 });
  const honest = openPeers(t);
  const connection = honest.peers.connect(curve);
  await Promise.race([honest.events.first(({ event }) => event === 'hello'), dead]);
  await Promise.race([
    Promise.all([crowd(t, curve.port!, 3000, '', curve.host), crowd(t, Number(http.split(':')[1]), 3000)]),
    dead,
  ]);
  assert.equal((await Promise.race([post(`http://${http}/subscribe`, '{}'), dead])).status, 200);
  assert.deepEqual((await connection.request('push.subscribe', ['{}'])).map(String), ['2']);
  // One who comes only now is let in as well.
  const late = openPeers(t);
  const another = late.peers.connect(curve);
  await Promise.race([late.events.first(({ event }) => event === 'hello'), dead]);
  assert.deepEqual((await another.request('push.unsubscribe', ['{"a":1}'])).map(String), ['7']);
  // The hivemind serves clients in turn, and so is told who each is.
  assert.deepEqual(clients, ['127.0.0.1', '127.0.0.1', '127.0.0.1']);
  assert.ok((await metrics('spns_web_crowded_out_total{listener="curve"}')) > 1000);
  assert.ok((await metrics('spns_web_crowded_out_total{listener="http"}')) > 1000);
  assert.ok((await metrics('spns_web_connections{listener="curve"}')) <= 78);
});

test('unfinished bodies of 165 kB hold no more than the limit, and an honest request is answered among them', async (t) => {
  const { http, metrics, dead } = await front(t, { descriptors: 20_000 });
  const unfinished = `POST /oxen/v4/lsrpc HTTP/1.1\r\nHost: x\r\nContent-Length: 165000\r\n\r\n${'x'.repeat(164_000)}`;
  const sockets = await Promise.race([crowd(t, Number(http.split(':')[1]), 2000, unfinished), dead]);
  const bytes = () => metrics('spns_web_unfinished_request_bytes{listener="http"}');
  // They are still arriving.
  await until(async () => (await bytes()) >= 50 * 1024 * 1024, 20);
  assert.equal((await Promise.race([post(`http://${http}/subscribe`, '{}'), dead])).status, 200);
  assert.ok((await bytes()) <= 64 * 1024 * 1024);
  // Those for which there is no room; where their bodies take very long to arrive, some because their time is over.
  await until(() => sockets.filter((socket) => socket.closed).length >= 1500, 20);
  assert.ok((await bytes()) <= 64 * 1024 * 1024);
  assert.ok((await metrics('spns_web_crowded_out_total{listener="http"}')) > 0);
  t.diagnostic(`resident memory: ${(await metrics('process_resident_memory_bytes')) / 1e6} MB`);
});
