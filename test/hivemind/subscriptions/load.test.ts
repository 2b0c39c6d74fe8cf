import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Devices } from '../../../src/hivemind/devices/devices.ts';
import { loadSubscriptions } from '../../../src/hivemind/subscriptions/load.ts';
import { CLOCK_TOLERANCE } from '../../../src/session/subscription.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { logTo } from '../../support/log.ts';
import { seededRandom } from '../../support/random.ts';
import { makeRow } from '../../support/rows.ts';

const HOUR = 3_600;
const SIGNED = 500_000 * HOUR;

function setUp(rows: number, skipped: number) {
  const lines: string[] = [];
  const floors: number[] = [];
  const asked: unknown[] = [];
  const clock = new FakeClock();
  clock.stall(5_000);
  const devices = new Devices({ random: (bytes) => seededRandom().bytes(bytes) });
  const expected: number[] = [];
  devices.expect = (rows) => void expected.push(rows);
  const stopping = new AbortController().signal;
  const load = (slots?: ReadonlySet<number>) =>
    loadSubscriptions(
      {
        clock: { monotonic: () => clock.monotonic(), raiseFloor: (ms) => void floors.push(ms) },
        devices,
        stopping,
        store: {
          load: async (visit, signal, slots, expect) => {
            asked.push([signal === stopping, slots]);
            expect?.(50);
            if (rows < 0) throw new Error('gone');
            for (let n = 0; n < rows; n++) visit(makeRow({ signedAt: SIGNED + n }));
            clock.stall(99_960);
            return { rows, skipped };
          },
        },
        log: logTo((text, level) => lines.push(`${level}: ${text}`)),
      },
      slots,
    );
  return { devices, expected, lines, floors, asked, load };
}

test('what is stored is in memory, and tells what time it must be at least', async () => {
  const { devices, lines, floors, asked, load } = setUp(3, 0);
  await load();
  assert.equal(devices.size, 3);
  assert.deepEqual(lines, ['info: loaded 3 subscriptions, now of 3 accounts, in 100.0 s']);
  assert.deepEqual(floors, [(SIGNED - CLOCK_TOLERANCE) * 1_000]);
  assert.deepEqual(asked, [[true, undefined]]);
});

test('it is said how many slots were loaded, and how many rows are invalid', async () => {
  const { lines, asked, load } = setUp(2, 1);
  await load(new Set([7, 9]));
  assert.deepEqual(lines, [
    'info: loaded 2 subscriptions of 2 slots, now of 2 accounts, in 100.0 s; 1 rows are invalid and were skipped',
  ]);
  assert.deepEqual(asked, [[true, [7, 9]]]);
});

test('the index is told how much it will hold while that is loaded', async () => {
  const { expected, load } = setUp(2, 0);
  await load();
  await load();
  assert.deepEqual(expected, [50, 0, 52, 0]);
  const failing = setUp(-1, 0);
  await assert.rejects(failing.load());
  assert.deepEqual(failing.expected, [50, 0]);
});
