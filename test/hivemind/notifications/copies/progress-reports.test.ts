import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GATHER, ProgressReports } from '../../../../src/hivemind/notifications/copies/progress-reports.ts';
import { MAX_FINGERPRINTS, type News } from '../../../../src/session/cluster-protocol.ts';
import { FakeClock } from '../../../support/fake-clock.ts';

function setUp() {
  const clock = new FakeClock();
  const told: [string, News][] = [];
  const state = { reachable: true, living: new Set(['b', 'c']), answered: Promise.resolve() };
  const reports = new ProgressReports({
    clock,
    isLiving: (name) => state.living.has(name),
    async tell(member, news) {
      if (state.reachable) told.push([member, news]);
      await state.answered;
      return state.reachable;
    },
  });
  return { clock, told, state, reports };
}

test('progress is sent together after a tenth of a second, and for each push only the latest state', async () => {
  const { clock, told, reports } = setUp();
  reports.note('b', 'push 001', 'handed');
  reports.note('b', 'push 002', 'none');
  reports.note('c', 'push 003', 'handed');
  reports.note('b', 'push 001', 'ended');
  await clock.advance(99);
  assert.deepEqual(told, []);
  await clock.advance(1);
  assert.deepEqual(told, [
    ['b', { handed: [], ended: ['push 001'], none: ['push 002'] }],
    ['c', { handed: ['push 003'], ended: [], none: [] }],
  ]);
  await clock.advance(10 * GATHER);
  assert.equal(told.length, 2);
  assert.equal(clock.pending, 0);
});

test('when there is much, it goes at once', () => {
  const { told, reports } = setUp();
  for (let n = 0; n < 499; n++) reports.note('b', `${n}`, 'ended');
  assert.equal(told.length, 0);
  reports.note('b', '499', 'ended');
  assert.equal(told.length, 1);
  assert.equal(told[0]?.[1].ended.length, 500);
});

test('a member is told nothing new before it has what it was told, and then in messages that are not too large', async () => {
  const { clock, told, state, reports } = setUp();
  const answered = Promise.withResolvers<void>();
  state.answered = answered.promise;
  for (let n = 0; n < 6_000; n++) reports.note('b', `${n}`, 'ended');
  reports.note('c', 'x', 'ended');
  await clock.advance(10 * GATHER);
  const sizes = () => told.map(([member, { ended }]) => [member, ended.length]);
  assert.deepEqual(sizes(), [
    ['b', 500],
    ['c', 1],
  ]);
  assert.equal(reports.waiting, 6_001, 'also what is under way');
  answered.resolve();
  await clock.advance(0);
  await clock.advance(2 * GATHER);
  assert.deepEqual(sizes().slice(2), [
    ['b', MAX_FINGERPRINTS],
    ['b', 5_500 - MAX_FINGERPRINTS],
  ]);
  assert.equal(reports.waiting, 0);
  assert.equal(clock.pending, 0);
});

test('what has not arrived is sent again, unless there is something newer to send; and nothing goes to the dead', async () => {
  const { clock, told, state, reports } = setUp();
  const answered = Promise.withResolvers<void>();
  state.answered = answered.promise;
  state.reachable = false;
  reports.note('b', 'push 001', 'handed');
  reports.note('b', 'push 002', 'handed');
  reports.note('c', 'push 003', 'handed');
  await clock.advance(GATHER);
  reports.note('b', 'push 001', 'ended');
  state.living.delete('c');
  answered.resolve();
  await clock.advance(10 * GATHER);
  state.reachable = true;
  await clock.advance(GATHER);
  assert.deepEqual(told, [['b', { handed: ['push 002'], ended: ['push 001'], none: [] }]]);
  assert.equal(reports.waiting, 0);
  assert.equal(clock.pending, 0);
});

test('what is gathered for a member that cannot be reached is bounded', async () => {
  const { clock, told, state, reports } = setUp();
  state.reachable = false;
  for (let n = 0; n < 100_000; n++) reports.note('b', `${n}`, 'ended');
  await clock.advance(GATHER);
  assert.ok(reports.waiting <= 20_000, `${reports.waiting}`);
  state.reachable = true;
  reports.note('b', 'last', 'ended');
  await clock.advance(10 * GATHER);
  assert.ok(told.reduce((sum, [, { ended }]) => sum + ended.length, 0) <= 20_000);
  assert.equal(told.at(-1)?.[1].ended.at(-1), 'last');
});

test('what is gathered for a member is given up beyond 20,000, and it hears again of what comes then', () => {
  const { reports, state } = setUp();
  state.answered = new Promise(() => {});
  // The first 500 are under way.
  for (let n = 0; n < 20_500; n++) reports.note('b', `${n}`, 'ended');
  assert.equal(reports.waiting, 20_500);
  reports.note('b', 'one more', 'ended');
  assert.equal(reports.waiting, 501);
});

test('a member that has died is not waited for, though a message to it is under way', async () => {
  const { clock, reports, state } = setUp();
  state.answered = new Promise(() => {});
  reports.note('b', 'push 001', 'ended');
  await clock.advance(GATHER);
  assert.equal(reports.waiting, 1);
  state.living.delete('b');
  let isDone = false;
  void reports.flush(1_000).then(() => (isDone = true));
  await clock.advance(0);
  assert.equal(isDone, true);
});

test('the rest goes at the end, and is waited for, but not for long', async () => {
  const { clock, told, state, reports } = setUp();
  for (let n = 0; n < 6_000; n++) reports.note('b', `${n}`, 'ended');
  await reports.flush(1_000);
  assert.equal(
    told.reduce((sum, [, { ended }]) => sum + ended.length, 0),
    6_000,
  );
  state.answered = new Promise(() => {});
  reports.note('b', 'more', 'ended');
  let isDone = false;
  const flushing = reports.flush(1_000).then(() => {
    isDone = true;
  });
  await clock.advance(999);
  assert.equal(isDone, false);
  await clock.advance(1);
  await flushing;
  reports.stop();
  assert.equal(clock.pending, 0);
});

test('a member that cannot be reached at the end is not waited for', async () => {
  const { told, state, reports } = setUp();
  state.reachable = false;
  reports.note('b', 'push 001', 'ended');
  await reports.flush(1_000);
  assert.deepEqual(told, []);
  reports.stop();
});
