import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SharedSubscriptions } from '../../../src/hivemind/cluster/shared-subscriptions.ts';
import { Devices } from '../../../src/hivemind/devices/devices.ts';
import { slotOf } from '../../../src/session/slots.ts';
import { seededRandom } from '../../support/random.ts';
import { makeRow } from '../../support/rows.ts';

/** Of one slot in memory; the database has what it is given. */
function world(counts = { all: 0, alike: 0 }) {
  const random = seededRandom(11);
  const [ours, theirs] = [makeRow({}, random), makeRow({}, random)];
  assert.notEqual(slotOf(ours.account), slotOf(theirs.account));
  const devices = new Devices({ random: random.bytes });
  const stored = new Map<Uint8Array, ReturnType<typeof makeRow>>();
  const told: number[] = [];
  const shared = new SharedSubscriptions({
    devices,
    store: {
      find: async (account) => stored.get(account),
      countDevices: async () => counts,
    },
    cluster: {
      holds: (account) => slotOf(account) === slotOf(ours.account),
      changed: (slot) => told.push(slot),
    },
  });
  return { ours, theirs, devices, stored, told, shared };
}

test('what is committed is kept in memory if it is of a slot of ours, and the others are told in any case', () => {
  const { ours, theirs, devices, told, shared } = world();
  shared.replace(ours, 5);
  shared.replace(theirs, 5);
  assert.equal(devices.size, 1);
  assert.equal(shared.remove(ours.account, ours.service, ours.serviceId), true);
  assert.equal(shared.remove(theirs.account, theirs.service, theirs.serviceId), false);
  assert.equal(devices.size, 0);
  const [own, other] = [slotOf(ours.account), slotOf(theirs.account)];
  assert.deepEqual(told, [own, other, own, other]);
});

test('what is committed replaces what is in memory, whichever was signed later', () => {
  const { ours, devices, shared } = world();
  devices.replace({ ...ours, signedAt: ours.signedAt + 61 }, ours.signedAt + 61);
  shared.replace(ours, ours.signedAt);
  assert.equal(devices.get(ours.account, ours.service, ours.serviceId)?.signedAt, ours.signedAt);
});

test('what is not in memory, or not yet, can be found in the database', async () => {
  const { ours, theirs, stored, shared } = world();
  for (const row of [ours, theirs]) {
    assert.equal(await shared.find(row.account, row.service, row.serviceId), undefined);
    stored.set(row.account, row);
    assert.equal(shared.get(row.account, row.service, row.serviceId), undefined);
    assert.equal(await shared.find(row.account, row.service, row.serviceId), row);
  }
});

test('an account of another hivemind has as much room as one of ours', async () => {
  const ask = async (counts: { all: number; alike: number }, isKnown = false) => {
    const { theirs, stored, shared } = world(counts);
    if (isKnown) stored.set(theirs.account, theirs);
    return await shared.hasRoom(theirs.account, theirs.service, theirs.serviceId, undefined);
  };
  assert.equal(await ask({ all: 999, alike: 99 }), true);
  assert.equal(await ask({ all: 1_000, alike: 0 }), false);
  assert.equal(await ask({ all: 100, alike: 100 }), false);
  assert.equal(await ask({ all: 1_000, alike: 0 }, true), true, 'who has subscribed already may renew');
});

test('of an account of ours the devices in memory are counted, and not those in the database', async () => {
  const { ours, shared } = world({ all: 1_000, alike: 1_000 });
  assert.equal(await shared.hasRoom(ours.account, ours.service, ours.serviceId, undefined), true);
});
