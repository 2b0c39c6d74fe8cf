import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Acknowledgements, type Report, reportedAs } from '../../../src/notifiers/runtime/acknowledgements.ts';
import { accepted, gone, refused } from '../../../src/notifiers/runtime/backend.ts';
import { FakeClock } from '../../support/fake-clock.ts';

function setUp() {
  const clock = new FakeClock();
  const reports: Report[] = [];
  const state = { reachable: true };
  const acknowledgements = new Acknowledgements(clock, (report) => {
    if (state.reachable) reports.push(report);
    return state.reachable;
  });
  return { clock, acknowledgements, reports, state };
}

test('ends within 10 ms go in one report', async () => {
  const { clock, acknowledgements, reports } = setUp();
  for (const id of [1, 2, 3, 4, 5]) assert.ok(acknowledgements.take(id));
  acknowledgements.end(1, reportedAs(accepted));
  acknowledgements.end(2, reportedAs(refused('x')));
  await clock.advance(5);
  acknowledgements.end(3, reportedAs(gone('y', 0)));
  acknowledgements.end(4, reportedAs({ kind: 'given-up', reason: 'expired' }));
  acknowledgements.end(5, reportedAs({ kind: 'handed-back' }));
  acknowledgements.answer(1, 'accepted');
  await clock.advance(5);
  assert.deepEqual(reports, [{ accepted: [1], refused: [2, 3, 4], handedBack: [5], answers: [[1, 'accepted']] }]);
  assert.equal(acknowledgements.held, 0);
  assert.equal(clock.pending, 0);
});

test('200 ends go at once, and nothing is left to be sent later', () => {
  const { clock, acknowledgements, reports } = setUp();
  for (let id = 0; id < 200; id++) {
    acknowledgements.take(id);
    acknowledgements.end(id, 'accepted');
  }
  assert.equal(reports.length, 1);
  assert.equal(reports[0]!.accepted.length, 200);
  assert.equal(clock.pending, 0);
});

test('what cannot be reported is kept until it can', async () => {
  const { clock, acknowledgements, reports, state } = setUp();
  state.reachable = false;
  for (let id = 0; id < 12_000; id++) {
    acknowledgements.take(id);
    acknowledgements.end(id, 'accepted');
  }
  await clock.advance(10_000);
  assert.equal(acknowledgements.unreported, 12_000);
  state.reachable = true;
  await clock.advance(250);
  assert.equal(acknowledgements.unreported, 0);
  assert.deepEqual(
    reports.flatMap((report) => report.accepted),
    Array.from({ length: 12_000 }, (_, id) => id),
  );
  assert.equal(clock.pending, 0);
});

test('a push that comes again is not sent again, but reported again', async () => {
  const { clock, acknowledgements, reports } = setUp();
  assert.equal(acknowledgements.take(1), true);
  assert.equal(acknowledgements.take(1), false);
  acknowledgements.end(1, 'accepted');
  acknowledgements.end(1, 'accepted');
  await clock.advance(10);
  assert.equal(acknowledgements.take(1), false);
  await clock.advance(10);
  assert.deepEqual(
    reports.map((report) => report.accepted),
    [[1], [1]],
  );
});

test('what was handed back may come again', () => {
  const { acknowledgements } = setUp();
  acknowledgements.take(1);
  acknowledgements.end(1, 'handedBack');
  assert.equal(acknowledgements.take(1), true);
  acknowledgements.close();
});

test('ends are remembered in bounded memory, the newest ones for sure', () => {
  const { acknowledgements } = setUp();
  for (let id = 0; id < 100_000; id++) {
    acknowledgements.take(id);
    acknowledgements.end(id, 'accepted');
  }
  assert.equal(acknowledgements.take(99_000), false);
  assert.equal(acknowledgements.take(81_000), false);
  assert.equal(acknowledgements.take(10), true);
  acknowledgements.close();
});

test('once closed it reports nothing any more', async () => {
  const { clock, acknowledgements, reports } = setUp();
  for (const id of [1, 2]) acknowledgements.take(id);
  acknowledgements.end(1, 'accepted');
  acknowledgements.close();
  acknowledgements.end(2, 'accepted');
  acknowledgements.answer(2, 'accepted');
  await clock.advance(1_000);
  assert.deepEqual(reports, []);
  assert.equal(acknowledgements.unreported, 1);
  assert.equal(clock.pending, 0);
});

test('an answer in words goes by itself, too, and not once it is closed', async () => {
  const { clock, acknowledgements, reports } = setUp();
  acknowledgements.answer(1, 'not yet');
  assert.equal(acknowledgements.unreported, 1);
  await clock.advance(10);
  assert.deepEqual(reports, [{ accepted: [], refused: [], handedBack: [], answers: [[1, 'not yet']] }]);
  acknowledgements.close();
  acknowledgements.answer(2, 'late');
  assert.deepEqual([acknowledgements.unreported, clock.pending], [0, 0]);
});
