import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import { systemClock } from '../../../src/clock.ts';
import { sessionAccount } from '../../../src/devnet/account.ts';
import { CheckPool, workersFor } from '../../../src/hivemind/subscriptions/check-pool.ts';
import { areGood, type Check, doChecks, encodeChecks } from '../../../src/hivemind/subscriptions/checks.ts';
import { Subscriptions } from '../../../src/hivemind/subscriptions/subscribe.ts';
import { ed25519KeyPair, ed25519Sign } from '../../../src/session/sodium.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { logTo, silentLog } from '../../support/log.ts';
import { subscribe } from '../../support/requests.ts';
import { until } from '../../support/until.ts';
import { vectors } from '../../support/vectors.ts';

const pair = ed25519KeyPair(randomBytes(32));
const account = sessionAccount(randomBytes);
const owner: Check = { account: account.id, key: account.sessionEd25519 ?? Buffer.alloc(0) };

function signed(message = randomBytes(100)): Check {
  return { message, signature: ed25519Sign(message, pair.secretKey), key: pair.publicKey };
}

function badlySigned(): Check {
  return { ...signed(), message: randomBytes(100) };
}

/** What a worker runs instead. */
function workerThat(code: string): URL {
  return new URL(
    `data:text/javascript,${encodeURIComponent(`import { parentPort } from 'node:worker_threads';
${code};
parentPort.postMessage('ready');`)}`,
  );
}

/** A pool whose workers are ready. */
async function makePool(t: TestContext, options: Partial<ConstructorParameters<typeof CheckPool>[0]> = {}) {
  const pool = new CheckPool({ clock: systemClock, workers: 2, log: silentLog, ...options });
  t.after(() => pool.close());
  await until(() => pool.ready === (options.workers ?? 2));
  return pool;
}

test('there are workers only where threads are left for them', () => {
  assert.deepEqual([1, 2, 3, 4, 64].map(workersFor), [0, 0, 1, 2, 2]);
});

test('checks are the same after their way in bytes', () => {
  const cases: readonly (readonly Check[])[] = [
    [signed()],
    [badlySigned()],
    [owner, signed(), signed(randomBytes(2_000))],
    [{ ...owner, key: pair.publicKey }],
    [signed(), badlySigned()],
    [{ ...owner, key: Buffer.alloc(32, 255) }, signed()],
    [],
  ];
  const wanted = cases.map((checks) => (areGood(checks) ? 1 : 0));
  assert.deepEqual(wanted, [1, 0, 1, 0, 0, 0, 1]);
  assert.deepEqual([...doChecks(encodeChecks(cases))], wanted);
});

test('workers tell good requests from bad ones, in the order in which they were asked', async (t) => {
  const pool = await makePool(t);
  const wanted = Array.from({ length: 100 }, (_, n) => n % 3 !== 0);
  const order: number[] = [];
  const answers = wanted.map(async (isGood, n) => {
    const answer = await pool.ask([owner, isGood ? signed() : badlySigned()]);
    order.push(n);
    return answer;
  });
  assert.deepEqual(await Promise.all(answers), wanted);
  assert.deepEqual(
    order,
    wanted.map((_, n) => n),
  );
  assert.deepEqual(pool.counters, { asked: 100, lost: 0 });
});

test('an answer waits for those before it', async (t) => {
  // The first worker to be asked answers when the other one has done so long ago.
  const entry = workerThat(`
    parentPort.on('message', (bytes) => setTimeout(() => parentPort.postMessage(new Uint8Array(16).fill(1)), bytes[34]));`);
  const pool = await makePool(t, { entry });
  const order: number[] = [];
  // The length of its message is also how long it takes: 200 and 1 ms.
  const checks = [...new Array(16).fill(200), ...new Array(16).fill(1)].map((ms) => signed(randomBytes(ms)));
  await Promise.all(checks.map((check, n) => pool.ask([check]).then(() => order.push(n))));
  assert.deepEqual(
    order,
    checks.map((_, n) => n),
  );
});

test('a single request at a quiet time is not worth a message', async (t) => {
  const pool = await makePool(t);
  assert.equal(await pool.ask([owner, signed()]), true);
  assert.equal(await pool.ask([badlySigned()]), false);
  assert.deepEqual(pool.counters, { asked: 0, lost: 0 });
});

test('there is room for so many requests, and word when there is again', async (t) => {
  const pool = await makePool(t);
  const answers: Promise<boolean>[] = [];
  while (pool.hasRoom) answers.push(pool.ask([signed()]));
  assert.equal(answers.length, 256);
  await new Promise<void>((resolve) => (pool.onRoom = resolve));
  assert.equal(pool.hasRoom, true);
  assert.ok((await Promise.all(answers)).every(Boolean));
});

