import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { sessionAccount } from '../../../src/devnet/account.ts';
import { SharedSubscriptions } from '../../../src/hivemind/cluster/shared-subscriptions.ts';
import type { DeviceRow } from '../../../src/hivemind/devices/device.ts';
import { Devices } from '../../../src/hivemind/devices/devices.ts';
import {
  type RequestKind,
  type SubscriptionModules,
  Subscriptions,
} from '../../../src/hivemind/subscriptions/subscriptions.ts';
import type { Remote } from '../../../src/oxenmq/remote.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { logTo } from '../../support/log.ts';
import { NO_DEVICES } from '../../support/no-devices.ts';
import { seconds, subscribe, unsubscribe } from '../../support/requests.ts';
import { makeRow } from '../../support/rows.ts';
import { until } from '../../support/until.ts';

const TOKEN = 'token'.padEnd(32, '.');
const MIB = 1024 * 1024;
const OK = [Buffer.from('0'), Buffer.from(TOKEN)];
const WAS_NOT_SUBSCRIBED = 'Device was not subscribed to push notifications';
const BUSY = { error: 5, message: 'The server is busy; try again later' };

/** A signed subscribe request of a new account. */
function request(changes: Record<string, unknown> = {}, at = seconds()) {
  const account = sessionAccount(randomBytes);
  return { ...subscribe(account, TOKEN, { key: randomBytes(32), at }), service: 'apns', ...changes };
}

/** Subscriptions on a clock that is moved by hand; the notifier and the database answer what the test likes. */
function setUp(changes: Partial<SubscriptionModules> = {}) {
  const clock = new FakeClock(Date.now());
  const state = { verdict: (): Promise<Buffer[]> => Promise.resolve(OK) };
  const remote: Remote = { id: 'notifier', send: () => true, request: () => state.verdict() };
  const lines: string[] = [];
  const subscriptions = new Subscriptions({
    clock,
    store: { upsert: () => Promise.resolve('added'), remove: () => Promise.resolve(true) },
    devices: NO_DEVICES,
    stats: { add: () => {} },
    notifierFor: (service) => (service === 'apns' ? { remote, validatesMany: false } : undefined),
    isExpected: () => true,
    log: logTo((text) => lines.push(text)),
    ...changes,
  });
  const answer = async (kind: RequestKind, text: string, client?: string, bytes = text.length) => {
    const reply = await subscriptions.handle(
      kind,
      Buffer.from(text),
      client === undefined ? undefined : { client, bytes },
    );
    return JSON.parse(reply.text) as { error?: number; message?: string };
  };
  const ask = (body: unknown, client?: string, bytes?: number) =>
    answer('subscribe', JSON.stringify(body), client, bytes);
  return { clock, state, subscriptions, lines, answer, ask };
}

/** Time enough for requests to be read and verified. */
async function turns(): Promise<void> {
  for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
}

test('while the database works on 1,024 elements no more are begun, and each that is done makes room for one', async () => {
  const storing: (() => void)[] = [];
  const { ask, state } = setUp({
    store: {
      upsert: () => new Promise((resolve) => storing.push(() => resolve('added'))),
      remove: () => Promise.resolve(true),
    },
  });
  const one = request();
  const elements = new Array(64).fill(one);
  const asked: Promise<unknown>[] = [];
  for (let n = 0; n < 16; n++) {
    asked.push(ask(elements));
    await until(() => storing.length >= (n + 1) * 64, 0);
  }
  let begun = 0;
  state.verdict = () => {
    begun++;
    return Promise.resolve(OK);
  };
  asked.push(ask([one, one]));
  await turns();
  assert.equal(begun, 0);
  storing.pop()!();
  await until(() => begun > 0, 0);
  while (storing.length > 0) {
    for (const commit of storing.splice(0)) commit();
    await turns();
  }
  await Promise.all(asked);
});

test('a request gives its place back when it is answered', async () => {
  const { ask, subscriptions } = setUp();
  for (let n = 0; n < 3; n++) assert.equal((await ask(request(), 'a', 40 * MIB)).error, undefined);
  assert.equal(subscriptions.pending, 0);
  assert.deepEqual(subscriptions.counters.shed, { wait: 0, room: 0, invalid: 0 });
});

