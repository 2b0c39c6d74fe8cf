import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Holders } from '../../../src/hivemind/cluster/holders.ts';
import { SlotsHeld } from '../../../src/hivemind/cluster/slots-held.ts';
import { holdersOf, SLOTS } from '../../../src/session/slots.ts';

const ALL = Array.from({ length: SLOTS }, (_, slot) => slot);
const others = (holders: string[], copies = 2, covers: (name: string, slot: number) => boolean = () => false) => ({
  own: 'a',
  holders: new Holders(holders),
  copies,
  covers,
});

function held(holders: string[], copies = 2): SlotsHeld {
  const slots = new SlotsHeld();
  slots.loaded(slots.update(others(holders, copies), 0).loads);
  return slots;
}

test('of two members with two copies each holds everything', () => {
  const slots = new SlotsHeld();
  assert.deepEqual(slots.update(others(['a', 'b']), 0), { loads: ALL, drops: [] });
  assert.equal(slots.has(3), true);
  assert.equal(slots.held.size, 0);
  // While they load, they are not told again.
  assert.deepEqual(slots.update(others(['a', 'b']), 0), { loads: [], drops: [] });
  slots.loaded(ALL);
  assert.equal(slots.held.size, SLOTS);
});

test('a slot that now belongs to others is kept until all of them cover it, and five seconds more', () => {
  const slots = held(['a', 'b']);
  const three = ['a', 'b', 'c'];
  const theirs = ALL.filter((slot) => !holdersOf(slot, three, 2).includes('a'));
  assert.deepEqual(slots.update(others(three), 1_000), { loads: [], drops: [] });
  assert.deepEqual(
    slots.update(
      others(three, 2, (name) => name === 'b'),
      2_000,
    ),
    { loads: [], drops: [] },
  );
  const covered = others(three, 2, () => true);
  assert.deepEqual(slots.update(covered, 3_000), { loads: [], drops: [] });
  assert.deepEqual(slots.update(covered, 7_999), { loads: [], drops: [] });
  // A new account is uncovered for a moment, which does not begin the five seconds anew.
  assert.deepEqual(slots.update(others(three), 8_000), { loads: [], drops: [] });
  assert.deepEqual(slots.update(covered, 8_001), { loads: [], drops: theirs });
  assert.equal(slots.has(theirs[0]!), false);
});

test('it is kept for ten minutes at most, counted from when it passed to others', () => {
  const slots = held(['a', 'b']);
  const three = ['a', 'b', 'c'];
  slots.update(others(three), 1_000);
  // They come and go: it was ours again in between.
  slots.update(others(['a', 'b']), 50_000);
  slots.update(others(three), 55_000);
  assert.deepEqual(slots.update(others(three), 654_999).drops, []);
  assert.ok(slots.update(others(three), 655_000).drops.length > 0);
});

test('when one member goes, its slots are loaded by those that now own them, and by nobody else', () => {
  const slots = held(['a', 'b', 'c'], 1);
  const before = new Set(slots.held);
  const { loads } = slots.update(others(['a', 'b'], 1), 0);
  assert.deepEqual(
    loads,
    ALL.filter((slot) => holdersOf(slot, ['a', 'b'], 1)[0] === 'a' && !before.has(slot)),
  );
});

test('what could not be loaded is reported again', () => {
  const slots = new SlotsHeld();
  slots.failed(slots.update(others(['a']), 0).loads);
  assert.equal(slots.update(others(['a']), 0).loads.length, SLOTS);
});

test('only a slot that is held can be covered, and it is no longer covered once it is dropped', () => {
  const slots = held(['a', 'b', 'c'], 1);
  slots.setCovered(ALL);
  assert.deepEqual([...slots.covered], [...slots.held]);
  const passed = others(['b', 'c'], 1, () => true);
  slots.update(passed, 0);
  const { drops } = slots.update(passed, 5_000);
  assert.equal(drops.length > 0, true);
  assert.equal(slots.covered.size, 0);
});

test('a single slot that is dropped is no longer covered, while the others are', () => {
  const slots = held(['a', 'b'], 2);
  slots.setCovered(ALL);
  const three = ['a', 'b', 'c'];
  const one = ALL.find((slot) => !holdersOf(slot, three, 2).includes('a'))!;
  const passed = others(three, 2, (_, slot) => slot === one);
  slots.update(passed, 0);
  const { drops } = slots.update(passed, 5_000);
  assert.deepEqual(drops, [one]);
  assert.deepEqual(
    [...slots.covered],
    ALL.filter((slot) => slot !== one),
  );
});

test('what nobody is to hold is kept as long as possible', () => {
  const slots = held(['a'], 1);
  assert.deepEqual(slots.update(others([], 1), 0).drops, []);
  assert.equal(slots.update(others([], 1), 600_000).drops.length, SLOTS);
});
