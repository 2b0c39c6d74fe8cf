import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Walk } from '../../../src/hivemind/monitoring/walk.ts';

/** All places that a walk finds due, in steps of so many. */
function found(walk: Walk, due: readonly number[], steps = 3): number[] {
  const places: number[] = [];
  do {
    const place = walk.next(Uint32Array.from(due), due.length, steps);
    if (place === undefined) continue;
    places.push(place);
    walk.pass();
  } while (!walk.isOver);
  return places;
}

test('a walk finds each account that was due when it began once, however it is cut into steps', () => {
  const due = [5, 11, 10, 0, 12, 10, 10];
  for (const steps of [1, 2, 3, 100]) {
    const walk = new Walk();
    walk.begin(10);
    assert.deepEqual(found(walk, due, steps), [0, 2, 3, 5, 6], `in steps of ${steps}`);
  }
});

test('the next walk continues where one was given up, and sees everything again', () => {
  const walk = new Walk();
  walk.begin(0);
  const all = new Uint32Array(5);
  for (let n = 0; n < 3; n++) {
    assert.equal(walk.next(all, 5, 9), n);
    walk.pass();
  }
  walk.abandon();
  assert.equal(walk.hasWork, false);
  walk.begin(0);
  assert.deepEqual(found(walk, [0, 0, 0, 0, 0]), [3, 4, 0, 1, 2]);
  walk.beginAnew();
  assert.deepEqual([walk.isGoing, walk.hasWork], [false, true]);
  walk.restart();
  walk.begin(0);
  assert.deepEqual(found(walk, [0, 0]), [0, 1]);
});

test('only the first walk over a list begins where it is told to, and it sees everything, too', () => {
  const walk = new Walk();
  walk.begin(0, 3);
  assert.deepEqual(found(walk, [0, 0, 0, 0, 0]), [3, 4, 0, 1, 2]);
  walk.end(1);
  walk.begin(1, 1);
  assert.deepEqual(found(walk, [0, 0, 0, 0, 0]), [3, 4, 0, 1, 2], 'goes on where the last one ended');
  walk.restart();
  walk.begin(0, 2);
  assert.deepEqual(found(walk, [0, 0, 0]), [2, 0, 1]);
});

test('the next walk begins when its time has come, or sooner when one is wanted', () => {
  const walk = new Walk();
  walk.begin(0);
  walk.end(100);
  assert.deepEqual([walk.hasWorkAt(99), walk.hasWorkAt(100)], [false, true]);
  walk.begin(100);
  walk.end(200);
  walk.want();
  assert.equal(walk.hasWork, true);
  walk.begin(101);
  walk.end(200);
  assert.equal(walk.hasWork, false);
});

test('an account that is to be retried has a walk at its second, and later ones keep theirs', () => {
  const walk = new Walk();
  walk.begin(0);
  walk.end(1_000);
  walk.wantAt(30);
  walk.wantAt(20);
  assert.deepEqual([walk.hasWorkAt(19), walk.hasWorkAt(20)], [false, true]);
  walk.begin(20);
  walk.end(1_000);
  assert.equal(walk.hasWorkAt(21), false, 'it has had its walk');
  walk.wantAt(50);
  walk.want();
  walk.begin(40);
  walk.end(1_000);
  assert.deepEqual([walk.hasWorkAt(49), walk.hasWorkAt(50)], [false, true], 'one that began before does not count');
});

test('an account that changes its place during a walk is followed by another walk', () => {
  const walk = new Walk();
  walk.reordered();
  assert.equal(walk.hasWork, false, 'none is going');
  walk.begin(0);
  walk.reordered();
  walk.end(1_000);
  assert.equal(walk.hasWork, true);
});
