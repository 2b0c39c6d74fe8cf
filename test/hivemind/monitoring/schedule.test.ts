import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Schedule } from '../../../src/hivemind/monitoring/schedule.ts';

const MINUTE = 60;

/** A schedule of so many accounts, with a clock in seconds that is set by hand. */
function setUp(count: number, jitter = 0) {
  const state = { now: 1_000 };
  const schedule = new Schedule({ now: () => state.now, jitter: () => jitter, interval: 30 });
  schedule.begin(count, 2 * count);
  /** What is due in that second. */
  const due = (second = state.now) => {
    const found: number[] = [];
    const { walk } = schedule;
    walk.abandon();
    walk.begin(second);
    do {
      const position = schedule.next(1_000);
      if (position === undefined) continue;
      found.push(position);
      walk.pass();
    } while (!walk.isOver);
    walk.end(Number.POSITIVE_INFINITY);
    return found.sort((a, b) => a - b);
  };
  /** The first second in which that account is due. */
  const dueAt = (position: number) => {
    for (let second = state.now; second < state.now + 4_000; second++)
      if (due(second).includes(position)) return second;
    return undefined;
  };
  /** The first second in which a walk is wanted, of which there is none else. */
  const walkAt = () => {
    let second = state.now;
    while (!schedule.walk.hasWorkAt(second)) second++;
    return second;
  };
  schedule.walk.begin(state.now);
  schedule.walk.end(Number.POSITIVE_INFINITY);
  const figures = () => {
    const { confirmed, refused, spared, unconfirmed, oldest } = schedule.figures;
    return { confirmed, refused, spared, unconfirmed, oldest };
  };
  return { state, schedule, due, dueAt, walkAt, figures };
}

test('at first everything is to be asked, and what is in flight is not', () => {
  const { schedule, due, figures } = setUp(3);
  assert.deepEqual(due(), [0, 1, 2]);
  assert.deepEqual(
    [0, 1, 2].map((position) => schedule.sinceOf(position)),
    [1_000, 1_000, 1_000],
  );
  assert.deepEqual(figures(), { confirmed: 0, refused: 0, spared: 0, unconfirmed: 3, oldest: 0 });
  schedule.asked(1);
  assert.deepEqual(due(0xffff_fff0), [0, 2]);
  assert.deepEqual([schedule.isInFlight(1), schedule.isAtOnce(1), schedule.isAtOnce(0)], [true, false, true]);
  schedule.failed(1);
  schedule.confirmed(0, 1_000);
  schedule.failed(0);
  assert.deepEqual(due(), [1, 2], 'what failed is due again, what was answered is not');
});

test('a confirmation is renewed after 45 minutes, and by the jitter up to 55, early enough to be gathered', () => {
  for (const [jitter, seconds] of [
    [0, 45 * MINUTE],
    [0.5, 45 * MINUTE + 285],
    [0.9999, 55 * MINUTE - 30 - 1],
  ] as const) {
    const { schedule, dueAt, state } = setUp(1, jitter);
    schedule.asked(0);
    state.now += 3;
    schedule.confirmed(0, 1_000);
    assert.equal(dueAt(0), 1_000 + seconds);
    assert.equal(schedule.sinceOf(0), 1_000);
  }
});

test('an error of one account has it asked for ever later, up to ten minutes, until it is confirmed or changes', () => {
  const { schedule, dueAt, walkAt, state } = setUp(1, 0.5);
  const waits: number[] = [];
  const fail = () => {
    schedule.asked(0);
    schedule.erred(0, 'error 3');
    const at = walkAt();
    assert.equal(dueAt(0), at);
    waits.push(at - state.now);
    state.now = at;
  };
  for (let n = 0; n < 10; n++) fail();
  assert.deepEqual(waits.splice(0), [4, 8, 16, 32, 64, 128, 256, 512, 600, 600]);
  assert.equal(schedule.figures.lastError, 'error 3');
  for (let n = 0; n < 300; n++) schedule.erred(0, 'error 3');
  fail();
  assert.deepEqual(waits.splice(0), [600], 'however often it was');
  schedule.confirmed(0, state.now);
  fail();
  schedule.changed(0);
  fail();
  schedule.reset();
  fail();
  assert.deepEqual(waits, [4, 4, 4]);
});

