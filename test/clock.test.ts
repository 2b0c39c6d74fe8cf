import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock, within } from '../src/clock.ts';
import { FakeClock } from './support/fake-clock.ts';

/** The longest wait that the machine's own timers know. */
const LONGEST = 2 ** 31 - 1;

test("a timer longer than the machine's own timers allow does not fire at once", async () => {
  const fired: string[] = [];
  const timers = [LONGEST + 1, 30 * 86_400_000, 1e15, Number.POSITIVE_INFINITY].flatMap((ms) => [
    systemClock.setTimeout(() => fired.push(`timeout of ${ms}`), ms),
    systemClock.setInterval(() => fired.push(`interval of ${ms}`), ms),
  ]);
  await new Promise<void>((resolve) => systemClock.setTimeout(resolve, 30));
  for (const timer of timers) timer.cancel();
  assert.deepEqual(fired, []);
});

test('such a timer fires when its time has come, once or repeatedly', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'setInterval'] });
  const counts = { once: 0, often: 0, cancelled: 0 };
  const ms = 3 * LONGEST + 5;
  systemClock.setTimeout(() => counts.once++, ms);
  const often = systemClock.setInterval(() => counts.often++, ms);
  const cancelled = systemClock.setTimeout(() => counts.cancelled++, ms);
  const pass = (time: number) => {
    for (let left = time; left > 0; left -= LONGEST) t.mock.timers.tick(Math.min(left, LONGEST));
  };
  pass(ms - 1);
  assert.deepEqual(counts, { once: 0, often: 0, cancelled: 0 });
  cancelled.cancel();
  pass(1);
  assert.deepEqual(counts, { once: 1, often: 1, cancelled: 0 });
  pass(ms);
  assert.deepEqual(counts, { once: 1, often: 2, cancelled: 0 });
  often.cancel();
  pass(ms);
  assert.deepEqual(counts, { once: 1, often: 2, cancelled: 0 });
});

test('what settles in time is told apart from what does not, and no timer is left', async () => {
  const clock = new FakeClock();
  assert.equal(await within(Promise.resolve(), 10, clock), true);
  await assert.rejects(within(Promise.reject(new Error('failed')), 10, clock), /failed/);
  const late = within(new Promise(() => {}), 10, clock);
  await clock.advance(10);
  assert.equal(await late, false);
  const none = within(new Promise(() => {}), -5, clock);
  await clock.advance(0);
  assert.equal(await none, false);
  assert.equal(clock.pending, 0);
});
