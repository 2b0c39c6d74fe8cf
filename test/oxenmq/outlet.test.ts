import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newCounters } from '../../src/oxenmq/counters.ts';
import { Outlet } from '../../src/oxenmq/outlet.ts';
import { FakeClock } from '../support/fake-clock.ts';

/** An outlet on a socket of which the test decides whether it takes a message. */
function setUp() {
  const clock = new FakeClock();
  const taken: string[] = [];
  const state = { code: undefined as string | undefined, gone: 0, sends: [] as number[], room: 0 };
  const socket = {
    closed: false,
    async send(frames: Buffer[]): Promise<void> {
      state.sends.push(clock.monotonic());
      if (state.code && state.room-- <= 0) throw Object.assign(new Error(state.code), { code: state.code });
      taken.push(frames.join());
    },
  };
  const counters = newCounters();
  const backlog = { bytes: 0 };
  const outlet = new Outlet(socket, clock, counters, backlog, () => state.gone++);
  return { clock, taken, state, counters, backlog, outlet };
}

const frames = (text: string) => ['id', text];

test('nothing is counted before anything has happened', () => {
  assert.deepEqual(new Set(Object.values(newCounters())), new Set([0]));
});

test('what a full queue turned away is retried ever more rarely, and follows in order', async () => {
  const { clock, taken, state, counters, backlog, outlet } = setUp();
  state.code = 'EAGAIN';
  assert.equal(outlet.send(frames('1')), true);
  await clock.advance(0);
  assert.equal(outlet.send(frames('2')), false, 'its sender keeps it');
  assert.equal(outlet.post(frames('3')), true, 'nobody else would keep it');
  assert.equal(backlog.bytes, 2 * (200 + 3));
  await clock.advance(1_000);
  assert.deepEqual(state.sends, [0, 10, 30, 70, 150, 310, 560, 810]);
  state.code = undefined;
  await clock.advance(250);
  assert.deepEqual(taken, ['id,1', 'id,3']);
  assert.equal(outlet.send(frames('4')), true);
  await clock.advance(0);
  assert.deepEqual(taken, ['id,1', 'id,3', 'id,4']);
  assert.deepEqual([counters.sent, counters.refused, counters.lost, backlog.bytes], [3, 1, 0, 0]);
  assert.deepEqual([clock.pending, state.gone], [0, 0]);
  // After a success the first wait is short again.
  state.code = 'EAGAIN';
  outlet.send(frames('5'));
  await clock.advance(0);
  await clock.advance(10);
  assert.equal(state.sends.at(-1), 1_260);
  outlet.close();
});

test('a peer that reads one message is tried again soon', async () => {
  const { clock, state, outlet } = setUp();
  state.code = 'EAGAIN';
  outlet.send(frames('1'));
  await clock.advance(0);
  outlet.post(frames('2'));
  await clock.advance(69);
  assert.deepEqual(state.sends, [0, 10, 30]);
  state.room = 1;
  await clock.advance(1 + 10);
  // At 70 the first was taken and the second turned away.
  assert.deepEqual(state.sends, [0, 10, 30, 70, 70, 80]);
  outlet.close();
});

for (const when of ['at first', 'again']) {
  test(`a peer that ZeroMQ does not know when it is tried ${when} is reported as gone`, async () => {
    const { clock, state, outlet } = setUp();
    state.code = when === 'again' ? 'EAGAIN' : 'EHOSTUNREACH';
    outlet.send(frames('1'));
    await clock.advance(0);
    state.code = 'EHOSTUNREACH';
    await clock.advance(10);
    assert.equal(state.gone, 1);
    outlet.close();
    assert.equal(clock.pending, 0);
  });
}

test('once closed, it gives up what it held, which is counted once, and accepts nothing more', async () => {
  const { clock, state, counters, backlog, outlet } = setUp();
  state.code = 'EAGAIN';
  outlet.send(frames('1'));
  await clock.advance(0);
  outlet.post(frames('2'));
  outlet.close();
  outlet.close();
  assert.deepEqual([counters.lost, backlog.bytes, clock.pending], [2, 0, 0]);
  assert.deepEqual([outlet.send(frames('3')), outlet.post(frames('4'))], [false, false]);
  assert.deepEqual([counters.refused, counters.unanswered, state.gone], [1, 1, 0]);
});

test('a peer is congested from a thousand answers or 4 MiB on, and no more than 10,000 or 16 MiB wait', async () => {
  const { clock, state, counters, outlet } = setUp();
  state.code = 'EAGAIN';
  outlet.send(frames('1'));
  await clock.advance(0);
  for (let n = 1; n < 10_000; n++) {
    assert.equal(outlet.congested, n >= 1000);
    assert.equal(outlet.post(frames('x')), true);
  }
  assert.equal(outlet.post(frames('x')), false);
  assert.equal(counters.unanswered, 1);
  outlet.close();

  const other = setUp();
  other.state.code = 'EAGAIN';
  const large = ['id', Buffer.alloc(1024 * 1024 - 202)];
  other.outlet.send(large);
  await other.clock.advance(0);
  for (let n = 1; n < 16; n++) {
    assert.equal(other.outlet.congested, n >= 4);
    assert.equal(other.outlet.post(large), true);
  }
  assert.equal(other.outlet.post(frames('x')), false);
  other.outlet.close();
  assert.equal(other.backlog.bytes, 0);
});
