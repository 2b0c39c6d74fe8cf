import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { Outbox } from '../../../../src/hivemind/notifications/outbox/outbox.ts';
import { openPayload } from '../../../../src/session/payload.ts';
import { FakeClock } from '../../../support/fake-clock.ts';
import { logTo } from '../../../support/log.ts';
import { until } from '../../../support/until.ts';
import { FakeNotifier } from './fake-notifier.ts';

/** Lets the event loop turn: a long queue is delivered in slices, one a turn. */
async function turns(clock: FakeClock): Promise<void> {
  for (let turn = 0; turn < 30; turn++) await clock.advance(0);
}

const KEY = Buffer.alloc(32, 7);

const NOTHING = { queued: 0, accepted: 0, refused: 0, passed: 0, unreported: 0, elsewhere: 0, dropped: 0, shutdown: 0 };

function setUp(limits = { maxBytes: 1e9, maxAge: 600_000 }) {
  const clock = new FakeClock();
  const lines: string[] = [];
  const outbox = new Outbox({
    clock,
    limits,
    breaker: { share: 0.25, minimum: 20 },
    random: randomBytes,
    log: logTo((text) => lines.push(text)),
  });
  const add = (
    device: string,
    options: {
      service?: string;
      timestamp?: number;
      expiry?: number;
      account?: number;
      namespace?: number;
      wantData?: boolean;
      data?: Buffer;
      onAnswer?: (text: string) => void;
    } = {},
  ) =>
    outbox.add(
      {
        account: Buffer.alloc(33, options.account ?? 5),
        hash: Buffer.from('H'.repeat(43)),
        namespace: options.namespace ?? 0,
        timestamp: options.timestamp ?? clock.now(),
        expiry: options.expiry ?? clock.now() + 1e9,
        data: options.data ?? Buffer.from(`to ${device}`),
      },
      [
        {
          service: options.service ?? 'apns',
          serviceId: device,
          serviceData: null,
          encKey: KEY,
          wantData: options.wantData ?? true,
        },
      ],
      0,
      options.onAnswer,
    );
  const service = outbox.service('apns');
  const report = (notifier: FakeNotifier, what: Partial<Record<'accepted' | 'refused' | 'handedBack', number[]>>) =>
    outbox.report(notifier, { service: 'apns', accepted: [], refused: [], handedBack: [], answers: [], ...what });
  return { clock, outbox, add, service, report, lines };
}

test('the time from a message being stored to its push being accepted is observed each time that happens', async (t) => {
  const { clock, outbox, add, service, report } = setUp();
  t.after(() => outbox.stop(0));
  const notifier = new FakeNotifier('one');
  outbox.register('apns', notifier, 100);
  add('taken', { timestamp: clock.now() - 4_000 });
  add('not taken');
  await clock.advance(500);
  const [taken, not] = notifier.ids;
  report(notifier, { accepted: [taken!, taken!], refused: [not!] });
  assert.equal(service.latency.count, 1, 'what was refused took no time, and what is reported twice took it once');
  assert.equal(service.latency.sum, 4.5);
});

test('a push is sealed for its device, and held until it is acknowledged', async (t) => {
  const { clock, outbox, add, service, report } = setUp();
  t.after(() => outbox.stop(0));
  const notifier = new FakeNotifier('one');
  outbox.register('apns', notifier, 100);
  add('device');
  await clock.advance(0);
  const [push] = notifier.sealed;
  assert.ok(push);
  assert.equal(push.serviceId, 'device');
  assert.equal(openPayload(push.payload, KEY).data?.toString(), 'to device');
  assert.equal(service.instances.inFlight, 1);
  report(notifier, { accepted: [push.id] });
  assert.equal(service.instances.inFlight, 0);
  assert.equal(service.counters.accepted, 1);
});

