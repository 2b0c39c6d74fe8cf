import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Holders } from '../../../src/hivemind/cluster/holders.ts';
import { SparedSlots } from '../../../src/hivemind/cluster/spared-slots.ts';
import { SLOTS } from '../../../src/session/slots.ts';

const SECOND = 1_000;
const SLOT = 17;

/** Slot 17 alone has anybody that is first. */
function world(copies = 2) {
  const slots = new SparedSlots();
  const known = { holders: ['a', 'b', 'c'], first: 'b' as string | undefined, covering: new Set(['a', 'b', 'c']) };
  const update = (seconds: number) =>
    slots.update(
      {
        own: 'a',
        copies,
        holders: new Holders(known.holders),
        firstOf: (slot) => (slot === SLOT ? known.first : undefined),
        covers: (name) => known.covering.has(name),
      },
      seconds * SECOND,
    );
  return { slots, known, update };
}

test('a slot is spared as soon as another hivemind is first of it and covers it, and changes are announced once', () => {
  const { slots, known, update } = world();
  known.covering.delete('b');
  assert.equal(update(0), undefined);
  known.covering.add('b');
  assert.deepEqual(update(1), new Set([SLOT]));
  assert.equal(update(2), undefined);
  assert.deepEqual([slots.has(SLOT), slots.has(SLOT + 1)], [true, false]);
});

test('when that one is dead or about to stop, all servers are asked at once', () => {
  const { known, update } = world();
  update(0);
  known.holders = ['a', 'c'];
  known.first = 'a';
  assert.deepEqual(update(1), new Set());
});

test('when another that covers the slot takes its place, it stays spared', () => {
  const { slots, known, update } = world();
  update(0);
  known.holders = ['a', 'c'];
  known.first = 'c';
  assert.equal(update(1), undefined);
  assert.equal(slots.has(SLOT), true);
  // It is the new one that counts from now on.
  known.covering.delete('b');
  known.holders = ['a', 'b'];
  known.first = 'a';
  assert.deepEqual(update(2), new Set());
});

test('when we become first ourselves, and that one still covers it, all servers are asked at once', () => {
  const { known, update } = world();
  update(0);
  known.first = 'a';
  assert.deepEqual(update(1), new Set());
});

test('while that one lives and does not cover it, it is relied on for ten seconds more', () => {
  const { known, update } = world();
  update(0);
  known.covering.delete('b');
  known.first = 'a';
  for (const second of [1, 5, 10]) assert.equal(update(second), undefined);
  assert.deepEqual(update(11), new Set());
});

test('a new account, which is uncovered for a moment, changes nothing, however often one comes', () => {
  const { known, update } = world();
  update(0);
  for (let second = 1; second < 60; second++) {
    if (known.covering.delete('b')) known.first = 'a';
    else {
      known.covering.add('b');
      known.first = 'b';
    }
    assert.equal(update(second), undefined);
  }
});

test('nothing is spared while nobody is first, while we are, or where a slot has one holder', () => {
  for (const [copies, first] of [
    [2, undefined],
    [2, 'a'],
    [1, 'b'],
  ] as const) {
    const { slots, known, update } = world(copies);
    known.first = first;
    assert.equal(update(0), undefined);
    assert.equal(
      [...Array(SLOTS).keys()].some((slot) => slots.has(slot)),
      false,
    );
  }
});
