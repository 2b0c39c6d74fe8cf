import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Duties } from '../../../src/hivemind/cluster/duties.ts';
import { Holders } from '../../../src/hivemind/cluster/holders.ts';
import { type KnownMember, slotBits } from '../../../src/hivemind/cluster/roster.ts';
import { holdersOf, SLOTS } from '../../../src/session/slots.ts';

const ALL = Array.from({ length: SLOTS }, (_, slot) => slot);
const EVERY = new Set(ALL);

function member(name: string, more: Partial<KnownMember> = {}): KnownMember {
  return {
    name,
    generation: 1n,
    run: 1n,
    state: 'ready',
    address: `ipc:///${name}`,
    pushAddress: '',
    version: '2.0.0',
    started: 0,
    seen: 0,
    covers: slotBits(ALL),
    living: true,
    ...more,
  };
}

const best = (slot: number, names: readonly string[]) => holdersOf(slot, names, 1)[0];

test('while all cover everything, the best holder of a slot is first, and the others are told', () => {
  const [a, b] = [new Duties('a'), new Duties('b')];
  const members = [member('a'), member('b')];
  for (const one of [a, b]) one.update({ members, holders: new Holders(['a', 'b']), copies: 2, covered: EVERY });
  for (const slot of ALL) {
    assert.equal(a.firstOf(slot), best(slot, ['a', 'b']));
    assert.equal(b.firstOf(slot), a.firstOf(slot));
    assert.deepEqual([a.othersOf(slot), b.othersOf(slot)], [['b'], ['a']]);
  }
});

test('a member that does not yet cover a slot is not first of it, whatever its row or its rank say', () => {
  const duties = new Duties('a');
  const members = [member('a'), member('b', { covers: slotBits([]) })];
  duties.update({ members, holders: new Holders(['a', 'b']), copies: 2, covered: EVERY });
  assert.ok(ALL.every((slot) => duties.firstOf(slot) === 'a'));
  // What we know of ourselves is newer than our row.
  duties.update({ members, holders: new Holders(['a', 'b']), copies: 2, covered: new Set() });
  assert.ok(ALL.every((slot) => duties.firstOf(slot) === best(slot, ['a', 'b'])));
});

test('a member that is leaving is first of nothing, and is still told what becomes of the pushes that it also has', () => {
  const duties = new Duties('b');
  const members = [member('a', { state: 'leaving' }), member('b')];
  duties.update({ members, holders: new Holders(['b']), copies: 2, covered: EVERY });
  assert.ok(ALL.every((slot) => duties.firstOf(slot) === 'b'));
  assert.deepEqual(duties.othersOf(9), ['a']);
  assert.equal(duties.isLiving('a'), true);
});

test('with one copy each slot has one holder; the previous holder is told until the new one covers it', () => {
  const duties = new Duties('a');
  const slot = ALL.find((one) => best(one, ['a', 'b']) === 'a')!;
  duties.update({ members: [member('a'), member('b')], holders: new Holders(['a', 'b']), copies: 1, covered: EVERY });
  assert.deepEqual(duties.othersOf(slot), ['b'], 'b has not let it go yet');
  const without = slotBits(ALL.filter((one) => one !== slot));
  duties.update({
    members: [member('a'), member('b', { covers: without })],
    holders: new Holders(['a', 'b']),
    copies: 1,
    covered: EVERY,
  });
  assert.deepEqual([duties.firstOf(slot), duties.othersOf(slot)], ['a', []]);
});

test('the dead are told nothing, and when nobody holds a slot nobody is first', () => {
  const duties = new Duties('a');
  const members = [member('a'), member('b', { living: false })];
  duties.update({ members, holders: new Holders(['a']), copies: 2, covered: EVERY });
  assert.deepEqual([duties.othersOf(3), duties.isLiving('b')], [[], false]);
  duties.update({ members, holders: new Holders([]), copies: 2, covered: new Set() });
  assert.equal(duties.firstOf(3), undefined);
});

test('listeners are called when something has changed, and only then', () => {
  const duties = new Duties('a');
  let calls = 0;
  duties.onChange(() => calls++);
  const both = { members: [member('a'), member('b')], holders: new Holders(['a', 'b']), copies: 2, covered: EVERY };
  duties.update(both);
  assert.equal(calls, 1);
  duties.update({ ...both, members: [member('a', { seen: 5 }), member('b', { seen: 6 })] });
  assert.equal(calls, 1);
  const covered = new Set(ALL.filter((slot) => slot !== ALL.find((one) => best(one, ['a', 'b']) === 'a')));
  duties.update({ ...both, covered });
  assert.equal(calls, 2);
  duties.update({
    ...both,
    covered,
    members: [member('a'), member('b', { living: false })],
    holders: new Holders(['a']),
  });
  assert.equal(calls, 3);
});

test('a later run of a member lives, and the one that was meant does not', () => {
  const duties = new Duties('a');
  let calls = 0;
  const one = { members: [member('a'), member('b')], holders: new Holders(['a', 'b']), copies: 2, covered: EVERY };
  duties.update(one);
  assert.deepEqual([duties.isLiving('b', 1n), duties.isLiving('b', 2n)], [true, false]);
  duties.onChange(() => calls++);
  duties.update({ ...one, members: [member('a'), member('b', { run: 2n })] });
  assert.deepEqual(
    [duties.isLiving('b', 1n), duties.isLiving('b', 2n), duties.isLiving('b'), calls],
    [false, true, true, 1],
  );
});
