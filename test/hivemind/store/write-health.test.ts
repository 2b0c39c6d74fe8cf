import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OverloadError, WriteHealth } from '../../../src/hivemind/store/write-health.ts';
import { keepLog } from '../../notifiers/support.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const error = (code?: string) => Object.assign(new Error('its words'), code === undefined ? {} : { code });

test('only a database that refuses what is right is a trouble; every failure is counted by its cause', () => {
  for (const [failure, cause, trouble] of [
    [error('22001'), 'data', undefined],
    [error(), 'unreachable', undefined],
    [error('57P01'), 'unreachable', undefined],
    [error('53100'), 'disk_full', 'the database does not write: its words (SQLSTATE 53100)'],
    [error('53200'), 'resources', 'the database does not write: its words (SQLSTATE 53200)'],
    [error('42501'), 'permission', 'the database does not write: its words (SQLSTATE 42501)'],
    [error('25006'), 'read_only', 'the database does not write: its words (SQLSTATE 25006)'],
    [error('42P01'), 'schema', 'the database does not write: its words (SQLSTATE 42P01)'],
    [error('40001'), 'conflict', 'the database does not write: its words (SQLSTATE 40001)'],
    [error('57014'), 'timeout', 'the database does not write: its words (SQLSTATE 57014)'],
    [error('XX000'), 'other', 'the database does not write: its words (SQLSTATE XX000)'],
    [
      new Error('in our words', { cause: error('53100') }),
      'disk_full',
      'the database does not write: its words (SQLSTATE 53100)',
    ],
    [
      Object.assign(error('53100'), { message: `${'x'.repeat(201)}\nFailing row contains secrets` }),
      'disk_full',
      `the database does not write: ${'x'.repeat(200)} (SQLSTATE 53100)`,
    ],
    [new OverloadError('too many wait'), 'overload', 'the database does not write: too many wait'],
  ] as const) {
    const { log, lines } = keepLog();
    const health = new WriteHealth(new FakeClock(), log);
    health.failed(failure);
    assert.deepEqual([...health.errors], [[cause, 1]]);
    assert.equal(health.trouble, trouble);
    assert.equal(lines.length, trouble === undefined ? 0 : 1);
    health.stop();
  }
});

test('a trouble is over when all is written, or when some is and nothing has failed for a minute', () => {
  const clock = new FakeClock();
  clock.run(5_000);
  const { log, lines } = keepLog();
  const health = new WriteHealth(clock, log);
  health.failed(error('53100'));
  clock.run(1_000_000);
  health.failed(error('53100'));
  clock.run(59_999);
  health.succeeded(false);
  assert.notEqual(health.trouble, undefined);
  clock.run(1);
  health.succeeded(false);
  assert.equal(health.trouble, undefined);
  assert.match(lines.at(-1)!, /works again, after 2 failures in 1060 s/);
  health.failed(error('53100'));
  health.succeeded(true);
  assert.equal(health.trouble, undefined);
  health.stop();
  assert.equal(clock.pending, 0);
});
