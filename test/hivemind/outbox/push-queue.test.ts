import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type DropReason, PushQueue, type QueuedPush } from '../../../src/hivemind/outbox/push-queue.ts';

function push(id: number, queuedAt = 0, bytes = 100): QueuedPush {
  return {
    id,
    queuedAt,
    bytes,
    deviceHash: id,
    account: Buffer.alloc(33),
    hash: Buffer.alloc(43),
    namespace: 0,
    timestamp: 0,
    expiry: 0,
    data: null,
    service: 'dummy',
    serviceId: `device-${id}`,
    serviceData: null,
    encKey: Buffer.alloc(32),
    onAnswer: undefined,
  };
}

function queue(maxBytes: number, maxAge = 60_000) {
  const dropped: [number, DropReason][] = [];
  return { dropped, queue: new PushQueue({ maxBytes, maxAge }, ({ id }, reason) => dropped.push([id, reason])) };
}

function drain(from: PushQueue): number[] {
  const ids: number[] = [];
  for (let next = from.take(); next; next = from.take()) ids.push(next.id);
  return ids;
}

test('pushes leave in the order in which they came', () => {
  const { queue: held } = queue(1e9);
  const ids = Array.from({ length: 1_000 }, (_, index) => index);
  for (const id of ids) held.add(push(id));
  assert.equal(held.bytes, 100_000);
  assert.deepEqual(drain(held), ids);
  assert.equal(held.bytes, 0);
});

test('a full queue drops its oldest, and says so', () => {
  const { queue: held, dropped } = queue(300);
  for (let id = 0; id < 5; id++) held.add(push(id));
  assert.deepEqual(dropped, [
    [0, 'overflow'],
    [1, 'overflow'],
  ]);
  assert.deepEqual(drain(held), [2, 3, 4]);
});

test('what has waited too long is dropped, what has not stays', () => {
  const { queue: held, dropped } = queue(1e9, 1_000);
  held.add(push(1, 0));
  held.add(push(2, 500));
  held.dropOld(1_200);
  assert.deepEqual(dropped, [[1, 'too_old']]);
  assert.equal(held.oldest, 500);
});

test('what is put back comes out first, in its own order', () => {
  const { queue: held } = queue(1e9);
  for (let id = 0; id < 200; id++) held.add(push(id));
  const taken = Array.from({ length: 150 }, () => held.take() as QueuedPush);
  held.putBack(taken);
  assert.deepEqual(
    drain(held),
    Array.from({ length: 200 }, (_, index) => index),
  );
});

test('putting one back costs the same however many wait', () => {
  const { queue: held } = queue(1e12);
  for (let id = 0; id < 300_000; id++) held.add(push(id));
  const start = performance.now();
  for (let round = 0; round < 5_000; round++) held.putBack([held.take() as QueuedPush]);
  const took = performance.now() - start;
  // Copying the queue each time took ten seconds and more.
  assert.ok(took < 1_000, `${took} ms`);
  assert.deepEqual(drain(held).slice(0, 3), [0, 1, 2]);
});

test('putting back into a full queue drops the oldest, which are those put back', () => {
  const { queue: held, dropped } = queue(300);
  held.add(push(1));
  const first = held.take() as QueuedPush;
  for (let id = 2; id < 5; id++) held.add(push(id));
  held.putBack([first]);
  assert.deepEqual(dropped, [[1, 'overflow']]);
  assert.deepEqual(drain(held), [2, 3, 4]);
});

test('a push larger than the whole queue is dropped and leaves the queue usable', () => {
  const { queue: held, dropped } = queue(300);
  held.add(push(1, 0, 1_000));
  held.add(push(2));
  assert.deepEqual(dropped, [[1, 'overflow']]);
  assert.deepEqual(drain(held), [2]);
});
