import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  bounded,
  ceiling,
  jitter,
  LONGEST_WAIT,
  nextAttempt,
  RETRY,
  retryAfter,
} from '../../../src/notifiers/runtime/retry.ts';

const least = () => Buffer.alloc(4, 0);
const most = () => Buffer.alloc(4, 0xff);
const now = { wall: 1_700_000_000_000, monotonic: 50_000 };
const push = (attempts: number, more = {}) => ({ attempts, firstTried: 50_000, expiry: 0, ...more });

test('waits are random below a ceiling that doubles up to a cap', () => {
  assert.deepEqual(
    [1, 2, 3, 8, 9, 100].map((attempts) => nextAttempt(push(attempts), 0, now, most)),
    [1_999, 3_999, 7_999, 255_999, 299_999, 299_999],
  );
  for (const attempts of [1, 2, 3, 100]) assert.equal(nextAttempt(push(attempts), 0, now, least), 0);
  assert.equal(ceiling(0), RETRY.base);
  assert.equal(ceiling(1_000), RETRY.cap);
});

test('what the provider asks for is respected in full, and the jitter comes on top', () => {
  assert.equal(nextAttempt(push(1), 30_000, now, least), 30_000);
  assert.equal(nextAttempt(push(2), 30_000, now, most), 33_999);
});

test('no attempt is made after a push has expired', () => {
  assert.equal(nextAttempt(push(1, { expiry: now.wall + 5_000 }), 5_000, now, least), 'expired');
  assert.equal(nextAttempt(push(1, { expiry: now.wall + 5_001 }), 5_000, now, least), 5_000);
  assert.equal(nextAttempt(push(1, { expiry: now.wall - 1 }), 0, now, least), 'expired');
});

test('a push is given up when it has been tried for an hour, whatever its expiry', () => {
  const old = push(20, { firstTried: now.monotonic - RETRY.lifetime, expiry: now.wall + 1e9 });
  assert.equal(nextAttempt(old, 1, now, least), 'retried-too-long');
  assert.equal(nextAttempt(old, 0, now, least), 0);
});

test('jitter is spread over the whole range', () => {
  const values = [0, 0x40000000, 0x80000000, 0xffffffff].map((value) =>
    jitter(1_000, () => {
      const bytes = Buffer.alloc(4);
      bytes.writeUInt32LE(value);
      return bytes;
    }),
  );
  assert.deepEqual(values, [0, 250, 500, 999]);
});

test('Retry-After is read as seconds and as a date', () => {
  const at = Date.parse('Wed, 21 Oct 2026 07:28:00 GMT');
  const read = (header: unknown) => retryAfter({ 'retry-after': header }, at);
  assert.equal(read('120'), 120_000);
  assert.equal(read(' 0 '), 0);
  assert.equal(read(['7', '8']), 7_000);
  assert.equal(read('Wed, 21 Oct 2026 07:28:30 GMT'), 30_000);
  assert.equal(read('Wednesday, 21-Oct-26 07:28:30 GMT'), 30_000);
  assert.equal(read('Wed, 21 Oct 2026 07:27:00 GMT'), 0);
  for (const nonsense of [undefined, null, '', '-1', '1.5', 'soon', 'Wed, 99 Foo 2026', '1e3', 12]) {
    assert.equal(read(nonsense), undefined, String(nonsense));
  }
});

test('Retry-After is an hour at most', () => {
  const at = Date.parse('Wed, 21 Oct 2026 07:28:00 GMT');
  for (const long of [
    '3601',
    '86400',
    '2147483',
    '2147484',
    '2592000',
    '9'.repeat(400),
    'Thu, 22 Oct 2026 07:28:00 GMT',
    'Fri, 31 Dec 9999 23:59:59 GMT',
  ]) {
    assert.equal(retryAfter({ 'retry-after': long }, at), LONGEST_WAIT, long);
  }
  assert.equal(LONGEST_WAIT, 3_600_000);
});

test("a date in Retry-After counts from the answer's own time, whatever our clock says", () => {
  const headers = { 'retry-after': 'Wed, 21 Oct 2026 07:29:00 GMT', date: 'Wed, 21 Oct 2026 07:28:00 GMT' };
  const at = Date.parse(headers.date);
  for (const off of [-3 * 3_600_000, 0, 3 * 3_600_000]) assert.equal(retryAfter(headers, at + off), 60_000);
  // One that cannot be read is none.
  assert.equal(retryAfter({ ...headers, date: 'yesterday' }, at - 5_000), 65_000);
});

test('a wait of any size becomes one that can be waited for', () => {
  for (const [ms, expected] of [
    [-1, 0],
    [Number.NaN, 0],
    [0, 0],
    [0.5, 0.5],
    [LONGEST_WAIT, LONGEST_WAIT],
    [2 ** 31, LONGEST_WAIT],
    [Number.POSITIVE_INFINITY, LONGEST_WAIT],
  ] as const) {
    assert.equal(bounded(ms), expected, String(ms));
  }
});
