import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createPlaces } from '../../src/web/places.ts';

/** Takes as many as there are; returns what gives each back. */
function takeAll(take: () => (() => void) | undefined): (() => void)[] {
  const taken: (() => void)[] = [];
  for (let place = take(); place; place = take()) taken.push(place);
  return taken;
}

const takeAllOf = (limit: number, bytes: number): number => {
  const places = createPlaces(() => limit);
  return takeAll(() => places.take(undefined, bytes)).length;
};

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

test('a request takes a place for every 8,000 bytes and one more, and those of two or more get half of the places', () => {
  assert.equal(takeAllOf(8, 7_999), 8);
  assert.equal(takeAllOf(8, 8_000), 2);
  assert.equal(takeAllOf(8, 15_999), 2);
  assert.equal(takeAllOf(18, 16_000), 3);
  const places = createPlaces(() => 8);
  const taken = takeAll(() => places.take(undefined, 8_000));
  for (const giveBack of taken) giveBack();
  assert.equal(takeAll(() => places.take(undefined, 8_000)).length, 2, 'again as many');
  // One that needs more than half is let in while there is no other of its kind.
  const mixed = createPlaces(() => 8);
  assert.ok(mixed.take(undefined, 1));
  assert.equal(mixed.take(undefined, 7 * 8_000), undefined, 'more than there are');
  assert.ok(mixed.take(undefined, 6 * 8_000));
  assert.equal(mixed.take(undefined, 1), undefined);
});

test('a client that takes all it can get leaves places for others, and for its own small requests', () => {
  const places = createPlaces(() => 500);
  const flood = takeAll(() => places.take('flood', 700));
  assert.equal(flood.length, 400, 'four times what it leaves');
  const fewer = createPlaces(() => 101);
  assert.equal(takeAll(() => fewer.take('flood', 700)).length, 80);
  assert.ok(takeAll(() => places.take('other', 700)).length > 50);
  // There are places left even so, for those who have none.
  for (let client = 0; client < 10; client++) assert.ok(places.take(`phone ${client}`, 700));

  const shared = createPlaces(() => 500);
  takeAll(() => shared.take('proxy', 70_000));
  assert.ok(takeAll(() => shared.take('proxy', 700)).length > 100);

  const exact = createPlaces(() => 100);
  assert.equal(takeAll(() => exact.take('proxy', 8_000)).length, 25);
  assert.equal(takeAll(() => exact.take('proxy', 700)).length, 40);
});

test('one request at a time is possible under any limit, and what is given back is free again', () => {
  assert.equal(createPlaces(() => 0).take('a', 1), undefined, 'but under none');
  const places = createPlaces(() => 1);
  const first = places.take('a', 100_000);
  assert.ok(first);
  assert.equal(places.take('b', 1), undefined);
  first();
  assert.ok(places.take('b', 1));
});
