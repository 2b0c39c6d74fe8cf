import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Breaker } from '../src/breaker.ts';
import { FakeClock } from './support/fake-clock.ts';

const LIMITS = { share: 0.25, minimum: 20 };

test('a few dead devices among many pushes are removed', () => {
  const breaker = new Breaker(LIMITS, new FakeClock());
  breaker.accepted(1_000);
  for (let index = 0; index < 100; index++) assert.equal(breaker.gone(), true);
  assert.equal(breaker.open, false);
});

test('too few answers prove nothing: below the minimum every dead device is removed', () => {
  const breaker = new Breaker(LIMITS, new FakeClock());
  for (let index = 0; index < 19; index++) assert.equal(breaker.gone(), true);
  assert.equal(breaker.open, false);
});

test('mass removal is stopped at the minimum', () => {
  const breaker = new Breaker(LIMITS, new FakeClock());
  let removed = 0;
  for (let index = 0; index < 1_000; index++) if (breaker.gone()) removed++;
  assert.equal(removed, 19);
  assert.equal(breaker.open, true);
});

test('the breaker closes when the provider accepts again, at half the share', () => {
  const breaker = new Breaker(LIMITS, new FakeClock());
  for (let index = 0; index < 20; index++) breaker.gone();
  breaker.accepted(80);
  assert.equal(breaker.open, true, '20 of 100 is below the share, but not below half of it');
  breaker.accepted(80);
  assert.equal(breaker.open, false);
});

test('the breaker closes when its window has passed', async () => {
  const clock = new FakeClock();
  const breaker = new Breaker(LIMITS, clock);
  for (let index = 0; index < 20; index++) breaker.gone();
  await clock.advance(9 * 60_000);
  assert.equal(breaker.open, true);
  await clock.advance(2 * 60_000);
  assert.equal(breaker.open, false);
});
