import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { holdersOf, SLOTS, slotOf, swarmsOfSlots } from '../../src/session/slots.ts';
import { SwarmSpace } from '../../src/session/swarm.ts';
import { seededRandom } from '../support/random.ts';
import { swarmSpace } from '../support/reference.ts';

const NAMES = ['a', 'b', 'c', 'd'];
const ALL = Array.from({ length: SLOTS }, (_, slot) => slot);

test('the slot of an account is the upper byte of its place in swarm space', () => {
  const random = seededRandom(1);
  for (let n = 0; n < 200; n++) {
    const bytes = random.bytes(40);
    assert.equal(BigInt(slotOf(bytes, 5)), swarmSpace(bytes, 5) >> 56n);
  }
});

test('everybody computes the same holders, in whatever order the names come', () => {
  for (const slot of ALL)
    assert.deepEqual(holdersOf(slot, NAMES, 2), holdersOf(slot, [...NAMES].reverse(), 2), String(slot));
});

test('a slot has as many holders as copies are wanted, or as there are', () => {
  assert.equal(holdersOf(7, NAMES, 2).length, 2);
  assert.equal(new Set(holdersOf(7, NAMES, 4)).size, 4);
  assert.deepEqual(holdersOf(7, ['a'], 2), ['a']);
  assert.deepEqual(holdersOf(7, [], 2), []);
});

test('the slots are spread: each of four is first of a fifth to a third of them', () => {
  for (const name of NAMES) {
    const first = ALL.filter((slot) => holdersOf(slot, NAMES, 2)[0] === name).length;
    assert.ok(first > SLOTS / 5 && first < SLOTS / 3, `${name}: ${first}`);
  }
});

test('every version ranks the same names alike, for members of two versions work together during an upgrade', () => {
  const names = ['a', 'b', 'hive-1', 'hive-2', 'another-hivemind'];
  const ranked = ALL.map((slot) => holdersOf(slot, names, 5).join());
  assert.deepEqual(ranked.slice(0, 3), [
    'a,hive-2,hive-1,another-hivemind,b',
    'another-hivemind,b,hive-2,a,hive-1',
    'hive-2,another-hivemind,b,a,hive-1',
  ]);
  assert.equal(
    createHash('sha256').update(ranked.join(';')).digest('hex'),
    '96537fd4667c3e2b660308f89476ec92aa764b494b89674c4739089b800cac48',
  );
});

test('two names that rank alike come in the order of their letters', () => {
  for (const names of [
    ['ujgylgv', 'znydunr'],
    ['znydunr', 'ujgylgv'],
  ])
    for (const slot of [0, 255]) assert.deepEqual(holdersOf(slot, names, 2), ['ujgylgv', 'znydunr']);
});

test('when one goes, only its places are filled anew', () => {
  for (const slot of ALL) {
    const before = holdersOf(slot, NAMES, 2);
    const after = holdersOf(slot, ['a', 'b', 'd'], 2);
    assert.deepEqual(
      after.slice(0, before.length - (before.includes('c') ? 1 : 0)),
      before.filter((name) => name !== 'c'),
    );
  }
});

test('the swarms of some slots are exactly those that keep accounts of them', () => {
  const random = seededRandom(5);
  const ids = Array.from({ length: 150 }, () => random.bytes(8).readBigUInt64BE());
  const space = new SwarmSpace(ids);
  const keeps = new Map<number, Set<bigint>>();
  for (let n = 0; n < 100_000; n++) {
    const account = random.bytes(33);
    const slot = slotOf(account);
    keeps.set(slot, (keeps.get(slot) ?? new Set()).add(space.ids[space.closest(account)]!));
  }
  for (const slot of ALL) {
    const swarms = swarmsOfSlots(ids, [slot]);
    for (const id of keeps.get(slot) ?? []) assert.ok(swarms.has(id), `slot ${slot}`);
    // A corner that no account of ours has hit may make it one more.
    assert.ok(swarms.size <= keeps.get(slot)!.size + 1, `slot ${slot}`);
  }
  assert.deepEqual([...swarmsOfSlots([], ALL)], []);
  // Two swarms far apart, which meet at the very edge of a slot: of two at the same distance the one below keeps it.
  const [first, last] = [0x0800_0000_0000_0000n, 0x08ff_ffff_ffff_ffffn];
  const far = 2n ** 55n;
  for (const [below, above, has] of [
    [first - far, first + far, true],
    [first - far - 1n, first + far, false],
  ] as const) {
    assert.equal(swarmsOfSlots([below, above], [8]).has(below), has);
  }
  for (const [below, above, has] of [
    [last - far, last + far - 1n, true],
    [last - far, last + far, false],
  ] as const) {
    assert.equal(swarmsOfSlots([below, above], [8]).has(above), has);
  }
  assert.deepEqual([...swarmsOfSlots([7n], [200])], [7n]);
  assert.equal(swarmsOfSlots(ids, ALL).size, 150);
});
