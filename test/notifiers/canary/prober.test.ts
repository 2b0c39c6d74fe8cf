import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { Prober } from '../../../src/notifiers/canary/prober.ts';
import { StoreError } from '../../../src/notifiers/canary/swarm.ts';
import { sealPayload } from '../../../src/session/payload.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { keepLog } from '../support.ts';

const MINUTE = 60_000;

/** A world that takes whatever it is given at once, unless a test has it otherwise. */
async function setUp(prepare: { registered?: boolean; frontEnd?: () => Promise<void> } = {}) {
  const clock = new FakeClock();
  const { log, lines } = keepLog();
  const encKey = randomBytes(32);
  const stored: { body: Buffer; at: number }[] = [];
  const took: number[] = [];
  const subscribed: number[] = [];
  const world = {
    registered: true,
    frontEnd: async (): Promise<void> => undefined,
    store: async (_body: Buffer, _sending: () => void): Promise<void> => undefined,
    ...prepare,
  };
  const prober = new Prober({
    clock,
    random: randomBytes,
    log,
    encKey,
    registered: () => world.registered,
    took: (seconds) => took.push(seconds),
    frontEnd: {
      subscribe: async () => {
        await world.frontEnd();
        subscribed.push(clock.monotonic());
      },
      unsubscribe: async () => undefined,
    },
    swarm: {
      async store(body, sending) {
        stored.push({ body, at: clock.monotonic() });
        sending();
        await world.store(body, sending);
      },
      close: async () => undefined,
    },
  });
  const start = clock.monotonic();
  const running = prober.run();
  await clock.advance(0);
  /** The push of a message, as a hivemind seals it. */
  const pushOf = (data: Buffer, key = encKey) =>
    sealPayload(
      { account: Buffer.alloc(33, 5), hash: Buffer.alloc(43, 65), namespace: 0, timestamp: 1, expiry: 2, data },
      key,
      randomBytes(24),
    );
  const deliver = (index = -1) => prober.received(pushOf(stored.at(index)?.body ?? Buffer.alloc(0)));
  const stop = async () => {
    await prober.stop();
    await running;
  };
  /** When messages were stored, in seconds since the start. */
  const times = () => stored.map(({ at }) => (at - start) / 1000);
  return { clock, prober, world, stored, took, subscribed, lines, pushOf, deliver, stop, times };
}

test('the first messages come every five seconds until one has come back, then one a minute', async () => {
  const { clock, deliver, lines, stop, times } = await setUp();
  // After the first subscription the hivemind has two seconds to ask the storage servers.
  await clock.advance(12_000);
  assert.deepEqual(times(), [2, 7, 12]);
  for (const index of [0, 1, 2]) deliver(index);
  for (let count = 0; count < 3; count++) {
    await clock.advance(MINUTE);
    deliver();
  }
  assert.deepEqual(times(), [2, 7, 12, 17, 77, 137]);
  assert.equal(lines.filter((line) => /phones ring/.test(line)).length, 1, 'said when it is news');
  await stop();
  assert.equal(clock.pending, 0);
});

test('where none comes back, the pace is one a minute after twelve', async () => {
  const { clock, stop, times } = await setUp();
  await clock.advance(5 * MINUTE);
  const gaps = times().map((at, index, all) => at - (all[index - 1] ?? at));
  assert.equal(gaps.filter((gap) => gap > 0 && gap < 10).length, 11);
  assert.equal(gaps.at(-1), 62, 'and two seconds for the new subscription');
  await stop();
});

test('how long a push took is counted from the attempt at which its message was stored', async () => {
  const { clock, prober, world, took, deliver, stop } = await setUp();
  world.store = (_body, sending) =>
    new Promise((resolve) => {
      clock.setTimeout(() => {
        // The first storage server was silent.
        sending();
        resolve();
      }, 10_000);
    });
  await clock.advance(12_000);
  await clock.advance(400);
  assert.equal(deliver(), true);
  assert.deepEqual(took, [0.4]);
  assert.equal(prober.lastSeconds, 0.4);
  assert.deepEqual(prober.problems, []);
  assert.equal(prober.results.delivered, 1);
  await clock.advance(30_000);
  assert.equal(prober.silentSeconds, 30);
  await stop();
});

