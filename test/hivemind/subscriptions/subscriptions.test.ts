import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { systemClock } from '../../../src/clock.ts';
import { sessionAccount } from '../../../src/devnet/account.ts';
import type { DeviceRow } from '../../../src/hivemind/devices/device.ts';
import { Devices } from '../../../src/hivemind/devices/devices.ts';
import { StoreError } from '../../../src/hivemind/store/store-error.ts';
import { type SubscriptionModules, Subscriptions } from '../../../src/hivemind/subscriptions/subscriptions.ts';
import { OxenmqError, type Remote } from '../../../src/oxenmq/remote.ts';
import { unsubscribeMessage } from '../../../src/session/subscription.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { logTo } from '../../support/log.ts';
import { NO_DEVICES } from '../../support/no-devices.ts';
import { subscribe } from '../../support/requests.ts';
import { until } from '../../support/until.ts';

const TOKEN = 'token'.padEnd(32, '.');

/** A signed subscribe request of a new account. */
function request(changes: Record<string, unknown> = {}) {
  const account = sessionAccount(randomBytes);
  return { ...subscribe(account, TOKEN, { key: randomBytes(32) }), service: 'apns', ...changes };
}

function setUp(changes: Partial<SubscriptionModules> & { validate?: () => Promise<Buffer[]> } = {}) {
  const stored: DeviceRow[] = [];
  const remote: Remote = {
    id: 'notifier',
    send: () => true,
    request: changes.validate ?? (() => Promise.resolve([Buffer.from('0'), Buffer.from(TOKEN)])),
  };
  const lines: string[] = [];
  const subscriptions = new Subscriptions({
    clock: systemClock,
    store: {
      upsert: (row) => {
        stored.push(row);
        return Promise.resolve('added');
      },
      remove: () => Promise.resolve(true),
    },
    devices: NO_DEVICES,
    stats: { add: () => {} },
    notifierFor: (service) => (service === 'apns' ? { remote, validatesMany: false } : undefined),
    isExpected: (service) => service === 'firebase',
    log: logTo((text) => lines.push(text)),
    ...changes,
  });
  const ask = async (body: unknown) =>
    JSON.parse((await subscriptions.handle('subscribe', Buffer.from(JSON.stringify(body)))).text) as unknown;
  return { subscriptions, stored, lines, ask };
}

/** Time enough for a request to be read and verified. */
async function turns(): Promise<void> {
  for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve));
}

test('what the database has stored is in memory, although memory knew of one that was signed later', async () => {
  const devices = new Devices({ random: randomBytes });
  const { ask } = setUp({ devices });
  const body = request();
  await ask(body);
  const stored = devices.get(Buffer.from(body.pubkey, 'hex'), 'apns', TOKEN);
  assert.ok(stored);
  // Another hivemind has just removed that one, which we have not read of yet.
  devices.replace({ ...stored, signedAt: stored.signedAt + 61 }, stored.signedAt);
  await ask(body);
  assert.deepEqual(devices.get(stored.account, 'apns', TOKEN), stored);
});

test('a database that is away is a temporary failure, code 5, and nothing is reported as stored', async () => {
  let indexed = 0;
  const { ask } = setUp({
    store: {
      upsert: () => Promise.reject(new StoreError('unavailable', 'no connection')),
      remove: () => Promise.reject(new StoreError('unavailable', 'no connection')),
    },
    devices: {
      ...NO_DEVICES,
      replace: () => void indexed++,
    },
  });
  assert.deepEqual(await ask(request()), {
    error: 5,
    message: 'An internal error occurred while processing your request',
  });
  assert.equal(indexed, 0);
});

test('a row that the database refuses is a permanent failure, code 4', async () => {
  const { ask } = setUp({
    store: {
      upsert: () => Promise.reject(new StoreError('refused', 'bad row')),
      remove: () => Promise.resolve(true),
    },
  });
  assert.deepEqual(await ask(request()), { error: 4, message: 'An error occured while processing your request' });
});

test('while a notifier does not answer, clients are refused and operators told once each, until it is over', async () => {
  const clock = new FakeClock();
  const { ask, subscriptions, lines } = setUp({
    clock,
    time: () => ({ possible: [Date.now()], inDoubt: false }),
    validate: () => Promise.reject(new OxenmqError('TIMEOUT', 'gone')),
  });
  assert.deepEqual(subscriptions.complaints(), []);
  await Promise.all([ask(request()), ask(request())]);
  const text = 'clients are told to retry: the notifier of apns does not answer in time';
  assert.deepEqual(subscriptions.complaints(), [text]);
  assert.deepEqual(new Set(lines), new Set([text]));
  await clock.advance(59_000);
  await ask(request());
  await clock.advance(59_000);
  assert.deepEqual(subscriptions.complaints(), [text]);
  await clock.advance(1_000);
  assert.deepEqual(subscriptions.complaints(), []);
});

