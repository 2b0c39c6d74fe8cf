import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SwarmMember } from '../../../src/hivemind/monitoring/swarm-member.ts';
import { Swarms } from '../../../src/hivemind/monitoring/swarms.ts';
import type { Node } from '../../../src/hivemind/network/node.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { FakeAccounts, refusal, SUCCESS } from './support/fake-accounts.ts';
import { FakeNetwork, type FakeServer } from './support/fake-network.ts';

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const LOW = 2n ** 62n;
const MIDDLE = 2n ** 63n;
const HIGH = 2n ** 63n + 2n ** 62n;

function network(swarms: readonly bigint[], accounts = 300) {
  const fake = new FakeAccounts();
  for (let i = 0; i < accounts; i++) fake.add();
  const net = new FakeNetwork(fake);
  const servers = swarms.flatMap((swarm) => [net.add(swarm), net.add(swarm)]);
  net.publish();
  net.clock.run(5 * SECOND);
  return { net, accounts: fake, servers, clock: net.clock, monitoring: net.monitoring };
}

function move(server: FakeServer, swarm: bigint): void {
  server.address = { ...server.address, swarm };
}

/** Which of the servers monitor an account, by their places in the list. */
function monitoredBy(servers: readonly FakeServer[], number: number): number[] {
  return servers.flatMap((server, i) => (server.monitorsAccount(number, 1) ? [i] : []));
}

test('a swarm that splits: only the accounts that move are asked for, and only at the new servers', () => {
  const { net, accounts, servers, clock } = network([LOW]);
  const logged = servers.map((server) => server.log.length);
  const newcomers = [net.add(HIGH), net.add(HIGH)];
  net.publish();
  clock.run(2 * SECOND);
  assert.deepEqual(
    servers.map((server) => server.log.length),
    logged,
  );
  const moved = accounts.numbers.filter((number) => newcomers[0]!.monitorsAccount(number, 1));
  assert.ok(moved.length > 100 && moved.length < 200, `${moved.length} moved`);
  assert.deepEqual({ ...net.monitoring.counters.swarms }, { recalculations: 2, moved: moved.length });
  assert.deepEqual(
    net.monitoring.nodes().map(({ accounts }) => accounts),
    [300 - moved.length, 300 - moved.length, moved.length, moved.length],
  );
});

test('a swarm that vanishes: its accounts are asked for at those that are closest now, and nothing else is', () => {
  const { net, accounts, servers, clock } = network([LOW, MIDDLE, HIGH]);
  const orphans = accounts.numbers.filter((number) => servers[2]!.monitorsAccount(number, 1));
  const kept = accounts.numbers.filter((number) => !servers[2]!.monitorsAccount(number, 1));
  const logged = servers[0]!.log.length;
  net.publish(servers.filter(({ address }) => address.swarm !== MIDDLE));
  clock.run(2 * SECOND);
  assert.ok(orphans.length > 50);
  for (const number of orphans) {
    assert.equal(monitoredBy(servers, number).filter((i) => i < 2 || i > 3).length, 2);
  }
  const askedSince = new Set(
    servers[0]!.log.slice(logged).flatMap(({ elements }) => elements.map(({ account }) => account)),
  );
  for (const number of kept) assert.ok(!askedSince.has(number));
});

test('swarms that merge: the servers that change sides are asked for everything of their new swarm', () => {
  const { net, accounts, servers, clock } = network([LOW, HIGH]);
  move(servers[2]!, LOW);
  move(servers[3]!, LOW);
  net.publish();
  clock.run(2 * SECOND);
  for (const number of accounts.numbers) assert.deepEqual(monitoredBy(servers, number).slice(0, 2), [0, 1]);
  for (const number of accounts.numbers) assert.equal(monitoredBy(servers, number).length, 4);
});

test('1,000 changes of the swarms, back and forth: each account ends up at all its servers', () => {
  const { net, accounts, servers, clock, monitoring } = network([LOW, MIDDLE, HIGH], 50);
  for (let i = 0; i < 1000; i++) {
    move(servers[i % servers.length]!, [LOW, MIDDLE, HIGH, 7n, 2n ** 64n - 9n][(i * 7) % 5]!);
    net.publish();
    clock.run(i % 3 === 0 ? 0 : 10);
  }
  clock.run(MINUTE);
  for (const number of accounts.numbers) {
    const swarms = new Set(monitoredBy(servers, number).map((i) => servers[i]!.address.swarm));
    assert.ok(swarms.size > 0);
  }
  assert.equal(monitoring.summary().unconfirmed, 0);
  assert.equal(
    monitoring.nodes().reduce((sum, { accounts, confirmed }) => sum + accounts - confirmed, 0),
    0,
  );
});

