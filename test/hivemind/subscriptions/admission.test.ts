import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Admission } from '../../../src/hivemind/subscriptions/admission.ts';
import { NotDone } from '../../../src/hivemind/subscriptions/fair-queue.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const MIB = 1024 * 1024;
/** What a request takes beside its body. */
const OVERHEAD = 2_000;
/** A body that takes so many MiB in all. */
const mib = (count: number) => count * MIB - OVERHEAD;

/** Nothing is done before the test opens it. */
function setUp() {
  const clock = new FakeClock();
  const state = { isOpen: false };
  const admission = new Admission({
    clock,
    open: () => state.isOpen,
    isDoubtful: (error) => error === 'doubtful',
  });
  /** A request whose work is not counted: it takes nothing but its room. */
  const hold = (bytes: number, client: string) => {
    const place = admission.enter(client, bytes);
    place?.ticket.close();
    return place;
  };
  /** So many of 8,000 bytes as there is room for. */
  const fill = (clientOf: (n: number) => string) => {
    let count = 0;
    while (hold(8_000, clientOf(count))) count++;
    return count;
  };
  return { clock, state, admission, hold, fill };
}

test('requests of 64 MiB are let in, with 2,000 bytes for each beside its body', () => {
  const { admission, hold, fill } = setUp();
  const first = hold(8_000, 'first')!;
  assert.equal(1 + fill((n) => `client ${n}`), Math.floor((64 * MIB) / 10_000));
  assert.deepEqual(admission.shed, { wait: 0, room: 1, invalid: 0 });
  first.leave();
  first.leave();
  assert.equal(
    fill((n) => `later ${n}`),
    1,
  );
});

test('one client may have four times what it leaves to others', () => {
  const { fill } = setUp();
  const first = fill(() => 'a');
  assert.equal(first, Math.floor((0.8 * 64 * MIB) / 10_000));
  assert.equal(
    fill(() => 'b'),
    Math.floor((0.8 * (64 * MIB - first * 10_000)) / 10_000),
  );
});

test('the room is given out to the last byte', () => {
  for (const [more, isLetIn] of [
    [0, true],
    [1, false],
  ] as const) {
    const { hold } = setUp();
    for (const client of ['a', 'b']) assert.ok(hold(mib(24), client));
    // So that the next of 10,000 bytes leaves a quarter of its own.
    let left = 16 * MIB - 12_500 + more;
    for (; left >= 20_000; left -= 10_000) assert.ok(hold(8_000, `client ${left}`));
    for (const bytes of [8_000, left - 10_000 - OVERHEAD]) assert.ok(hold(bytes, `client of ${bytes}`));
    assert.equal(hold(8_000, 'last') !== undefined, isLetIn);
  }
});

test('large requests have three quarters of the room', () => {
  const { admission, hold } = setUp();
  const first = hold(mib(24), 'a')!;
  assert.ok(hold(mib(24), 'b'));
  assert.equal(hold(8_001, 'c'), undefined);
  assert.equal(admission.shed.room, 1);
  assert.ok(hold(8_000, 'd'), 'small ones have the rest');
  first.leave();
  assert.ok(hold(mib(24), 'e'));
  assert.equal(hold(8_001, 'f'), undefined);
});

test('a place that is left is free again, once', () => {
  const { hold } = setUp();
  const first = hold(mib(40), 'a')!;
  assert.equal(hold(mib(20), 'b'), undefined);
  first.leave();
  first.leave();
  assert.ok(hold(mib(40), 'a'));
  assert.equal(hold(mib(20), 'b'), undefined, 'no more than before');
});

test('a client that would wait for more than five seconds is told to retry', () => {
  const { admission } = setUp();
  const enter = (bytes: number, client: string) => admission.enter(client, bytes);
  // Each element is thought to take half a millisecond before any was done.
  const first = enter(600 * 5_000, 'a')!;
  assert.equal(enter(600 * 5_001, 'b'), undefined);
  first.leave();
  assert.equal(admission.queue.wait('b', 'large', 5_000), 0, 'nobody waits for one that has left');
  assert.deepEqual(admission.shed, { wait: 1, room: 0, invalid: 0 });
  assert.ok(enter(600 * 5_000, 'a'));
  assert.equal(admission.queue.wait('b', 'large', 5_000), 5_000);
  assert.ok(enter(600 * 5_000, 'b'));
  assert.equal(enter(600 * 5_001, 'c'), undefined);
  assert.deepEqual(admission.shed, { wait: 2, room: 0, invalid: 0 });
  assert.ok(enter(500, 'd'), 'a small one goes first');
});

test('what was not begun within ten seconds is not begun', async () => {
  for (const [ms, isDone] of [
    [9_999, true],
    [10_000, false],
  ] as const) {
    const { clock, state, admission } = setUp();
    const { ticket } = admission.enter('a', 500)!;
    const done = ticket.run(() => 'done').catch((error: unknown) => error);
    clock.stall(ms);
    state.isOpen = true;
    admission.queue.wake();
    const result = await done;
    assert.equal(isDone ? result === 'done' : result instanceof NotDone, true, `after ${ms} ms`);
  }
});

test('invalid requests make room for others when there is none', async () => {
  const { state, admission, hold } = setUp();
  state.isOpen = true;
  const invalid = admission.enter('invalid', mib(40))!;
  const failed = await invalid.ticket
    .run(() => {
      throw 'doubtful';
    })
    .catch((error: unknown) => error);
  assert.equal(failed, 'doubtful');
  state.isOpen = false;
  const rest = invalid.ticket.run(() => 'more').catch((error: unknown) => error);
  assert.ok(hold(500, 'a'));
  assert.deepEqual(admission.shed, { wait: 0, room: 0, invalid: 0 }, 'not while there is room');
  assert.ok(hold(mib(20), 'b'));
  assert.deepEqual(admission.shed, { wait: 0, room: 0, invalid: 1 });
  assert.ok((await rest) instanceof NotDone);
  invalid.leave();
  assert.equal(hold(mib(40), 'c'), undefined, 'its place was given back once');
});
