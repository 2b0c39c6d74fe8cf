import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { PushFingerprints } from '../../../../src/hivemind/notifications/copies/fingerprints.ts';
import { SILENCE } from '../../../../src/hivemind/notifications/copies/standby.ts';
import { Doubt } from '../../../../src/hivemind/notifications/doubt.ts';
import { Outbox } from '../../../../src/hivemind/notifications/outbox/outbox.ts';
import type { News } from '../../../../src/session/cluster-protocol.ts';
import { FakeClock } from '../../../support/fake-clock.ts';
import { silentLog } from '../../../support/log.ts';
import { FakeDuty } from '../copies/fake-duty.ts';
import { FakeNotifier } from './fake-notifier.ts';

const SECRET = Buffer.alloc(32, 1);
const KEY = Buffer.alloc(32, 7);
const HASH = Buffer.from('H'.repeat(43));
const IDS = ['one', 'two', 'three'].map((name) => Buffer.from(name.padEnd(16)));

/** The outbox of one of two hiveminds; unless told otherwise the first. */
function setUp({ own = 'a', first = 'a', maxBytes = 1e9, maxAge = 600_000 } = {}) {
  const clock = new FakeClock();
  const other = own === 'a' ? 'b' : 'a';
  const duty = new FakeDuty(own, [other], first);
  const told: News[] = [];
  const outbox = new Outbox({
    clock,
    limits: { maxBytes, maxAge },
    breaker: { share: 0.25, minimum: 20 },
    random: randomBytes,
    log: silentLog,
    defer: (callback) => void clock.setTimeout(callback, 0),
    cluster: {
      duty,
      secret: SECRET,
      tell: async (_member, news) => told.push(news) > 0,
    },
  });
  const fingerprints = new PushFingerprints(SECRET);
  const account = (n: number) => Buffer.alloc(33, n);
  const key = (device: string, of = 5) => fingerprints.of('apns', device, account(of), HASH, 0, Doubt.none).key;
  const add = (
    device: string,
    {
      of = 5,
      doubt = Doubt.none as Doubt,
      expiry = clock.now() + 1e9,
      namespace = 0,
      onAnswer = undefined as ((text: string) => void) | undefined,
    } = {},
  ) =>
    outbox.add(
      { account: account(of), hash: HASH, namespace, timestamp: clock.now(), expiry, data: Buffer.from('hi') },
      [{ service: 'apns', serviceId: device, serviceData: null, encKey: KEY, wantData: true }],
      doubt,
      onAnswer,
    );
  const report = (notifier: FakeNotifier, what: Partial<Record<'accepted' | 'refused' | 'handedBack', number[]>>) =>
    outbox.report(notifier, { service: 'apns', accepted: [], refused: [], handedBack: [], answers: [], ...what });
  const onProgress = (what: Partial<News>) =>
    outbox.standby?.onProgress({ name: other, run: 1n, handed: [], ended: [], none: [], ...what });
  /** What the other one was told lately. */
  const news = async () => {
    await clock.advance(0);
    await clock.advance(100);
    const all = told.splice(0);
    return {
      handed: all.flatMap(({ handed }) => handed),
      ended: all.flatMap(({ ended }) => ended),
      none: all.flatMap(({ none }) => none),
    };
  };
  return { clock, duty, outbox, service: outbox.service('apns'), add, key, report, onProgress, news };
}

const NO_NEWS = { handed: [], ended: [], none: [] };

test('a push carries its fingerprint, and how doubtful its message is; a push that somebody waits for has no copy', async () => {
  const { clock, outbox, add } = setUp();
  const notifier = new FakeNotifier('one');
  outbox.register('apns', notifier, 100, IDS[0]);
  add('proven');
  add('doubtful', { doubt: Doubt.untimely, namespace: 3 });
  const message = { account: Buffer.alloc(33), hash: HASH, namespace: 0, timestamp: 0, expiry: 0, data: null };
  const device = { service: 'apns', serviceId: 'test push', serviceData: null, encKey: KEY, wantData: true };
  outbox.add(message, [device], Doubt.none, () => {});
  await clock.advance(0);
  const of = (device: string, namespace: number, doubt: Doubt) =>
    Buffer.from(
      new PushFingerprints(SECRET).of('apns', device, Buffer.alloc(33), HASH, namespace, doubt).fingerprint,
      'latin1',
    );
  assert.deepEqual(
    notifier.sealed.map(({ serviceId, fingerprint, doubt }) => [serviceId, fingerprint, doubt]),
    [
      ['proven', of('proven', 0, Doubt.none), 0],
      // Accounts take turns.
      ['test push', null, 0],
      ['doubtful', of('doubtful', 3, Doubt.untimely), 2],
    ],
  );
});

