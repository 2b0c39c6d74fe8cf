import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Holders } from '../../../src/hivemind/cluster/holders.ts';
import { holdersOf } from '../../../src/session/slots.ts';

test('the holders of a slot are ranked, and as many as there are to be copies hold it', () => {
  const names = ['a', 'b', 'c'];
  const holders = new Holders(names);
  for (const slot of [0, 17, 255]) {
    assert.deepEqual(holders.ranked(slot), holdersOf(slot, names, 3));
    assert.deepEqual(holders.of(slot, 2), holdersOf(slot, names, 2));
    assert.deepEqual(holders.of(slot, 5), holdersOf(slot, names, 3));
  }
});

test('holders are the same for the same names alone', () => {
  const holders = new Holders(['a', 'b']);
  assert.equal(holders.hasSame(['a', 'b']), true);
  for (const names of [[], ['a'], ['a', 'b', 'c'], ['a', 'c'], ['b', 'a']]) assert.equal(holders.hasSame(names), false);
  assert.equal(new Holders([]).hasSame([]), true);
});