test('a request makes room for others if it has an element that no app sends, and for no other reason', async () => {
  const old = seconds() - 20 * 86_400;
  for (const [name, element, code, isDoubtful] of [
    ['an empty one', {}, 1, true],
    ['a bad signature', request({ signature: '00'.repeat(64) }), 4, true],
    ['a wrong clock', request({}, old), 4, false],
    ['an unknown service', request({ service: 'nope' }), 2, false],
  ] as const) {
    const { ask, state, subscriptions, lines } = setUp();
    state.verdict = () => new Promise(() => {});
    void ask([element, request()], 'a', 40 * MIB);
    await turns();
    assert.equal(subscriptions.counters.results.get(`subscribe:code_${code}`), 1, name);
    state.verdict = () => Promise.resolve(OK);
    const reply = await ask(request(), 'b', 20 * MIB);
    assert.deepEqual(subscriptions.counters.shed.invalid, isDoubtful ? 1 : 0, name);
    assert.equal(reply.error, isDoubtful ? undefined : 5, name);
    const complaint = 'clients are told to retry: more requests come in than can be worked on';
    assert.deepEqual(subscriptions.complaints(), isDoubtful ? [] : [complaint]);
    assert.deepEqual(lines, isDoubtful ? [] : [complaint]);
  }
});

test('who comes while many elements are still to be read waits for all of them, however small they were said to be', async () => {
  const clock = new FakeClock(Date.now());
  const possible = [clock.now()];
  const { ask, subscriptions } = setUp({
    clock,
    time: () => {
      clock.stall(100);
      return { possible, inDoubt: false };
    },
  });
  const first = ask(new Array(60).fill(request()), 'a', 100);
  await until(() => (subscriptions.counters.results.get('subscribe:ok') ?? 0) >= 10, 0);
  assert.deepEqual(await ask(request(), 'b', 300_000), BUSY);
  assert.equal(subscriptions.counters.shed.wait, 1);
  await first;
});

test('a request that nobody waits for any more is not begun, and that is no fault', async () => {
  const { ask, clock, lines, subscriptions } = setUp();
  const asked = ask(request());
  clock.stall(10_000);
  assert.deepEqual(await asked, BUSY);
  assert.equal(subscriptions.counters.work.late, 1);
  assert.deepEqual(lines, ['clients are told to retry: more requests come in than can be worked on']);
});

test('an array has 64 elements, and one more for each hundred bytes', async () => {
  const { answer } = setUp();
  for (const [bytes, isRefused] of [
    [100_000, false],
    [99_999, true],
  ] as const) {
    const elements = new Array(1_064).fill(`{"a":"${'x'.repeat(80)}"}`).join(',');
    const text = `[${elements}${' '.repeat(bytes - elements.length - 2)}]`;
    const reply = await answer('subscribe', text);
    assert.equal(Array.isArray(reply), !isRefused, `${bytes} bytes`);
  }
});

test('a request has 10,000 values at most', async () => {
  const { answer } = setUp();
  for (const [count, message] of [
    [9_997, /pubkey/],
    [9_998, /^Invalid JSON$/],
  ] as const) {
    const reply = await answer('subscribe', `{"a":[${new Array(count).fill(0).join()}]}`);
    assert.match(reply.message ?? '', message, `${count}`);
  }
  for (const text of ['7', 'null', '"x"'])
    assert.deepEqual(await answer('subscribe', text), {
      error: 1,
      message: 'Invalid JSON: expected object or array of objects',
    });
});

test('a stop begins no further element, waits for none if there are none, and is no trouble', async () => {
  const { ask, clock, state, subscriptions } = setUp();
  await setUp().subscriptions.stop(60_000);
  const waiting: (() => void)[] = [];
  state.verdict = () => new Promise((resolve) => waiting.push(() => resolve(OK)));
  const asked = ask(new Array(65).fill(request()));
  await until(() => waiting.length >= 64, 0);
  const stopped = subscriptions.stop(60_000);
  assert.deepEqual(await ask(request()), BUSY);
  for (const release of waiting) release();
  const replies = (await asked) as { error?: number }[];
  assert.deepEqual([replies.length, replies.filter(({ error }) => error === 5).length], [65, 1]);
  await stopped;
  assert.equal(clock.pending, 0);
  assert.deepEqual(subscriptions.complaints(), []);
});