test('a worker that ends is said, what it had is not found out, and another takes its place', async (t) => {
  const clock = new FakeClock();
  const lines: string[] = [];
  const entry = workerThat(`parentPort.on('message', () => { throw new Error('broken') })`);
  const pool = await makePool(t, { clock, workers: 1, entry, log: logTo((text) => lines.push(text)) });
  const ask = () => Promise.all([pool.ask([signed()]), pool.ask([signed()])]);
  assert.deepEqual(await ask(), [false, false]);
  assert.deepEqual(lines, [
    'a worker that verifies signatures ended: broken: the main thread does its work for a while',
  ]);
  assert.equal(pool.ready, 0);
  assert.deepEqual(await ask(), [false, false]);
  assert.deepEqual(pool.counters, { asked: 2, lost: 2 });
  await clock.advance(9_999);
  assert.equal(await new Promise((resolve) => setImmediate(() => resolve(pool.ready))), 0);
  await clock.advance(1);
  await until(() => pool.ready === 1);
  await ask();
  assert.deepEqual(pool.counters, { asked: 4, lost: 4 });
});

test('a worker that does not answer is ended', async (t) => {
  const clock = new FakeClock();
  const pool = await makePool(t, { clock, workers: 1, entry: workerThat(`parentPort.on('message', () => {})`) });
  const answers = Promise.all([pool.ask([signed()]), pool.ask([signed()])]);
  await until(() => pool.counters.asked === 2);
  await clock.advance(5_000);
  assert.deepEqual(await answers, [false, false]);
  assert.deepEqual(pool.counters, { asked: 2, lost: 2 });
});

const TOKEN = 'token'.padEnd(32, '.');

/** Subscriptions whose notifier and database take everything. */
function setUp(pool: CheckPool | undefined, now: number) {
  return new Subscriptions({
    clock: { ...systemClock, now: () => now },
    store: { upsert: () => Promise.resolve('added'), remove: () => Promise.resolve(true) },
    devices: {
      upsert: () => 'added',
      remove: () => true,
      get: () => undefined,
      hasRoom: () => true,
      hasSessionKey: () => false,
    },
    stats: { add: () => {} },
    notifierFor: (service) => ({
      remote: {
        id: service,
        send: () => true,
        request: () => Promise.resolve([Buffer.from('0'), Buffer.from(TOKEN)]),
      },
      validatesMany: false,
    }),
    isExpected: () => false,
    log: silentLog,
    pool,
  });
}

test('clients are told the same with workers and without, whatever is wrong with their request', async (t) => {
  const file = vectors<{ now: number; cases: { cmd: string; request: string | null }[] }>('hivemind-replies.json');
  const bodies = file.cases.flatMap(({ cmd, request }) =>
    cmd === 'push.subscribe' && request !== null ? [Buffer.from(request)] : [],
  );
  const pool = await makePool(t);
  const [beside, alone] = [pool, undefined].map((one) => setUp(one, file.now * 1000));
  const ask = (subscriptions: Subscriptions | undefined) =>
    Promise.all(bodies.map(async (body) => (await subscriptions?.handle('subscribe', body))?.text));
  const [got, wanted] = [await ask(beside), await ask(alone)];
  assert.deepEqual(got, wanted);
  for (const text of ['"added":true', 'Signature verification failed', 'does not convert'])
    assert.ok(
      wanted.some((reply) => reply?.includes(text)),
      text,
    );
  assert.ok(pool.counters.asked > 20, `workers were asked about ${pool.counters.asked} of ${bodies.length}`);
});

test('of a request of several elements none goes to a worker, for a bad one must speak against the others', async (t) => {
  const pool = await makePool(t);
  const subscriptions = setUp(pool, Date.now());
  const elements = Array.from({ length: 40 }, () => subscribe(sessionAccount(randomBytes), TOKEN));
  const { text } = await subscriptions.handle('subscribe', Buffer.from(JSON.stringify(elements)));
  assert.equal(text.match(/"added":true/g)?.length, 40);
  assert.deepEqual(pool.counters, { asked: 0, lost: 0 });
});

test('requests whose worker ends in the middle are carried out all the same', async (t) => {
  const entry = workerThat(`parentPort.on('message', () => process.exit(1))`);
  const pool = await makePool(t, { entry });
  const subscriptions = setUp(pool, Date.now());
  const bodies = Array.from({ length: 300 }, () => JSON.stringify(subscribe(sessionAccount(randomBytes), TOKEN)));
  const replies = await Promise.all(bodies.map((body) => subscriptions.handle('subscribe', Buffer.from(body))));
  assert.ok(replies.every(({ text }) => text.includes('"added":true')));
  assert.ok(pool.counters.lost > 0);
  await subscriptions.stop(0);
  assert.equal(pool.ready, 0);
});