test('a push is urgent if its app will show the message: one to a person or a group whose body the device gets', async (t) => {
  const { clock, outbox, add } = setUp();
  t.after(() => outbox.stop(0));
  const notifier = new FakeNotifier('one');
  outbox.register('apns', notifier, 100);
  add('person', {});
  add('group', { namespace: 11 });
  add('settings', { namespace: 3 });
  add('removal', { namespace: -11 });
  add('too long', { data: Buffer.alloc(2_501) });
  add('not wanted', { wantData: false });
  await clock.advance(0);
  assert.deepEqual(
    notifier.sealed.filter(({ urgent }) => urgent).map(({ serviceId }) => serviceId),
    ['person', 'group'],
  );
  assert.equal(notifier.sealed.length, 6);
});

test('pushes of one turn of the event loop leave in one message', async (t) => {
  const { clock, outbox, add } = setUp();
  t.after(() => outbox.stop(0));
  const notifier = new FakeNotifier('one');
  outbox.register('apns', notifier, 1_000);
  for (let index = 0; index < 50; index++) add(`device ${index}`);
  await clock.advance(0);
  assert.equal(notifier.sealed.length, 50);
  assert.equal(notifier.messages, 1);
});

test('pushes wait while there is no notifier, and go to the first that comes', async (t) => {
  const { clock, outbox, add, service } = setUp();
  t.after(() => outbox.stop(0));
  for (let index = 0; index < 500; index++) add(`device ${index}`);
  await clock.advance(60_000);
  assert.equal(service.queue.length, 500);
  const notifier = new FakeNotifier('one');
  outbox.register('apns', notifier, 1_000);
  await turns(clock);
  assert.equal(notifier.sealed.length, 500);
});

test('a notifier is given no more than its window before it acknowledges', async (t) => {
  const { clock, outbox, add, report, service } = setUp();
  t.after(() => outbox.stop(0));
  const notifier = new FakeNotifier('one');
  outbox.register('apns', notifier, 10);
  for (let index = 0; index < 25; index++) add(`device ${index}`);
  await clock.advance(1_000);
  assert.equal(notifier.sealed.length, 10);
  report(notifier, { accepted: notifier.ids.slice(0, 4), refused: notifier.ids.slice(4, 6) });
  await clock.advance(0);
  assert.equal(notifier.sealed.length, 16);
  assert.equal(service.counters.accepted, 4);
  assert.equal(service.counters.refused, 2);
});

test('what is on the way to notifiers may take a quarter of the limit, whatever their windows are, and is counted until it is acknowledged', async (t) => {
  const { clock, outbox, add, service, report } = setUp({ maxBytes: 100_000, maxAge: 600_000 });
  t.after(() => outbox.stop(0));
  const notifier = new FakeNotifier('one');
  outbox.register('apns', notifier, 1_000);
  for (let index = 0; index < 40; index++) add(`device ${index}`);
  await clock.advance(0);
  const given = notifier.sealed.length;
  assert.ok(service.instances.wireBytes >= 25_000 && service.instances.wireBytes < 27_000);
  assert.equal(service.bytes, service.queue.bytes + service.instances.wireBytes);
  report(notifier, { accepted: notifier.ids.slice(0, 3) });
  await clock.advance(0);
  assert.equal(notifier.sealed.length, given + 3);
  await until(async () => {
    report(notifier, { accepted: notifier.ids });
    await clock.advance(0);
    return service.counters.accepted === 40;
  }, 0);
  assert.equal(service.bytes, 0);
});

test('a notifier whose provider is down, so that its window is full, still answers for tokens', async (t) => {
  const { clock, outbox, add } = setUp();
  t.after(() => outbox.stop(0));
  const notifier = new FakeNotifier('one');
  outbox.register('apns', notifier, 2);
  for (let index = 0; index < 5; index++) add(`device ${index}`);
  await clock.advance(0);
  assert.equal(outbox.validator('apns')?.remote, notifier);
  assert.equal(outbox.validator('firebase'), undefined);
});

