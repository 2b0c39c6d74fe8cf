import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createPlaces } from '../../src/web/places.ts';

/** Takes as many as there are; returns what gives each back. */
function takeAll(take: () => (() => void) | undefined): (() => void)[] {
  const taken: (() => void)[] = [];
  for (let place = take(); place; place = take()) taken.push(place);
  return taken;
}

test('large requests count as several, and leave half of the places to small ones', () => {
  const places = createPlaces(() => 500);
  const large = takeAll(() => places.take(undefined, 70_000));
  assert.equal(large.length, 27);
  const small = takeAll(() => places.take(undefined, 700));
  assert.equal(small.length, 500 - 27 * 9);
  assert.equal(places.take(undefined, 700), undefined);
  for (const giveBack of [...large, ...small]) giveBack();
  assert.equal(takeAll(() => places.take(undefined, 700)).length, 500);
});

test('a client that takes all it can get leaves places for others, and for its own small requests', () => {
  const places = createPlaces(() => 500);
  const flood = takeAll(() => places.take('flood', 700));
  assert.ok(flood.length >= 390 && flood.length <= 400, `${flood.length}`);
  assert.ok(takeAll(() => places.take('other', 700)).length > 50);
  // There are places left even so, for those who have none.
  for (let client = 0; client < 10; client++) assert.ok(places.take(`phone ${client}`, 700));

  const shared = createPlaces(() => 500);
  takeAll(() => shared.take('proxy', 70_000));
  assert.ok(takeAll(() => shared.take('proxy', 700)).length > 100);
});

test('one request at a time is possible under any limit, and what is given back is free again', () => {
  const places = createPlaces(() => 1);
  const first = places.take('a', 100_000);
  assert.ok(first);
  assert.equal(places.take('b', 1), undefined);
  first();
  assert.ok(places.take('b', 1));
});
