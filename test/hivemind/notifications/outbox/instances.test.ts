import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hasRoom, type Instance, Instances } from '../../../../src/hivemind/notifications/outbox/instances.ts';
import { FakeNotifier } from './fake-notifier.ts';

/** Notifiers of our kind with these ids of their processes, each with room. */
function withIds(...ids: string[]) {
  const instances = new Instances();
  const all = ids.map((id, n) => {
    const instance = instances.add(new FakeNotifier(`remote ${n}`), true, 0, Buffer.from(id));
    instance.window = 1;
    return instance;
  });
  return { instances, all };
}

const DEVICES = Array.from({ length: 24 }, (_, n) => `device ${n}`);

test('every hivemind chooses the same notifier for a device, from version to version', () => {
  const { instances, all } = withIds('one', 'two', 'three');
  const place = (instance: Instance | undefined) => all.indexOf(instance!);
  assert.equal(DEVICES.map((device) => place(instances.ownerOf(device))).join(''), '211002202101211111121220');
  assert.equal(DEVICES.map((device) => place(instances.choose(device))).join(''), '211002202101211111121220');
});

test('a device goes to the next best of those that have room, but its owner stays', () => {
  const { instances, all } = withIds('one', 'two', 'three');
  const [device = ''] = DEVICES;
  const owner = instances.ownerOf(device)!;
  assert.ok(hasRoom(owner));
  owner.inFlight = 1;
  assert.ok(!hasRoom(owner));
  assert.equal(instances.ownerOf(device), owner);
  const second = instances.choose(device)!;
  assert.notEqual(second, owner);
  second.draining = true;
  const third = instances.choose(device)!;
  assert.deepEqual(new Set([owner, second, third]), new Set(all));
  third.inFlight = 1;
  assert.equal(instances.choose(device), undefined);
  owner.draining = true;
  assert.equal(instances.ownerOf(device), third);
});

test('of two connections of one process the newer one counts', () => {
  const { instances, all } = withIds('one', 'one');
  for (const device of DEVICES) assert.equal(instances.ownerOf(device), all[1]);
});

test('an original notifier replaces the one before it, and none of ours', () => {
  const instances = new Instances();
  const ours = instances.add(new FakeNotifier('ours'), true, 7);
  const first = instances.add(new FakeNotifier('first'), false, 0);
  assert.deepEqual(instances.all, [ours, first]);
  const second = instances.add(new FakeNotifier('second'), false, 0);
  assert.deepEqual(instances.all, [ours, second]);
  assert.deepEqual(instances.find('second'), second);
  assert.equal(instances.find('first'), undefined);
  instances.remove(ours);
  assert.deepEqual([instances.all, instances.size], [[second], 1]);
  instances.clear();
  assert.equal(instances.size, 0);
});

test('a new notifier has nothing, takes nothing yet, and was seen just now', () => {
  const remote = new FakeNotifier('ours');
  const { rank: _, ...rest } = new Instances().add(remote, true, 7);
  assert.deepEqual(rest, {
    remote,
    acknowledges: true,
    validatesMany: false,
    window: 0,
    inFlight: 0,
    wireBytes: 0,
    draining: false,
    lastSeen: 7,
  });
});

test('who is asked about a token is the one with least to do that is not draining, and of two the first', () => {
  const { instances, all } = withIds('one', 'two', 'three');
  const [one, two, three] = all as [Instance, Instance, Instance];
  assert.equal(instances.validator, one);
  Object.assign(one, { inFlight: 3, wireBytes: 10 });
  Object.assign(two, { inFlight: 2, wireBytes: 20 });
  Object.assign(three, { inFlight: 2, wireBytes: 40 });
  assert.equal(instances.validator, two);
  assert.deepEqual([instances.inFlight, instances.wireBytes], [7, 70]);
  two.draining = true;
  assert.equal(instances.validator, three);
  for (const instance of all) instance.draining = true;
  assert.equal(instances.validator, undefined);
});
