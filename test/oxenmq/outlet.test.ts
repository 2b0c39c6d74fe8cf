import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newCounters } from '../../src/oxenmq/counters.ts';
import { Outlet } from '../../src/oxenmq/outlet.ts';
import { FakeClock } from '../support/fake-clock.ts';

/** An outlet on a socket of which the test decides whether it takes a message. */
function setUp() {
  const clock = new FakeClock();
  const taken: string[] = [];
  const state = {
    code: undefined as string | undefined,
    gone: 0,
    sends: [] as number[],
    room: 0,
    /** The message that is long on its way, and what it waits for. */
    slow: '',
    wait: Promise.resolve(),
  };
  const socket = {
    closed: false,
    send(frames: Buffer[]): Promise<void> {
      if (socket.closed) throw new Error('Socket is closed');
      return socket.taking(frames);
    },
    async taking(frames: Buffer[]): Promise<void> {
      state.sends.push(clock.monotonic());
      if (frames.join() === state.slow) await state.wait;
      if (state.code && state.room-- <= 0) throw Object.assign(new Error(state.code), { code: state.code });
      taken.push(frames.join());
    },
  };
  const counters = newCounters();
  const backlog = { bytes: 0 };
  const outlet = new Outlet(socket, clock, counters, backlog, () => state.gone++);
  return { clock, taken, state, socket, counters, backlog, outlet };
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
    const { clock, state, counters, backlog, outlet } = setUp();
    state.code = when === 'again' ? 'EAGAIN' : 'EHOSTUNREACH';
    outlet.send(frames('1'));
    await clock.advance(0);
    assert.equal(state.gone, when === 'again' ? 0 : 1);
    state.code = 'EHOSTUNREACH';
    await clock.advance(10);
    assert.equal(state.gone, 1);
    outlet.close();
    assert.deepEqual([counters.lost, counters.sent, backlog.bytes], [1, 0, 0]);
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

/** Of this length so many fill 16 MiB, with what each takes besides its parts. */
const large = ['id', Buffer.alloc(1024 * 1024 - 202)];
const MIB = 1024 * 1024;

test('ZeroMQ is handed a thousand messages in one turn; of the rest answers wait, and commands are refused', async () => {
  for (const way of ['send', 'post'] as const) {
    const { clock, taken, counters, backlog, outlet } = setUp();
    for (let n = 0; n < 1000; n++) assert.equal(outlet[way](frames(`${n}`)), true);
    assert.equal(backlog.bytes, 0);
    assert.equal(outlet.send(frames('no')), false);
    assert.equal(counters.refused, 1);
    assert.equal(outlet.post(frames('1000')), true);
    assert.equal(backlog.bytes, 206);
    assert.equal(outlet.send(frames('no')), false, 'before what waits');
    await clock.advance(10);
    assert.deepEqual(
      taken,
      Array.from({ length: 1001 }, (_, n) => `id,${n}`),
    );
    for (let n = 0; n < 1000; n++) assert.equal(outlet.send(frames(`${n}`)), true, 'all are confirmed');
    await clock.advance(0);
    assert.deepEqual([counters.sent, counters.lost, backlog.bytes], [2001, 0, 0]);
  }
});

test('before the peer is known a thousand commands wait, and answers as ever, and all follow in order', async () => {
  const { clock, taken, state, counters, backlog, outlet } = setUp();
  outlet.pause();
  for (let n = 0; n < 1000; n++) assert.equal(outlet.send(frames('x')), true);
  assert.equal(outlet.send(frames('x')), false);
  assert.equal(counters.refused, 1);
  assert.equal(outlet.post(frames('y')), true);
  assert.equal(backlog.bytes, 1001 * 203);
  assert.deepEqual([state.sends.length, clock.pending], [0, 0], 'nothing is tried yet');
  outlet.resume();
  assert.equal(backlog.bytes, 0);
  assert.equal(outlet.send(frames('z')), false, 'a turn has its limit');
  await clock.advance(0);
  assert.deepEqual(taken, [...Array.from({ length: 1000 }, () => 'id,x'), 'id,y']);
  assert.equal(outlet.send(frames('z')), true);
  await clock.advance(0);
  assert.equal(taken.at(-1), 'id,z');
  assert.deepEqual([counters.sent, counters.refused, counters.lost], [1002, 2, 0]);
});

test('what waits before the peer is known counts against the same 16 MiB, and no more once it has left', async () => {
  const { clock, state, backlog, outlet } = setUp();
  outlet.pause();
  for (let n = 0; n < 16; n++) assert.equal(outlet.send(large), true);
  assert.equal(outlet.send(frames('')), false);
  assert.equal(outlet.post(frames('')), false);
  outlet.resume();
  await clock.advance(0);
  state.code = 'EAGAIN';
  outlet.send(large);
  await clock.advance(0);
  for (let n = 1; n < 16; n++) assert.equal(outlet.post(large), true, `${n}`);
  assert.equal(outlet.post(frames('')), false);
  // Nor once it has left after it was turned away.
  state.code = undefined;
  await clock.advance(10);
  assert.equal(backlog.bytes, 0);
  state.code = 'EAGAIN';
  outlet.send(large);
  await clock.advance(0);
  for (let n = 1; n < 16; n++) assert.equal(outlet.post(large), true, `${n} again`);
  outlet.close();
  assert.equal(backlog.bytes, 0);
});

test('on a closed socket nothing is taken, and what waited for the peer to be known is lost', () => {
  const { socket, counters, backlog, outlet } = setUp();
  outlet.pause();
  outlet.send(frames('1'));
  outlet.post(frames('2'));
  socket.closed = true;
  outlet.resume();
  assert.deepEqual([counters.lost, backlog.bytes], [2, 0]);
  assert.equal(outlet.send(frames('3')), false);
  assert.equal(outlet.post(frames('4')), false);
  assert.deepEqual([counters.refused, counters.unanswered, backlog.bytes], [1, 1, 0]);
});

test('all peers together may let 128 MiB wait, and from the half of it each that lets any wait is congested', async () => {
  const { clock, state, backlog, outlet } = setUp();
  state.code = 'EAGAIN';
  backlog.bytes = 64 * MIB;
  assert.equal(outlet.congested, false, 'nothing of its own waits');
  backlog.bytes = 0;
  outlet.send(frames('1'));
  await clock.advance(0);
  for (const [bytes, congested] of [
    [64 * MIB - 1, false],
    [64 * MIB, true],
  ] as const) {
    backlog.bytes = bytes;
    assert.equal(outlet.congested, congested);
  }
  backlog.bytes = 128 * MIB - 203 + 1;
  assert.equal(outlet.post(frames('2')), false);
  backlog.bytes = 128 * MIB - 203;
  assert.equal(outlet.post(frames('2')), true);
  assert.equal(backlog.bytes, 128 * MIB);
  outlet.close();
  assert.equal(outlet.congested, false, 'what others let wait is not its concern');
});

test('what comes while the queue is being emptied follows without another try beside it', async () => {
  const { clock, taken, state, outlet } = setUp();
  state.code = 'EAGAIN';
  outlet.send(frames('1'));
  await clock.advance(0);
  const { promise, resolve } = Promise.withResolvers<void>();
  Object.assign(state, { code: undefined, slow: 'id,1', wait: promise });
  await clock.advance(10);
  outlet.post(frames('2'));
  assert.equal(clock.pending, 0);
  resolve();
  await clock.advance(1_000);
  assert.deepEqual(taken, ['id,1', 'id,2']);
});

test('closed while the queue is being emptied, it gives up what was not taken by then, once', async () => {
  for (const code of [undefined, 'EAGAIN', 'EHOSTUNREACH']) {
    const { clock, state, counters, backlog, outlet } = setUp();
    state.code = 'EAGAIN';
    outlet.send(frames('1'));
    await clock.advance(0);
    for (const text of ['2', '3']) outlet.post(frames(text));
    const { promise, resolve } = Promise.withResolvers<void>();
    Object.assign(state, { code: undefined, slow: 'id,2', wait: promise });
    await clock.advance(10);
    assert.equal(counters.sent, 1);
    state.code = code;
    outlet.close();
    outlet.close();
    assert.deepEqual([counters.lost, backlog.bytes], [2, 0]);
    resolve();
    await clock.advance(1_000);
    assert.deepEqual([counters.lost, backlog.bytes, clock.pending, state.gone], [2, 0, 0, 0], code);
  }
});

test('what was on its way to a full queue when it was closed is lost, and not tried again', async () => {
  const { clock, state, counters, backlog, outlet } = setUp();
  state.code = 'EAGAIN';
  outlet.send(frames('1'));
  outlet.close();
  await clock.advance(1_000);
  assert.deepEqual([counters.lost, state.gone, state.sends.length, backlog.bytes], [1, 0, 1, 0]);
});
