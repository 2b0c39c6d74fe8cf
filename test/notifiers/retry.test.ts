import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ceiling, jitter, nextAttempt, RETRY, retryAfter } from '../../src/notifiers/retry.ts';

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

test('what the provider asks for is waited in full, and the jitter comes on top', () => {
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
  assert.equal(retryAfter('120', at), 120_000);
  assert.equal(retryAfter(' 0 ', at), 0);
  assert.equal(retryAfter(['7', '8'], at), 7_000);
  assert.equal(retryAfter('Wed, 21 Oct 2026 07:28:30 GMT', at), 30_000);
  assert.equal(retryAfter('Wednesday, 21-Oct-26 07:28:30 GMT', at), 30_000);
  assert.equal(retryAfter('Wed, 21 Oct 2026 07:27:00 GMT', at), 0);
  for (const nonsense of [undefined, null, '', '-1', '1.5', 'soon', 'Wed, 99 Foo 2026', '1e3', 12]) {
    assert.equal(retryAfter(nonsense, at), undefined, String(nonsense));
  }
});
