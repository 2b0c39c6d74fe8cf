import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import type { DeviceKey, DeviceRow } from '../../../src/hivemind/devices/device.ts';
import { Devices } from '../../../src/hivemind/devices/devices.ts';
import { Outbox } from '../../../src/hivemind/notifications/outbox/outbox.ts';
import { DeadDevices } from '../../../src/hivemind/subscriptions/dead-devices.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { logTo, silentLog } from '../../support/log.ts';

const TOKEN = 'token'.padEnd(32, '.');

function setUp(removeDevices?: () => Promise<number>) {
  const clock = new FakeClock();
  const devices = new Devices({ random: randomBytes });
  const outbox = new Outbox({
    clock,
    random: randomBytes,
    limits: { maxBytes: 1e9, maxAge: 60_000 },
    breaker: { share: 0.5, minimum: 10 },
    log: silentLog,
  });
  const removed: DeviceKey[] = [];
  const lines: string[] = [];
  const inWork = new Set<string>();
  outbox.service('apns');
  const dead = new DeadDevices({
    clock,
    devices,
    store: {
      removeDevices: (keys) => {
        if (removeDevices) return removeDevices();
        removed.push(...keys);
        return Promise.resolve(keys.length);
      },
    },
    service: (name) => outbox.services.get(name),
    inWork: (_service, serviceId) => inWork.has(serviceId),
    log: logTo((text, level) => lines.push(`${level}: ${text}`)),
  });
  const subscribe = (serviceId: string, confirmedAt: number) => {
    const account = Buffer.concat([Buffer.from([3]), randomBytes(32)]);
    const row: DeviceRow = {
      account,
      sessionEd25519: null,
      subaccount: null,
      signature: randomBytes(64),
      signedAt: confirmedAt - 100,
      wantData: true,
      encKey: Buffer.alloc(32),
      service: 'apns',
      serviceId,
      serviceData: null,
      namespaces: [0],
    };
    devices.upsert(row, confirmedAt);
  };
  const gone = (serviceId: string, seconds: number, local = false) =>
    dead.remove({ service: 'apns', serviceId, time: seconds * 1000, reason: 'Unregistered', local });
  const dropAll = (ids: readonly string[]) => dead.removeAll('apns', ids);
  return { clock, devices, outbox, dead, removed, lines, inWork, subscribe, gone, dropAll };
}

test('all subscriptions of a dead device go, from memory and database', async (t) => {
  const { devices, outbox, removed, subscribe, gone } = setUp();
  t.after(() => outbox.stop(0));
  for (let account = 0; account < 3; account++) subscribe(TOKEN, 1_000);
  subscribe('another'.padEnd(32, '.'), 1_000);
  assert.equal(await gone(TOKEN, 2_000), 3);
  assert.equal(devices.size, 1);
  assert.equal(removed.length, 3);
});

test('a subscription that is newer than the verdict survives it', async (t) => {
  const { devices, outbox, subscribe, gone } = setUp();
  t.after(() => outbox.stop(0));
  subscribe(TOKEN, 1_000);
  subscribe(TOKEN, 3_000);
  assert.equal(await gone(TOKEN, 2_000), 1);
  assert.equal(devices.size, 1);
});

test("a provider's clock that runs ahead does not affect later subscriptions", async (t) => {
  const { clock, devices, outbox, lines, subscribe, gone } = setUp();
  t.after(() => outbox.stop(0));
  const now = Math.floor(clock.now() / 1000);
  subscribe(TOKEN, now + 5);
  assert.equal(await gone(TOKEN, now + 86_400), 0);
  assert.equal(devices.size, 1);
  assert.deepEqual(lines, [], 'nothing has been done');
});

test('a device with a request in progress is left alone', async (t) => {
  const { devices, outbox, inWork, subscribe, gone } = setUp();
  t.after(() => outbox.stop(0));
  subscribe(TOKEN, 1_000);
  inWork.add(TOKEN);
  assert.equal(await gone(TOKEN, 2_000), 0);
  assert.equal(devices.size, 1);
});

