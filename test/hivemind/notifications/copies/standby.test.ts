import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { PushFingerprints, type PushIdentity } from '../../../../src/hivemind/notifications/copies/fingerprints.ts';
import { GATHER } from '../../../../src/hivemind/notifications/copies/progress-reports.ts';
import { SILENCE, Standby } from '../../../../src/hivemind/notifications/copies/standby.ts';
import { Doubt } from '../../../../src/hivemind/notifications/doubt.ts';
import { QueuedMessage, QueuedPush } from '../../../../src/hivemind/notifications/outbox/push.ts';
import type { News } from '../../../../src/session/cluster-protocol.ts';
import { FakeClock } from '../../../support/fake-clock.ts';
import { FakeDuty } from './fake-duty.ts';

const NOTHING = { silence: 0, none: 0, gone: 0, duty: 0, room: 0 };

/** The standby of member b, where a is first unless another is named. */
function setUp(options: { first?: string; maxBytes?: number; defer?: (callback: () => void) => void } = {}) {
  const clock = new FakeClock();
  const duty = new FakeDuty('b', ['a', 'c'], options.first ?? 'a');
  const sent: string[] = [];
  const told: [string, News][] = [];
  const served = new Set(['apns']);
  const endedElsewhere: string[] = [];
  const standby: Standby = new Standby({
    clock,
    duty,
    maxBytes: () => options.maxBytes ?? 1e9,
    defer: options.defer ?? ((callback) => void clock.setTimeout(callback, 0)),
    tell: async (member, news) => told.push([member, news]) > 0,
    outlet: {
      hasNotifier: (service) => served.has(service),
      send(copy) {
        sent.push(copy.push.serviceId);
        standby.queued(copy);
      },
      endedElsewhere: ({ push }) => endedElsewhere.push(push.serviceId),
    },
  });
  const fingerprints = new PushFingerprints(Buffer.alloc(32, 1));
  let id = 0;
  const account = Buffer.alloc(33, 5);
  const hash = Buffer.from('h'.repeat(43));
  const identity = (device: string, doubt: Doubt = Doubt.none, namespace = 0): PushIdentity =>
    fingerprints.of('apns', device, account, hash, namespace, doubt);
  const key = (device: string, doubt: Doubt = Doubt.none, namespace = 0) => identity(device, doubt, namespace).key;
  /** Lets a push come in. */
  const take = (device: string, { doubt = Doubt.none as Doubt, namespace = 0, message = news() } = {}) => {
    const to = { service: 'apns', serviceId: device, serviceData: null, encKey: Buffer.alloc(32), wantData: true };
    const { copy } = new QueuedPush(++id, message, to, undefined, identity(device, doubt, namespace));
    assert.ok(copy);
    const ours = standby.take(copy);
    if (ours) standby.queued(copy);
    return { copy, ours };
  };
  const news = () => {
    const times = { timestamp: clock.now(), expiry: clock.now() + 1e9 };
    return new QueuedMessage({ account, hash, namespace: 0, ...times, data: null }, 'apns', true, clock.monotonic());
  };
  const onProgress = (name: string, what: Partial<News>, run = 1n) =>
    standby.onProgress({ name, run, handed: [], ended: [], none: [], ...what });
  return { clock, duty, standby, sent, told, served, endedElsewhere, take, news, onProgress, key };
}