test('what a notifier itself refuses is between it and the client', async () => {
  const answers = [
    [Buffer.from('3'), Buffer.from('secret')],
    [Buffer.from('4'), Buffer.from('secret')],
  ];
  for (const answer of answers) {
    const { ask, subscriptions, lines } = setUp({ validate: () => Promise.resolve(answer) });
    await ask(request());
    assert.deepEqual([subscriptions.complaints(), lines], [[], []]);
  }
});

test('a notifier that does not exist is code 2, one that does not answer code 3, one that refuses to talk code 4', async () => {
  assert.deepEqual(await setUp().ask(request({ service: 'nope' })), {
    error: 2,
    message: 'nope notification service not currently available',
  });
  for (const code of ['TIMEOUT', 'UNREACHABLE'] as const) {
    const { ask } = setUp({ validate: () => Promise.reject(new OxenmqError(code, 'gone')) });
    assert.deepEqual(await ask(request()), { error: 3, message: 'apns notification service timed out' });
  }
  const { ask } = setUp({ validate: () => Promise.reject(new OxenmqError('FORBIDDEN', 'no')) });
  assert.deepEqual(await ask(request()), {
    error: 4,
    message: 'failed to communicate with apns notification service',
  });
});

test('an empty array is answered with an empty array', async () => {
  assert.deepEqual(await setUp().ask([]), []);
});

test('each element of an array is answered on its own, in order', async () => {
  const { ask, stored } = setUp();
  const replies = (await ask([request(), {}, request(), 7, request({ signature: '00'.repeat(64) })])) as {
    success?: boolean;
    error?: number;
  }[];
  assert.deepEqual(
    replies.map(({ success, error }) => success ?? error),
    [true, 1, true, 1, 4],
  );
  assert.equal(stored.length, 2);
});

test('a large array does not hold the event loop', async () => {
  const { ask } = setUp();
  const requests = Array.from({ length: 200 }, () => request());
  let turns = 0;
  const timer = setInterval(() => turns++, 1);
  const replies = (await ask(requests)) as { success: boolean }[];
  clearInterval(timer);
  assert.ok(replies.every(({ success }) => success));
  assert.ok(turns > 0, 'others had their turn before the whole was done');
});

test('no more than 64 elements of one request are in progress, however many it has', async () => {
  const waiting: (() => void)[] = [];
  const { ask } = setUp({
    validate: () => new Promise((resolve) => waiting.push(() => resolve([Buffer.from('0'), Buffer.from(TOKEN)]))),
  });
  const one = request();
  const asked = ask(Array.from({ length: 200 }, () => one));
  let most = 0;
  for (let answered = 0; answered < 200; ) {
    // All that may be in work has come here.
    for (let turn = 0; turn < 200; turn++) await new Promise((resolve) => setImmediate(resolve));
    most = Math.max(most, waiting.length);
    for (const release of waiting.splice(0)) {
      release();
      answered++;
    }
  }
  const replies = (await asked) as { success: boolean }[];
  assert.ok(replies.length === 200 && replies.every(({ success }) => success));
  assert.equal(most, 64);
});

test('a request with more elements than could be real is refused as a whole, at the cost of reading it', async () => {
  const { ask, subscriptions } = setUp();
  const tooMany = { error: 1, message: 'Invalid request: more elements than its length allows' };
  assert.deepEqual(await ask(new Array(66).fill(0)), tooMany);
  assert.deepEqual(await ask(new Array(4_000).fill({})), tooMany);
  assert.equal(subscriptions.counters.work.tasks, 2);
  for (const elements of [new Array(64).fill(0), new Array(1_000).fill({ a: 'x'.repeat(100) })]) {
    const replies = (await ask(elements)) as { error: number }[];
    assert.ok(replies.length === elements.length && replies.every(({ error }) => error === 1));
  }
});

test('no text of a megabyte, whatever is in it, costs more to read than the most values that a request may have', async () => {
  const { ask, subscriptions } = setUp();
  const fill = (text: string) => JSON.parse(`[${new Array(Math.floor(1e6 / (text.length + 1))).fill(text).join(',')}]`);
  for (const text of ['1', '{}', '""', 'null', '{"a":1}', '[[[]]]', '12345678901234567890', '1e5']) {
    assert.deepEqual(await ask(fill(text)), { error: 1, message: 'Invalid JSON' });
  }
  assert.equal(subscriptions.counters.work.tasks, 8);
  const deep = Buffer.alloc(1e6, '[');
  assert.equal((await subscriptions.handle('subscribe', deep)).text, '{"error":1,"message":"Invalid JSON"}');
});

