import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Devices } from '../../../src/hivemind/devices/devices.ts';
import { allowance, Expiry } from '../../../src/hivemind/subscriptions/expiry.ts';
import { SigningTimes } from '../../../src/hivemind/subscriptions/signing-times.ts';
import { SIGNATURE_LIFETIME } from '../../../src/session/subscription.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { logTo } from '../../support/log.ts';
import { seededRandom } from '../../support/random.ts';
import { makeRow } from '../../support/rows.ts';

const DAY = 86_400;
const HALF_MINUTE = 30_000;

/**
 * Subscriptions of so many ages in days, and what the database was told.
 *
 * @param upMs for so long the process has run before
 */
function setup(ages: readonly number[], upMs = 0) {
  const clock = Object.assign(new FakeClock(1_800_000_000_000), {
    doubt: undefined as string | undefined,
    earliest: () => clock.now(),
  });
  clock.run(upMs);
  const devices = new Devices({ random: (bytes) => seededRandom().bytes(bytes) });
  const now = clock.now() / 1000;
  for (const age of ages) {
    const row = makeRow({ signedAt: Math.floor(now - age * DAY) });
    devices.upsert(row, row.signedAt);
  }
  const deleted: { cutoff: number; most: number }[] = [];
  const log: string[] = [];
  const expiry = new Expiry({
    clock,
    devices,
    store: { deleteExpired: async (cutoff, most) => deleted.push({ cutoff, most }) },
    log: logTo((text, level) => log.push(`${level}: ${text}`)),
  });
  return { clock, devices, expiry, deleted, log };
}

/** `old` that are out of date, and `young` that are not. */
const of = (old: number, young: number) => [...Array(old).fill(15), ...Array(young).fill(1)];

test('what a normal day brings expires by itself, in memory and database', async () => {
  const { expiry, devices, deleted, log, clock } = setup(of(50, 950));
  await expiry.start();
  assert.deepEqual(log, []);
  assert.equal(devices.size, 950);
  assert.equal(deleted[0]!.cutoff, clock.now() / 1000 - SIGNATURE_LIFETIME);
  assert.equal(deleted[0]!.most, 50 + 20, 'and no more of the database, but for a few');
  assert.equal(expiry.held, undefined);
  expiry.stop();
  assert.equal(clock.pending, 0);
});

test('a mass expiry is held back, however many or few subscriptions there are', async () => {
  for (const [old, young] of [
    [51, 949],
    [1000, 0],
    [21, 79],
    [15, 10],
    [3, 1],
    [1, 0],
  ] as const) {
    const { expiry, devices, deleted, log, clock } = setup(of(old, young));
    await expiry.start();
    await clock.advance(10 * HALF_MINUTE);
    assert.equal(devices.size, old + young, `${old} of ${old + young}`);
    assert.equal(deleted.length, 0);
    assert.match(expiry.complaint ?? '', new RegExp(`of ${old + young} subscriptions seem to be out of date`));
    assert.equal(log.filter((line) => line.startsWith('error')).length, 1, 'said once');
    await clock.advance(7 * 3_600_000);
    assert.equal(log.filter((line) => line.startsWith('error')).length, 2, 'and again after hours');
    expiry.stop();
  }
});

test('an operator releases a mass expiry', async () => {
  const { expiry, devices, deleted, log } = setup(of(5_000, 10));
  await expiry.start();
  assert.equal(await expiry.run(), 0);
  const held =
    'more than 250 of 5010 subscriptions seem to be out of date (signed before 2027-01-01) and are kept: ' +
    'if the time is right, "spns expire --yes" deletes them';
  assert.deepEqual(await expiry.report(false), { expired: 0, held });
  assert.deepEqual(log, [`error: ${held}`]);
  assert.equal(devices.size, 5_010);
  let hasTurned = false;
  setImmediate(() => {
    hasTurned = true;
  });
  assert.deepEqual(await expiry.report(true), { expired: 5_000 });
  assert.ok(hasTurned, 'others had their turn meanwhile');
  assert.equal(devices.size, 10);
  assert.ok(deleted[0]!.most > 5_000);
  assert.equal(expiry.complaint, undefined);
  expiry.stop();
});

test('what is held expires by itself once there are enough others', async () => {
  const { expiry, devices, deleted, log, clock } = setup(of(51, 949));
  await expiry.start();
  assert.ok(expiry.held);
  for (let n = 0; n < 200; n++) devices.upsert(makeRow({ signedAt: clock.now() / 1_000 }), 0);
  await clock.advance(HALF_MINUTE);
  assert.deepEqual([expiry.held, devices.size], [undefined, 1_149]);
  assert.equal(log.at(-1), 'info: there are no longer too many expired subscriptions at once');
  assert.equal(deleted[0]!.most, 51 + 20);
  devices.upsert(makeRow({ signedAt: clock.now() / 1_000 - 15 * DAY }), 0);
  const { length } = log;
  await clock.advance(HALF_MINUTE);
  assert.deepEqual([devices.size, log.length], [1_149, length]);
  expiry.stop();
});