test('a wait after an error is at least half and at most one and a half of what it is on average', () => {
  for (const [jitter, wait] of [
    [0, 2],
    [0.99, 6],
  ] as const) {
    const { schedule, dueAt, state } = setUp(1, jitter);
    schedule.erred(0, 'error 3');
    assert.equal(dueAt(0)! - state.now, wait);
  }
});

test('a refused signature is not used again before the next renewal, and an account without one waits for that', () => {
  const { schedule, due, dueAt, state, figures } = setUp(2);
  assert.equal(schedule.barredNow(0, 7), undefined);
  schedule.asked(0);
  schedule.bar(7, 70, 4);
  schedule.refused(0);
  assert.equal(schedule.figures.lastError, 'signature refused with code 4');
  assert.deepEqual([figures().refused, schedule.isRefused(0), due()], [1, true, [0, 1]]);
  schedule.bar(7, 71, 5);
  assert.deepEqual(schedule.barredNow(0, 7), new Set([70, 71]));
  assert.equal(schedule.barredNow(1, 8), undefined);
  schedule.exhausted(0);
  assert.equal(dueAt(0), state.now + 45 * MINUTE);
  assert.equal(figures().refused, 1);
  assert.equal(schedule.barredNow(0, 7), undefined, 'a renewal gives all of them another chance');
  schedule.changed(0);
  assert.equal(schedule.barredNow(0, 7), undefined);
});

test('other signatures are asked for at once where nothing is confirmed, on its way or spared', () => {
  const { schedule } = setUp(5);
  schedule.confirmed(1, 1_000);
  schedule.asked(2);
  schedule.spared(3);
  schedule.exhausted(4);
  assert.deepEqual(
    [0, 1, 2, 3, 4].map((position) => schedule.resigned(position)),
    [true, false, false, false, true],
  );
  assert.deepEqual(
    [0, 1, 2, 3, 4].map((position) => schedule.isAtOnce(position)),
    [true, false, false, false, true],
  );
});

test('an account that another swarm has by the word of the server is asked for at the end of the dispute', () => {
  const { schedule, dueAt, walkAt, figures } = setUp(1);
  schedule.confirmed(0, 1_000);
  schedule.elsewhere(0, 1_050, 'error 6');
  assert.deepEqual([walkAt(), dueAt(0)], [1_050, 1_050]);
  assert.deepEqual([schedule.figures.lastError, figures().confirmed], ['error 6', 0]);
  schedule.confirmed(0, 1_050);
  schedule.ended(0);
  assert.deepEqual([figures().confirmed, dueAt(0)], [0, 1_050 + 45 * MINUTE]);
});

test('an account that goes leaves its place to the last one, with all that is known of that', () => {
  const { schedule, due, figures } = setUp(3);
  schedule.confirmed(0, 1_000);
  schedule.asked(1);
  schedule.bar(7, 70, 4);
  schedule.exhausted(2);
  schedule.walk.begin(1_000);
  schedule.remove(0, 7);
  assert.equal(schedule.count, 2);
  assert.deepEqual([schedule.isRefused(0), schedule.isInFlight(1)], [true, true]);
  assert.deepEqual(figures(), { confirmed: 0, refused: 1, spared: 0, unconfirmed: 1, oldest: 0 });
  schedule.walk.end(5_000);
  assert.equal(schedule.walk.hasWork, true, 'the walk may have been beyond it');
  // What stands behind the end is nobody's.
  schedule.append(1_234, 4);
  schedule.bar(9, 90, 4);
  assert.deepEqual([schedule.sinceOf(2), due(), schedule.barredNow(2, 7)], [1_234, [2], undefined]);
  schedule.remove(0, 9);
  schedule.changed(0);
  assert.equal(schedule.barredNow(0, 9), undefined);
});

