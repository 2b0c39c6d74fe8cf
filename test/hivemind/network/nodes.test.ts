import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeAccounts } from './support/fake-accounts.ts';
import { FakeNetwork } from './support/fake-network.ts';

const SECOND = 1000;
const SWARM = 2n ** 63n;

function network(options: { maxConnects?: number; jitter?: () => number } = {}) {
  const accounts = new FakeAccounts();
  accounts.add();
  const net = new FakeNetwork(accounts, options);
  return { net, clock: net.clock, watch: net.watch };
}

test('max_connects caps the connections that are being established at a time', () => {
  const { net, clock, watch } = network({ maxConnects: 100 });
  const servers = Array.from({ length: 1000 }, () => net.add(SWARM));
  net.publish();
  assert.equal(watch.summary().pending, 100);
  assert.equal(servers.filter(({ connects }) => connects > 0).length, 100);
  clock.advance(25);
  assert.equal(watch.summary().connected, 100);
  assert.equal(watch.summary().pending, 100);
  clock.advance(SECOND);
  assert.equal(watch.summary().connected, 1000);
});

test('with max_connects 0 nothing is connected', () => {
  const { net, clock, watch } = network({ maxConnects: 0 });
  const server = net.add(SWARM);
  net.publish();
  clock.advance(600 * SECOND);
  assert.equal(server.connects, 0);
  assert.equal(watch.summary().nodes, 1);
});

test('a failed connection is tried again after 10, 30, 60 and then every 120 seconds', () => {
  const { net, clock, watch } = network({ jitter: () => 0 });
  const server = net.add(SWARM);
  server.absent = true;
  net.publish();
  const at: number[] = [];
  for (let second = 0; second < 500; second++) {
    const { connects } = server;
    clock.advance(SECOND);
    if (server.connects > connects) at.push(second + 1);
  }
  // Each attempt takes 10 seconds by itself.
  assert.deepEqual(at, [20, 60, 130, 260, 390]);
  assert.equal(watch.nodes()[0]!.state, 'cooldown');
  assert.equal(watch.nodes()[0]!.last_error, 'connection attempt timed out');

  server.absent = false;
  clock.advance(150 * SECOND);
  assert.equal(watch.summary().connected, 1);
  assert.equal(watch.summary().unconfirmed, 0);
});

test('retries are jittered, so that servers that failed together do not come back together', () => {
  const { net, clock } = network();
  const servers = Array.from({ length: 50 }, () => net.add(SWARM));
  for (const server of servers) server.absent = true;
  net.publish();
  clock.advance(10 * SECOND);
  const perSecond: number[] = [];
  for (let i = 0; i < 26; i++) {
    const before = servers.reduce((sum, { connects }) => sum + connects, 0);
    clock.advance(500);
    perSecond.push(servers.reduce((sum, { connects }) => sum + connects, 0) - before);
  }
  assert.equal(
    perSecond.reduce((a, b) => a + b),
    50,
  );
  assert.ok(Math.max(...perSecond) < 25, `${perSecond}`);
});

test('a connection that cannot even be tried is treated like one that failed', () => {
  const { net, clock, watch } = network();
  const [bad, good] = [net.add(SWARM), net.add(SWARM)];
  bad.connect = () => {
    throw new Error('no such address');
  };
  net.publish();
  clock.advance(SECOND);
  assert.equal(watch.summary().connected, 1);
  assert.equal(good.connects, 1);
  assert.equal(watch.nodes()[0]!.last_error, 'no such address');
  assert.equal(watch.summary().pending, 0);
});

test('a server that leaves the list is disconnected, and one that waits for its turn is not connected any more', () => {
  const { net, clock, watch } = network({ maxConnects: 1 });
  const [first, second, third] = [net.add(SWARM), net.add(SWARM), net.add(SWARM)];
  net.publish([first, second, third]);
  net.publish([first, third]);
  clock.advance(SECOND);
  assert.equal(second.connects, 0);
  net.publish([third]);
  assert.equal(first.events, undefined);
  assert.equal(watch.summary().connected, 1);
  assert.equal(watch.nodes().length, 1);
});

test('a server that leaves while it is being connected makes room for the next', () => {
  const { net, clock, watch } = network({ maxConnects: 1 });
  const [first, second] = [net.add(SWARM), net.add(SWARM)];
  first.absent = true;
  net.publish([first, second]);
  assert.equal(second.connects, 0);
  net.publish([second]);
  clock.advance(SECOND);
  assert.equal(watch.summary().connected, 1);
  clock.advance(60 * SECOND);
  assert.equal(first.connects, 1);
});

test('a server with a new address is connected there, and asked for everything', () => {
  const { net, clock, watch } = network();
  const server = net.add(SWARM);
  net.publish();
  clock.advance(SECOND);
  server.address = { ...server.address, port: 22021 };
  server.monitors.clear();
  net.publish();
  assert.equal(watch.summary().connected, 0);
  clock.advance(SECOND);
  assert.equal(server.connects, 2);
  assert.equal(watch.nodes()[0]!.address, 'tcp://10.0.0.1:22021');
  assert.ok(server.monitorsAccount(0, 1));
});

test('a broken connection is told as down and takes no place of those being established', () => {
  const { net, clock, watch } = network({ maxConnects: 1 });
  const [first, second] = [net.add(SWARM), net.add(SWARM)];
  net.publish([first]);
  clock.advance(SECOND);
  first.breakConnection(20 * SECOND, false);
  assert.equal(watch.nodes()[0]!.state, 'down');
  net.publish([first, second]);
  clock.advance(SECOND);
  assert.equal(watch.summary().connected, 1);
  clock.advance(20 * SECOND);
  assert.equal(watch.summary().connected, 2);
});

test('a connection that was up and is given up is made anew', () => {
  const { net, clock, watch } = network();
  const server = net.add(SWARM);
  net.publish();
  clock.advance(SECOND);
  server.events!.failed('the peer said BYE');
  assert.equal(watch.summary().connected, 0);
  clock.advance(15 * SECOND);
  assert.equal(server.connects, 2);
  assert.equal(watch.summary().connected, 1);
  assert.equal(watch.summary().unconfirmed, 0);
});

test('the same server twice in a list is one server', () => {
  const { net, clock, watch } = network();
  const server = net.add(SWARM);
  net.watch.update([server.address, { ...server.address, port: 1 }]);
  clock.advance(SECOND);
  assert.equal(server.connects, 1);
  assert.equal(watch.nodes()[0]!.address, 'tcp://10.0.0.1:22020');
});
