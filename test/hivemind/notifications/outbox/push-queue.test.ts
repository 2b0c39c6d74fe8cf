import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Instances } from '../../../../src/hivemind/notifications/outbox/instances.ts';
import { QueuedMessage, QueuedPush } from '../../../../src/hivemind/notifications/outbox/push.ts';
import { type EndReason, PushQueue } from '../../../../src/hivemind/notifications/outbox/push-queue.ts';
import { seededRandom } from '../../../support/random.ts';

const KEY = Buffer.alloc(32, 7);

function message(account: number, options: { queuedAt?: number; data?: Buffer | null; wantData?: boolean } = {}) {
  const { queuedAt = 0, data = null, wantData = true } = options;
  const id = Buffer.alloc(33);
  id.writeUInt32BE(account);
  const news = { account: id, hash: Buffer.alloc(43, 0x48), namespace: 0, timestamp: 0, expiry: 0, data };
  return new QueuedMessage(news, 'dummy', wantData, queuedAt);
}

function push(id: number, of = message(id)): QueuedPush {
  return new QueuedPush(id, of, {
    service: 'dummy',
    serviceId: `device-${String(id).padStart(9, '0')}`,
    serviceData: null,
    encKey: KEY,
    wantData: true,
  });
}

/** What one push of a message of its own is charged. */
const ONE = push(0).bytes + message(0).bytes;

function queue(maxPushes: number, maxAge = 60_000) {
  const dropped: [number, EndReason][] = [];
  const limits = { maxBytes: maxPushes * ONE, maxAge };
  return { dropped, queue: new PushQueue(limits, ({ id }, reason) => dropped.push([id, reason])) };
}

function drain(from: PushQueue): number[] {
  const ids: number[] = [];
  for (let next = from.take(); next; next = from.take()) {
    from.end(next);
    ids.push(next.id);
  }
  return ids;
}

const range = (count: number, start = 0) => Array.from({ length: count }, (_, index) => start + index);

test('pushes of as many accounts leave in the order in which they came, and are charged until their end', () => {
  const { queue: held } = queue(1e9);
  for (const id of range(1_000)) held.add(push(id));
  assert.equal(held.bytes, 1_000 * ONE);
  const first = held.take() as QueuedPush;
  assert.deepEqual([held.length, held.size, held.bytes], [999, 1_000, 1_000 * ONE]);
  held.end(first);
  assert.equal(held.bytes, 999 * ONE);
  assert.deepEqual(drain(held), range(999, 1));
  assert.deepEqual([held.length, held.size, held.bytes], [0, 0, 0]);
});

test('what waits for one notifier alone is counted until it is taken, and waits with the others when that is gone', () => {
  const { queue: held } = queue(1e9);
  const remote = { id: 'n', send: () => true, request: () => Promise.reject(new Error('not asked for here')) };
  const instance = new Instances().add(remote, true, 0);
  for (const id of range(4)) held.add(push(id));
  for (const _ of range(3)) held.putAside(held.take() as QueuedPush, instance);
  assert.deepEqual([held.length, held.size], [4, 4]);
  const first = held.takeAside(instance) as QueuedPush;
  held.end(first);
  assert.deepEqual([first.id, held.length], [0, 3]);
  held.end(held.takeAside(instance) as QueuedPush);
  assert.equal(held.length, 2);
  held.bringBack(instance);
  assert.equal(held.takeAside(instance), undefined);
  assert.deepEqual(drain(held), [2, 3]);
  assert.equal(held.length, 0);
});

test('a message is charged once for all its devices, and until the last of them has it', () => {
  const { queue: held } = queue(1e9);
  const shared = message(1, { data: Buffer.alloc(2_500) });
  for (const id of range(1_000)) held.add(push(id, shared));
  assert.equal(held.bytes, 1_000 * push(0).bytes + shared.bytes);
  for (const _ of range(999)) held.end(held.take() as QueuedPush);
  assert.equal(held.bytes, push(0).bytes + shared.bytes);
  drain(held);
  assert.equal(held.bytes, 0);
});

test('a body is held where it is wanted and fits into a payload; for a longer one its length, for an unwanted one nothing', () => {
  const bare = message(1).bytes;
  assert.equal(message(1, { data: Buffer.alloc(2_500) }).bytes, bare + 2_500);
  const long = message(1, { data: Buffer.alloc(2_501) });
  assert.deepEqual([long.bytes, long.length, long.body], [bare, 2_501, null]);
  const unwanted = message(1, { data: Buffer.alloc(2_500), wantData: false });
  assert.deepEqual([unwanted.bytes, unwanted.length, unwanted.body], [bare, undefined, null]);
  const empty = message(1, { data: Buffer.alloc(0) });
  assert.deepEqual([empty.bytes, empty.length, empty.body], [bare, 0, null]);
});

