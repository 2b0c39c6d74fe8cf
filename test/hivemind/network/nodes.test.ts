import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeAccounts } from '../monitoring/support/fake-accounts.ts';
import { FakeNetwork, type FakeServer } from '../monitoring/support/fake-network.ts';

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const SWARM = 2n ** 63n;

function network(options: { maxConnects?: number; jitter?: () => number; allowPrivate?: boolean } = {}) {
  const accounts = new FakeAccounts();
  accounts.add();
  const net = new FakeNetwork(accounts, options);
  return { net, clock: net.clock, monitoring: net.monitoring };
}

test('max_connects caps the connections that are being established at a time', () => {
  const { net, clock, monitoring } = network({ maxConnects: 100 });
  const servers = Array.from({ length: 1000 }, () => net.add(SWARM));
  net.publish();
  assert.equal(monitoring.summary().pending, 100);
  assert.equal(servers.filter(({ connects }) => connects > 0).length, 100);
  clock.run(25);
  assert.equal(monitoring.summary().connected, 100);
  assert.equal(monitoring.summary().pending, 100);
  clock.run(SECOND);
  assert.equal(monitoring.summary().connected, 1000);
});

test('connections are made a few at a time, so that they do not hold the event loop', () => {
  const { net, clock, monitoring } = network({ maxConnects: 500 });
  const servers = Array.from({ length: 500 }, () => net.add(SWARM));
  net.connectTakes = 1;
  const begun = clock.monotonic();
  net.publish();
  const connects = () => servers.reduce((sum, server) => sum + server.connects, 0);
  assert.equal(connects(), 8);
  assert.equal(clock.monotonic() - begun, 8);
  // And so on, whenever the event loop has turned.
  net.connectTakes = 3;
  let most = 0;
  for (let before = connects(); before < 500; before = connects()) {
    clock.run(1);
    most = Math.max(most, connects() - before);
  }
  assert.equal(most, 3);
  clock.run(SECOND);
  assert.equal(monitoring.summary().connected, 500);
});

test('after a list that took long to take over, connecting begins in the next turn of the event loop', () => {
  const connectingAtOnce = (takes: number): number => {
    const { net, clock, monitoring } = network({ maxConnects: 500 });
    const list = {
      height: 1,
      blockHash: '',
      nodes: [net.add(SWARM).address, net.add(SWARM).address],
      skipped: 0,
      // Stands for the work that a long list makes.
      get swarms() {
        clock.stall(takes);
        return [SWARM];
      },
    };
    const begun = clock.monotonic();
    monitoring.update(list);
    assert.ok(clock.monotonic() - begun >= 2 * takes);
    const { pending } = monitoring.summary();
    clock.run(SECOND);
    assert.equal(monitoring.summary().connected, 2);
    return pending;
  };
  assert.equal(connectingAtOnce(0), 2);
  assert.equal(connectingAtOnce(4), 0);
});

test('with max_connects 0 nothing is connected', () => {
  const { net, clock, monitoring } = network({ maxConnects: 0 });
  const server = net.add(SWARM);
  net.publish();
  clock.run(600 * SECOND);
  assert.equal(server.connects, 0);
  assert.equal(monitoring.summary().nodes, 1);
});

test('a failed connection is tried again after 10, 30, 60 and then every 120 seconds', () => {
  const { net, clock, monitoring } = network({ jitter: () => 0 });
  const server = net.add(SWARM);
  server.absent = true;
  net.publish();
  const at: number[] = [];
  for (let second = 0; second < 500; second++) {
    const { connects } = server;
    clock.run(SECOND);
    if (server.connects > connects) at.push(second + 1);
  }
  // Each attempt takes 10 seconds by itself.
  assert.deepEqual(at, [20, 60, 130, 260, 390]);
  assert.equal(monitoring.nodes()[0]!.state, 'cooldown');
  assert.equal(monitoring.nodes()[0]!.last_error, 'connection attempt timed out');

  server.absent = false;
  clock.run(150 * SECOND);
  assert.equal(monitoring.summary().connected, 1);
  assert.equal(monitoring.summary().unconfirmed, 0);
});

