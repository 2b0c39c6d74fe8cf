import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { QueuedMessage, QueuedPush } from '../../../../src/hivemind/notifications/outbox/push.ts';
import { Service } from '../../../../src/hivemind/notifications/outbox/service.ts';
import type { PushReport } from '../../../../src/session/notifier-protocol.ts';
import { FakeClock } from '../../../support/fake-clock.ts';
import { logTo } from '../../../support/log.ts';
import { FakeNotifier } from './fake-notifier.ts';

const KEY = Buffer.alloc(32, 7);

/** A service whose turns of the event loop the test makes. */
function setUp(limits = { maxBytes: 1e9, maxAge: 600_000 }) {
  const clock = new FakeClock();
  const deferred: (() => void)[] = [];
  const lines: string[] = [];
  const service = new Service('apns', {
    clock,
    limits,
    breaker: { share: 0.25, minimum: 20 },
    nonce: () => randomBytes(24),
    defer: (callback) => deferred.push(callback),
    log: logTo((text, level) => lines.push(`${level}: ${text}`)),
  });
  let id = 0;
  const add = (
    device: string,
    {
      account = ++id,
      serviceData = null as Buffer | null,
      onAnswer = undefined as ((text: string) => void) | undefined,
    } = {},
  ) => {
    const who = Buffer.alloc(33);
    who.writeUInt32BE(account);
    const news = { account: who, hash: Buffer.alloc(43, 0x48), namespace: 0, data: Buffer.from('hi') };
    const times = { timestamp: clock.now(), expiry: clock.now() + 1e9 };
    const to = { service: 'apns', serviceId: device, serviceData, encKey: KEY, wantData: true };
    const message = new QueuedMessage({ ...news, ...times }, 'apns', true, clock.monotonic());
    service.add(new QueuedPush(++id, message, to, onAnswer));
  };
  /** Makes one turn. @returns whether there was something to do */
  const turn = () => deferred.splice(0).map((callback) => callback()).length;
  const turns = () => {
    let made = 0;
    while (turn() > 0) made++;
    return made;
  };
  const report = (notifier: FakeNotifier, what: Partial<PushReport>) =>
    service.report(notifier.id, {
      service: 'apns',
      accepted: [],
      refused: [],
      handedBack: [],
      answers: [],
      ...what,
    });
  return { clock, service, lines, add, turn, turns, report };
}

const range = (count: number) => Array.from({ length: count }, (_, n) => n);

test('nothing is counted before anything has happened', () => {
  const { counters, bytes, oldest, isServed } = setUp().service;
  const { dropped, ...rest } = counters;
  assert.deepEqual(new Set([...Object.values(rest), ...Object.values(dropped)]), new Set([0]));
  assert.deepEqual([bytes, oldest, isServed], [0, undefined, false]);
});

test('192 pushes are sealed in a turn of the event loop, and leave in messages of 64', () => {
  const { service, add, turn, turns } = setUp();
  const notifier = new FakeNotifier('one');
  for (const n of range(500)) add(`device ${n}`);
  assert.equal(turns(), 0, 'nobody is there');
  service.register(notifier, 1_000);
  for (const [sealed, messages] of [
    [192, 3],
    [384, 6],
    [500, 8],
  ] as const) {
    assert.equal(turn(), 1);
    assert.deepEqual([notifier.sealed.length, notifier.messages], [sealed, messages]);
  }
  assert.equal(turns(), 0);
  assert.deepEqual(service.counters.handed, 500);
});

test('a notifier that is full is not asked again and again; its report makes the next turn', () => {
  const { service, add, turn, turns, report } = setUp();
  const notifier = new FakeNotifier('one');
  service.register(notifier, 50);
  for (const n of range(200)) add(`device ${n}`);
  assert.equal(turns(), 1);
  assert.equal(notifier.sealed.length, 50);
  report(notifier, { accepted: notifier.ids.slice(0, 3) });
  assert.equal(turn(), 1);
  assert.equal(turns(), 0);
  assert.equal(notifier.sealed.length, 53);
});