test('while the time is in doubt nothing expires, whoever asks for it', async () => {
  const { expiry, devices, deleted, clock } = setup(of(3, 100));
  clock.doubt = 'it is';
  await expiry.start();
  assert.deepEqual(await expiry.report(true), { expired: 0, doubt: 'it is' });
  assert.equal(devices.size, 103);
  assert.equal(deleted.length, 0);
  clock.doubt = undefined;
  await clock.advance(HALF_MINUTE);
  assert.equal(devices.size, 100);
  expiry.stop();
});

test('a mass does not expire in small portions either', async () => {
  const { expiry, devices, clock } = setup(Array.from({ length: 1000 }, (_, n) => 13.9 - n / 100));
  await expiry.start();
  // The clock runs a hundred times too fast, and its witnesses with it.
  for (let n = 0; n < 100; n++) {
    clock.jump(3_000_000);
    await clock.advance(HALF_MINUTE);
  }
  assert.ok(devices.size >= 950, `${devices.size}`);
  assert.ok(expiry.held);
  expiry.stop();
});

test('what has expired counts for a day, less and less', async () => {
  for (const [old, isHeld] of [
    [22, false],
    [23, true],
  ] as const) {
    const { expiry, devices, deleted, clock } = setup(of(50, 950), 30 * DAY * 1_000);
    await expiry.run();
    assert.equal(devices.size, 950);
    // Half a day makes good half of what so many may lose in one: of 48 some 24, so that 26 of the 50 still count.
    clock.run(DAY * 500);
    for (let n = 0; n < old; n++) devices.upsert(makeRow({ signedAt: clock.now() / 1_000 - 15 * DAY }), 0);
    await expiry.run();
    assert.equal(expiry.held !== undefined, isHeld, `${old}`);
    assert.equal(deleted.length, isHeld ? 1 : 2);
  }
});

test('it looks every half minute, and tells of what it holds every six hours', async () => {
  const { expiry, devices, log, clock } = setup(of(100, 900));
  await expiry.start();
  const told = () => log.filter((line) => line.startsWith('error')).length;
  await clock.advance(6 * 3_600_000 - HALF_MINUTE);
  assert.equal(told(), 1);
  await clock.advance(HALF_MINUTE);
  assert.equal(told(), 2);
  await expiry.report(true);
  assert.match(log.at(-1)!, /the operator has approved deleting the expired subscriptions/);
  devices.upsert(makeRow({ signedAt: clock.now() / 1_000 - 15 * DAY }), 0);
  await clock.advance(HALF_MINUTE - 1);
  assert.equal(devices.size, 901);
  await clock.advance(1);
  assert.equal(devices.size, 900);
  expiry.stop();
});

test('what the database could not delete is said, and comes the next time', async () => {
  const { clock, devices, expiry } = setup(of(1, 100));
  const log: string[] = [];
  const failing = new Expiry({
    clock,
    devices,
    store: { deleteExpired: () => Promise.reject(new Error('no connection')) },
    log: logTo((text, level) => log.push(`${level}: ${text}`)),
  });
  assert.equal(await failing.run(), 1);
  await clock.advance(0);
  assert.deepEqual(log, ['warn: expired subscriptions could not be deleted: no connection']);
  failing.stop();
  devices.upsert(makeRow({ signedAt: 1 }), 0);
  assert.equal(await failing.run(), 0, 'nothing expires once it is stopped');
  expiry.stop();
});

test('what expires steadily is not held back', async () => {
  const { expiry, devices, clock } = setup(Array.from({ length: 1000 }, (_, n) => 13.9 - n / 30));
  await expiry.start();
  for (let hour = 0; hour < 240; hour++) await clock.advance(3_600_000);
  assert.equal(expiry.held, undefined);
  assert.ok(devices.size > 650 && devices.size < 750, `${devices.size}`);
  expiry.stop();
});

test('the allowance is a small share, a few where there are few, and never more than half', () => {
  assert.equal(allowance(1_000_000, 0), 50_000);
  assert.equal(allowance(1_000_000, 49_000), 1_000);
  assert.equal(allowance(300, 0), 20);
  assert.equal(allowance(30, 0), 15);
  assert.equal(allowance(1, 0), 0);
});

test('the newest hundredth of the times of signatures is not believed', () => {
  const times = new SigningTimes();
  assert.equal(times.newest(), 0);
  for (let n = 0; n < 500; n++) times.add(1_000_000 + n);
  for (let n = 0; n < 5; n++) times.add(4_000_000_000);
  assert.equal(times.newest(), Math.floor(1_000_499 / 3600) * 3600);
  for (const [count, newest] of [
    [99, 7_200],
    [100, 3_600],
  ] as const) {
    const few = new SigningTimes();
    few.add(7_200);
    for (let n = 1; n < count; n++) few.add(3_600);
    assert.equal(few.newest(), newest, `${count}`);
  }
});