test('retries are jittered, so that servers that failed together do not come back together', () => {
  const { net, clock } = network();
  const servers = Array.from({ length: 50 }, () => net.add(SWARM));
  for (const server of servers) server.absent = true;
  net.publish();
  clock.run(10 * SECOND);
  const perSecond: number[] = [];
  for (let i = 0; i < 26; i++) {
    const before = servers.reduce((sum, { connects }) => sum + connects, 0);
    clock.run(500);
    perSecond.push(servers.reduce((sum, { connects }) => sum + connects, 0) - before);
  }
  assert.equal(
    perSecond.reduce((a, b) => a + b),
    50,
  );
  assert.ok(Math.max(...perSecond) < 25, `${perSecond}`);
});

test('a connection that cannot even be attempted is treated like one that failed', () => {
  const { net, clock, monitoring } = network();
  const [bad, good] = [net.add(SWARM), net.add(SWARM)];
  bad.connect = () => {
    throw new Error('no such address');
  };
  net.publish();
  clock.run(SECOND);
  assert.equal(monitoring.summary().connected, 1);
  assert.equal(good.connects, 1);
  assert.equal(monitoring.nodes()[0]!.last_error, 'no such address');
  assert.equal(monitoring.summary().pending, 0);
});

test('a server that leaves the list is disconnected, and one that waits for its turn is not connected any more', () => {
  const { net, clock, monitoring } = network({ maxConnects: 1 });
  const [first, second, third] = [net.add(SWARM), net.add(SWARM), net.add(SWARM)];
  net.publish([first, second, third]);
  net.publish([first, third]);
  clock.run(SECOND);
  assert.equal(second.connects, 0);
  net.publish([third]);
  assert.equal(first.events, undefined);
  assert.equal(monitoring.summary().connected, 1);
  assert.equal(monitoring.nodes().length, 1);
});

test('a server that leaves while it is being connected makes room for the next', () => {
  const { net, clock, monitoring } = network({ maxConnects: 1 });
  const [first, second] = [net.add(SWARM), net.add(SWARM)];
  first.absent = true;
  net.publish([first, second]);
  assert.equal(second.connects, 0);
  net.publish([second]);
  clock.run(SECOND);
  assert.equal(monitoring.summary().connected, 1);
  clock.run(60 * SECOND);
  assert.equal(first.connects, 1);
});

test('a server with a new address is connected there, and asked for everything', () => {
  const { net, clock, monitoring } = network();
  const server = net.add(SWARM);
  net.publish();
  clock.run(SECOND);
  server.address = { ...server.address, port: 22021 };
  server.monitors.clear();
  net.publish();
  assert.equal(monitoring.summary().connected, 0);
  clock.run(SECOND);
  assert.equal(server.connects, 2);
  assert.equal(monitoring.nodes()[0]!.address, 'tcp://10.0.0.1:22021');
  assert.ok(server.monitorsAccount(0, 1));
});

test('a broken connection is reported as down and takes no place from those being established', () => {
  const { net, clock, monitoring } = network({ maxConnects: 1 });
  const [first, second] = [net.add(SWARM), net.add(SWARM)];
  net.publish([first]);
  clock.run(SECOND);
  first.breakConnection(20 * SECOND, false);
  assert.equal(monitoring.nodes()[0]!.state, 'down');
  net.publish([first, second]);
  clock.run(SECOND);
  assert.equal(monitoring.summary().connected, 1);
  clock.run(20 * SECOND);
  assert.equal(monitoring.summary().connected, 2);
});

test('a connection that was up and is given up is made anew', () => {
  const { net, clock, monitoring } = network();
  const server = net.add(SWARM);
  net.publish();
  clock.run(SECOND);
  server.events!.failed('the peer said BYE', false);
  assert.equal(monitoring.summary().connected, 0);
  clock.run(15 * SECOND);
  assert.equal(server.connects, 2);
  assert.equal(monitoring.summary().connected, 1);
  assert.equal(monitoring.summary().unconfirmed, 0);
});

test('the same server twice in a list is one server', () => {
  const { net, clock, monitoring } = network();
  const server = net.add(SWARM);
  net.list([server.address, { ...server.address, port: 1 }]);
  clock.run(SECOND);
  assert.equal(server.connects, 1);
  assert.equal(monitoring.nodes()[0]!.address, 'tcp://10.0.0.1:22020');
});