test('a full pipe is tried again after 25 ms, and what did not leave keeps its place and is not handed', async () => {
  const { clock, service, add, turns } = setUp();
  const notifier = new FakeNotifier('one');
  notifier.stuffed = true;
  service.register(notifier, 100);
  for (const n of range(5)) add(`device ${n}`);
  turns();
  assert.deepEqual([service.queue.length, service.instances.inFlight, service.instances.wireBytes], [5, 0, 0]);
  notifier.stuffed = false;
  await clock.advance(24);
  turns();
  assert.equal(notifier.sealed.length, 0);
  await clock.advance(1);
  turns();
  assert.deepEqual(
    notifier.sealed.map(({ serviceId }) => serviceId),
    range(5).map((n) => `device ${n}`),
  );
  assert.equal(service.counters.handed, 5);
  assert.equal(clock.pending, 0);
});

test("an original notifier's full pipe is tried again as well", async () => {
  const { clock, service, add, turns } = setUp();
  const notifier = new FakeNotifier('old');
  notifier.stuffed = true;
  service.register(notifier, undefined);
  add('device');
  turns();
  assert.deepEqual([service.queue.length, service.counters.passed, service.counters.handed], [1, 0, 0]);
  notifier.stuffed = false;
  await clock.advance(25);
  turns();
  assert.equal(notifier.dicts.length, 1);
  assert.deepEqual([service.queue.size, service.counters.passed, service.counters.handed], [0, 1, 1]);
});

test('a notifier is taken for dead when it has not registered for more than 20 s', async () => {
  const { clock, service } = setUp();
  service.register(new FakeNotifier('one'), 100);
  await clock.advance(20_000);
  service.sweep(0);
  assert.equal(service.instances.size, 1);
  clock.stall(1);
  service.sweep(1);
  assert.equal(service.instances.size, 1, 'a time in which we could not hear it does not count');
  clock.stall(1);
  service.sweep(0);
  assert.equal(service.instances.size, 0);
});

test('registering again renews a notifier, and as one of the other kind makes it a new one', () => {
  const { clock, service, lines, add, turns } = setUp();
  const notifier = new FakeNotifier('one');
  service.register(notifier, 100, null, false);
  clock.stall(20_000);
  service.register(notifier, 70, null, true);
  clock.stall(1);
  service.sweep(0);
  const [ours] = service.instances.all;
  assert.deepEqual([ours?.window, ours?.validatesMany, ours?.acknowledges], [70, true, true]);
  add('device');
  turns();
  assert.equal(service.instances.inFlight, 1);
  service.register(notifier, undefined);
  turns();
  const [old] = service.instances.all;
  assert.deepEqual([old?.window, old?.acknowledges, service.instances.size], [Number.POSITIVE_INFINITY, false, 1]);
  assert.equal(notifier.dicts.length, 1, 'what the other had not acknowledged');
  assert.deepEqual(lines, [
    'info: notifier for apns registered; 1 connected',
    'warn: notifier for apns is gone, 1 pushes that it had not acknowledged go to another; 0 connected',
    "info: notifier for apns registered (of the original's kind: pushes to it are not acknowledged); 1 connected",
  ]);
});

test('that a notifier which drained has gone is no warning', () => {
  const { service, lines } = setUp();
  service.register(new FakeNotifier('one'), 100);
  service.register(new FakeNotifier('two'), 100);
  service.drain('nobody');
  service.drain('one');
  assert.equal(service.isServed, true);
  service.drain('two');
  service.drain('two');
  assert.equal(service.isServed, false);
  service.unregister('nobody');
  service.unregister('two');
  assert.deepEqual(lines.slice(1), [
    'info: notifier for apns registered; 2 connected',
    'info: notifier for apns is gone; 1 connected',
  ]);
});