test('all hiveminds choose the same notifier for a device, by its own id, whether it is full or not', async () => {
  const chosen = await Promise.all(
    ['a', 'b'].map(async (own) => {
      const { clock, outbox, add } = setUp({ own, first: own });
      const notifiers = IDS.map((_, n) => new FakeNotifier(`${own} ${n}`));
      const order = own === 'a' ? [0, 1, 2] : [2, 0, 1];
      for (const n of order) outbox.register('apns', notifiers[n]!, n === 0 ? 10 : 1_000, IDS[n]!);
      for (let n = 0; n < 300; n++) add(`device ${n}`);
      for (let turn = 0; turn < 10; turn++) await clock.advance(0);
      return notifiers.map(({ sealed }) => sealed.map(({ serviceId }) => serviceId));
    }),
  );
  const [a, b] = chosen;
  assert.deepEqual(a, b);
  assert.equal(a?.[0]?.length, 10);
  for (const devices of a?.slice(1) ?? []) assert.ok(devices.length > 60, `${devices.length} of 300`);
});

test('a push waits aside for the notifier of its device while that is full, and delays no other', async () => {
  const { clock, outbox, service, add, report } = setUp();
  const [full, free] = [new FakeNotifier('full'), new FakeNotifier('free')];
  outbox.register('apns', full, 5, IDS[0]);
  outbox.register('apns', free, 10_000, IDS[1]);
  for (let n = 0; n < 1_000; n++) add(`device ${n}`);
  for (let turn = 0; turn < 20; turn++) await clock.advance(0);
  assert.equal(full.sealed.length, 5);
  assert.equal(free.sealed.length + service.queue.length + 5, 1_000);
  assert.ok(free.sealed.length > 300);
  const waiting = service.queue.length;
  // Each report makes room for as many more, in their order.
  while (full.sealed.length < 5 + waiting) {
    const before: number = full.sealed.length;
    report(full, { accepted: full.ids.slice(before - 5) });
    await clock.advance(0);
    assert.equal(full.sealed.length, Math.min(before + 5, 5 + waiting));
  }
  const order = full.sealed.map(({ serviceId }) => Number(serviceId.slice('device '.length)));
  assert.deepEqual(
    order,
    order.toSorted((a, b) => a - b),
  );
  assert.equal(service.queue.length, 0);
});

test('what waits aside goes to the others when its notifier is gone or accepts no more, and is counted and bounded like the rest', async () => {
  for (const end of ['gone', 'draining'] as const) {
    const { clock, outbox, service, add } = setUp();
    const [full, other] = [new FakeNotifier('full'), new FakeNotifier('other')];
    outbox.register('apns', full, 1, IDS[0]);
    outbox.register('apns', other, 10_000, IDS[1]);
    for (let n = 0; n < 100; n++) add(`device ${n}`, { of: n % 7 });
    for (let turn = 0; turn < 5; turn++) await clock.advance(0);
    const aside = service.queue.length;
    assert.ok(aside > 20);
    if (end === 'gone') outbox.gone(full);
    else service.drain(full.id);
    await clock.advance(0);
    assert.equal(service.queue.length, 0);
    assert.equal(other.sealed.length, end === 'gone' ? 100 : 99);
    const late = other.sealed.slice(-aside).filter(({ serviceId }) => serviceId.startsWith('device'));
    assert.equal(new Set(other.ids).size, other.ids.length);
    assert.equal(late.length, aside);
  }

  const tight = setUp({ maxBytes: 60_000, maxAge: 10_000 });
  const full = new FakeNotifier('full');
  tight.outbox.register('apns', full, 1, IDS[0]);
  for (let n = 0; n < 200; n++) {
    tight.add(`device ${n}`, { of: n % 7 });
    await tight.clock.advance(1);
  }
  const { service, clock } = tight;
  assert.ok(service.queue.bytes <= 60_000);
  assert.ok(service.queue.length < 100);
  assert.equal(service.counters.dropped.overflow + service.queue.length, 199);
  for (let turn = 0; turn < 4; turn++) {
    await clock.advance(4_000);
    tight.outbox.register('apns', full, 1, IDS[0]);
  }
  assert.equal(service.queue.length, 0);
  assert.equal(service.counters.dropped.overflow + service.counters.dropped.too_old, 199);
});