test('the same server twice in lists of any order stays the same one, the one with an address', () => {
  const { net, clock, monitoring } = network({ allowPrivate: false });
  const server = net.add(SWARM);
  const good = { ...server.address, host: '9.9.9.9' };
  const others = [
    { ...good, host: '', port: 0 },
    { ...good, host: '192.168.0.1' },
    { ...good, port: 1 },
  ];
  for (let i = 0; i < 8; i++) {
    const all = [good, ...others];
    net.list([...all.slice(i % 4), ...all.slice(0, i % 4)]);
    clock.run(MINUTE);
    assert.equal(monitoring.nodes()[0]!.address, 'tcp://9.9.9.9:22020');
  }
  assert.equal(server.connects, 1);
  assert.equal(monitoring.summary().connected, 1);
});

test('two servers at one address are both tried: the key decides which it is', () => {
  const { net, clock, monitoring } = network();
  const [first, second] = [net.add(SWARM), net.add(SWARM)];
  second.address = { ...second.address, host: first.address.host };
  second.absent = true;
  net.publish();
  clock.run(SECOND);
  assert.deepEqual([first.connects, second.connects], [1, 1]);
  assert.equal(monitoring.summary().connected, 1);
});

test('an oxend that has just synchronised lists nearly all without an address: nothing is dropped, and no account moves', () => {
  const { net, clock, monitoring } = network();
  const servers = Array.from({ length: 40 }, (_, i) => net.add(BigInt(i % 8) << 61n));
  net.publish();
  clock.run(SECOND);
  const { moved } = monitoring.counters.swarms;
  const before = monitoring.nodes();
  assert.equal(
    net.list(servers.map(({ address }, i) => (i === 7 ? address : { ...address, host: '', port: 0 }))),
    undefined,
  );
  clock.run(10 * MINUTE);
  assert.deepEqual(monitoring.size, { nodes: 40, swarms: 8 });
  assert.equal(monitoring.summary().connected, 40);
  assert.equal(monitoring.counters.swarms.moved, moved);
  assert.deepEqual(
    monitoring.nodes().map(({ address }) => address),
    before.map(({ address }) => address),
  );
  assert.ok(servers.every(({ connects }) => connects === 1));
});

test('a server without an address from the start is listed with the reason, asked for nothing, and connected once it has one', () => {
  const { net, clock, monitoring } = network();
  const [known, unknown] = [net.add(SWARM), net.add(SWARM + 1n)];
  net.list([known.address, { ...unknown.address, host: '', port: 0 }]);
  clock.run(10 * MINUTE);
  const { state, address, last_error, accounts } = monitoring.nodes()[1]!;
  assert.deepEqual(
    { state, address, last_error, accounts },
    { state: 'unusable', address: '', last_error: 'oxend knows no address', accounts: 0 },
  );
  assert.equal(unknown.connects, 0);
  assert.equal(monitoring.summary().unusable, 1);
  assert.deepEqual(monitoring.size, { nodes: 2, swarms: 2 }, 'its swarm counts');
  net.publish();
  clock.run(SECOND);
  assert.equal(monitoring.summary().connected, 2);
  assert.equal(monitoring.summary().unusable, 0);
  assert.equal(monitoring.summary().unconfirmed, 0);
});

test('an address that must not be connected to is refused, also when a server moves there, and only while it is there', () => {
  const { net, clock, monitoring } = network({ allowPrivate: false });
  const [server, other] = [net.add(SWARM), net.add(2n)];
  other.address = { ...other.address, host: '8.8.4.4' };
  const at = (host: string) => {
    server.address = { ...server.address, host };
    net.publish();
    clock.run(SECOND);
  };
  at('127.0.0.1');
  assert.equal(server.connects, 0);
  const { state, last_error, swarm } = monitoring.nodes()[0]!;
  assert.equal(state, 'unusable');
  assert.equal(last_error, 'the address is loopback, and allow_private_nodes is no: 127.0.0.1:22020');
  assert.equal(swarm, SWARM.toString(16));
  assert.equal(monitoring.size.swarms, 2);
  at('9.9.9.9');
  assert.equal(monitoring.nodes()[0]!.state, 'up');
  at('10.0.0.1');
  assert.equal(server.events, undefined, 'disconnected');
  assert.equal(monitoring.nodes()[0]!.state, 'unusable');
  at('010.0.0.1');
  assert.match(monitoring.nodes()[0]!.last_error, /no IPv4 address: 010\.0\.0\.1/);
  at('9.9.9.9');
  assert.equal(monitoring.nodes()[0]!.state, 'up');
  assert.equal(server.connects, 2);
  assert.ok(server.monitorsAccount(0, 1) || other.monitorsAccount(0, 1));
});