test('what a notifier did not acknowledge when it went is given to the next, before newer pushes', async (t) => {
  const { clock, outbox, add, report, service } = setUp();
  t.after(() => outbox.stop(0));
  const first = new FakeNotifier('one');
  outbox.register('apns', first, 100);
  for (let index = 0; index < 5; index++) add(`device ${index}`);
  await clock.advance(0);
  report(first, { accepted: first.ids.slice(0, 2) });
  outbox.gone(first);
  add('device 5');
  await clock.advance(0);
  const second = new FakeNotifier('two');
  outbox.register('apns', second, 100);
  await clock.advance(0);
  assert.deepEqual(
    second.sealed.map(({ serviceId }) => serviceId),
    ['device 2', 'device 3', 'device 4', 'device 5'],
  );
  assert.equal(service.counters.redelivered, 3);
});

test('devices are spread over the notifiers of a service, and when one goes only its own are moved', async (t) => {
  const { clock, outbox, add, report } = setUp();
  t.after(() => outbox.stop(0));
  const notifiers = [new FakeNotifier('one'), new FakeNotifier('two'), new FakeNotifier('three')];
  for (const notifier of notifiers) outbox.register('apns', notifier, 10_000);
  const devices = Array.from({ length: 3_000 }, (_, index) => `device ${index}`);
  for (const device of devices) add(device);
  await turns(clock);
  const homes = notifiers.map((notifier) => new Set(notifier.sealed.map(({ serviceId }) => serviceId)));
  for (const home of homes) assert.ok(home.size > 800 && home.size < 1_200, `${home.size} of 3000`);
  for (const notifier of notifiers) report(notifier, { accepted: notifier.ids });

  outbox.gone(notifiers[2] as FakeNotifier);
  for (const notifier of notifiers) notifier.sealed.length = 0;
  for (const device of devices) add(device);
  await turns(clock);
  for (const index of [0, 1]) {
    const now = new Set(notifiers[index]?.sealed.map(({ serviceId }) => serviceId));
    for (const device of homes[index] ?? []) assert.ok(now.has(device), `${device} was moved without need`);
  }
  assert.equal((notifiers[0]?.sealed.length ?? 0) + (notifiers[1]?.sealed.length ?? 0), 3_000);
});

test('a notifier that drains is given nothing new, and what it hands back goes to another', async (t) => {
  const { clock, outbox, add, report, service } = setUp();
  t.after(() => outbox.stop(0));
  const first = new FakeNotifier('one');
  outbox.register('apns', first, 100);
  for (let index = 0; index < 3; index++) add(`device ${index}`);
  await clock.advance(0);
  service.drain('one');
  assert.equal(outbox.validator('apns'), undefined);
  add('device 3');
  await clock.advance(1_000);
  assert.equal(first.sealed.length, 3);
  report(first, { accepted: first.ids.slice(0, 1), handedBack: first.ids.slice(1) });
  const second = new FakeNotifier('two');
  outbox.register('apns', second, 100);
  await clock.advance(0);
  assert.deepEqual(
    second.sealed.map(({ serviceId }) => serviceId),
    ['device 1', 'device 2', 'device 3'],
  );
});

test('a notifier that falls silent is declared dead, one that registers again and again is not', async (t) => {
  const { clock, outbox, add, service } = setUp();
  t.after(() => outbox.stop(0));
  const silent = new FakeNotifier('silent');
  outbox.register('apns', silent, 100);
  add('device');
  for (let time = 0; time < 60; time += 5) {
    outbox.register('firebase', silent, 100);
    await clock.advance(5_000);
  }
  assert.equal(service.instances.size, 0);
  assert.equal(service.queue.length, 1);
  assert.equal(outbox.service('firebase').instances.size, 1);
});

test('a notifier is not declared dead because the hivemind itself was held up', async (t) => {
  const { clock, outbox, add, service } = setUp();
  t.after(() => outbox.stop(0));
  const notifier = new FakeNotifier('one');
  outbox.register('apns', notifier, 100);
  add('device');
  await clock.advance(0);
  clock.stall(60_000);
  await clock.advance(3_000);
  assert.equal(service.instances.size, 1);
  assert.equal(notifier.sealed.length, 1, 'nothing is given a second time');
});

