import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BencodeError, encode } from '../../../src/codec/bencode.ts';
import { Stats } from '../../../src/hivemind/operators/stats.ts';
import { FakeClock } from '../../support/fake-clock.ts';

function setUp() {
  const clock = new FakeClock();
  const written: unknown[][] = [];
  const stats = new Stats(clock, { addStats: (...what) => void written.push(what) });
  return { clock, stats, written };
}

/** As it goes out: names may be chosen by notifiers, so inside there are objects without a prototype. */
function plain(stats: Stats): Record<string, unknown> {
  return JSON.parse(JSON.stringify(stats.snapshot())) as Record<string, unknown>;
}

test("a notifier's report adds what begins with a plus and replaces the rest", () => {
  const { stats, written } = setUp();
  stats.report('apns', encode({ '+notifies': 3, '+failures': 1, note: 'fine', rate: 7 }));
  stats.report('apns', encode({ '+notifies': 2, note: 'better', rate: 8 }));
  assert.deepEqual(plain(stats).notifier, { apns: { notifies: 5, failures: 1, note: 'better', rate: 8 } });
  assert.equal(written.length, 4, 'each report and the time of it');
});

test('an increment of a text starts from zero', () => {
  const { stats } = setUp();
  stats.report('apns', encode({ notifies: 'many' }));
  stats.report('apns', encode({ '+notifies': 2 }));
  assert.deepEqual(plain(stats).notifier, { apns: { notifies: 2 } });
});

test('a report with anything wrong in it is discarded as a whole', () => {
  const { stats, written } = setUp();
  const wrong = [
    encode({ '+notifies': 'two', failures: 1 }),
    encode({ '+notifies': 1, list: [] }),
    encode({ dict: {} }),
    encode([1]),
    encode({ text: Buffer.from([0xff, 0xfe]) }),
    encode({ text: 'nul\0' }),
    Buffer.from('d4:+abci1e'),
  ];
  for (const report of wrong) assert.throws(() => stats.report('apns', report), BencodeError);
  assert.deepEqual(plain(stats), {});
  assert.equal(written.length, 0);
});

test('a notifier is alive for a minute after its report, and known from then on', async () => {
  const { clock, stats } = setUp();
  stats.report('apns', encode({ '+notifies': 0 }));
  assert.deepEqual(stats.alive(), ['apns']);
  assert.equal(stats.snapshot()['alive.apns'], true);
  await clock.advance(60_000);
  assert.deepEqual(stats.alive(), []);
  assert.equal(stats.snapshot()['alive.apns'], false);
  assert.deepEqual([stats.hasReported('apns'), stats.hasReported('huawei')], [true, false]);
});

test('counting continues from what the database had', () => {
  const { stats } = setUp();
  stats.load([
    { service: '', name: 'pushes', value: 100 },
    { service: 'apns', name: 'notifies', value: 7 },
  ]);
  stats.add('', { pushes: 20 });
  assert.equal(stats.get('pushes'), 120);
  assert.equal(stats.total('notifies'), 7);
});