test('the other one is told that a push is in hand, that it has ended, or that we have no notifier for it', async () => {
  const { clock, outbox, add, key, report, news } = setUp();
  add('early');
  assert.deepEqual(await news(), { ...NO_NEWS, none: [key('early')] });
  const notifier = new FakeNotifier('one');
  outbox.register('apns', notifier, 2, IDS[0]);
  add('second');
  add('third');
  await clock.advance(0);
  assert.deepEqual(await news(), { ...NO_NEWS, handed: [key('early'), key('second'), key('third')] });
  report(notifier, { accepted: notifier.ids.slice(0, 1), refused: notifier.ids.slice(1) });
  assert.deepEqual(await news(), { ...NO_NEWS, ended: [key('early'), key('second')] });
  report(notifier, { handedBack: notifier.ids.slice(2) });
  assert.deepEqual(await news(), NO_NEWS);
  outbox.gone(notifier);
  assert.deepEqual(await news(), { ...NO_NEWS, none: [key('third')] });
});

test('it is told to send what we have no room for, and not what is too old for anybody', async () => {
  const { clock, service, add, news } = setUp({ maxBytes: 4_000, maxAge: 10_000 });
  for (let n = 0; n < 10; n++) add(`device ${n}`, { of: n });
  const overflowed = (await news()).none;
  assert.equal(service.counters.dropped.overflow, 10 - service.queue.length);
  assert.equal(overflowed.length, 10);
  await clock.advance(15_000);
  const { ended, none } = await news();
  assert.deepEqual([service.queue.length, none], [0, []]);
  assert.equal(ended.length, service.counters.dropped.too_old);
});

test('a push that was held back is too old when it would be sent, though younger ones stand before it in the queue', async () => {
  const { clock, duty, outbox, service, add, key, onProgress, news } = setUp({ own: 'b', maxAge: 60_000 });
  add('held');
  onProgress({ handed: [key('held')] });
  await clock.advance(30_000);
  add('asked for', { onAnswer: () => {} });
  duty.change(({ living }) => living.delete('a'));
  await clock.advance(40_000);
  assert.deepEqual([service.queue.length, service.counters.dropped.too_old], [2, 0]);
  duty.change(({ living }) => living.set('a', 2n));
  const notifier = new FakeNotifier('one');
  outbox.register('apns', notifier, 100, IDS[0]);
  assert.deepEqual(await news(), { ...NO_NEWS, ended: [key('held')] });
  assert.deepEqual(
    notifier.sealed.map(({ serviceId }) => serviceId),
    ['asked for'],
  );
  assert.equal(service.counters.dropped.too_old, 1);
});

test('it is told to send what it believes to be in hand here, and what finds no room', async () => {
  const { clock, outbox, service, add, news } = setUp({ maxBytes: 4_000 });
  outbox.register('apns', new FakeNotifier('one'), 1, IDS[0]);
  add('device 0', { of: 0 });
  await clock.advance(0);
  assert.equal((await news()).handed.length, 1);
  for (let n = 1; n < 10; n++) add(`device ${n}`, { of: n });
  const { handed, none } = await news();
  assert.ok(none.length > 0);
  assert.equal(none.length, service.counters.dropped.overflow);
  assert.equal(handed.length, 9 - none.length);
});