test("a notifier of the original's kind gets the original's dict, once, and no acknowledgement is waited for", async (t) => {
  const { clock, outbox, add, service } = setUp();
  t.after(() => outbox.stop(0));
  const notifier = new FakeNotifier('old');
  outbox.register('apns', notifier, undefined);
  add('device');
  await clock.advance(0);
  assert.equal(notifier.dicts.length, 1);
  assert.equal(notifier.dicts[0]?.serviceId, 'device');
  assert.deepEqual(notifier.dicts[0]?.encKey, KEY);
  assert.equal(service.instances.inFlight, 0);
  assert.equal(service.counters.handed, 1);
});

test('a notifier whose pipe is full loses nothing and delays no other service', async (t) => {
  const { clock, outbox, add, service } = setUp();
  t.after(() => outbox.stop(0));
  const stuffed = new FakeNotifier('stuffed');
  const other = new FakeNotifier('other');
  stuffed.stuffed = true;
  outbox.register('apns', stuffed, 100);
  outbox.register('firebase', other, 100);
  for (let index = 0; index < 10; index++) {
    add(`device ${index}`);
    add(`device ${index}`, { service: 'firebase' });
  }
  await clock.advance(1_000);
  assert.equal(other.sealed.length, 10);
  assert.equal(service.queue.length, 10);
  stuffed.stuffed = false;
  await clock.advance(100);
  assert.deepEqual(
    stuffed.sealed.map(({ serviceId }) => serviceId),
    Array.from({ length: 10 }, (_, index) => `device ${index}`),
  );
});

test('what is too old, expired or too much is dropped and counted under its reason', async (t) => {
  const { clock, outbox, add, service } = setUp({ maxBytes: 4_500, maxAge: 10_000 });
  t.after(() => outbox.stop(0));
  for (let index = 0; index < 8; index++) add(`device ${index}`);
  assert.equal(service.counters.dropped.overflow, 3);
  await clock.advance(15_000);
  assert.equal(service.counters.dropped.too_old, 5);
  add('expired', { expiry: clock.now() + 1_000 });
  await clock.advance(2_000);
  outbox.register('apns', new FakeNotifier('one'), 100);
  await clock.advance(0);
  assert.equal(service.counters.dropped.expired, 1);
  assert.equal(service.counters.queued, 9);
});

test('a message that had time left when it came is not an expired one, whatever the clock says', async (t) => {
  const { clock, outbox, add, service } = setUp({ maxBytes: 5_000, maxAge: 10_000 });
  t.after(() => outbox.stop(0));
  const truth = clock.now();
  clock.jump(15 * 86_400_000);
  add('alive', { timestamp: truth, expiry: truth + 5_000 });
  add('over', { timestamp: truth, expiry: truth + 1_000 });
  await clock.advance(2_000);
  outbox.register('apns', new FakeNotifier('one'), 100);
  await clock.advance(0);
  assert.equal(service.counters.dropped.expired, 1);
  assert.equal(service.counters.handed, 1);
});

test('what a notifier never acknowledges is given up after twice the age', async (t) => {
  const { clock, outbox, add, service } = setUp({ maxBytes: 1e9, maxAge: 10_000 });
  t.after(() => outbox.stop(0));
  const notifier = new FakeNotifier('one');
  outbox.register('apns', notifier, 100);
  add('device');
  for (let time = 0; time < 30; time += 5) {
    await clock.advance(5_000);
    outbox.register('apns', notifier, 100);
  }
  assert.equal(service.counters.dropped.unacknowledged, 1);
  assert.equal(service.instances.inFlight, 0);
});