test('a notifier that hangs keeps only so many requests waiting, and none for other services', async () => {
  const waiting: (() => void)[] = [];
  const answer = [Buffer.from('0'), Buffer.from(TOKEN)];
  const hung: Remote = {
    id: 'hung',
    send: () => true,
    request: () => new Promise((resolve) => waiting.push(() => resolve(answer))),
  };
  const well: Remote = { ...hung, id: 'well', request: () => Promise.resolve(answer) };
  // On a slow machine the last of so many elements would otherwise be given up before they are begun.
  const clock = new FakeClock(Date.now());
  const { ask, subscriptions } = setUp({
    clock,
    notifierFor: (service) => ({ remote: service === 'apns' ? hung : well, validatesMany: false }),
  });
  const one = request();
  const asked = Array.from({ length: 40 }, () => ask(Array.from({ length: 64 }, () => one)));
  const other = request({ service: 'huawei' });
  const { results } = subscriptions.counters;
  await until(async () => {
    assert.equal(((await ask(other)) as { success: boolean }).success, true);
    return (results.get('subscribe:code_5') ?? 0) >= 40 * 64 - 2_048;
  }, 0);
  assert.equal(waiting.length, 2_048);
  // Each that is answered makes room for one.
  waiting.shift()!();
  await until(() => (results.get('subscribe:ok') ?? 0) > 0, 0);
  asked.push(ask([one, one]));
  await until(() => results.get('subscribe:code_5') === 40 * 64 - 2_048 + 1, 0);
  assert.equal(waiting.length, 2_048);
  for (const release of waiting.splice(0)) release();
  const replies = (await Promise.all(asked)).flat() as { success?: boolean; error?: number }[];
  assert.equal(replies.filter(({ success }) => success).length, 2_049);
  assert.equal(replies.filter(({ error }) => error === 5).length, 40 * 64 - 2_048 + 1);
});

test('an unsubscribe that was carried out without anybody being told of it takes effect when it is repeated', async () => {
  const account = sessionAccount(randomBytes);
  const signedAt = Math.floor(Date.now() / 1000);
  const signature = account.sign(unsubscribeMessage(account.id, signedAt));
  const body = {
    pubkey: account.id.toString('hex'),
    session_ed25519: account.sessionEd25519?.toString('hex'),
    sig_ts: signedAt,
    signature: signature.toString('hex'),
    service: 'apns',
    service_info: { token: TOKEN },
  };
  const devices = new Devices({ random: randomBytes });
  const row = {
    account: account.id,
    sessionEd25519: account.sessionEd25519,
    subaccount: null,
    signature,
    wantData: true,
    encKey: Buffer.alloc(32),
    service: 'apns',
    serviceId: TOKEN,
    serviceData: null,
    namespaces: [0],
  };
  devices.upsert({ ...row, signedAt: signedAt - 10 }, signedAt);
  let attempts = 0;
  let isStored = false;
  const { subscriptions } = setUp({
    devices,
    store: {
      upsert: () => Promise.resolve('added'),
      // The connection breaks after the commit; the row is gone when the client comes again.
      remove: () =>
        attempts++ === 0
          ? Promise.reject(new StoreError('unavailable', 'the connection was lost'))
          : Promise.resolve(isStored),
    },
  });
  const ask = async () =>
    JSON.parse((await subscriptions.handle('unsubscribe', Buffer.from(JSON.stringify(body)))).text);
  assert.equal((await ask()).error, 5);
  assert.equal(devices.size, 1);
  assert.equal((await ask()).removed, true);
  assert.equal(devices.size, 0);
  devices.upsert({ ...row, signedAt: signedAt + 61 }, signedAt);
  assert.deepEqual(await ask(), {
    error: 4,
    message: 'This request was signed before the subscription that is stored',
  });
  assert.equal(devices.size, 1, 'what was signed later stays, and the client is not told that it went');
  // Another hivemind has just stored an older one in the place of what is in memory.
  isStored = true;
  assert.equal((await ask()).removed, true);
  assert.equal(devices.size, 0, 'what the database has removed is in memory no longer, whenever it was signed');
});

test('an account may have only so many devices; those it has may renew', async () => {
  const { ask, stored } = setUp({
    devices: { ...NO_DEVICES, hasRoom: (_account, _service, serviceId) => serviceId !== TOKEN },
  });
  assert.deepEqual(await ask(request()), { error: 4, message: 'Too many devices are subscribed to this account' });
  assert.equal(stored.length, 0);
});

test('stopping waits for a notifier no longer than it is given', async () => {
  const { ask, subscriptions } = setUp({ validate: () => new Promise(() => {}) });
  const inWork = ask(request());
  await turns();
  await subscriptions.stop(10);
  assert.deepEqual(await inWork, { error: 3, message: 'apns notification service timed out' });
});

