import assert from 'node:assert/strict';
import { appendFile, readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { startFakeApns } from '../../src/devnet/providers/apns.ts';
import { startFakeHuawei } from '../../src/devnet/providers/huawei.ts';
import { health } from '../../src/devnet/reach.ts';
import { parseAddress } from '../../src/oxenmq/address.ts';
import { keyPairFromSecret } from '../../src/oxenmq/keys.ts';
import { deriveClusterKey } from '../../src/session/notifier-key.ts';
import { until } from '../support/until.ts';
import { FakeHivemind, startCluster, tellOfEachOther } from './fake-hivemind.ts';
import { startProcess, writeConfig } from './process.ts';
import { apnsToken, folder } from './support.ts';

test('a notifier process serves, and stops in order with exit code 0', async (t) => {
  const path = await folder(t);
  const fake = await startFakeApns();
  t.after(() => fake.close());
  const hivemind = await FakeHivemind.start(t, 'apns');
  const config = await writeConfig(path, 'apns', hivemind, await fake.settings(path));
  const notifier = startProcess(t, config, 'apns');
  await hivemind.until(() => hivemind.instances.size === 1);
  assert.deepEqual(await hivemind.validate('apns', `{"token":"${apnsToken(1)}"}`), ['0', apnsToken(1)]);
  hivemind.push(Array.from({ length: 300 }, (_, index) => ({ serviceId: apnsToken(index) })));
  await hivemind.until(() => hivemind.outstanding === 0);
  assert.equal(hivemind.accepted.size, 300);
  assert.equal(fake.taken.count, 300);
  assert.equal(await notifier.end('SIGTERM'), 0, notifier.output());
  // What it told last may be read after its end.
  await hivemind.until(() => hivemind.drained === 1 && hivemind.notifies === 300);
  const last = hivemind.statistics.at(-1)!;
  assert.ok(
    Number(last.get('provider_ms')) >= 0 && Number(last.get('provider_p95_ms')) >= Number(last.get('provider_ms')),
  );
  assert.ok(last.has('credential_expires'), 'also where it never runs out: an earlier value would be kept');
  assert.match(notifier.output(), /300 notifications, 0 retries, 0 failures/);
  // Tokens are nobody's business.
  assert.ok(!notifier.output().includes(apnsToken(1)));
});

test('its settings name some of several hiveminds, and it finds the others, also by CURVE on another machine', async (t) => {
  const path = await folder(t);
  const fake = await startFakeApns();
  t.after(() => fake.close());
  const { a, b } = await startCluster(t, 'apns', ['a', 'b']);
  const config = await writeConfig(path, 'apns', undefined, await fake.settings(path));
  const sections = [`[hivemind-a]`, `listen = ${a.endpoint}`, '[hivemind-b]', `listen = ${b.endpoint}`, ''];
  await appendFile(config, sections.join('\n'));
  const secret = Buffer.from(await readFile(join(path, 'hivemind.key'), 'latin1'), 'hex');
  const keys = keyPairFromSecret(secret);
  const ours = keyPairFromSecret(deriveClusterKey(secret)).publicKey;
  const c = await FakeHivemind.start(t, 'apns', { curve: { keys, allow: (key) => ours.equals(key) } });
  const { host, port } = parseAddress(c.endpoint);
  tellOfEachOther({ a, b }, { c: `curve://${host}:${port}/${keys.publicKey.toString('hex')}` });
  const notifier = startProcess(t, config, 'apns');
  await Promise.all([a, b, c].map((hivemind) => hivemind.until(() => hivemind.instances.size === 1)));
  const copy = { serviceId: apnsToken(1), fingerprint: Buffer.from('the same') };
  for (const hivemind of [a, b, c]) {
    hivemind.push([copy]);
    await hivemind.until(() => hivemind.accepted.size === 1);
  }
  assert.equal(fake.taken.count, 1);
  assert.equal(await notifier.end('SIGTERM'), 0, notifier.output());
  for (const hivemind of [a, b, c]) await hivemind.until(() => hivemind.drained === 1);
});

test('with thousands of pushes in hand it hands back in time what it has not begun', async (t) => {
  const path = await folder(t);
  const fake = await startFakeHuawei({ delay: 300 });
  t.after(() => fake.close());
  const hivemind = await FakeHivemind.start(t, 'huawei');
  const config = await writeConfig(path, 'huawei', hivemind, { ...(await fake.settings(path)), connections: '20' });
  const notifier = startProcess(t, config, 'huawei');
  await hivemind.until(() => hivemind.instances.size === 1);
  const ids = hivemind.push(Array.from({ length: 10_000 }, () => ({})));
  await fake.taken.reached(20);
  // Sending all would take two and a half minutes; a stop that is not done in ten seconds ends with 1.
  assert.equal(await notifier.end('SIGTERM'), 0, notifier.output());
  await hivemind.until(() => hivemind.handedBack.length > 0 && hivemind.instances.size === 0);
  // What it did not hand back it had done, and nothing is told twice.
  assert.equal(hivemind.accepted.size, fake.taken.count);
  assert.equal(hivemind.outstanding, ids.length - hivemind.accepted.size);
  assert.equal(new Set(hivemind.handedBack).size, hivemind.handedBack.length);
});

test('killed under load and started again: every push arrives, and none twice except what was on its way', async (t) => {
  const path = await folder(t);
  const fake = await startFakeApns({ delay: 5 });
  t.after(() => fake.close());
  const times = new Map<string, number>();
  fake.taken.onPush = ({ token }) => times.set(token, (times.get(token) ?? 0) + 1);
  const hivemind = await FakeHivemind.start(t, 'apns');
  const settings = { ...(await fake.settings(path)), connections: '1', streams: '100' };
  const config = await writeConfig(path, 'apns', hivemind, settings);
  const count = 3_000;
  let duplicatesAllowed = 0;
  const first = startProcess(t, config, 'apns');
  await hivemind.until(() => hivemind.instances.size === 1);
  hivemind.push(Array.from({ length: count }, (_, index) => ({ serviceId: apnsToken(index) })));
  let running = first;
  for (const reached of [800, 1_900]) {
    await fake.taken.reached(reached);
    assert.equal(await running.end('SIGKILL'), 'SIGKILL');
    await hivemind.until(() => hivemind.instances.size === 0);
    // Taken by the provider, but not acknowledged before the kill.
    duplicatesAllowed += fake.taken.count;
    for (const id of hivemind.accepted) duplicatesAllowed -= times.get(apnsToken(id - 1)) ?? 0;
    running = startProcess(t, config, 'apns');
  }
  await hivemind.until(() => hivemind.outstanding === 0);
  assert.equal(hivemind.accepted.size, count);
  assert.equal(times.size, count);
  const duplicates = fake.taken.count - count;
  t.diagnostic(`${duplicates} of ${count} pushes were taken twice`);
  assert.ok(duplicates <= duplicatesAllowed, `${duplicates} duplicates, ${duplicatesAllowed} on their way`);
  // 100 streams, and the reports of the last 10 ms or 200 pushes.
  assert.ok(duplicates <= 2 * (100 + 200 + 200), `${duplicates} duplicates`);
  assert.equal(await running.end('SIGTERM'), 0);
});

test('wrong settings are all reported, and the exit code is 1', async (t) => {
  const path = await folder(t);
  const config = await writeConfig(path, 'huawei', undefined, { app_id: 'x', url: 'nowhere' });
  const notifier = startProcess(t, config, 'huawei');
  assert.equal(await notifier.ended, 1);
  for (const expected of [
    /app_id = x: must be the number/,
    /app_secret: is required/,
    /url = nowhere: must be an https/,
  ]) {
    assert.match(notifier.output(), expected);
  }
});

test('an invalid name is reported', async (t) => {
  const path = await folder(t);
  const config = await writeConfig(path, 'x', undefined, {});
  const unknown = startProcess(t, config, 'nothing-like-it');
  const none = startProcess(t, config);
  assert.equal(await unknown.ended, 1);
  assert.match(unknown.output(), /there is no notifier named nothing-like-it/);
  assert.equal(await none.ended, 2);
  assert.match(none.output(), /usage: node src\/notifiers\/main.ts NAME/);
});

test('the notifier of DOCUMENTATION.md works as written there', async (t) => {
  const text = await readFile(new URL('../../DOCUMENTATION.md', import.meta.url), 'utf8');
  const [, section] = /^### Writing a notifier\n([\s\S]*?)(?=^#{1,3} |$(?![\s\S]))/m.exec(text) ?? [];
  const [, code] = /^```(?:js|ts)\n([\s\S]*?)^```$/m.exec(section ?? '') ?? [];
  assert.ok(code, 'DOCUMENTATION.md has no example under "### Writing a notifier"');
  assert.ok(code.trimEnd().split('\n').length < 40);

  const path = await folder(t);
  const module = join(path, 'ntfy.mjs');
  await writeFile(module, code);
  const posted: string[] = [];
  const answers = new Map([
    ['dead', 410],
    ['odd', 418],
  ]);
  let busy = true;
  const server = createServer((request, response) => {
    const [, topic = ''] = request.url!.split('/');
    posted.push(`${topic} ${request.headers.authorization}`);
    const kind = topic.replace(/_.*/, '');
    if (kind === 'busy' && busy) {
      busy = false;
      response.writeHead(503, { 'retry-after': '1' });
    } else response.statusCode = answers.get(kind) ?? 200;
    request.resume().on('end', () => response.end());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const hivemind = await FakeHivemind.start(t, 'ntfy');
  const { port } = server.address() as AddressInfo;
  const keys = { module, server: `http://127.0.0.1:${port}`, access_token: 'tk_test' };
  const notifier = startProcess(t, await writeConfig(path, 'ntfy', hivemind, keys), 'ntfy');
  await hivemind.until(() => hivemind.instances.size === 1);

  const topic = (kind: string) => `${kind}_${'x'.repeat(40)}`;
  assert.deepEqual(await hivemind.validate('ntfy', JSON.stringify({ topic: topic('a') })), ['0', topic('a')]);
  assert.deepEqual(await hivemind.validate('ntfy', '{"topic":"short"}'), ['4', 'Invalid ntfy topic']);
  assert.deepEqual(await hivemind.validate('ntfy', 'null'), ['4', 'Invalid ntfy topic']);
  const ids = hivemind.push(['good', 'dead', 'odd', 'busy'].map((kind) => ({ serviceId: topic(kind) })));
  await hivemind.until(() => hivemind.outstanding === 0 && hivemind.gone.length === 1);
  assert.deepEqual([...hivemind.accepted].sort(), [ids[0], ids[3]]);
  assert.deepEqual([...hivemind.refused].sort(), [ids[1], ids[2]]);
  assert.equal(hivemind.gone[0]!.serviceId, topic('dead'));
  assert.equal(posted.filter((line) => line.startsWith('busy')).length, 2);
  assert.ok(posted.every((line) => line.endsWith(' Bearer tk_test')));
  assert.equal(await notifier.end('SIGTERM'), 0, notifier.output());
});

test("why the hivemind's socket cannot be used is shown by the log and /ready", async (t) => {
  const path = await folder(t);
  await writeFile(join(path, 'not-a-socket'), '');
  const keys = { metrics_listen: `unix:${path}/m.sock` };
  const config = await writeConfig(path, 'dummy', { endpoint: `ipc://${path}/not-a-socket` }, keys);
  const notifier = startProcess(t, config, 'dummy');
  const sentence = `${path}/not-a-socket is not a socket but something else`;
  const ready = async () => (await health(`${path}/m.sock`, '/ready'))?.text ?? '';
  await until(async () => (await ready()).includes(`not registered with the hivemind: ${sentence}`), 20);
  assert.ok(notifier.output().includes(sentence));
  assert.equal(await notifier.end('SIGTERM'), 0);
});