test("the provider's answer in words reaches whoever asked for it", async (t) => {
  const { clock, outbox, add } = setUp();
  t.after(() => outbox.stop(0));
  const notifier = new FakeNotifier('one');
  outbox.register('apns', notifier, 100);
  let answer = '';
  add('device', {
    onAnswer: (text) => {
      answer = text;
    },
  });
  await clock.advance(0);
  const [push] = notifier.sealed;
  assert.equal(push?.wantsAnswer, true);
  outbox.report(notifier, {
    service: 'apns',
    accepted: [push?.id ?? 0],
    refused: [],
    handedBack: [],
    answers: [[push?.id ?? 0, 'accepted by Apple']],
  });
  assert.equal(answer, 'accepted by Apple');
});

test('stopping waits for what is with a notifier, and counts what it gives up', async () => {
  const { clock, outbox, add, report } = setUp();
  const notifier = new FakeNotifier('one');
  outbox.register('apns', notifier, 100);
  add('device 0');
  add('device 1');
  add('nowhere', { service: 'firebase' });
  await clock.advance(0);
  const stopped = outbox.stop(5_000);
  await clock.advance(1_000);
  report(notifier, { accepted: notifier.ids });
  await clock.advance(100);
  await stopped;
  const totals = outbox.close();
  assert.deepEqual(totals, { ...NOTHING, queued: 3, accepted: 2, dropped: 1, shutdown: 1 });
  assert.equal(outbox.service('firebase').counters.dropped.shutdown, 1);
  assert.equal(clock.pending, 0);
});

test('stopping goes on waiting while reports come, but not for a notifier that says nothing', async () => {
  const { clock, outbox, add, report } = setUp();
  const notifier = new FakeNotifier('one');
  outbox.register('apns', notifier, 100);
  for (let index = 0; index < 20; index++) add(`device ${index}`);
  await clock.advance(0);
  let stopped = false;
  const stopping = outbox.stop(2_000, 30_000).then(() => (stopped = true));
  for (let index = 0; index < 10; index++) {
    await clock.advance(1_000);
    report(notifier, { accepted: [notifier.ids[index] as number] });
    assert.equal(stopped, false, `after ${index + 1} s`);
  }
  await clock.advance(2_100);
  assert.equal(stopped, true);
  await stopping;
  // Later than that, and counted all the same.
  report(notifier, { accepted: notifier.ids.slice(10, 13), refused: notifier.ids.slice(13, 15) });
  assert.deepEqual(outbox.close(), { ...NOTHING, queued: 20, accepted: 13, refused: 2, unreported: 5 });
});

test('stopping ends in time, whatever still comes', async () => {
  const { clock, outbox, add, report } = setUp();
  const notifier = new FakeNotifier('one');
  outbox.register('apns', notifier, 100);
  for (let index = 0; index < 20; index++) add(`device ${index}`);
  await clock.advance(0);
  const stopping = outbox.stop(2_000, 6_000);
  for (let index = 0; index < 10; index++) {
    report(notifier, { accepted: [notifier.ids[index] as number] });
    await clock.advance(1_000);
  }
  await stopping;
  assert.deepEqual(outbox.close(), { ...NOTHING, queued: 20, accepted: 10, unreported: 10 });
});

test('at the end, what a notifier that is gone may have delivered is not reported as lost; what it handed back and what it passed on is', async () => {
  const { clock, outbox, add, report } = setUp();
  const first = new FakeNotifier('one');
  const second = new FakeNotifier('two');
  outbox.register('apns', first, 100);
  for (let index = 0; index < 5; index++) add(`device ${index}`);
  await clock.advance(0);
  report(first, { handedBack: first.ids.slice(0, 2) });
  outbox.gone(first);
  outbox.register('firebase', second, undefined);
  add('elsewhere', { service: 'firebase' });
  await clock.advance(0);
  await outbox.stop(0);
  assert.deepEqual(outbox.close(), { ...NOTHING, queued: 6, passed: 1, unreported: 3, dropped: 2, shutdown: 2 });
});

