import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Fifo } from '../../../src/notifiers/runtime/fifo.ts';

test('what was put in first is taken first, also after it was empty', () => {
  const fifo = new Fifo<number>();
  assert.deepEqual([fifo.take(), fifo.length], [undefined, 0]);
  fifo.push(1);
  fifo.push(2);
  assert.deepEqual([fifo.take(), fifo.length, fifo.take(), fifo.take(), fifo.length], [1, 1, 2, undefined, 0]);
  fifo.push(3);
  assert.deepEqual([fifo.length, fifo.take(), fifo.take()], [1, 3, undefined]);
});

test('nothing is lost or doubled however much is put in and taken in between', () => {
  const fifo = new Fifo<number>();
  let [put, taken] = [0, 0];
  for (let round = 0; round < 200; round++) {
    for (let n = 0; n < (round * 7) % 50; n++) fifo.push(put++);
    for (let n = 0; n < (round * 5) % 40 && taken < put; n++) assert.equal(fifo.take(), taken++);
    assert.equal(fifo.length, put - taken);
  }
  while (taken < put) assert.equal(fifo.take(), taken++);
  assert.equal(fifo.take(), undefined);
});

test('once cleared it is empty, and as good as new', () => {
  const fifo = new Fifo<string>();
  for (const item of ['a', 'b', 'c']) fifo.push(item);
  fifo.take();
  fifo.clear();
  assert.deepEqual([fifo.length, fifo.take()], [0, undefined]);
  fifo.push('d');
  assert.equal(fifo.take(), 'd');
});

test('what was taken is not held any more, however long the queue never gets empty', () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const fifo = new Fifo<object>();
  const taken: WeakRef<object>[] = [];
  for (let n = 0; n < 1_000; n++) fifo.push({ n });
  const takeSome = () => {
    for (let n = 0; n < 900; n++) taken.push(new WeakRef(fifo.take()!));
  };
  takeSome();
  return new Promise<void>((resolve) => {
    // What a WeakRef was asked for is kept until the end of its turn.
    setImmediate(() => {
      collect();
      const held = taken.filter((one) => one.deref() !== undefined).length;
      assert.ok(held <= 200, `${held} of 900`);
      assert.equal(fifo.length, 100);
      resolve();
    });
  });
});