test('a push that comes before the storage server answers counts, even if that server never answers', async () => {
  const { clock, prober, world, deliver, stop } = await setUp();
  let fail = (_error: Error): void => undefined;
  world.store = () => new Promise((_, reject) => (fail = reject));
  await clock.advance(2_000);
  deliver();
  fail(new StoreError('unreachable', 'no answer'));
  await clock.advance(0);
  assert.deepEqual([prober.results.delivered, prober.results.unreachable], [1, 0]);
  world.store = async () => {
    deliver();
  };
  await clock.advance(2 * MINUTE);
  assert.equal(prober.results.lost, 0);
  await stop();
});

test('a message is lost after a minute, and its push no longer counts; the canary subscribes anew', async () => {
  const { clock, prober, deliver, subscribed, stop, took } = await setUp();
  await clock.advance(2_000);
  deliver();
  await clock.advance(5_000);
  const before = subscribed.length;
  await clock.advance(MINUTE);
  assert.equal(prober.results.lost, 1);
  assert.match(prober.problems.join(), /no push came within 60 s of a message that was stored/);
  assert.equal(deliver(1), true);
  assert.equal(took.length, 1, 'too late');
  await clock.advance(MINUTE);
  assert.equal(subscribed.length, before + 1);
  deliver();
  assert.deepEqual(prober.problems, []);
  await stop();
});

test('the subscription is renewed every ten minutes, and at each message while that fails', async () => {
  const { clock, prober, world, subscribed, stored, deliver, stop } = await setUp();
  const everyMinute = async (minutes: number) => {
    for (let minute = 0; minute < minutes; minute++) {
      await clock.advance(MINUTE);
      deliver();
    }
  };
  await clock.advance(2_000);
  deliver();
  await everyMinute(9);
  assert.equal(subscribed.length, 1);
  await everyMinute(2);
  assert.equal(subscribed.length, 2);
  world.frontEnd = () => Promise.reject(new Error('the certificate has run out'));
  await everyMinute(11);
  assert.equal(prober.frontEndWorks, false);
  assert.deepEqual(prober.problems, ['the certificate has run out']);
  const count = stored.length;
  await everyMinute(3);
  assert.equal(stored.length, count + 3, 'messages go on');
  world.frontEnd = async () => undefined;
  await everyMinute(1);
  assert.equal(subscribed.length, 3);
  assert.equal(prober.frontEndWorks, true);
  await stop();
});

test('without the hivemind, or without a subscription, nothing is stored', async () => {
  const frontEnd = () => Promise.reject(new Error('gone'));
  const { clock, prober, world, stored, lines, stop } = await setUp({ registered: false, frontEnd });
  await clock.advance(15_000);
  assert.ok(prober.results.not_registered > 0);
  world.registered = true;
  await clock.advance(10_000);
  assert.ok(prober.results.not_subscribed > 0);
  assert.equal(stored.length, 0);
  assert.deepEqual(prober.problems, ['not subscribed', 'gone']);
  assert.ok(lines.some((line) => /phones may not ring: not registered with the hivemind/.test(line)));
  await stop();
});

test('a start waits ten seconds for the hivemind before it complains', async () => {
  const { clock, prober, world, stored, stop } = await setUp({ registered: false });
  await clock.advance(9_000);
  assert.equal(prober.results.not_registered, 0);
  world.registered = true;
  await clock.advance(3_000);
  assert.equal(stored.length, 1);
  assert.equal(prober.results.not_registered, 0);
  await stop();
});

test("somebody else's push is not counted, and one with another key is refused", async () => {
  const { clock, prober, pushOf, stop } = await setUp();
  await clock.advance(2_000);
  assert.equal(prober.received(pushOf(Buffer.from('hello'))), true);
  assert.equal(prober.received(pushOf(Buffer.from(`spns canary ${'0'.repeat(32)}`))), true);
  assert.equal(prober.received(pushOf(Buffer.from('spns canary 00'), randomBytes(32))), false);
  assert.equal(prober.received(randomBytes(10)), false);
  assert.equal(prober.results.delivered, 0);
  await stop();
});
