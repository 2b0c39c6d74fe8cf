import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Outage } from '../../../src/notifiers/runtime/outage.ts';
import { FakeClock } from '../../support/fake-clock.ts';

/** Without jitter: a pause is half of its ceiling. */
function setUp() {
  const clock = new FakeClock();
  const pauses: number[] = [];
  const state = { resumed: 0 };
  const outage = new Outage({
    clock,
    random: (bytes) => Buffer.alloc(bytes),
    resume: () => state.resumed++,
    paused: (ms) => pauses.push(ms),
  });
  const fail = (times: number) => {
    for (let n = 0; n < times; n++) outage.failed('503');
  };
  return { clock, pauses, state, outage, fail };
}

test('twenty failures in a row are an outage, and any answer between them ends the row', () => {
  const { outage, pauses, fail } = setUp();
  fail(19);
  outage.answered();
  fail(19);
  assert.deepEqual([outage.isOn, outage.isWaiting, pauses], [false, false, []]);
  fail(1);
  assert.deepEqual([outage.isOn, outage.isWaiting, pauses], [true, true, [500]]);
  outage.stop();
});

test('pauses double with each probe that fails, up to a minute, and begin anew after an answer', async () => {
  const { clock, outage, pauses, state, fail } = setUp();
  fail(20);
  for (let n = 0; n < 9; n++) {
    // However many fail while it is paused, that is one failure.
    fail(500);
    await clock.advance(pauses.at(-1)!);
    assert.equal(state.resumed, n + 1);
    assert.equal(outage.isOn, true, 'a single push decides');
    fail(1);
  }
  assert.deepEqual(pauses, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000, 30_000]);
  await clock.advance(30_000);
  outage.answered();
  fail(20);
  assert.equal(pauses.at(-1), 500);
  outage.stop();
  assert.equal(clock.pending, 0);
});

test('the longest wait that was asked for counts, and is not cut short by new credentials', async () => {
  const { clock, outage, pauses, state } = setUp();
  outage.asked(7_000, '429');
  outage.asked(3_000, '429');
  assert.deepEqual(pauses, [7_000]);
  outage.askAgain();
  await clock.advance(6_999);
  assert.deepEqual([outage.isWaiting, state.resumed], [true, 0]);
  outage.asked(9_000, '429');
  await clock.advance(8_999);
  assert.equal(outage.isWaiting, true);
  await clock.advance(1);
  assert.deepEqual([outage.isWaiting, state.resumed, clock.pending], [false, 1, 0]);
});

test('new credentials end a pause that nobody asked for, and the next is a short one', async () => {
  const { clock, outage, pauses, state, fail } = setUp();
  fail(20);
  await clock.advance(500);
  fail(1);
  outage.askAgain();
  assert.deepEqual([outage.isWaiting, state.resumed, clock.pending], [false, 2, 0]);
  fail(1);
  assert.deepEqual(pauses, [500, 1000, 500]);
  outage.stop();
});