test('the same list again, in another order, changes nothing', () => {
  const { net, servers, clock, monitoring } = network([LOW, HIGH]);
  const logged = servers.map((server) => server.log.length);
  net.publish([...servers].reverse());
  clock.run(MINUTE);
  assert.deepEqual(
    servers.map((server) => server.log.length),
    logged,
  );
  assert.deepEqual(
    servers.map((server) => server.connects),
    [1, 1, 1, 1],
  );
  assert.equal(monitoring.counters.swarms.recalculations, 1);
});

test('a notification counts only from a server of the swarm of its account', () => {
  const { accounts, servers, monitoring } = network([LOW, HIGH]);
  const nodes = servers.map((server) => server.node as Node);
  for (const number of accounts.numbers) {
    const accepting = nodes.flatMap((node, i) => (monitoring.accepts(node, accounts.idOf(number)) ? [i] : []));
    assert.deepEqual(accepting, monitoredBy(servers, number));
  }
  assert.ok(!monitoring.accepts(nodes[0]!, -1));
  assert.ok(!monitoring.accepts(nodes[0]!, 300));
});

test('another server may announce an account too, if it is of its swarm, is connected and does not refuse it', () => {
  const { accounts, servers, clock, monitoring } = network([LOW, HIGH]);
  const [first, second] = servers as [FakeServer, FakeServer];
  const [refused, number] = accounts.numbers.filter((one) => monitoredBy(servers, one)[0] === 0) as [number, number];
  const hasOthers = (one: number) => monitoring.hasOthers(first.node as Node, accounts.idOf(one));
  assert.deepEqual([hasOthers(refused), hasOthers(number)], [true, true]);
  second.behave = (request) =>
    Buffer.from(`l${request.map(({ account }) => (account === refused ? refusal(5) : SUCCESS)).join('')}e`);
  second.breakConnection(20, true);
  clock.run(5 * SECOND);
  assert.equal(hasOthers(number), true);
  assert.equal(hasOthers(refused), false);
  second.breakConnection(60_000, true);
  clock.run(100);
  assert.equal(hasOthers(number), false);
  assert.equal(monitoring.hasOthers(first.node as Node, -1), false);
});

test('after a change of the swarms the former servers of an account still count for 65 minutes', () => {
  const { net, accounts, servers, clock, monitoring } = network([LOW]);
  const node = servers[0]!.node as Node;
  net.add(HIGH);
  net.publish();
  clock.run(64 * MINUTE);
  for (const number of accounts.numbers) assert.ok(monitoring.accepts(node, accounts.idOf(number)));
  clock.run(2 * MINUTE);
  const still = accounts.numbers.filter((number) => monitoring.accepts(node, accounts.idOf(number)));
  assert.deepEqual(
    still,
    accounts.numbers.filter((number) => monitoredBy(servers.slice(0, 1), number).length === 1),
  );
  assert.ok(still.length < 200);
});

test('a server that moved to another swarm still counts for its former accounts for 65 minutes', () => {
  const { net, accounts, servers, clock, monitoring } = network([LOW, HIGH]);
  const own = accounts.numbers.filter((number) => servers[0]!.monitorsAccount(number, 1));
  const node = servers[0]!.node as Node;
  move(servers[0]!, HIGH);
  net.publish();
  clock.run(64 * MINUTE);
  assert.ok(accounts.numbers.every((number) => monitoring.accepts(node, accounts.idOf(number))));
  clock.run(2 * MINUTE);
  assert.ok(own.length > 100);
  assert.ok(own.every((number) => !monitoring.accepts(node, accounts.idOf(number))));
});

for (const [what, leave] of [
  ['left the network', (net: FakeNetwork, rest: FakeServer[], _gone: FakeServer) => net.publish(rest)],
  [
    'moved to another swarm',
    (net: FakeNetwork, _rest: FakeServer[], gone: FakeServer) => {
      move(gone, HIGH);
      net.publish();
    },
  ],
] as const) {
  test(`what a server that ${what} had confirmed no longer counts for its swarm`, () => {
    const fake = new FakeAccounts();
    for (let i = 0; i < 300; i++) fake.add();
    const net = new FakeNetwork(fake);
    const [first, absent, third] = [net.add(LOW), net.add(LOW), net.add(HIGH)];
    absent.absent = true;
    net.publish();
    net.clock.run(60 * MINUTE);
    const own = fake.numbers.filter((number) => monitoredBy([first], number).length === 1);
    assert.ok(own.length > 100);
    const before = net.monitoring.summary();
    assert.equal(before.uncovered, 0);
    assert.ok(before.oldestSeconds < 60 * 60 - 60, 'renewed before');
    leave(net, [absent, third], first);
    net.clock.run(2 * MINUTE);
    const { uncovered, oldestSeconds } = net.monitoring.summary();
    assert.equal(uncovered, own.length);
    assert.ok(oldestSeconds >= 60 * 60, `${oldestSeconds} s`);
    for (const number of own) assert.equal(net.monitoring.hasOthers(absent.node as Node, fake.idOf(number)), false);
  });
}