test("a notifier of the original's kind gets a push from one hivemind, which tells the others that it has ended", async () => {
  const [a, b] = [setUp({ own: 'a' }), setUp({ own: 'b' })];
  const notifiers = [a, b].map(({ outbox }) => {
    const notifier = new FakeNotifier('original');
    outbox.register('apns', notifier, undefined);
    return notifier;
  });
  for (const { add } of [a, b]) add('device');
  for (const { clock } of [a, b]) await clock.advance(0);
  b.onProgress(await a.news());
  await b.clock.advance(10 * SILENCE);
  assert.deepEqual(
    notifiers.map(({ dicts }) => dicts.length),
    [1, 0],
  );
  assert.deepEqual([b.outbox.standby?.size, b.outbox.standby?.counters.ended], [0, 1]);
});

test('a push that the other one has ended leaves our queue, but not a notifier of ours', async () => {
  const { clock, outbox, service, add, key, report, onProgress, news } = setUp();
  for (const device of ['first', 'second', 'third']) add(device);
  await news();
  onProgress({ ended: [key('second')] });
  assert.equal(service.queue.length, 3);
  onProgress({ ended: [key('first')] });
  assert.deepEqual([service.queue.length, service.counters.elsewhere], [1, 2]);
  const notifier = new FakeNotifier('one');
  outbox.register('apns', notifier, 100, IDS[0]);
  await clock.advance(0);
  assert.deepEqual(
    notifier.sealed.map(({ serviceId }) => serviceId),
    ['third'],
  );
  onProgress({ ended: [key('third')] });
  assert.equal(service.instances.inFlight, 1);
  report(notifier, { accepted: notifier.ids });
  assert.deepEqual([service.counters.accepted, service.counters.elsewhere, outbox.outstanding], [1, 2, 0]);
  assert.deepEqual((await news()).ended, [key('third')]);
});

test('a push that was held back and is sent after all is younger in the queue than those before it', async () => {
  const { clock, outbox, service, duty, add, report } = setUp({ own: 'b' });
  add('held back');
  duty.first = 'b';
  add('ours');
  const notifier = new FakeNotifier('one');
  outbox.register('apns', notifier, 100, IDS[0]);
  await clock.advance(SILENCE);
  assert.deepEqual(
    notifier.sealed.map(({ serviceId }) => serviceId),
    ['ours', 'held back'],
  );
  assert.ok(notifier.ids[0]! < notifier.ids[1]!);
  report(notifier, { accepted: notifier.ids });
  assert.deepEqual([service.counters.queued, service.counters.accepted, outbox.outstanding], [2, 2, 0]);
});

test('what a notifier that is gone may have sent is not told to be in need of another hivemind when we stop', async () => {
  const { clock, outbox, add, news } = setUp();
  const notifier = new FakeNotifier('one');
  outbox.register('apns', notifier, 100, IDS[0]);
  const answers: string[] = [];
  add('device');
  add('asked for', { onAnswer: (text) => answers.push(text) });
  await clock.advance(0);
  assert.equal(notifier.sealed.length, 2);
  await news();
  outbox.gone(notifier);
  await news();
  await outbox.stop(0);
  assert.deepEqual(answers, ['not reported before the hivemind stopped']);
  assert.deepEqual((await news()).none, []);
  assert.equal(outbox.close().unreported, 2);
});

test('stopping waits for news of what is held back, sends what nobody mentions, and reports the rest', async () => {
  const { clock, outbox, add, key, onProgress, news } = setUp({ own: 'b' });
  const notifier = new FakeNotifier('one');
  outbox.register('apns', notifier, 100, IDS[0]);
  add('in hand');
  add('silence');
  onProgress({ handed: [key('in hand')] });
  let isStopped = false;
  const stopping = outbox.stop(2_000, 5_000).then(() => {
    isStopped = true;
  });
  await clock.advance(SILENCE);
  assert.deepEqual([isStopped, notifier.sealed.map(({ serviceId }) => serviceId)], [false, ['silence']]);
  await clock.advance(10_000);
  await stopping;
  assert.deepEqual(outbox.standby?.counters.left, 1);
  assert.deepEqual((await news()).handed, [key('silence')]);
  const { queued, unreported } = outbox.close();
  assert.deepEqual([queued, unreported, clock.pending], [1, 1, 0]);
});
