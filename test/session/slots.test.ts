import assert from 'node:assert/strict';
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
  assert.deepEqual([...swarmsOfSlots([7n], [200])], [7n]);
  assert.equal(swarmsOfSlots(ids, ALL).size, 150);
});
