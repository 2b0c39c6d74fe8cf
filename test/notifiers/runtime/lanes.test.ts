import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Lane, Lanes } from '../../../src/notifiers/runtime/lanes.ts';
import { Outage } from '../../../src/notifiers/runtime/outage.ts';
import { FakeClock } from '../../support/fake-clock.ts';

function setUp() {
  const clock = new FakeClock();
  const made: (() => Lane<string>)[] = [];
  const lanes = new Lanes<string>((lane) => {
    made.push(lane);
    return new Outage({ clock, random: (bytes) => Buffer.alloc(bytes), resume: () => {} });
  });
  const put = (name: string, ...entries: string[]) => {
    const lane = lanes.get(name);
    for (const entry of entries) lanes.put(lane, entry);
    return lane;
  };
  const names = () => [...lanes.all].map(({ name }) => name);
  /** Whose turn it is, so often in a row. */
  const turns = (count: number, most = 10, troubled = true) =>
    Array.from({ length: count }, () => lanes.next(most, troubled)?.name);
  return { clock, lanes, made, put, names, turns };
}

test('lanes take turns, and each gives what was put into it first', () => {
  const { lanes, made, put, turns } = setUp();
  const a = put('a', 'a1', 'a2');
  put('b', 'b1');
  assert.equal(made[0]!(), a);
  assert.deepEqual([lanes.queued, turns(4)], [3, ['a', 'b', 'a', 'b']]);
  assert.deepEqual([lanes.take(a), lanes.take(a), lanes.take(a), lanes.queued], ['a1', 'a2', undefined, 1]);
  assert.deepEqual(turns(2), ['b', 'b'], 'there is nothing left in a');
});

test('a lane with many calls, or in trouble, is passed over and not forgotten', () => {
  const { lanes, put, turns } = setUp();
  const [a, b] = [put('a', 'a1'), put('b', 'b1')];
  a.calls = 2;
  assert.deepEqual(turns(2, 2), ['b', 'b']);
  assert.deepEqual(turns(2, 3), ['a', 'b']);
  b.outage.failed('503');
  assert.deepEqual([turns(2, 3, false), turns(1, 2, false)], [['a', 'a'], [undefined]]);
  assert.deepEqual(turns(2, 3), ['b', 'a']);
  b.outage.asked(1_000, '429');
  assert.deepEqual(turns(2, 3), ['a', 'a']);
  b.outage.stop();
  assert.deepEqual(turns(2, 3), ['a', 'a'], 'it was closed when its turn came');
  lanes.changed(b);
  assert.deepEqual(turns(2, 3), ['a', 'b']);
});

test('while a single push asks whether the trouble is over, its lane is closed, and one more could only wait', () => {
  const { put } = setUp();
  const lane = put('a');
  assert.deepEqual([lane.isOpen, lane.isBlocked], [false, false]);
  put('a', 'a1');
  assert.deepEqual([lane.isOpen, lane.isBlocked], [true, false]);
  lane.probing = true;
  assert.deepEqual([lane.isOpen, lane.isBlocked], [true, false], 'there is no trouble');
  for (let n = 0; n < 20; n++) lane.outage.failed('503');
  assert.deepEqual([lane.outage.isWaiting, lane.isOpen, lane.isBlocked], [true, false, true]);
  lane.outage.stop();
  assert.deepEqual([lane.isOpen, lane.isBlocked], [false, true]);
  lane.probing = false;
  assert.deepEqual([lane.isOpen, lane.isBlocked], [true, true], 'it is for the one that is queued to ask');
  lane.queue.take();
  assert.deepEqual([lane.isOpen, lane.isBlocked], [false, false]);
});

test('a lane with nothing left to do is forgotten, but for the one without a name', () => {
  const { lanes, put, names } = setUp();
  const [nameless, queued, calling, aside, idle] = [
    put(''),
    put('queued', 'q'),
    put('calling'),
    put('aside'),
    put('idle'),
  ];
  calling.calls = 1;
  aside.aside = 1;
  for (const lane of [nameless, queued, calling, aside, idle]) lanes.changed(lane);
  assert.deepEqual(names(), ['', 'queued', 'calling', 'aside']);
  calling.calls = 0;
  aside.aside = 0;
  lanes.take(queued);
  for (const lane of [queued, calling, aside]) lanes.changed(lane);
  assert.deepEqual(names(), ['']);
  assert.notEqual(lanes.get('idle'), idle);
});

test('of idle lanes that are to be left alone a thousand are remembered', () => {
  const { clock, lanes, put, names } = setUp();
  for (let n = 0; n < 1_001; n++) {
    const lane = put(`${n}`);
    lane.outage.asked(60_000, '429');
    lanes.changed(lane);
  }
  assert.deepEqual([names().length, names().at(-1), clock.pending], [1_000, '999', 1_000]);
});