test('a wrong certificate, which makes every device look dead, removes few, and is reported prominently once', async (t) => {
  const { devices, outbox, lines, subscribe, gone } = setUp();
  t.after(() => outbox.stop(0));
  for (let device = 0; device < 1_000; device++) subscribe(`device-${device}`.padEnd(32, '.'), 1_000);
  for (let device = 0; device < 1_000; device++) await gone(`device-${device}`.padEnd(32, '.'), 2_000);
  assert.equal(devices.size, 991);
  assert.equal(outbox.service('apns').counters.goneHeldBack, 991);
  assert.equal(lines.filter((line) => line.startsWith('error')).length, 1);
});

test('what a notifier itself recognised as an invalid token is removed, however many there are, and blocks no other removal', async (t) => {
  const { devices, outbox, lines, subscribe, gone } = setUp();
  t.after(() => outbox.stop(0));
  const name = (device: number) => `device-${device}`.padEnd(32, '.');
  for (let device = 0; device < 10_011; device++) subscribe(name(device), 1_000);
  for (let device = 0; device < 10_001; device++) assert.equal(await gone(name(device), 2_000, true), 1);
  assert.deepEqual(
    lines.filter((line) => line.startsWith('error')),
    [],
  );
  // The provider's own verdicts count from zero: the tenth is the first that is held back, and only for the provider's.
  for (let device = 10_001; device < 10_010; device++) assert.equal(await gone(name(device), 2_000), 1);
  assert.equal(await gone(name(10_010), 2_000), 0);
  assert.equal(await gone(name(10_010), 2_000, true), 1);
  assert.equal(devices.size, 0);
  assert.equal(outbox.service('apns').counters.goneHeldBack, 1);
});

test("a list of an original's notifier removes devices, but none that subscribed while it was gathered, and no unlikely number", async () => {
  const { clock, devices, outbox, subscribe, dropAll, lines } = setUp();
  const now = Math.floor(clock.now() / 1000);
  const ids = Array.from({ length: 40 }, (_, n) => `token ${n}`.padEnd(32, '.'));
  for (const [n, id] of ids.entries()) subscribe(id, n === 0 ? now - 10 : now - 30);
  outbox.service('apns').breaker.accepted(10);
  assert.equal(await dropAll(ids.slice(0, 4)), 3);
  assert.ok(devices.size === 37, 'the one that subscribed since stays');
  assert.equal(await dropAll([...ids.slice(4), 'unknown'.padEnd(32, '.')]), 6);
  assert.equal(devices.size, 31, 'ten of twenty is half, one more is too many');
  assert.match(lines.at(-1)!, /suspiciously large share/);
});

test('what the database could not remove is gone from memory all the same, and said', async () => {
  const { devices, outbox, lines, subscribe, gone } = setUp(() => Promise.reject(new Error('no connection')));
  subscribe(TOKEN, 1_000);
  assert.equal(await gone(TOKEN, 2_000), 1);
  assert.equal(devices.size, 0);
  assert.deepEqual(lines, [
    'debug: apns: a device is gone (Unregistered), 1 subscriptions removed',
    'warn: dead devices could not be removed from the database: no connection',
  ]);
  assert.equal(outbox.service('apns').counters.gone, 1);
});

test('a report about a service that is not known removes nothing', async () => {
  const { devices, outbox, subscribe, dead } = setUp();
  subscribe(TOKEN, 1_000);
  assert.equal(await dead.remove({ service: 'nope', serviceId: TOKEN, time: 2e9, reason: 'x', local: false }), 0);
  assert.deepEqual([devices.size, outbox.service('apns').counters.gone], [1, 0]);
});

test('a long list is worked off 500 at a time, and a verdict without its time is twenty seconds old', async () => {
  let [working, most] = [0, 0];
  const { clock, devices, outbox, subscribe, dropAll } = setUp(async () => {
    most = Math.max(most, ++working);
    await new Promise((resolve) => setImmediate(resolve));
    return working--;
  });
  outbox.service('apns').breaker.accepted(10_000);
  const now = Math.floor(clock.now() / 1000);
  const ids = Array.from({ length: 1_001 }, (_, n) => `token ${n}`.padEnd(32, '.'));
  for (const [n, id] of ids.entries()) subscribe(id, n === 1_000 ? now - 19 : now - 20);
  assert.equal(await dropAll(ids), 1_000);
  assert.deepEqual([most, devices.size], [500, 1]);
});