test('what is stored is in memory with the time, and a late copy is answered by what is known', async () => {
  const upserts: (readonly [DeviceRow, number])[] = [];
  let known: DeviceRow | undefined;
  let result: 'updated' | 'stale' = 'updated';
  const { ask, clock } = setUp({
    store: { upsert: () => Promise.resolve(result), remove: () => Promise.resolve(true) },
    devices: { ...NO_DEVICES, get: () => known, replace: (row, at) => void upserts.push([row, at]) },
  });
  assert.deepEqual(await ask(request()), { message: 'Resubscription successful', success: true, updated: true });
  assert.deepEqual(
    upserts.map(([{ serviceId }, at]) => [serviceId, at]),
    [[TOKEN, Math.floor(clock.now() / 1_000)]],
  );
  result = 'stale';
  assert.deepEqual(await ask(request()), {
    error: 4,
    message: 'This request was signed before the device was unsubscribed',
  });
  known = upserts[0]![0];
  assert.deepEqual(await ask(request()), {
    message: 'A newer subscription is stored already',
    success: true,
    updated: false,
  });
  assert.equal(upserts.length, 1);
});

test('an unsubscription is told what was there', async () => {
  let deleted = true;
  const { answer } = setUp({
    store: { upsert: () => Promise.resolve('added'), remove: () => Promise.resolve(deleted) },
  });
  const body = { ...unsubscribe(sessionAccount(randomBytes), TOKEN), service: 'apns' };
  assert.deepEqual(await answer('unsubscribe', JSON.stringify(body)), {
    message: 'Device unsubscribed from push notifications',
    removed: true,
    success: true,
  });
  deleted = false;
  assert.deepEqual(await answer('unsubscribe', JSON.stringify(body)), {
    message: WAS_NOT_SUBSCRIBED,
    removed: false,
    success: true,
  });
  const forged = { ...body, signature: Buffer.alloc(64).toString('base64') };
  assert.equal((await answer('unsubscribe', JSON.stringify(forged))).error, 4);
});

test('an unsubscription that found nothing leaves alone what is stored right after it', async () => {
  const account = sessionAccount(randomBytes);
  const devices = new Devices({ random: randomBytes });
  const key = { account: account.id, service: 'apns', serviceId: TOKEN };
  let row = makeRow({ ...key, signedAt: seconds() });
  const { answer } = setUp({
    store: { upsert: () => Promise.resolve('added'), remove: () => Promise.resolve(false) },
    devices: new SharedSubscriptions({
      devices,
      store: {
        find: async () => {
          devices.replace(row, row.signedAt);
          return row;
        },
        countDevices: () => Promise.resolve({ all: 0, alike: 0 }),
      },
      cluster: { holds: () => true, changed: () => {} },
    }),
  });
  const body = { ...unsubscribe(account, TOKEN), service: 'apns' };
  assert.equal((await answer('unsubscribe', JSON.stringify(body))).message, WAS_NOT_SUBSCRIBED);
  assert.equal(devices.size, 1);
  devices.remove(account.id, 'apns', TOKEN);
  row = makeRow({ ...key, signedAt: seconds() + 120 });
  const message = 'This request was signed before the subscription that is stored';
  assert.deepEqual(await answer('unsubscribe', JSON.stringify(body)), { error: 4, message });
  assert.equal(devices.size, 1);
});

test('a time that cannot be is refused for good, unless ours is in doubt: then it may be our fault', async () => {
  const at = seconds() - 20 * 86_400;
  const old = request({}, at);
  const certain = setUp();
  assert.equal((await certain.ask(old)).error, 4);
  const possible = [Date.now(), at * 1_000];
  assert.equal((await setUp({ time: () => ({ possible, inDoubt: true }) }).ask(old)).error, undefined);
  const doubtful = setUp({ time: () => ({ possible: [Date.now()], inDoubt: true }) });
  assert.deepEqual(await doubtful.ask(old), {
    error: 5,
    message: 'An internal error occurred while processing your request',
  });
  assert.match(doubtful.lines.join(), /^request refused: /);
  assert.deepEqual(certain.lines, []);
});

test("a notifier's own codes are counted together, and passed on as they are", async () => {
  const { ask, state, subscriptions } = setUp();
  for (const [code, text] of [
    ['6', 'text'],
    ['-1', ''],
    ['5', 'text'],
  ] as const) {
    state.verdict = () => Promise.resolve([Buffer.from(code), Buffer.from(text)]);
    assert.deepEqual(await ask(request()), { error: Number(code), ...(text !== '' && { message: text }) });
  }
  assert.deepEqual(Object.fromEntries(subscriptions.counters.results), {
    'subscribe:code_other': 2,
    'subscribe:code_5': 1,
  });
});
