import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Coverage } from '../../../src/hivemind/monitoring/coverage.ts';
import type { Swarm, SwarmMember } from '../../../src/hivemind/monitoring/swarm-member.ts';
import { slotOf } from '../../../src/session/slots.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { FakeAccounts, refusal, SUCCESS } from './support/fake-accounts.ts';
import { FakeNetwork, type FakeServer } from './support/fake-network.ts';

const SECOND = 1000;
const SWARM = 2n ** 63n;

/** One swarm with so many accounts; nobody is connected before {@link FakeNetwork.publish}. */
function network(count: number, servers = 2) {
  const accounts = new FakeAccounts();
  for (let n = 0; n < count; n++) accounts.add();
  const net = new FakeNetwork(accounts, {});
  const members = Array.from({ length: servers }, () => net.add(SWARM)) as [FakeServer, ...FakeServer[]];
  const slots = new Set<number>();
  for (let id = 0; id < accounts.capacity; id++) {
    const { bytes, offset } = accounts.account(id);
    slots.add(slotOf(bytes, offset));
  }
  return { net, accounts, members, slots, monitoring: net.monitoring };
}

/** What is not covered, looked at while the simulated clock runs. */
async function uncovered({ net, monitoring }: ReturnType<typeof network>): Promise<Set<number> | undefined> {
  let result: { slots: Set<number> | undefined } | undefined;
  void monitoring.uncoveredSlots().then((slots) => (result = { slots }));
  for (let turn = 0; turn < 1000 && !result; turn++) {
    net.clock.run(1);
    await Promise.resolve();
  }
  assert.ok(result, 'the look comes to an end');
  return result.slots;
}

test('nothing is known of coverage before the network is known', async () => {
  assert.equal(await uncovered(network(3)), undefined);
});

test('a slot is covered when every account of it is confirmed by a server that is connected', async () => {
  const each = network(300);
  each.net.publish();
  each.net.clock.run(5 * SECOND);
  assert.deepEqual(await uncovered(each), new Set());
});

test('a slot with a single account that nobody has confirmed is not covered', async () => {
  const each = network(50);
  for (const server of each.members)
    server.behave = (request) =>
      Buffer.from(`l${request.map(({ account }) => (account === 7 ? refusal(6) : SUCCESS)).join('')}e`);
  each.net.publish();
  each.net.clock.run(5 * SECOND);
  const { bytes, offset } = each.accounts.account(each.accounts.idOf(7));
  assert.deepEqual(await uncovered(each), new Set([slotOf(bytes, offset)]));
});

test('what a server confirmed before its connection broke covers nothing', async () => {
  const each = network(50, 1);
  each.net.publish();
  each.net.clock.run(5 * SECOND);
  each.members[0].breakConnection(30 * SECOND, true);
  each.net.clock.run(SECOND);
  assert.deepEqual(await uncovered(each), each.slots);
});

test('a swarm whose servers all stay away does not keep its slots uncovered for ever', async () => {
  const each = network(50, 1);
  each.net.add(SWARM / 2n);
  each.net.publish();
  each.net.clock.run(90 * SECOND);
  each.members[0].breakConnection(300 * SECOND, true);
  each.net.clock.run(5 * SECOND);
  assert.ok((await uncovered(each))!.size > 0, 'however long we have been there');
  each.net.clock.run(65 * SECOND);
  assert.deepEqual(await uncovered(each), new Set());
});

test('who reaches hardly any server covers nothing, however long that lasts: it is its own network that is lost', async () => {
  const each = network(50, 1);
  const other = each.net.add(SWARM / 2n);
  each.net.publish();
  each.net.clock.run(90 * SECOND);
  for (const server of [...each.members, other]) server.breakConnection(3_600 * SECOND, true);
  for (let minute = 0; minute < 10; minute++) {
    each.net.clock.run(60 * SECOND);
    assert.deepEqual(await uncovered(each), each.slots);
  }
});

test('an account that all servers refuse for its signature does not keep its slot uncovered', async () => {
  const each = network(50);
  for (const server of each.members)
    server.behave = (request) =>
      Buffer.from(`l${request.map(({ account }) => (account === 7 ? refusal(5) : SUCCESS)).join('')}e`);
  each.net.publish();
  each.net.clock.run(30 * SECOND);
  assert.deepEqual(await uncovered(each), new Set());
});

test('an account that every server refuses that is asked for it does not either, whatever the others are spared', async () => {
  const each = network(50, 5);
  each.monitoring.spareSlots(each.slots);
  for (const server of each.members)
    server.behave = (request) =>
      Buffer.from(`l${request.map(({ account }) => (account === 7 ? refusal(5) : SUCCESS)).join('')}e`);
  each.net.publish();
  each.net.clock.run(30 * SECOND);
  assert.equal(each.monitoring.summary().refused, 3);
  assert.deepEqual(await uncovered(each), new Set());
});

test('accounts are checked 256 at a time, for 8 ms between two turns of the event loop', async () => {
  for (const [msEach, checkedBetween] of [
    [8 / 256, [256, 512, 768]],
    [7.9 / 256, [512, 1_000]],
    [0, []],
  ] as const) {
    const clock = new FakeClock();
    let checked = 0;
    const schedule = {
      isConfirmed: () => {
        checked++;
        clock.stall(msEach);
        return true;
      },
    };
    const member = { isUp: true, schedule } as unknown as SwarmMember;
    const swarm: Swarm = { id: 1n, number: 0, accounts: new Uint32Array(1_024), count: 1_000, members: [member] };
    const turns: number[] = [];
    const coverage = new Coverage({
      clock,
      accounts: new FakeAccounts(),
      swarms: { current: [swarm], recalculating: false },
      defer: (work) => {
        turns.push(checked);
        work();
      },
    });
    assert.deepEqual(await coverage.uncovered(), new Set());
    assert.equal(checked, 1_000);
    assert.deepEqual(turns, checkedBetween);
  }
});