test('many accounts are moved in slices, so that nobody waits for the event loop', () => {
  const accounts = new FakeAccounts();
  for (let i = 0; i < 20_000; i++) accounts.add();
  const clock = new FakeClock();
  const slices: (() => void)[] = [];
  // A clock on which every look costs a millisecond: as if 256 accounts took so long.
  let time = 0;
  clock.monotonic = () => time++;
  const swarms = new Swarms({ clock, accounts, now: () => 1, defer: (work) => slices.push(work), onWork: () => {} });
  swarms.setIds([LOW, HIGH]);
  const member = new SwarmMember({ clock, now: () => 1, jitter: () => 0, interval: 1, rank: 0, suspect: () => {} });
  swarms.enter(member, swarms.get(HIGH)!);
  let count = 0;
  const spent: number[] = [];
  for (let slice = slices.shift(); slice; slice = slices.shift()) {
    const before = time;
    slice();
    spent.push(time - before);
    // Accounts come and go meanwhile.
    if (count++ === 3) {
      accounts.remove(5);
      swarms.remove(accounts.capacity - 1);
      swarms.add(accounts.capacity - 1);
    }
  }
  assert.ok(count >= 8, `${count} slices`);
  assert.ok(Math.max(...spent) <= 10);
  assert.ok(!swarms.recalculating);
  assert.ok(member.schedule.count > 8000 && member.schedule.count < 12_000);
});

test('a swarm that has left the network is forgotten when its accounts have moved, and its number is taken again', () => {
  const accounts = new FakeAccounts();
  for (let i = 0; i < 1_000; i++) accounts.add();
  const clock = new FakeClock();
  const work: (() => void)[] = [];
  const swarms = new Swarms({ clock, accounts, now: () => 1, defer: (slice) => work.push(slice), onWork: () => {} });
  const finish = () => {
    while (work.length > 0) work.shift()!();
  };
  swarms.setIds([LOW, HIGH]);
  finish();
  const high = swarms.get(HIGH)!;
  assert.ok(high.count > 400);
  swarms.setIds([LOW]);
  assert.equal(swarms.get(HIGH), high, 'it has accounts');
  finish();
  assert.deepEqual([swarms.get(HIGH), high.count, swarms.get(LOW)!.count], [undefined, 0, 1_000]);
  swarms.setIds([LOW, MIDDLE]);
  finish();
  assert.equal(swarms.get(MIDDLE)!.number, high.number);
});

test('the list of a swarm grows only a few times at the start, and is hardly larger than it has to be', () => {
  const accounts = new FakeAccounts();
  for (let n = 0; n < 40_000; n++) accounts.add();
  const clock = new FakeClock();
  const swarms = new Swarms({ clock, accounts, now: () => 1, defer: (work) => clock.setTimeout(work, 0), onWork() {} });
  // One has a quarter of all accounts, the other the rest.
  swarms.setIds([MIDDLE, MIDDLE + 2n ** 62n + 2n ** 61n]);
  const lists = swarms.current.map((swarm) => new Set([swarm.accounts]));
  const wanted = () => swarms.recalculating;
  while (wanted()) {
    clock.run(1);
    for (const [n, swarm] of swarms.current.entries()) lists[n]!.add(swarm.accounts);
  }
  const sizes = swarms.current.map(({ count, accounts }) => ({ count, spare: accounts.length / count - 1 }));
  assert.equal(sizes[0]!.count + sizes[1]!.count, 40_000);
  for (const { count, spare } of sizes) assert.ok(spare >= 0 && spare < 0.08, `${count} accounts, ${spare} to spare`);
  // Those that come later find room, in small steps.
  const { count } = swarms.current[0]!;
  const more = accounts.capacity;
  for (let n = 0; n < 20_000; n++) swarms.add(accounts.idOf(accounts.add()));
  assert.equal(swarms.current[0]!.count + swarms.current[1]!.count, more + 20_000);
  assert.ok(swarms.current[0]!.accounts.length < Math.max(count, swarms.current[0]!.count) * 1.4);
});