describe('a push that another hivemind sends first', () => {
  it('is sent when that one says nothing for a second', async () => {
    const { clock, standby, sent, take } = setUp();
    assert.equal(take('one').ours, false);
    await clock.advance(500);
    take('two');
    await clock.advance(499);
    assert.deepEqual([sent, standby.size, standby.unsettled], [[], 2, 2]);
    await clock.advance(1);
    assert.deepEqual([sent, standby.size], [['one'], 1]);
    await clock.advance(SILENCE / 2);
    assert.deepEqual([sent, standby.size, standby.bytes, standby.unsettled], [['one', 'two'], 0, 0, 0]);
    assert.deepEqual(standby.counters.released, { ...NOTHING, silence: 2 });
  });

  it('is kept as long as that one lives, once it has it in hand, and dropped when it has ended it', async () => {
    const { clock, standby, sent, take, onProgress, key } = setUp();
    take('one');
    take('two');
    onProgress('a', { handed: [key('one'), key('two')] });
    await clock.advance(100 * SILENCE);
    assert.deepEqual([sent, standby.size, standby.unsettled], [[], 2, 0]);
    onProgress('a', { ended: [key('one')] });
    assert.deepEqual([sent, standby.size, standby.counters.ended], [[], 1, 1]);
    assert.equal(clock.pending, 0);
  });

  it('is sent at once when that one will not send it', async () => {
    const { clock, standby, sent, take, onProgress, key } = setUp();
    take('said at once');
    take('said later');
    onProgress('a', { handed: [key('said later')] });
    onProgress('a', { none: [key('said at once'), key('said later')] });
    await clock.advance(0);
    assert.deepEqual(sent, ['said at once', 'said later']);
    assert.deepEqual(standby.counters.released, { ...NOTHING, none: 2 });
  });

  it('goes on waiting when a third one says that it will not send it', async () => {
    const { clock, standby, sent, take, onProgress, key } = setUp();
    take('waiting');
    take('kept');
    onProgress('a', { handed: [key('kept')] });
    onProgress('c', { none: [key('waiting'), key('kept')] });
    await clock.advance(0);
    assert.deepEqual([sent, standby.size], [[], 2]);
  });

  it('is sent at once when that one dies, or was a different run of it', async () => {
    for (const end of ['death', 'restart'] as const) {
      const { clock, duty, standby, sent, take, onProgress, key } = setUp();
      take('kept');
      onProgress('a', { handed: [key('kept')] });
      take('kept by another');
      onProgress('c', { handed: [key('kept by another')] });
      duty.change(({ living }) => (end === 'death' ? living.delete('a') : living.set('a', 2n)));
      await clock.advance(0);
      assert.deepEqual([sent, standby.size], [['kept'], 1], end);
      assert.deepEqual(standby.counters.released, { ...NOTHING, gone: 1 });
    }
  });

  it('is sent when that one dies or we become first if nothing was said of it, but not if it is in hand', async () => {
    const { clock, duty, standby, sent, take, onProgress, key } = setUp();
    take('kept');
    onProgress('a', { handed: [key('kept')] });
    take('waiting');
    duty.change((all) => {
      all.first = 'b';
    });
    await clock.advance(0);
    assert.deepEqual(sent, ['waiting']);
    duty.change((all) => {
      all.first = 'c';
    });
    take('waiting for c');
    duty.change(({ living }) => living.delete('c'));
    await clock.advance(0);
    assert.deepEqual([sent, standby.size], [['waiting', 'waiting for c'], 1]);
    assert.deepEqual(standby.counters.released, { ...NOTHING, duty: 1, gone: 1 });
  });

  it("is not held back for a member that is dead, nor if it is nobody else's", () => {
    const { duty, take } = setUp();
    duty.living.delete('a');
    assert.equal(take('first is dead').ours, true);
    duty.first = undefined;
    assert.equal(take('nobody').ours, true);
    duty.first = 'b';
    assert.equal(take('ours').ours, true);
  });

  it('follows what was said before it came', async () => {
    const { clock, duty, standby, sent, take, onProgress, key } = setUp();
    onProgress('a', { ended: [key('ended')], handed: [key('handed')], none: [key('none')] });
    assert.deepEqual([take('ended').ours, standby.size, standby.counters.ended], [false, 0, 1]);
    assert.deepEqual([take('none').ours, standby.size], [true, 0]);
    take('handed');
    await clock.advance(10 * SILENCE);
    assert.deepEqual([sent, standby.size], [[], 1]);
    onProgress('a', { handed: [key('of a dead one')] });
    duty.living.set('a', 2n);
    duty.first = 'c';
    take('of a dead one');
    await clock.advance(SILENCE);
    assert.deepEqual(sent, ['of a dead one']);
  });

  it('forgets after a while what was said of pushes that never came', async () => {
    const { clock, standby, take, onProgress, key } = setUp();
    onProgress('a', { ended: [key('late')] });
    await clock.advance(59_000);
    take('late');
    assert.deepEqual([standby.counters.ended, standby.size], [1, 0]);
    await clock.advance(120_000);
    take('late');
    assert.deepEqual([standby.counters.ended, standby.size], [1, 1]);
  });

  it('waits for a notifier where there is none, and then a second for the first', async () => {
    const { clock, duty, standby, sent, served, take, onProgress, key } = setUp();
    served.clear();
    take('silence');
    take('none');
    take('in hand');
    onProgress('a', { none: [key('none')], handed: [key('in hand')] });
    await clock.advance(5 * SILENCE);
    onProgress('a', { none: [key('came later')] });
    take('came later');
    assert.deepEqual([sent, standby.size, standby.unsettled], [[], 4, 0]);
    served.add('apns');
    standby.notifierCame('apns');
    onProgress('a', { handed: [key('silence')] });
    await clock.advance(SILENCE);
    assert.deepEqual(sent, ['none', 'came later']);
    served.clear();
    take('when it dies');
    await clock.advance(SILENCE);
    duty.change(({ living }) => living.delete('a'));
    await clock.advance(0);
    assert.deepEqual(sent.slice(2).sort(), ['in hand', 'silence', 'when it dies']);
    assert.equal(standby.size, 0);
  });

  it('is sent when memory is short, the oldest first, and a message is counted once for all its devices', async () => {
    const one = setUp();
    const { copy } = one.take('device-1');
    const cost = one.standby.bytes;
    assert.equal(cost, copy.push.bytes + copy.push.message.bytes);
    const message = one.news();
    for (const device of ['device-2', 'device-3']) one.take(device, { message });
    assert.equal(one.standby.bytes, 3 * copy.push.bytes + 2 * message.bytes);

    const { clock, standby, sent, take } = setUp({ maxBytes: 2 * cost });
    for (const n of [1, 2, 3, 4]) take(`device-${n}`);
    await clock.advance(0);
    assert.deepEqual([sent, standby.size, standby.bytes], [['device-1', 'device-2'], 2, 2 * cost]);
    assert.deepEqual(standby.counters.released, { ...NOTHING, room: 2 });
  });

  it('is given up when it is older than a push may be', async () => {
    const { clock, standby, sent, take, onProgress, key } = setUp();
    take('old');
    onProgress('a', { handed: [key('old')] });
    await clock.advance(600_000);
    take('young');
    standby.sweep(600_000);
    assert.equal(standby.size, 2);
    await clock.advance(1);
    onProgress('a', { handed: [key('young')] });
    standby.sweep(600_000);
    assert.deepEqual([sent, standby.size, standby.counters.tooOld], [[], 1, 1]);
  });

  it('is held once, however often it comes', () => {
    const { duty, standby, take } = setUp();
    take('held');
    take('held');
    duty.first = 'b';
    take('ours');
    assert.equal(take('ours').ours, false);
    assert.deepEqual([standby.size, standby.counters.repeated], [1, 2]);
  });

  it('made of a doubtful message ends with the same push of a better one, and not the other way round', () => {
    const { standby, take, onProgress, key } = setUp();
    take('x', { doubt: Doubt.untimely });
    take('y', { doubt: Doubt.untimely });
    take('z', { doubt: Doubt.unproven });
    onProgress('a', { ended: [key('x'), key('y', Doubt.unproven), key('z', Doubt.untimely)] });
    assert.equal(standby.size, 1);
    onProgress('a', { ended: [key('z', Doubt.unproven, 9)] });
    assert.equal(standby.size, 1);
    onProgress('a', { ended: [key('z')] });
    assert.deepEqual([standby.size, standby.counters.ended], [0, 3]);
    onProgress('a', { ended: [key('w')] });
    take('w', { doubt: Doubt.unproven });
    assert.deepEqual([standby.size, standby.counters.ended], [0, 4]);
  });

  it('is released in slices, and one that ends in between is not sent', async () => {
    const turns: (() => void)[] = [];
    const { duty, standby, sent, take, onProgress, key } = setUp({ defer: (callback) => turns.push(callback) });
    for (let n = 0; n < 1_002; n++) take(`device ${n}`);
    duty.change(({ living }) => living.delete('a'));
    assert.deepEqual([standby.size, standby.unsettled, sent.length], [0, 1_002, 0]);
    turns.shift()?.();
    assert.equal(sent.length, 500);
    onProgress('c', { ended: [key('device 1001')] });
    for (let turn = turns.shift(); turn; turn = turns.shift()) turn();
    assert.deepEqual([sent.length, sent.includes('device 1001'), standby.unsettled], [1_001, false, 0]);
    assert.deepEqual([standby.counters.released.gone, standby.counters.ended], [1_001, 1]);
  });

  it('is left to the others at the end', async () => {
    const { clock, duty, standby, sent, take, onProgress, key } = setUp();
    take('waiting');
    take('kept');
    onProgress('a', { handed: [key('kept')] });
    take('released');
    onProgress('a', { none: [key('released')] });
    standby.stop();
    standby.close();
    duty.change(({ living }) => living.delete('a'));
    await clock.advance(10 * SILENCE);
    assert.deepEqual([sent, standby.size, standby.bytes, standby.counters.left], [[], 0, 0, 3]);
    assert.equal(standby.unsettled, 0);
    assert.equal(clock.pending, 0);
  });
});

