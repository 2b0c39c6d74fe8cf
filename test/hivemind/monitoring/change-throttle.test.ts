import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ChangeThrottle } from '../../../src/hivemind/monitoring/change-throttle.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const SECOND = 1_000;

function setUp() {
  const clock = new FakeClock();
  const state = { devices: 1, isAnybodyThere: true };
  const asked: [second: number, id: number, isMore: boolean][] = [];
  const throttle = new ChangeThrottle({
    clock,
    ask: (id, isMore) => {
      asked.push([clock.monotonic() / SECOND, id, isMore]);
      return state.isAnybodyThere;
    },
    devicesOf: () => state.devices,
  });
  const seconds = () => asked.splice(0).map(([second]) => second);
  return { clock, state, asked, throttle, seconds };
}

for (const [devices, every] of [
  [1, 15],
  [16, 15],
  [17, 30],
  [1_000, 945],
] as const) {
  test(`an account with ${devices} devices changes four times at once, and then every ${every} s`, () => {
    const { clock, state, throttle, seconds } = setUp();
    state.devices = devices;
    for (let n = 0; n < 10; n++) throttle.changed(1, true);
    assert.deepEqual(seconds(), [0, 0, 0, 0]);
    clock.run((every - 1) * SECOND);
    assert.deepEqual(seconds(), []);
    clock.run(SECOND);
    assert.deepEqual(seconds(), [every], 'the changes since are asked for together');
    throttle.changed(1, true);
    clock.run((every - 1) * SECOND);
    assert.deepEqual(seconds(), []);
    clock.run(SECOND);
    assert.deepEqual(seconds(), [2 * every]);
    clock.run(4 * every * SECOND);
    assert.equal(clock.pending, 0);
    for (let n = 0; n < 5; n++) throttle.changed(1, true);
    assert.equal(seconds().length, 4, 'rested, it is as good as any other');
  });
}

test('one that rests for a while may change as often again', () => {
  const { clock, throttle, seconds } = setUp();
  for (let n = 0; n < 4; n++) throttle.changed(1, true);
  clock.run(31 * SECOND);
  for (let n = 0; n < 4; n++) throttle.changed(1, true);
  assert.deepEqual(seconds(), [0, 0, 0, 0, 31, 31]);
});

test('other accounts do not wait', () => {
  const { throttle, asked } = setUp();
  for (let n = 0; n < 9; n++) throttle.changed(1, true);
  throttle.changed(2, false);
  assert.deepEqual(asked.at(-1), [0, 2, false]);
});

test('what waits is asked for as more if one of the changes is', () => {
  const all: boolean[][] = [
    [true, false],
    [false, true],
    [false, false],
  ];
  for (const changes of all) {
    const { clock, throttle, asked } = setUp();
    for (let n = 0; n < 4; n++) throttle.changed(1, false);
    for (const isMore of changes) throttle.changed(1, isMore);
    clock.run(15 * SECOND);
    assert.deepEqual(asked.slice(4), [[15, 1, changes.includes(true)]]);
  }
});

test('what nobody could be asked for does not count', () => {
  const { clock, state, throttle, seconds } = setUp();
  state.isAnybodyThere = false;
  for (let n = 0; n < 9; n++) throttle.changed(1, true);
  assert.equal(seconds().length, 9);
  assert.equal(clock.pending, 0);
  state.isAnybodyThere = true;
  for (let n = 0; n < 5; n++) throttle.changed(1, true);
  assert.equal(seconds().length, 4);
  state.isAnybodyThere = false;
  clock.run(15 * SECOND);
  assert.deepEqual(seconds(), [15]);
  state.isAnybodyThere = true;
  for (let n = 0; n < 2; n++) throttle.changed(1, true);
  assert.deepEqual(seconds(), [15], 'the place was free still');
});

test('an account that was removed is not asked for, and its number begins anew', () => {
  const { clock, throttle, seconds } = setUp();
  for (let n = 0; n < 9; n++) throttle.changed(1, true);
  throttle.forget(1);
  clock.run(60 * SECOND);
  assert.deepEqual(seconds(), [0, 0, 0, 0]);
  assert.equal(clock.pending, 0);
  for (let n = 0; n < 9; n++) throttle.changed(1, true);
  throttle.forget(1);
  for (let n = 0; n < 9; n++) throttle.changed(1, true);
  assert.equal(seconds().length, 8);
});

test('once stopped it asks for nothing', () => {
  const { clock, throttle, seconds } = setUp();
  for (let n = 0; n < 9; n++) throttle.changed(1, true);
  throttle.stop();
  assert.equal(clock.pending, 0);
  throttle.changed(2, true);
  clock.run(60 * SECOND);
  assert.deepEqual(seconds(), [0, 0, 0, 0]);
});