test('a push that is reported twice in one report is counted and handed out once', async (t) => {
  const { clock, outbox, add, report, service } = setUp();
  t.after(() => outbox.stop(0));
  const notifier = new FakeNotifier('one');
  outbox.register('apns', notifier, 100);
  for (let index = 0; index < 3; index++) add(`device ${index}`);
  await clock.advance(0);
  const [one, two, three] = notifier.ids as [number, number, number];
  report(notifier, { accepted: [one, one], refused: [one, two, two], handedBack: [two, three, three] });
  await clock.advance(0);
  assert.deepEqual([service.counters.accepted, service.counters.refused, service.counters.redelivered], [1, 1, 1]);
  assert.deepEqual(notifier.ids, [one, two, three, three]);
  assert.equal(service.queue.size, 1);
});

test('the devices of one message share it, those that want no body hold none, and each gets what it asked for', async (t) => {
  const { clock, outbox, service } = setUp();
  t.after(() => outbox.stop(0));
  const notifier = new FakeNotifier('one');
  const data = Buffer.alloc(2_000, 0x61);
  const device = (serviceId: string, wantData: boolean, name = 'apns') => ({
    service: name,
    serviceId,
    serviceData: Buffer.from([0xff, 0]),
    encKey: KEY,
    wantData,
  });
  const message = {
    account: Buffer.alloc(33, 5),
    hash: Buffer.alloc(43, 0x48),
    namespace: 0,
    timestamp: 1,
    expiry: 2e12,
  };
  outbox.add({ ...message, data }, [device('a', false)]);
  const bare = service.queue.bytes;
  outbox.add({ ...message, data }, [device('b', true), device('c', true), device('d', true, 'firebase')]);
  const each = outbox.service('firebase').queue.bytes;
  assert.equal(each, bare + 2_000);
  assert.ok(service.queue.bytes < 2 * each, `${service.queue.bytes}`);
  outbox.add({ ...message, data: Buffer.alloc(76_800) }, [device('e', true)]);
  outbox.register('apns', notifier, 100);
  await clock.advance(0);
  const told = notifier.sealed.map(({ serviceId, serviceData, payload }) => {
    assert.deepEqual(serviceData, Buffer.from([0xff, 0]));
    const { metadata, data: body } = openPayload(payload, KEY);
    return [serviceId, body?.length, metadata.tooBig, metadata.length];
  });
  assert.deepEqual(told, [
    ['a', undefined, false, undefined],
    ['b', 2_000, false, 2_000],
    ['c', 2_000, false, 2_000],
    ['e', undefined, true, 76_800],
  ]);
});

test("one account's thousands of pushes do not hold up another's", async (t) => {
  const { clock, outbox, add } = setUp();
  t.after(() => outbox.stop(0));
  for (let index = 0; index < 5_000; index++) add(`made up ${index}`, { account: 1 });
  for (let account = 10; account < 60; account++) add(`phone ${account}`, { account });
  const notifier = new FakeNotifier('one');
  outbox.register('apns', notifier, 100);
  await clock.advance(0);
  const phones = notifier.sealed.filter(({ serviceId }) => serviceId.startsWith('phone'));
  assert.equal(phones.length, 50);
  assert.equal(notifier.sealed.length, 100);
});

test('reports of unknown pushes, services and notifiers are ignored', async (t) => {
  const { clock, outbox, add, report, service } = setUp();
  t.after(() => outbox.stop(0));
  const notifier = new FakeNotifier('one');
  outbox.register('apns', notifier, 100);
  add('device');
  await clock.advance(0);
  report(notifier, { accepted: [1, 2, 3], refused: [4], handedBack: [5] });
  report(new FakeNotifier('stranger'), { accepted: notifier.ids });
  outbox.report(notifier, { service: 'nope', accepted: notifier.ids, refused: [], handedBack: [], answers: [] });
  assert.equal(service.instances.inFlight, 1);
  assert.equal(service.counters.accepted, 0);
});