it('counts nothing before anything has happened', () => {
  const { standby } = setUp();
  const { released, ...rest } = standby.counters;
  assert.deepEqual(released, NOTHING);
  assert.deepEqual(rest, { ended: 0, repeated: 0, tooOld: 0, left: 0 });
  assert.deepEqual([standby.size, standby.bytes, standby.unsettled, standby.untold], [0, 0, 0, 0]);
});

describe('a push that is ours to send', () => {
  it('is announced to the others: in hand while there is a notifier, and what became of it', async () => {
    const { clock, standby, told, served, take, key } = setUp({ first: 'b' });
    const handed = take('handed');
    const ended = take('ended');
    const given = take('given up');
    const left = take('left');
    standby.ended(ended.copy);
    standby.gaveUp(given.copy);
    await clock.advance(GATHER);
    const news = { handed: [key('handed'), key('left')], ended: [key('ended')], none: [key('given up')] };
    assert.deepEqual(told.splice(0), [
      ['a', news],
      ['c', news],
    ]);
    served.clear();
    standby.announce(handed.copy);
    standby.left(left.copy);
    await clock.advance(GATHER);
    assert.deepEqual(told[0]?.[1], { handed: [], ended: [], none: [key('handed')] });
    assert.equal(standby.untold, 0);
  });

  it('is looked for in the queue when another one has ended it, and no longer once it has gone', () => {
    const { endedElsewhere, standby, take, onProgress, key } = setUp({ first: 'b' });
    const { copy } = take('ours');
    standby.left(take('left').copy);
    onProgress('a', { ended: [key('ours'), key('left')] });
    assert.deepEqual(endedElsewhere, ['ours']);
    standby.ended(copy);
    onProgress('a', { ended: [key('ours')] });
    assert.deepEqual([endedElsewhere, standby.counters.ended], [['ours'], 0]);
  });
});
