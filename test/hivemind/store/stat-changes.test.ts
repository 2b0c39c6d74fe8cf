import assert from 'node:assert/strict';
import { test } from 'node:test';
import { StatChanges } from '../../../src/hivemind/store/stat-changes.ts';

const change = (name: string, value: number | string, adds = true, service = 'apns') => ({
  service,
  name,
  adds,
  value,
});

test('what is added to one counter of one service is added up, and taken once', () => {
  const changes = new StatChanges();
  changes.add('apns', 'notifies', 2);
  changes.add('apns', 'notifies', 3.9);
  changes.add('apns', 'failures', -1.5);
  changes.add('firebase', 'notifies', 7);
  assert.equal(changes.size, 3);
  assert.deepEqual(changes.take(), [
    change('notifies', 5),
    change('failures', -1),
    change('notifies', 7, true, 'firebase'),
  ]);
  assert.deepEqual([changes.size, changes.take(), changes.dropped], [0, [], 0]);
});

test('what is set takes the place of what was there, and is added to; a text counts as 0', () => {
  const changes = new StatChanges();
  changes.add('apns', 'replaced', 2);
  changes.set('apns', 'replaced', 40);
  changes.set('apns', 'added to', 40.5);
  changes.add('apns', 'added to', 2);
  changes.set('apns', 'was text', '2.0');
  changes.add('apns', 'was text', 3);
  changes.add('apns', 'is text', 3);
  changes.set('apns', 'is text', '2.0');
  assert.deepEqual(changes.take(), [
    change('replaced', 40, false),
    change('added to', 42, false),
    change('was text', 3, false),
    change('is text', '2.0', false),
  ]);
});

test('what could not be written goes before what has come since', () => {
  const changes = new StatChanges();
  changes.add('apns', 'notifies', 2);
  changes.set('apns', 'version', '1.0');
  const taken = changes.take();
  changes.add('apns', 'notifies', 3);
  changes.set('apns', 'version', '2.0');
  changes.add('apns', 'new', 1);
  changes.restore(taken);
  assert.deepEqual(changes.take(), [change('notifies', 5), change('version', '2.0', false), change('new', 1)]);
});

test('what the database could not store is dropped and counted', () => {
  const changes = new StatChanges();
  const [name, text] = ['n'.repeat(500), 't'.repeat(10_000)];
  changes.set(name, name, text);
  assert.deepEqual([changes.take(), changes.dropped], [[change(name, text, false, name)], 0]);
  const impossible: readonly (() => void)[] = [
    () => changes.add(`${name}n`, 'x', 1),
    () => changes.add('apns', `${name}n`, 1),
    () => changes.set('apns', 'x', `${text}t`),
    () => changes.add('ap\0ns', 'x', 1),
    () => changes.add('apns', 'x\0', 1),
    () => changes.set('apns', 'x', '\0'),
    () => changes.add('apns', 'x', Number.NaN),
    () => changes.set('apns', 'x', Number.POSITIVE_INFINITY),
  ];
  for (const [n, put] of impossible.entries()) {
    put();
    assert.deepEqual([changes.size, changes.dropped], [0, n + 1], `${put}`);
  }
});

test('no more than 20,000 counters wait, and those that do go on counting', () => {
  const changes = new StatChanges();
  for (let n = 0; n < 20_000; n++) changes.add('apns', `n${n}`, 1);
  assert.deepEqual([changes.size, changes.dropped], [20_000, 0]);
  changes.add('apns', 'one more', 1);
  changes.add('apns', 'n7', 1);
  assert.deepEqual([changes.size, changes.dropped], [20_000, 1]);
  assert.deepEqual(changes.take()[7], change('n7', 2));
  changes.add('apns', 'one more', 1);
  assert.deepEqual([changes.size, changes.dropped], [1, 1]);
});
