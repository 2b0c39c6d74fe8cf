import assert from 'node:assert/strict';
import { test } from 'node:test';
import { accepted, gone, refused } from '../../src/notifiers/backend.ts';
import { Ledger, type Report } from '../../src/notifiers/ledger.ts';
import { FakeClock } from '../support/fake-clock.ts';

function setUp() {
  const clock = new FakeClock();
  const reports: Report[] = [];
  const state = { reachable: true };
  const ledger = new Ledger(clock, (report) => {
    if (state.reachable) reports.push(report);
    return state.reachable;
  });
  return { clock, ledger, reports, state };
}

test('ends within 10 ms go in one report', async () => {
  const { clock, ledger, reports } = setUp();
  for (const id of [1, 2, 3, 4, 5]) assert.ok(ledger.take(id));
  ledger.end(1, accepted);
  ledger.end(2, refused('x'));
  await clock.advance(5);
  ledger.end(3, gone('y', 0));
  ledger.end(4, { kind: 'given-up', reason: 'expired' });
  ledger.end(5, { kind: 'handed-back' });
  ledger.answer(1, 'accepted');
  await clock.advance(5);
  assert.deepEqual(reports, [{ accepted: [1], refused: [2, 3, 4], handedBack: [5], answers: [[1, 'accepted']] }]);
  assert.equal(ledger.held, 0);
  assert.equal(clock.pending, 0);
});

test('200 ends go at once', () => {
  const { ledger, reports } = setUp();
  for (let id = 0; id < 200; id++) {
    ledger.take(id);
    ledger.end(id, accepted);
  }
  assert.equal(reports.length, 1);
  assert.equal(reports[0]!.accepted.length, 200);
});

test('what cannot be reported is kept until it can', async () => {
  const { clock, ledger, reports, state } = setUp();
  state.reachable = false;
  for (let id = 0; id < 12_000; id++) {
    ledger.take(id);
    ledger.end(id, accepted);
  }
  await clock.advance(10_000);
  assert.equal(ledger.unreported, 12_000);
  state.reachable = true;
  await clock.advance(250);
  assert.equal(ledger.unreported, 0);
  assert.deepEqual(
    reports.flatMap((report) => report.accepted),
    Array.from({ length: 12_000 }, (_, id) => id),
  );
  assert.equal(clock.pending, 0);
});

test('a push that comes again is not sent again, but reported again', async () => {
  const { clock, ledger, reports } = setUp();
  assert.equal(ledger.take(1), true);
  assert.equal(ledger.take(1), false);
  ledger.end(1, accepted);
  ledger.end(1, accepted);
  await clock.advance(10);
  assert.equal(ledger.take(1), false);
  await clock.advance(10);
  assert.deepEqual(
    reports.map((report) => report.accepted),
    [[1], [1]],
  );
});

test('what was handed back may come again', () => {
  const { ledger } = setUp();
  ledger.take(1);
  ledger.end(1, { kind: 'handed-back' });
  assert.equal(ledger.take(1), true);
  ledger.close();
});

test('ends are remembered in bounded memory, the newest ones for sure', () => {
  const { ledger } = setUp();
  for (let id = 0; id < 100_000; id++) {
    ledger.take(id);
    ledger.end(id, accepted);
  }
  assert.equal(ledger.take(99_000), false);
  assert.equal(ledger.take(81_000), false);
  assert.equal(ledger.take(10), true);
  ledger.close();
});