test('nothing of the received frame is kept', () => {
  const frame = Buffer.from(`${'A'.repeat(33)}${'H'.repeat(43)}body`);
  const news = { account: frame.subarray(0, 33), hash: frame.subarray(33, 76), namespace: 0, timestamp: 0, expiry: 0 };
  const held = new QueuedMessage({ ...news, data: frame.subarray(76) }, 'dummy', true, 0);
  frame.fill(0);
  assert.deepEqual([held.account, held.hash, held.body], ['A'.repeat(33), 'H'.repeat(43), 'body']);
});

test('a full queue of as many accounts drops its oldest, and reports it', () => {
  const { queue: held, dropped } = queue(3);
  for (const id of range(5)) held.add(push(id));
  assert.deepEqual(dropped, [
    [0, 'overflow'],
    [1, 'overflow'],
  ]);
  assert.deepEqual(drain(held), [2, 3, 4]);
});

test('when room is short the account that holds most pays with its oldest, and of two that hold the same the one with the older', () => {
  const { queue: held, dropped } = queue(6);
  const accounts = [1, 2, 2, 3, 2, 3];
  for (const [id, account] of accounts.entries()) held.add(push(id, message(account)));
  for (const id of [6, 7, 8, 9]) held.add(push(id, message(id)));
  // 2 has three and pays; then 2 and 3 have two each; then all have one.
  assert.deepEqual(
    dropped.map(([id]) => id),
    [1, 2, 3, 0],
  );
  assert.equal(held.length, 6);
});

test('an account with many devices is counted separately, and takes no room from the others', () => {
  const { queue: held, dropped } = queue(1_000);
  for (const id of range(200)) held.add(push(id, message(id)));
  for (const round of range(4)) {
    const shared = message(5_000, { data: Buffer.alloc(76_800) });
    for (const device of range(1_000)) held.add(push(1_000 + round * 1_000 + device, shared));
  }
  for (const id of range(200, 10_000)) held.add(push(id, message(id)));
  assert.ok(dropped.length > 1_000, `${dropped.length} dropped`);
  assert.deepEqual(new Set(dropped.map(([, reason]) => reason)), new Set(['account_share']));
  assert.ok(dropped.every(([id]) => id >= 1_000 && id < 10_000));
});

test('a single account is not reported to hold more than its share', () => {
  const { queue: held, dropped } = queue(3);
  for (const id of range(5)) held.add(push(id, message(1)));
  assert.deepEqual(dropped, [
    [0, 'overflow'],
    [1, 'overflow'],
  ]);
});

test('accounts take turns: a single push does not wait behind the many of another account, which keep their order', () => {
  const { queue: held } = queue(1e9);
  for (const id of range(1_000)) held.add(push(id, message(1)));
  for (const id of range(3, 1_000)) held.add(push(id, message(id)));
  assert.deepEqual(drain(held), [0, 1_000, 1_001, 1_002, ...range(999, 1)]);
});

test('what has waited too long is dropped, what has not stays, and what is with a notifier has twice the time', () => {
  const { queue: held, dropped } = queue(1e9, 1_000);
  held.add(push(1, message(1)));
  held.add(push(2, message(1)));
  held.add(push(3, message(3, { queuedAt: 500 })));
  const given = held.take() as QueuedPush;
  given.holder = {} as never;
  held.dropOld(1_200);
  assert.deepEqual(dropped, [[2, 'too_old']]);
  assert.equal(held.oldest, 0);
  held.dropOld(2_001);
  assert.deepEqual(dropped.slice(1), [
    [1, 'unacknowledged'],
    [3, 'too_old'],
  ]);
  assert.deepEqual([held.length, held.size, held.bytes, held.oldest], [0, 0, 0, undefined]);
});

test('the oldest is the one that came in first, also if it was held back and entered after younger ones', () => {
  const { queue: held } = queue(1e9);
  held.add(push(1, message(1, { queuedAt: 500 })));
  held.add(push(2, message(2, { queuedAt: 600 })));
  held.add(push(3, message(3, { queuedAt: 100 })));
  held.add(push(4, message(4, { queuedAt: 200 })));
  held.add(push(5, message(5, { queuedAt: 700 })));
  const oldest = [held.oldest];
  for (const id of [3, 1, 2, 4, 5]) {
    held.end(held.get(id) as QueuedPush);
    oldest.push(held.oldest);
  }
  assert.deepEqual(oldest, [100, 200, 200, 200, 700, undefined]);
});