test('stopping answers requests in progress and accepts nothing new', async () => {
  let release = () => {};
  const { ask, subscriptions } = setUp({
    validate: () => new Promise((resolve) => (release = () => resolve([Buffer.from('0'), Buffer.from(TOKEN)]))),
  });
  const inWork = ask(request());
  await turns();
  let stopped = false;
  const stop = subscriptions.stop(60_000).then(() => (stopped = true));
  assert.deepEqual(await ask(request()), { error: 5, message: 'The server is busy; try again later' });
  assert.equal(stopped, false);
  release();
  assert.deepEqual(await inWork, { added: true, message: 'Subscription successful', success: true });
  await stop;
});

test('a device counts as in progress from the notifier’s answer to the commit', async () => {
  let commit = () => {};
  const { ask, subscriptions } = setUp({
    store: {
      upsert: () => new Promise((resolve) => (commit = () => resolve('added'))),
      remove: () => Promise.resolve(true),
    },
  });
  const asked = ask(request());
  await until(() => subscriptions.isInWork('apns', TOKEN), 0);
  commit();
  await asked;
  assert.equal(subscriptions.isInWork('apns', TOKEN), false);
});

test('no reply and no log line contains a token, a key or an account id', async () => {
  const { ask, lines } = setUp({ validate: () => Promise.reject(new Error(`boom`)) });
  const body = request();
  const reply = JSON.stringify(await ask(body));
  for (const secret of [TOKEN, body.enc_key, body.pubkey, body.signature]) {
    assert.ok(!reply.includes(secret));
    for (const line of lines) assert.ok(!line.includes(secret));
  }
});

test('subscriptions and renewals are counted, of all and of their service', async () => {
  const counted: unknown[] = [];
  for (const result of ['added', 'updated', 'stale'] as const) {
    const { ask } = setUp({
      store: { upsert: () => Promise.resolve(result), remove: () => Promise.resolve(true) },
      stats: { add: (service, increments) => counted.push([service, increments]) },
    });
    await ask(request());
  }
  assert.deepEqual(counted, [
    ['', { subscription: 1 }],
    ['apns', { subscription: 1 }],
    ['', { sub_renew: 1 }],
    ['apns', { sub_renew: 1 }],
  ]);
});

test('a fault of ours is a temporary failure, and operators are told of it', async () => {
  const { ask, lines, subscriptions } = setUp({
    store: {
      upsert: () => Promise.reject(new TypeError('x is not a function')),
      remove: () => Promise.resolve(true),
    },
  });
  assert.equal(((await ask(request())) as { error: number }).error, 5);
  const complaint = "clients' requests fail because of a fault in this program: the log has the error";
  assert.deepEqual(subscriptions.complaints(), [complaint]);
  assert.deepEqual(lines, ['a request failed: TypeError: x is not a function', complaint]);
});

test('every outcome is counted by kind and result', async () => {
  const { ask, subscriptions } = setUp();
  await ask([request(), request({ service: 'nope' }), {}, {}]);
  assert.deepEqual(Object.fromEntries(subscriptions.counters.results), {
    'subscribe:ok': 1,
    'subscribe:code_2': 1,
    'subscribe:code_1': 2,
  });
  assert.ok(subscriptions.counters.work.tasks >= 4);
});

test('for a service without a notifier the answer says whether retrying makes sense', async () => {
  const { subscriptions } = setUp();
  const answer = async (...services: string[]) => {
    const elements = services.map((service) => request({ service }));
    const body = Buffer.from(JSON.stringify(elements.length === 1 ? elements[0] : elements));
    const { text, passing } = await subscriptions.handle('subscribe', body);
    const replies = [JSON.parse(text)].flat() as { error?: number; message: string }[];
    return [passing, ...replies.map(({ error = 0 }) => error)];
  };
  assert.deepEqual(await answer('apns'), [false, 0]);
  assert.deepEqual(await answer('firebase'), [true, 2], 'it is expected');
  assert.deepEqual(await answer('nope'), [false, 2], 'it is not run here');
  assert.deepEqual(await answer('nope', 'apns'), [false, 2, 0]);
  assert.deepEqual(await answer('nope', 'firebase', 'apns'), [true, 2, 2, 0]);
});

test('a renewal need not prove again whose key it is', async () => {
  const asked: Uint8Array[][] = [];
  const { ask } = setUp({
    devices: { ...NO_DEVICES, hasSessionKey: (...keys) => asked.push(keys) > 0 },
  });
  const body = request();
  assert.deepEqual(await ask(body), { added: true, message: 'Subscription successful', success: true });
  assert.deepEqual(
    asked.map((keys) => keys.map((key) => Buffer.from(key).toString('hex'))),
    [[body.pubkey, body.session_ed25519]],
  );
  // The signature is verified all the same.
  const forged = { ...body, signature: Buffer.alloc(64).toString('base64') };
  assert.deepEqual(await ask(forged), { error: 4, message: 'Signature verification failed' });
});
