import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LATENCY_BOUNDS, Latency } from '../src/latency.ts';

function filled(seconds: readonly number[], now = 0): Latency {
  const latency = new Latency();
  for (const each of seconds) latency.add(each, now);
  return latency;
}

test('each latency falls into the first bucket whose bound it does not exceed, or beyond the last', () => {
  const latency = filled([0.1, 0.100001, 1800, 1801]);
  assert.equal(latency.counts.length, LATENCY_BOUNDS.length + 1);
  assert.deepEqual(
    [...latency.counts.entries()].filter(([, count]) => count > 0),
    [
      [2, 1],
      [3, 1],
      [LATENCY_BOUNDS.length - 1, 1],
      [LATENCY_BOUNDS.length, 1],
    ],
  );
  assert.equal(latency.count, 4);
});

test("a sender's clock that is ahead counts as no time, and one from another century as a day", () => {
  const latency = filled([-5, 1.7e9]);
  assert.equal(latency.counts[0], 1);
  assert.equal(latency.counts[LATENCY_BOUNDS.length], 1);
  assert.equal(latency.sum, 86_400);
});

test('the median and the 95th percentile of 100 lie where they do within their bucket', () => {
  // Half of them between 0.2 and 0.3 s, the others between 1 and 1.5 s.
  const latency = filled([...Array<number>(50).fill(0.25), ...Array<number>(50).fill(1.2)]);
  const { median, p95 } = latency.recent(0)!;
  assert.ok(Math.abs(median - 0.3) < 1e-9, `${median}`);
  assert.ok(Math.abs(p95 - (1 + 0.5 * (45 / 50))) < 1e-9, `${p95}`);
  // What is beyond all bounds has none: it is said to be at the last.
  assert.deepEqual(filled([4_000]).recent(0), { median: 1800, p95: 1800 });
});

test('recent values are forgotten after five minutes at most, and kept for half as long', () => {
  const latency = filled([0.05], 1_000_000);
  assert.equal(new Latency().recent(0), null);
  assert.ok(latency.recent(1_150_000), 'the window has turned once');
  assert.equal(latency.recent(1_300_000), null);
  latency.add(2.5, 9_000_000);
  assert.ok(latency.recent(9_000_000)!.median > 2, 'what was before the pause is not mixed in');
  assert.equal(latency.count, 2, 'since the start everything counts');
});