test('what is on its way is charged with its payload, its device and 800 bytes until it is reported on', () => {
  const { service, add, turns, report } = setUp();
  const notifier = new FakeNotifier('one');
  service.register(notifier, 100);
  add('device', { serviceData: Buffer.from('data') });
  turns();
  const [sealed] = notifier.sealed;
  assert.equal(service.instances.wireBytes, 800 + sealed!.payload.length + 'device'.length + 'data'.length);
  assert.equal(service.bytes, service.queue.bytes + service.instances.wireBytes);
  report(notifier, { refused: notifier.ids });
  assert.deepEqual([service.instances.wireBytes, service.bytes], [0, 0]);
});

test('a quarter of the limit may be on its way, on top of it', () => {
  const { service, add, turns } = setUp({ maxBytes: 1e6, maxAge: 600_000 });
  const notifier = new FakeNotifier('one');
  service.register(notifier, 1e6);
  add('device');
  turns();
  const { wireBytes } = service.instances;
  // So many that the last of them is given just below the quarter.
  service.queue.limits = { maxBytes: wireBytes * 4 * 10, maxAge: 600_000 };
  for (const n of range(20)) add(`devic${n % 10}`);
  turns();
  assert.equal(notifier.sealed.length, 10);
  service.queue.limits = { maxBytes: wireBytes * 4 * 10 + 4, maxAge: 600_000 };
  service.sweep(0);
  turns();
  assert.equal(notifier.sealed.length, 11);
});

test('who asked for an answer is told also when there is none', () => {
  const { clock, service, add, turns } = setUp({ maxBytes: 1e9, maxAge: 1_000 });
  const answers: string[] = [];
  const onAnswer = (text: string) => answers.push(text);
  add('late', { onAnswer });
  clock.stall(1_001);
  service.sweep(0);
  assert.deepEqual(answers.splice(0), ['given up: too old']);
  service.register(new FakeNotifier('one'), 1);
  add('with a notifier', { onAnswer });
  turns();
  add('waiting', { onAnswer });
  service.stop();
  service.close();
  assert.deepEqual(answers, ['given up: shutdown', 'not reported before the hivemind stopped']);
  assert.deepEqual([service.counters.unreported, service.counters.dropped.shutdown], [1, 1]);
  assert.deepEqual([service.bytes, service.instances.size, service.queue.size], [0, 0, 0]);
});

test('after a stop nothing is handed out, and reports are still counted', async () => {
  const { clock, service, add, turns, report } = setUp();
  const notifier = new FakeNotifier('one');
  service.register(notifier, 100);
  add('device');
  turns();
  add('in this turn');
  service.stop();
  turns();
  assert.equal(notifier.sealed.length, 1);
  add('after it');
  turns();
  report(notifier, { accepted: notifier.ids });
  turns();
  assert.deepEqual([notifier.sealed.length, service.counters.accepted], [1, 1]);
  notifier.stuffed = true;
  await clock.advance(1_000);
  assert.equal(clock.pending, 0);
});

test('accepted pushes count for the breaker, those of an original notifier when they are passed on', () => {
  const { service, add, turns, report } = setUp();
  const notifier = new FakeNotifier('one');
  service.register(notifier, 100);
  for (const n of range(60)) add(`device ${n}`);
  turns();
  report(notifier, { accepted: notifier.ids });
  for (const _ of range(20)) service.breaker.gone();
  assert.equal(service.breaker.open, false, 'a quarter of 80');
  service.breaker.gone();
  assert.equal(service.breaker.open, true);

  const other = setUp();
  other.service.register(new FakeNotifier('old'), undefined);
  for (const n of range(60)) other.add(`device ${n}`);
  other.turns();
  for (const _ of range(20)) other.service.breaker.gone();
  assert.equal(other.service.breaker.open, false);
  other.service.breaker.gone();
  assert.equal(other.service.breaker.open, true);
});