test('what is put back comes out first, in its own order', () => {
  for (const accounts of [1, 7, 1_000]) {
    const { queue: held } = queue(1e9);
    for (const id of range(210)) held.add(push(id, message(id % accounts)));
    const taken = range(150).map(() => held.take() as QueuedPush);
    held.putBack(taken);
    assert.deepEqual(
      drain(held).slice(0, 150),
      taken.map(({ id }) => id),
    );
  }
});

test('putting one back costs the same however many wait', () => {
  const rounds = 5_000;
  const took = [1_000, 200_000].map((count) => {
    const { queue: held } = queue(1e12);
    for (const id of range(count)) held.add(push(id, message(id % 10_000)));
    const start = process.threadCpuUsage().user;
    for (let round = 0; round < rounds; round++) held.putBack([held.take() as QueuedPush]);
    return process.threadCpuUsage().user - start;
  });
  // Copying the queue each time made it 200 times as long.
  assert.ok((took[1] as number) < 50 * (took[0] as number), `${took} µs of CPU time`);
});

test('a push larger than the whole queue is dropped and leaves the queue usable', () => {
  const { queue: held, dropped } = queue(2);
  held.add(push(1, message(1, { data: Buffer.alloc(2_500) })));
  held.add(push(2));
  assert.deepEqual(dropped, [[1, 'overflow']]);
  assert.deepEqual(drain(held), [2]);
});

test('whatever happens, each push ends once, an account keeps its order, the one that holds most pays, and nothing stays charged', () => {
  for (const seed of range(40, 1)) {
    const { int: pick } = seededRandom(seed);
    const ended = new Map<number, string>();
    const waiting = new Map<number, number[]>();
    const left = (id: number) => {
      for (const ids of waiting.values()) if (ids.includes(id)) ids.splice(ids.indexOf(id), 1);
    };
    const ownerOf = new Map<number, number>();
    const held = new PushQueue({ maxBytes: (5 + pick(60)) * ONE, maxAge: 1_000 }, ({ id }, reason) => {
      if (reason === 'overflow' || reason === 'account_share') {
        const most = Math.max(...[...waiting.values()].map(({ length }) => length));
        const ids = waiting.get(ownerOf.get(id) as number) ?? [];
        assert.equal(ids.length, most, `seed ${seed}: ${id} was dropped, whose account did not hold most`);
        assert.equal(ids[0], id, `seed ${seed}: ${id} was dropped and is not its account's oldest`);
      }
      left(id);
      assert.ok(!ended.has(id), `seed ${seed}: ${id} ended twice`);
      ended.set(id, reason);
    });
    const taken: QueuedPush[] = [];
    let [id, now] = [0, 0];
    for (let step = 0; step < 400; step++) {
      now += pick(20);
      const what = pick(10);
      if (what < 5) {
        const account = pick(1 + pick(12));
        const shared = message(account, { queuedAt: now, data: pick(2) ? Buffer.alloc(pick(3_000)) : null });
        for (const _ of range(1 + pick(6))) {
          ownerOf.set(++id, account);
          if (!waiting.has(account)) waiting.set(account, []);
          waiting.get(account)?.push(id);
          held.add(push(id, shared));
        }
      } else if (what < 7) {
        const next = held.take();
        if (!next) continue;
        assert.equal(waiting.get(ownerOf.get(next.id) as number)?.[0], next.id, `seed ${seed}: out of order`);
        left(next.id);
        next.holder = {} as never;
        taken.push(next);
      } else if (what < 8) {
        const done = taken.splice(pick(taken.length + 1), 1)[0];
        if (!done || ended.has(done.id)) continue;
        held.end(done);
        ended.set(done.id, 'done');
      } else if (what < 9) {
        const back = taken.splice(pick(taken.length + 1)).filter((one) => !ended.has(one.id));
        for (const one of back) {
          one.holder = undefined;
          const ids = waiting.get(ownerOf.get(one.id) as number) as number[];
          ids.push(one.id);
          ids.sort((a, b) => a - b);
        }
        held.putBack(back);
      } else held.dropOld(now);
    }
    assert.equal(held.size, id - ended.size, `seed ${seed}`);
    for (const one of taken) if (!ended.has(one.id)) held.end(one);
    drain(held);
    assert.deepEqual([held.bytes, held.size, held.length, held.next], [0, 0, 0, undefined], `seed ${seed}`);
  }
});
