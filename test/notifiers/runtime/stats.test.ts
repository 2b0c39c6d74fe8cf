import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encode } from '../../../src/codec/bencode.ts';
import { Statistics } from '../../../src/notifiers/runtime/stats.ts';
import { vectors } from '../../support/vectors.ts';

interface Vectors {
  stats: { service: string; service_stats_dicts: string[] }[];
}

/**
 * Deliberate difference: our dummy notifier reports like all others, with retries and rates, where the original's has
 * neither.
 */
const DIFFERENT = ['dummy'];

test('reports have the keys and values of the original', () => {
  for (const { service, service_stats_dicts } of vectors<Vectors>('notifiers.json').stats) {
    if (DIFFERENT.includes(service)) continue;
    const statistics = new Statistics();
    service_stats_dicts.forEach((expected, index) => {
      statistics.total.notifies += Number(/\+notifiesi(\d+)e/.exec(expected)![1]);
      const dict = encode(statistics.report(index * 5_000)).toString('latin1');
      // The original measured with a real clock: 17277 to 17280 pushes a day where ours, on an exact one, is 17280.
      assert.equal(dict.replaceAll('i17280e', 'i1728Xe'), expected.replace(/i172(7\d|80)e/g, 'i1728Xe'), service);
    });
  }
});

test('rates do not depend on the number of reports', () => {
  const statistics = new Statistics();
  let dict: Record<string, number> = {};
  for (let index = 0; index <= 1_000; index++) {
    dict = statistics.report(index * 5_000);
    statistics.total.notifies += 50;
  }
  // 10 pushes a second; the newest interval is not part of the sum, so the short window is a little low.
  assert.equal(dict['notifies_per_day.1m'], Math.round((11 * 50 * 86_400) / 60));
  assert.ok(Math.abs(dict['notifies_per_day.10m']! / 864_000 - 1) < 0.01);
  assert.ok(Math.abs(dict['notifies_per_day.60m']! / 864_000 - 1) < 0.002);
});

test('windows without a report say nothing, and old reports are forgotten', () => {
  const statistics = new Statistics();
  statistics.total.notifies = 5;
  statistics.report(0);
  assert.deepEqual(Object.keys(statistics.report(2 * 3_600_000)), ['+failures', '+notifies', '+notify_retries']);
  assert.deepEqual(Object.keys(statistics.report(2 * 3_600_000 + 90_000)), [
    '+failures',
    '+notifies',
    '+notify_retries',
    'notifies_per_day.10m',
    'notifies_per_day.60m',
  ]);
});

test('a report counts for a window until it is exactly as old as that is long', () => {
  for (const [window, length] of [
    ['1m', 60_000],
    ['10m', 600_000],
    ['60m', 3_600_000],
  ] as const) {
    for (const [age, counts] of [
      [length - 1, true],
      [length, false],
    ] as const) {
      const statistics = new Statistics();
      statistics.report(0);
      assert.equal(`notifies_per_day.${window}` in statistics.report(age), counts, `${window} after ${age} ms`);
    }
  }
});

test('a rate is what was counted, over the time since the report before', () => {
  const statistics = new Statistics();
  const after = (minutes: number, notifies: number) => {
    statistics.total.notifies += notifies;
    return statistics.report(minutes * 60_000);
  };
  after(0, 100);
  after(55, 30);
  assert.equal(after(64, 12)['notifies_per_day.10m'], (30 / 64) * 1_440);
  // The first is out of the last hour, and the time still counted from it.
  assert.equal(after(65, 0)['notifies_per_day.60m'], Math.round((42 / 65) * 1_440));
});

test('of the reports that are out of the last hour the latest is kept, from which its time is counted', () => {
  const statistics = new Statistics();
  for (const minute of [0, 1, 2]) statistics.report(minute * 60_000);
  statistics.total.notifies += 61;
  statistics.report(62 * 60_000);
  assert.equal(statistics.report(63 * 60_000)['notifies_per_day.60m'], 1_440);
});

test('the status line counts from the start', () => {
  const statistics = new Statistics();
  Object.assign(statistics.total, { notifies: 7, retries: 2, failures: 1 });
  statistics.report(0);
  assert.equal(statistics.status(), '7 notifications, 2 retries, 1 failures');
});