test('the list grows by its room and keeps what it has', () => {
  const { schedule, due } = setUp(2);
  schedule.confirmed(0, 900);
  schedule.exhausted(1);
  for (let n = 2; n < 9; n++) schedule.append(1_000 + n, 10);
  assert.deepEqual([schedule.count, schedule.sinceOf(0), schedule.sinceOf(8)], [9, 900, 1_008]);
  assert.deepEqual([schedule.isConfirmed(0), schedule.isRefused(1), due()], [true, true, [2, 3, 4, 5, 6, 7, 8]]);
});

test('after a handshake nothing counts that was said before', () => {
  const { schedule, due, figures } = setUp(4);
  schedule.confirmed(0, 1_000);
  schedule.exhausted(1);
  schedule.spared(2);
  schedule.bar(7, 70, 4);
  schedule.reset();
  assert.deepEqual(figures(), { confirmed: 0, refused: 0, spared: 0, unconfirmed: 4, oldest: 0 });
  assert.deepEqual([due(), schedule.barredNow(0, 7)], [[0, 1, 2, 3], undefined]);
  assert.equal(schedule.sinceOf(0), 1_000, 'since when it is wanted');
});

test('what is spared is not asked for until that is reconsidered', () => {
  const { schedule, state, due, dueAt, figures } = setUp(4);
  schedule.confirmed(0, 1_000);
  schedule.confirmed(1, 1_000);
  schedule.changed(1);
  for (const position of [0, 1, 2]) schedule.spared(position);
  assert.deepEqual(figures(), { confirmed: 1, refused: 0, spared: 2, unconfirmed: 1, oldest: 0 });
  assert.deepEqual(
    [0, 1, 2, 3].map((position) => schedule.isSpared(position)),
    [false, true, true, false],
  );
  assert.deepEqual(due(0xffff_fff0), [3]);
  state.now = 1_200;
  schedule.reconsider();
  assert.deepEqual(figures(), { confirmed: 1, refused: 0, spared: 0, unconfirmed: 3, oldest: 0 });
  assert.deepEqual([due(), dueAt(0)], [[1, 2, 3], 1_000 + 45 * MINUTE]);
  assert.deepEqual(
    [0, 1, 2, 3].map((position) => schedule.sinceOf(position)),
    [1_000, 1_200, 1_200, 1_000],
  );
  schedule.spared(2);
  schedule.asked(2);
  assert.deepEqual([schedule.isSpared(2), figures().spared], [false, 0]);
});

test('a confirmation counts for 65 minutes, and the oldest is found among those that count', () => {
  const { schedule, state, figures } = setUp(5);
  schedule.confirmed(0, 1_100);
  schedule.confirmed(1, 1_101);
  schedule.exhausted(2);
  schedule.confirmed(3, 900);
  schedule.spared(3);
  schedule.confirmed(4, 1_200);
  state.now = 1_100 + 65 * MINUTE;
  schedule.measure();
  assert.deepEqual(figures(), { confirmed: 3, refused: 1, spared: 1, unconfirmed: 0, oldest: 1_100 });
  state.now++;
  schedule.measure();
  assert.deepEqual(figures(), { confirmed: 2, refused: 1, spared: 1, unconfirmed: 1, oldest: 1_100 });
  assert.equal(schedule.isConfirmed(0), false);
  const empty = setUp(1);
  empty.schedule.exhausted(0);
  empty.schedule.measure();
  assert.equal(empty.schedule.figures.oldest, 0);
});

test('a request that came to nothing as a whole has the walk begin anew', () => {
  const { schedule } = setUp(1);
  schedule.walk.begin(1_000);
  schedule.failedAll('no answer');
  assert.deepEqual(
    [schedule.walk.isGoing, schedule.walk.hasWork, schedule.figures.lastError],
    [false, true, 'no answer'],
  );
});
