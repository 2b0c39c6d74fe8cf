import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TokenBuckets } from '../../../src/hivemind/notifications/token-buckets.ts';

const taken = (buckets: TokenBuckets<string>, key: string, times: number, now: number) =>
  Array.from({ length: times }, () => buckets.take(key, now)).filter(Boolean).length;

test('a bucket gives out its burst at once, then a token each interval, and fills up to the burst again', () => {
  const buckets = new TokenBuckets<string>({ burst: 10, every: 100 });
  assert.equal(taken(buckets, 'a', 30, 1_000), 10);
  assert.equal(taken(buckets, 'a', 30, 1_099), 0);
  assert.equal(taken(buckets, 'a', 30, 1_100), 1);
  assert.equal(taken(buckets, 'a', 30, 1_350), 2);
  assert.equal(taken(buckets, 'a', 30, 1_400), 1);
  assert.equal(taken(buckets, 'a', 30, 1_000_000), 10);
});

test('buckets do not affect each other', () => {
  const buckets = new TokenBuckets<string>({ burst: 2, every: 100 });
  assert.equal(taken(buckets, 'a', 5, 0), 2);
  assert.equal(taken(buckets, 'b', 5, 0), 2);
});

test('memory is used for those that are not full, not for all that ever were', () => {
  const buckets = new TokenBuckets<string>({ burst: 5, every: 100 });
  taken(buckets, 'busy', 5, 0);
  for (let n = 0; n < 100_000; n++) {
    buckets.take(`key ${n}`, n);
    assert.ok(buckets.size <= 1_025, `${buckets.size}`);
    // One that is in use is not forgotten.
    if (n % 100 === 0 && n > 0) assert.equal(taken(buckets, 'busy', 5, n), 1);
  }
});

test('full ones are looked for beyond 1,024 buckets, and then whenever there are twice as many as were in use', () => {
  const buckets = new TokenBuckets<number>({ burst: 5, every: 100 });
  const take = (from: number, to: number, now: number) => {
    for (let key = from; key < to; key++) buckets.take(key, now);
    return buckets.size;
  };
  assert.equal(take(0, 1_024, 0), 1_024);
  assert.equal(take(1_024, 1_025, 100), 1, 'the others are full again');
  assert.equal(take(2_000, 3_024, 100), 1_025, 'all in use');
  assert.equal(take(4_000, 5_025, 200), 2_050);
  assert.equal(take(5_025, 5_026, 200), 1_026);
});
