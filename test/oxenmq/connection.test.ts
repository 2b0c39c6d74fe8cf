import assert from 'node:assert/strict';
import { type AddressInfo, createServer } from 'node:net';
import { test } from 'node:test';
import { randomKeyPair } from '../../src/oxenmq/keys.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { ownAddress } from '../support/loopback.ts';
import { once } from '../support/once.ts';
import {
  ACCEPTED,
  addressOf,
  failureOf,
  Happenings,
  openPeers,
  RawServer,
  reasonFor,
  temporaryDirectory,
} from './support.ts';

test('a server that comes back is reported as a break and a new handshake, of its connection alone', async (t) => {
  // Unlike a port, a path of our own is taken by nobody else in between.
  const server = await RawServer.open(t, { address: `ipc://${await temporaryDirectory(t)}/s` });
  const steady = await RawServer.open(t);
  const { peers, events } = openPeers(t);
  const connection = peers.connect(addressOf(server.endpoint), { label: 'restarts' });
  const other = peers.connect(addressOf(steady.endpoint), { label: 'steady' });
  await events.first((e) => e.event === 'hello' && e.id === connection.id);
  await events.first((e) => e.event === 'hello' && e.id === other.id);
  const waiting = failureOf(connection.request('a.b', []));
  await server.message('a.b');
  await server.close();
  await events.first((e) => e.event === 'disconnect');
  assert.equal(await waiting, 'UNREACHABLE');
  assert.equal(connection.state, 'down');
  assert.equal(connection.send('a.b'), false);
  assert.equal(await failureOf(connection.request('a.b', [])), 'UNREACHABLE');

  const again = await RawServer.open(t, { address: server.endpoint });
  await events.when((all) => (all.filter((e) => e.event === 'handshake').length === 3 ? true : undefined));
  assert.equal(connection.state, 'up');
  const reply = connection.request('a.b', []);
  const { route, frames } = await again.message('a.b');
  await again.send(route, 'REPLY', frames[0]!);
  assert.deepEqual(await reply, []);
  assert.deepEqual(
    events.all.filter((e) => e.id === connection.id).map((e) => e.event),
    ['handshake', 'hello', 'disconnect', 'handshake'],
  );
  assert.equal(other.state, 'up');
});

test('an empty message does no lasting harm: the connection checks whether it is up', async (t) => {
  const server = await RawServer.open(t);
  const { peers, events } = openPeers(t);
  const connection = peers.connect(addressOf(server.endpoint));
  await events.first((e) => e.event === 'hello');
  const { route } = await server.message('HI');
  await server.send(route, '');
  await events.first((e) => e.event === 'disconnect');
  await events.when((all) => (all.filter((e) => e.event === 'handshake').length === 2 ? true : undefined));
  assert.equal(connection.state, 'up');
});

test('over a broken connection HI is said at once, after a second, and then every ten seconds until an answer comes', async (t) => {
  const clock = new FakeClock();
  const server = await RawServer.open(t);
  const { peers, events } = openPeers(t, { clock });
  const connection = peers.connect(addressOf(server.endpoint));
  await events.first((e) => e.event === 'hello');
  const { route } = await server.message('HI');
  const { counters } = peers;
  const before = counters.sent;
  server.hello = false;
  await server.send(route, '');
  await events.first((e) => e.event === 'disconnect');
  for (const [ms, said] of [
    [0, 1],
    [999, 1],
    [1, 2],
    [9_999, 2],
    [1, 3],
    [9_999, 3],
    [1, 4],
  ] as const) {
    await clock.advance(ms);
    assert.equal(counters.sent - before, said);
  }
  server.hello = true;
  await clock.advance(10_000);
  await events.when((all) => all.filter((e) => e.event === 'handshake').length === 2 || undefined);
  assert.equal(connection.state, 'up');
  assert.equal(clock.pending, 0);
  assert.deepEqual([counters.handshakes, counters.disconnects, counters.failures], [2, 1, 0]);
});

test('a peer that cannot be reached, does not speak or does not greet is given up with that reason', async (t) => {
  const mute = createServer();
  t.after(() => mute.close());
  mute.listen(0, '127.0.0.1');
  await once(mute, 'listening');
  const { port } = mute.address() as AddressInfo;
  const rude = await RawServer.open(t, { hello: false });
  const opened = openPeers(t, { helloTimeout: 1000 });
  const reasons = await Promise.all([
    // After 10 s libzmq itself gives the handshake up.
    reasonFor(
      opened,
      { protocol: 'tcp', host: '127.0.0.1', port },
      {},
      /: (?:no answer at all|the handshake failed: \w+)$/,
    ),
    reasonFor(opened, addressOf(rude.endpoint), {}, ACCEPTED),
    reasonFor(opened, addressOf(ownAddress())),
  ]);
  assert.deepEqual(reasons, [
    'no HELLO within 1000 ms: the peer accepted the connection and said nothing',
    'no HELLO within 1000 ms: the peer did not answer HI',
    'no HELLO within 1000 ms: no connection could be made',
  ]);
  assert.equal(opened.peers.counters.failures, opened.events.all.filter((e) => e.event === 'failure').length);
});

