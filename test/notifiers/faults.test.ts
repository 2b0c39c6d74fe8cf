import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { constants } from 'node:http2';
import { type TestContext, test } from 'node:test';
import { startFakeApns } from '../../src/devnet/providers/apns.ts';
import { type FakeFcm, startFakeFcm } from '../../src/devnet/providers/fcm.ts';
import { fcmError } from '../../src/devnet/providers/fcm-checks.ts';
import { type FakeHuawei, startFakeHuawei } from '../../src/devnet/providers/huawei.ts';
import { huaweiCode } from '../../src/devnet/providers/huawei-checks.ts';
import type { FakeProvider } from '../../src/devnet/providers/script.ts';
import { startFakeWebPush } from '../../src/devnet/providers/webpush.ts';
import { loadBackend } from '../../src/notifiers/runtime/load.ts';
import { Notifier } from '../../src/notifiers/runtime/notifier.ts';
import { until } from '../support/until.ts';
import { FakeHivemind } from './fake-hivemind.ts';
import { apnsToken, contextOf, folder, notifierOptions, sectionOf } from './support.ts';

/** As the real policy, but a hundred times faster. */
const policy = { base: 20, cap: 500, lifetime: 60_000 };

/** A notifier of the real kind between a hivemind and a provider, and what came out for each device. */
async function setUp(t: TestContext, service: string, fake: FakeProvider, keys: Record<string, string> = {}) {
  const hivemind = await FakeHivemind.start(t, service);
  const settings = { ...(await fake.settings(await folder(t))), ...keys };
  const create = await loadBackend(service, sectionOf('', {}));
  const context = contextOf(service, settings);
  const backend = await create(context);
  const notifier = new Notifier({ ...notifierOptions(service, backend, [hivemind]), policy });
  hivemind.beforeEnd.push(async () => {
    await fake.close();
    await notifier.stop(1_100);
  });
  const times = new Map<string, number>();
  fake.taken.onPush = ({ token }) => times.set(token, (times.get(token) ?? 0) + 1);
  await hivemind.until(() => hivemind.instances.size === 1);
  return { hivemind, notifier, times };
}

test('Apple: GOAWAYs, cut connections and refused streams under load lose nothing, and duplicate only what was unknown', async (t) => {
  const fake = await startFakeApns({ delay: 3, streams: 50 });
  const { hivemind, notifier, times } = await setUp(t, 'apns', fake, { connections: '2', streams: '50' });
  const count = 2_000;
  hivemind.push(Array.from({ length: count }, (_, index) => ({ serviceId: apnsToken(index) })));
  fake.script.next({ reset: constants.NGHTTP2_REFUSED_STREAM }, 15);
  await fake.taken.reached(300);
  fake.goaway();
  await fake.taken.reached(800);
  fake.cut();
  await fake.taken.reached(1_200);
  fake.script.next({ goaway: constants.NGHTTP2_ENHANCE_YOUR_CALM }, 2);
  await hivemind.until(() => hivemind.outstanding === 0);
  assert.equal(hivemind.accepted.size, count);
  assert.equal(times.size, count);
  // sent = delivered + given up + held
  assert.deepEqual(notifier.sender.held, 0);
  assert.deepEqual([...notifier.ends.keys()], ['accepted']);
  // At most the streams of the connections that ended without a word.
  const duplicates = fake.taken.count - count;
  t.diagnostic(`${duplicates} of ${count} pushes were taken twice`);
  assert.ok(duplicates <= 200, `${duplicates} duplicates`);
});

/**
 * Pushes to a dead device and to `count` others, while tokens expire and connections are cut.
 *
 * @returns how many pushes the provider took twice
 */
async function loseTokensAndConnections(
  fake: FakeFcm | FakeHuawei,
  { hivemind, notifier, times }: Awaited<ReturnType<typeof setUp>>,
  { count, expireAt, cutAt }: { count: number; expireAt: number; cutAt: number },
): Promise<number> {
  hivemind.push([{ serviceId: 'dead' }, ...Array.from({ length: count }, (_, index) => ({ serviceId: `d${index}` }))]);
  await fake.taken.reached(expireAt);
  fake.expireTokens();
  await fake.taken.reached(cutAt);
  fake.cut();
  await hivemind.until(() => hivemind.outstanding === 0);
  assert.equal(hivemind.accepted.size, count);
  assert.equal(times.size, count);
  assert.deepEqual(
    hivemind.gone.map(({ serviceId }) => serviceId),
    ['dead'],
  );
  assert.equal(notifier.sender.held, 0);
  return fake.taken.count - count;
}