test('a server that harmed us is left alone for an hour, whatever it does about its address and its place in the list', () => {
  const { net, clock, monitoring } = network({ jitter: () => 0 });
  const [bad, good] = [net.add(SWARM), net.add(SWARM)];
  net.publish();
  clock.run(SECOND);
  bad.events!.failed('the peer sent a message of 2000000 parts', true);
  assert.deepEqual(net.cutOff, ['the peer sent a message of 2000000 parts']);
  assert.equal(monitoring.counters.nodes.cutOff, 1);
  clock.run(10 * MINUTE);
  const { state, last_error, connected_since } = monitoring.nodes()[0]!;
  assert.deepEqual([state, connected_since], ['cut-off', null]);
  assert.equal(last_error, 'the peer sent a message of 2000000 parts');
  assert.equal(monitoring.summary().cutOff, 1);
  bad.address = { ...bad.address, port: 1 };
  net.publish();
  net.publish([good]);
  net.publish();
  net.list([{ ...bad.address, host: '', port: 0 }, good.address]);
  clock.run(49 * MINUTE);
  assert.equal(bad.connects, 1);
  assert.equal(monitoring.summary().cutOff, 1);
  clock.run(MINUTE - 1);
  assert.equal(bad.connects, 1);
  clock.run(1);
  assert.equal(bad.connects, 2);
  clock.run(MINUTE);
  assert.equal(monitoring.summary().connected, 2);
  assert.equal(monitoring.summary().unconfirmed, 0);
  assert.equal(good.connects, 1);
});

test('a list that is doubted changes nothing, and counts when it has been repeated long enough', () => {
  const { net, clock, monitoring } = network();
  const servers = Array.from({ length: 40 }, (_, i) => net.add(BigInt(i % 8) << 61n));
  net.publish();
  clock.run(SECOND);
  for (let minute = 0; minute < 10; minute++) {
    assert.match(net.publish(servers.slice(0, 4)) ?? 'believed', /4 of 40 storage servers are left/);
    clock.run(MINUTE);
  }
  assert.equal(monitoring.summary().connected, 40);
  assert.equal(net.publish(servers.slice(0, 4)), undefined);
  clock.run(SECOND);
  assert.deepEqual(monitoring.size, { nodes: 4, swarms: 4 });
  net.publish();
  clock.run(SECOND);
  assert.equal(monitoring.summary().connected, 40, 'growth counts at once');
});

test('each of several hiveminds connects only to the servers that keep accounts of its slots', () => {
  const { net, clock, monitoring } = network();
  const [low, high] = [net.add(0x10n << 56n), net.add(0xf0n << 56n)];
  monitoring.setSlots(new Set([0x11]));
  net.publish();
  clock.run(SECOND);
  assert.deepEqual([low.isUp, high.isUp], [true, false]);
  assert.deepEqual([monitoring.summary().connected, monitoring.summary().unneeded], [1, 1]);

  monitoring.setSlots(new Set([0x11, 0xee]));
  clock.run(SECOND);
  assert.deepEqual([low.isUp, high.isUp], [true, true]);
  assert.equal(monitoring.summary().unneeded, 0);

  monitoring.setSlots(new Set([0xee]));
  assert.deepEqual([low.isUp, high.isUp], [false, true]);
  assert.deepEqual(
    [low.node!.swarmMember.isUp, high.node!.swarmMember.isUp],
    [false, true],
    'nor is it asked any more',
  );
  clock.run(10 * MINUTE);
  assert.deepEqual([low.connects, high.connects], [1, 1]);

  monitoring.setSlots(undefined);
  clock.run(SECOND);
  assert.deepEqual([low.isUp, high.isUp], [true, true]);
});

