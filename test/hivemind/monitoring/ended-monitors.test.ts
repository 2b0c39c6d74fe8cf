import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MINUTE, network, SECOND, SWARM } from './support/one-swarm.ts';

test('a monitor that a server has ended is unconfirmed there, and asked for again if the account stays', () => {
  const { net, clock, monitoring, servers, accounts } = network({ accounts: 50, servers: 2 });
  servers[0]!.endMonitor(7);
  assert.deepEqual(
    monitoring.nodes().map(({ confirmed }) => confirmed),
    [49, 50],
  );
  assert.equal(net.suspected, 1);
  assert.deepEqual(monitoring.counters.ended, { taken: 1, moved: 0, unasked: 0, malformed: 0 });
  assert.equal(monitoring.summary().uncovered, 0, 'the other one covers for it');
  const before = servers[0]!.log.length;
  clock.run(8 * SECOND);
  assert.ok(servers[0]!.monitorsAccount(7, 1));
  assert.deepEqual(
    servers[0]!.log.slice(before).map(({ elements }) => elements.map(({ account }) => account)),
    [[7]],
  );
  assert.equal(monitoring.nodes()[0]!.confirmed, 50);
  assert.ok(accounts.numbers.every((number) => servers[0]!.monitorsAccount(number, 1)));
});

test('a monitor that ended because the account moved is asked for where it is now, and no longer where it was', () => {
  const { net, accounts, clock, monitoring, servers } = network({ accounts: 100, servers: 1 });
  const old = servers[0]!;
  const newcomer = net.add(SWARM - (1n << 62n));
  // The server is a block ahead of our list.
  const moving = accounts.numbers.filter((number) => number % 3 === 0);
  for (const number of moving) old.endMonitor(number);
  assert.equal(monitoring.counters.ended.taken, moving.length);
  assert.equal(net.suspected, 1);
  net.publish();
  clock.run(10 * SECOND);
  const now = accounts.numbers.filter((number) => newcomer.monitorsAccount(number, 1));
  assert.ok(now.length > 10);
  const asked = new Set(old.log.slice(1).flatMap(({ elements }) => elements.map(({ account }) => account)));
  for (const number of now) assert.ok(!asked.has(number));
  assert.equal(monitoring.summary().unconfirmed, 0);
  // Late notices of what has moved change nothing.
  const { suspected } = net;
  for (const number of now) old.endMonitor(number);
  assert.equal(monitoring.counters.ended.moved, now.length);
  assert.equal(net.suspected, suspected);
});

test('the end of a monitor is accepted only from a server that confirmed it, and anything else is counted and dropped', () => {
  const { net, monitoring, servers, accounts, clock } = network({ accounts: 3, servers: 1 });
  const stranger = net.add(2n);
  stranger.behave = () => undefined;
  net.publish();
  clock.run(SECOND);
  const { node } = servers[0]!;
  const bytes = accounts.bytesOf(0);
  const of = (account: Buffer, rest = 'e') => Buffer.concat([Buffer.from('d1:@33:'), account, Buffer.from(rest)]);
  const malformed: Buffer[][] = [
    [],
    [of(bytes), of(bytes)],
    [Buffer.from('')],
    [Buffer.from('le')],
    [Buffer.from('de')],
    [of(bytes, '')],
    [of(bytes, 'ee')],
    [Buffer.from('d1:@2:05e')],
    [Buffer.from('d1:@i5ee')],
    [of(bytes, `1:x${'l'.repeat(1000)}${'e'.repeat(1000)}e`)],
    [of(bytes, `6:snodesl${'le'.repeat(30_000)}ee`)],
    [of(bytes, `1:x70000:${'x'.repeat(70_000)}e`)],
  ];
  for (const parts of malformed) monitoring.ended(node!, parts);
  monitoring.ended(node!, [of(Buffer.alloc(33, 9))]);
  monitoring.ended(stranger.node!, [of(bytes)]);
  assert.deepEqual(monitoring.counters.ended, { taken: 0, moved: 0, unasked: 2, malformed: malformed.length });
  assert.equal(net.suspected, 0);
  monitoring.ended(node!, [of(bytes, '7:errcodei6e5:error2:no6:snodesld2:ip7:1.2.3.4ee5:swarm16:ffffffffffffffffe')]);
  monitoring.ended(node!, [of(bytes)]);
  assert.deepEqual(monitoring.counters.ended, { taken: 1, moved: 0, unasked: 3, malformed: malformed.length });
});

test('a server that ends monitors as fast as it is asked is asked ever more rarely, and further ended monitors cost no more', () => {
  const { net, clock, servers } = network({ accounts: 20, servers: 2 });
  const [hostile] = servers;
  const before = hostile!.log.length;
  for (let second = 0; second < 3600; second++) {
    for (let number = 0; number < 20; number++) hostile!.endMonitor(number);
    clock.run(SECOND);
  }
  const requests = hostile!.log.length - before;
  assert.ok(requests < 40, `${requests} requests in an hour`);
  assert.ok(net.suspected < 40, `${net.suspected} doubts`);
});

test('a flood of ended monitors is cut off, and costs the others nothing', () => {
  const { net, clock, monitoring, servers } = network({ accounts: 20, servers: 2 });
  const { node } = servers[0]!;
  const notice = [Buffer.from(`d1:@33:${'x'.repeat(33)}e`)];
  let sent = 0;
  while (monitoring.nodes()[0]!.state === 'up' && sent < 1_000_000) {
    monitoring.ended(node!, notice);
    // Half an hour in all.
    if (++sent % 2_000 === 0) clock.run(6 * MINUTE);
  }
  assert.equal(sent, 10_041);
  assert.equal(monitoring.nodes()[0]!.state, 'cut-off');
  assert.match(net.cutOff[0]!, /10041 notices of ended monitors/);
  assert.equal(monitoring.nodes()[1]!.state, 'up');
  clock.run(80 * MINUTE);
  assert.equal(monitoring.summary().connected, 2);
  assert.equal(monitoring.summary().unconfirmed, 0);
});
