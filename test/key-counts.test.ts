import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KeyCounts } from '../src/key-counts.ts';

test('keys are counted apart, and one that is back at 0 is forgotten', () => {
  const counts = new KeyCounts();
  assert.equal(counts.get('a'), 0);
  counts.add('a', 2);
  counts.add('b', 1);
  counts.add('a', -1);
  assert.deepEqual([counts.get('a'), counts.get('b'), counts.size, [...counts.keys()]], [1, 1, 2, ['a', 'b']]);
  counts.add('a', -1);
  assert.deepEqual([counts.get('a'), counts.size, [...counts.keys()]], [0, 1, ['b']]);
});
