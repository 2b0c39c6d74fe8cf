import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DeviceLimits, ServerLimits } from '../../../src/hivemind/notifications/message-limits.ts';

/** How many of `times` are allowed. */
const allowed = (times: number, allow: () => boolean) => Array.from({ length: times }, allow).filter(Boolean).length;

test('a server may send 500 messages of an account at once, and then one in 200 ms', () => {
  const limits = new ServerLimits();
  assert.equal(
    allowed(600, () => limits.allow(1, 0)),
    500,
  );
  assert.equal(
    allowed(600, () => limits.allow(2, 0)),
    500,
    'of each account',
  );
  assert.equal(
    allowed(2, () => limits.allow(1, 199)),
    0,
  );
  assert.equal(
    allowed(2, () => limits.allow(1, 200)),
    1,
  );
});

test('of those 50 may be unconfirmed, and then one in two seconds', () => {
  const limits = new ServerLimits();
  assert.equal(
    allowed(60, () => limits.allowAlone(1, 0)),
    50,
  );
  assert.equal(
    allowed(2, () => limits.allowAlone(1, 1_999)),
    0,
  );
  assert.equal(
    allowed(2, () => limits.allowAlone(1, 2_000)),
    1,
  );
});

test('a device may get 2,000 pushes at once, and then one in 50 ms', () => {
  const limits = new DeviceLimits();
  assert.equal(
    allowed(2_100, () => limits.allow('apns', 'a', 0)),
    2_000,
  );
  assert.equal(
    allowed(1, () => limits.allow('apns', 'b', 0)),
    1,
  );
  assert.equal(
    allowed(1, () => limits.allow('firebase', 'a', 0)),
    1,
  );
  assert.equal(
    allowed(2, () => limits.allow('apns', 'a', 49)),
    0,
  );
  assert.equal(
    allowed(2, () => limits.allow('apns', 'a', 50)),
    1,
  );
});