test('Google: expired tokens and cut connections under load lose nothing', async (t) => {
  const fake = await startFakeFcm({ delay: 2 });
  const parts = await setUp(t, 'firebase', fake, { connections: '2', notify_interval: '0' });
  fake.script.device('dead', fcmError(404, 'NOT_FOUND', 'UNREGISTERED'));
  const twice = await loseTokensAndConnections(fake, parts, { count: 3_000, expireAt: 500, cutAt: 1_500 });
  t.diagnostic(`${twice} of 3000 pushes were taken twice`);
  // At most what was on its way over the connections that were cut: 100 streams each.
  assert.ok(twice <= 200, `${twice} were taken twice`);
});

test('Huawei: expired tokens, dead devices and cut connections under load lose nothing', async (t) => {
  const fake = await startFakeHuawei({ delay: 2 });
  const parts = await setUp(t, 'huawei', fake, { connections: '20' });
  fake.script.device('dead', huaweiCode('80300007', 'All tokens are invalid'));
  const twice = await loseTokensAndConnections(fake, parts, { count: 1_500, expireAt: 300, cutAt: 700 });
  assert.equal(fake.tokensGiven, 2);
  assert.ok(twice <= 20, `${twice} were taken twice`);
});

test('Web Push: cut connections and dead devices under load lose nothing, while a silent service delays no other', async (t) => {
  const fake = await startFakeWebPush({ delay: 2 });
  const { hivemind, notifier, times } = await setUp(t, 'webpush', fake, { connections: '40', timeout: '5' });
  const silent = await startFakeWebPush({ key: fake.key });
  t.after(() => silent.close());
  silent.script.all = { hang: true };
  const subscribe = async (at: typeof fake) => {
    const { token, info } = at.subscribe(randomBytes);
    const [code, serviceId, serviceData] = await hivemind.validateDevice(JSON.stringify(info));
    assert.equal(String(code), '0');
    return { token, push: { serviceId: String(serviceId), serviceData: serviceData! } };
  };
  const stuck = await subscribe(silent);
  const dead = await subscribe(fake);
  fake.script.always(dead.token, { status: 410 });
  const apps = await Promise.all(Array.from({ length: 30 }, () => subscribe(fake)));
  const soon = Date.now() + 6_000;
  hivemind.push(Array.from({ length: 300 }, () => ({ ...stuck.push, expiry: soon })));
  await until(() => silent.requests !== 0);
  const count = 600;
  const all = [dead.push, ...Array.from({ length: count }, (_, index) => apps[index % apps.length]!.push)];
  hivemind.push(all);
  await fake.taken.reached(200);
  fake.cut();
  await hivemind.until(() => hivemind.accepted.size === count);
  assert.ok(silent.requests < 100, `${silent.requests} requests to the silent service`);
  assert.equal(silent.taken.count, 0);
  assert.equal(times.size, apps.length);
  await hivemind.until(() => hivemind.outstanding === 0);
  assert.equal(hivemind.accepted.size, count);
  assert.deepEqual(
    hivemind.gone.map(({ serviceId }) => serviceId),
    [dead.push.serviceId],
  );
  assert.equal(notifier.sender.held, 0);
  assert.deepEqual([...notifier.ends.keys()].sort(), ['accepted', 'given-up:expired', 'gone:410']);
  // At most what was on its way when the connections were cut.
  assert.ok(fake.taken.count - count <= 40, `${fake.taken.count - count} duplicates`);
});

test('a provider that refuses everything for a while is not hammered, and all devices get their pushes when it is back', async (t) => {
  const fake = await startFakeApns();
  const { hivemind, times, notifier } = await setUp(t, 'apns', fake, { connections: '1', streams: '10' });
  fake.script.all = { cut: true };
  hivemind.push(Array.from({ length: 500 }, (_, index) => ({ serviceId: apnsToken(index) })));
  await until(() => notifier.sender.isPaused);
  const { requests } = fake;
  assert.ok(requests < 100, `${requests} requests`);
  fake.script.clear();
  await hivemind.until(() => hivemind.outstanding === 0);
  assert.equal(times.size, 500);
});
