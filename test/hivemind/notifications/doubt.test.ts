import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Doubt, isExpired, isProven, leastDoubt } from '../../../src/hivemind/notifications/doubt.ts';
import { messageHash } from '../../../src/session/message-hash.ts';
import type { Notification } from '../../../src/session/notification.ts';

const NOW = 1_700_000_000_000;
const HOUR = 3_600_000;
const DAY = 24 * HOUR;

function copy(given: Partial<Notification> = {}): Notification {
  const account = Buffer.alloc(33, 5);
  const data = Buffer.from('body');
  const hash = messageHash(account, 0, data);
  return { account, hash, namespace: 0, timestamp: NOW, expiry: NOW + 14 * DAY, data, ...given };
}

test('doubt has the numbers that notifiers and other hiveminds are told', () => {
  assert.deepEqual(Doubt, { none: 0, unproven: 1, untimely: 2 });
});

test('times are believed from 12 hours to 31 days ahead, for messages between 31 days old and an hour ahead', () => {
  const doubt = (given: Partial<Notification>) => leastDoubt(copy(given), NOW);
  assert.equal(doubt({}), Doubt.none);
  for (const expiry of [NOW + 12 * HOUR + 1, NOW + 31 * DAY]) assert.equal(doubt({ expiry }), Doubt.none);
  for (const expiry of [0, NOW + 12 * HOUR, NOW + 31 * DAY + 1]) assert.equal(doubt({ expiry }), Doubt.untimely);
  for (const timestamp of [NOW - 31 * DAY + 1, NOW + HOUR]) assert.equal(doubt({ timestamp }), Doubt.none);
  for (const timestamp of [NOW - 31 * DAY, NOW + HOUR + 1]) assert.equal(doubt({ timestamp }), Doubt.untimely);
  assert.equal(doubt({ data: null }), Doubt.unproven);
  assert.equal(doubt({ data: null, expiry: 0 }), Doubt.untimely);
});

test('a copy is proven by its body alone', () => {
  assert.equal(isProven(copy()), true);
  assert.equal(isProven(copy({ data: null })), false);
  assert.equal(isProven(copy({ data: Buffer.from('bodY') })), false);
  assert.equal(isProven(copy({ namespace: 1 })), false);
});

test('a message is expired only if it was so when it was stored, and is by our clock', () => {
  const over = (timestamp: number, expiry: number) => isExpired(copy({ timestamp, expiry }), NOW);
  assert.equal(over(NOW, NOW), true);
  assert.equal(over(NOW - 1, NOW), false, 'not yet when it was stored');
  assert.equal(over(NOW + 2, NOW + 1), false, 'not yet by our clock');
  assert.equal(over(1, 1), true);
  for (const never of [0, -1]) assert.equal(over(NOW, never), false);
});