test('a server that moves to a swarm of our slots is connected, and one that leaves them is not tried again', () => {
  const { net, clock, monitoring } = network();
  const [stays, moves] = [net.add(0x10n << 56n), net.add(0xf0n << 56n)];
  const last = net.add(0xf0n << 56n);
  monitoring.setSlots(new Set([0x10]));
  net.publish();
  clock.run(SECOND);
  assert.equal(moves.connects, 0);
  moves.address = { ...moves.address, swarm: 0x10n << 56n };
  net.publish();
  clock.run(SECOND);
  assert.deepEqual([stays.isUp, moves.isUp, last.isUp], [true, true, false]);
  assert.equal(monitoring.counters.nodes.moved, 1);
  moves.address = { ...moves.address, swarm: 0xf0n << 56n };
  moves.absent = true;
  net.publish();
  clock.run(10 * MINUTE);
  assert.deepEqual([stays.connects, moves.connects, last.connects], [1, 1, 0]);
});

test('a server that rests after a failure is not retried once its accounts belong to others', () => {
  const { net, clock, monitoring } = network();
  const server = net.add(SWARM);
  net.add(0n);
  server.absent = true;
  monitoring.setSlots(new Set([0x80]));
  net.publish();
  clock.run(12 * SECOND);
  assert.equal(server.connects, 1);
  monitoring.setSlots(new Set([0x00]));
  clock.run(10 * MINUTE);
  assert.equal(server.connects, 1);
  assert.equal(monitoring.nodes().find(({ key }) => server.node!.key.startsWith(key))!.state, 'unneeded');
});

test('a server that has fallen silent is reconnected, and asked for everything', () => {
  const { net, clock, monitoring } = network();
  const server = net.add(SWARM);
  net.publish();
  clock.run(MINUTE);
  server.monitors.clear();
  monitoring.reconnect(server.node!);
  assert.equal(monitoring.summary().connected, 0);
  assert.equal(server.node!.swarmMember.isUp, false, 'nothing is sent over the connection that has ended');
  clock.run(SECOND);
  assert.deepEqual([server.connects, server.node!.reconnects, server.monitors.size], [2, 1, 1]);
  server.breakConnection(SECOND, true);
  monitoring.reconnect(server.node!);
  assert.equal(server.node!.reconnects, 1, 'one that is not connected will come back anyway');
});

test('what becomes of servers and connections is counted', () => {
  const { net, clock, monitoring } = network({ jitter: () => 0 });
  const counts = () => ({ ...monitoring.counters.nodes });
  const none = {
    connects: 0,
    failures: 0,
    handshakes: 0,
    losses: 0,
    joined: 0,
    left: 0,
    moved: 0,
    readdressed: 0,
    cutOff: 0,
  };
  assert.deepEqual(counts(), none);
  const [first, second, ...others] = Array.from({ length: 10 }, () => net.add(SWARM)) as [FakeServer, ...FakeServer[]];
  second!.absent = true;
  net.publish();
  clock.run(11 * SECOND);
  assert.deepEqual(counts(), { ...none, joined: 10, connects: 10, handshakes: 9, failures: 1 });
  first.breakConnection(SECOND, false);
  clock.run(2 * SECOND);
  assert.deepEqual(counts(), { ...none, joined: 10, connects: 10, handshakes: 10, failures: 1, losses: 1 });
  first.address = { ...first.address, port: 22021, swarm: SWARM + 1n };
  net.publish([first, ...others]);
  clock.run(SECOND);
  const since = { ...none, joined: 10, connects: 11, handshakes: 11, failures: 1, losses: 1 };
  assert.deepEqual(counts(), { ...since, left: 1, moved: 1, readdressed: 1 });
  first.events!.failed('a flood', true);
  assert.deepEqual(counts(), { ...since, left: 1, moved: 1, readdressed: 1, failures: 2, cutOff: 1 });
});

test('once stopped it connects to nobody, whatever is listed or needed', () => {
  const { net, clock, monitoring } = network();
  const server = net.add(SWARM);
  net.publish();
  clock.run(SECOND);
  monitoring.stop();
  assert.equal(server.events, undefined);
  const newcomer = net.add(SWARM);
  net.publish();
  monitoring.setSlots(new Set([0x80]));
  clock.run(10 * MINUTE);
  assert.deepEqual([server.connects, newcomer.connects, clock.pending], [1, 0, 0]);
});
