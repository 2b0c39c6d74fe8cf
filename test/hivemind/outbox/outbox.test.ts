import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { Outbox } from '../../../src/hivemind/outbox/outbox.ts';
import type { Remote } from '../../../src/oxenmq/remote.ts';
import { decodeSealedPushes, type SealedPush } from '../../../src/session/notifier-protocol.ts';
import { openPayload } from '../../../src/session/payload.ts';
import { decodePush } from '../../../src/session/push.ts';
import { FakeClock } from '../../support/fake-clock.ts';

/** A notifier as the hivemind sees it: it takes what it is sent, unless told to be stuffed. */
class FakeNotifier implements Remote {
  readonly id: string;
  readonly sealed: SealedPush[] = [];
  readonly dicts: ReturnType<typeof decodePush>[] = [];
  messages = 0;
  stuffed = false;

  constructor(id: string) {
    this.id = id;
  }

  send(command: string, ...parts: (string | Uint8Array)[]): boolean {
    if (this.stuffed) return false;
    this.messages++;
    const body = Buffer.from(parts[0] as Uint8Array);
    if (command === 'notifier.sealed') this.sealed.push(...decodeSealedPushes(body));
    else if (command === 'notifier.push') this.dicts.push(decodePush(body));
    else assert.fail(`unexpected command ${command}`);
    return true;
  }

  request(): Promise<Buffer[]> {
    return Promise.reject(new Error('not asked for here'));
  }

  get ids(): number[] {
    return this.sealed.map(({ id }) => id);
  }
}

/** Lets the event loop turn: a long queue is delivered in slices, one a turn. */
async function turns(clock: FakeClock): Promise<void> {
  for (let turn = 0; turn < 30; turn++) await clock.advance(0);
}

const KEY = Buffer.alloc(32, 7);

function setUp(limits = { maxBytes: 1e9, maxAge: 600_000 }) {
  const clock = new FakeClock();
  const lines: string[] = [];
  const outbox = new Outbox({
    clock,
    limits,
    breaker: { share: 0.25, minimum: 20 },
    random: randomBytes,
    log: (_level, text) => lines.push(text),
  });
  const add = (
    device: string,
    options: { service?: string; timestamp?: number; expiry?: number; onAnswer?: (text: string) => void } = {},
  ) =>
    outbox.add({
      account: Buffer.alloc(33, 5),
      hash: Buffer.from('H'.repeat(43)),
      namespace: 0,
      timestamp: options.timestamp ?? clock.now(),
      expiry: options.expiry ?? clock.now() + 1e9,
      data: Buffer.from(`to ${device}`),
      service: options.service ?? 'apns',
      serviceId: device,
      serviceData: null,
      encKey: KEY,
      bytes: 1_000,
      onAnswer: options.onAnswer,
    });
  const service = outbox.service('apns');
  const report = (notifier: FakeNotifier, what: Partial<Record<'accepted' | 'refused' | 'handedBack', number[]>>) =>
    outbox.report(notifier, { service: 'apns', accepted: [], refused: [], handedBack: [], answers: [], ...what });
  return { clock, outbox, add, service, report, lines };
}

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

test('pushes wait while no notifier is there, and go to the first that comes', async (t) => {
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

test('a notifier that holds as many bytes as a queue may hold is given no more, whatever its window is', async (t) => {
  const { clock, outbox, add, report } = setUp({ maxBytes: 10_000, maxAge: 600_000 });
  t.after(() => outbox.stop(0));
  const notifier = new FakeNotifier('one');
  outbox.register('apns', notifier, 1_000);
  for (let round = 0; round < 3; round++) {
    for (let index = 0; index < 8; index++) add(`device ${index}`);
    await clock.advance(0);
  }
  assert.equal(notifier.sealed.length, 10);
  report(notifier, { accepted: notifier.ids.slice(0, 3) });
  await clock.advance(0);
  assert.equal(notifier.sealed.length, 13);
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

test('devices are spread over the notifiers of a service, and only those of one that goes are moved', async (t) => {
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

test('a notifier that falls silent is taken for dead, one that registers again and again is not', async (t) => {
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

test('a notifier is not taken for dead because the hivemind itself was held up', async (t) => {
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

test('a notifier whose pipe is full loses nothing and holds up no other service', async (t) => {
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
  const { clock, outbox, add, service } = setUp({ maxBytes: 5_000, maxAge: 10_000 });
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

test('a message that had time left when it came is no message that has expired, whatever the clock says', async (t) => {
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

test("the provider's answer in words reaches who asked for it", async (t) => {
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
  const { clock, outbox, add, report, service } = setUp();
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
  assert.equal(await stopped, 1, 'the push for which no notifier is there');
  assert.equal(service.counters.accepted, 2);
  assert.equal(outbox.service('firebase').counters.dropped.shutdown, 1);
  assert.equal(clock.pending, 0);
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