test('a broken connection that does not come back is given up after a minute', async (t) => {
  const clock = new FakeClock();
  const server = await RawServer.open(t, { address: `ipc://${await temporaryDirectory(t)}/s` });
  const { peers, events } = openPeers(t, { clock });
  peers.connect(addressOf(server.endpoint));
  await events.first((e) => e.event === 'hello');
  await server.close();
  await events.first((e) => e.event === 'disconnect');
  await clock.advance(59_999);
  assert.equal(peers.counters.failures, 0);
  await clock.advance(1);
  assert.match((await events.first((e) => e.event === 'failure')).reason, /broke and was not restored/);
  assert.equal(clock.pending, 0);
  assert.equal(peers.size, 0);
});

test('a server that never says HELLO is given up', async (t) => {
  const clock = new FakeClock();
  const server = await RawServer.open(t, { hello: false });
  const { peers, events } = openPeers(t, { clock });
  const connection = peers.connect(addressOf(server.endpoint));
  const waiting = failureOf(connection.request('a.b', [], 60_000));
  await server.message('a.b');
  await clock.advance(10_000);
  assert.match((await events.first((e) => e.event === 'failure')).reason, /^no HELLO within 10000 ms/);
  assert.equal(await waiting, 'UNREACHABLE');
  assert.equal(connection.state, 'closed');
  assert.equal(connection.send('a.b'), false);
  assert.equal(await failureOf(connection.request('a.b', [])), 'CLOSED');
  assert.equal(clock.pending, 0);
});

test('a server with another key, a server without one, and no server are given up, each with its reason', async (t) => {
  const curve = await RawServer.open(t, { keys: randomKeyPair() });
  const plain = await RawServer.open(t);
  const directory = await temporaryDirectory(t);
  const opened = openPeers(t, { helloTimeout: 1500 });
  const key = randomKeyPair().publicKey;
  const [otherKey, noKey, nobody] = await Promise.all([
    reasonFor(opened, addressOf(curve.endpoint, key), {}, ACCEPTED),
    reasonFor(opened, addressOf(plain.endpoint, key), {}, ACCEPTED),
    reasonFor(opened, { protocol: 'ipc', path: `${directory}/none` }),
  ]);
  assert.match(otherKey, /is its key another one/);
  assert.match(noKey, /the handshake failed/);
  assert.match(nobody, /there is no socket/);
  assert.equal(opened.peers.counters.handshakes, 0);
  assert.equal(opened.peers.size, 0);
});

test('what connect() itself refuses is reported as a failure, after the caller has its connection', async (t) => {
  const { peers, events } = openPeers(t);
  const connection = peers.connect({ protocol: 'tcp', host: 'a b', port: 1 });
  assert.equal(events.all.length, 0);
  const { id, reason } = await events.first((e) => e.event === 'failure');
  assert.equal(id, connection.id);
  assert.match(reason, /^connect\(\) failed: .*tcp:\/\/a b:1|Invalid argument/);
  assert.equal(connection.state, 'closed');
});

test('BYE closes the connection', async (t) => {
  const server = await RawServer.open(t);
  const { peers, events } = openPeers(t);
  const connection = peers.connect(addressOf(server.endpoint));
  const { route } = await server.message('HI');
  await server.send(route, 'BYE');
  assert.equal((await events.first((e) => e.event === 'failure')).reason, 'the peer said BYE');
  assert.equal(connection.state, 'closed');
});

test('an owner that closes the connection when it hears of the break is told nothing more', async (t) => {
  const clock = new FakeClock();
  const server = await RawServer.open(t);
  const happenings = new Happenings<string>();
  const { peers } = openPeers(t, {
    clock,
    on: {
      hello: () => happenings.add('hello'),
      disconnect: (connection) => {
        happenings.add('disconnect');
        connection.close();
      },
      failure: () => happenings.add('failure'),
    },
  });
  peers.connect(addressOf(server.endpoint));
  await happenings.first((what) => what === 'hello');
  const { sent } = peers.counters;
  const { route } = await server.message('HI');
  await server.send(route, '');
  await happenings.first((what) => what === 'disconnect');
  await clock.advance(120_000);
  assert.deepEqual([clock.pending, peers.counters.sent - sent, peers.size], [0, 0, 0]);
  assert.deepEqual(happenings.all, ['hello', 'disconnect']);
});
