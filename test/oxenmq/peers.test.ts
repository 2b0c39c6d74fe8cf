import assert from 'node:assert/strict';
import { test } from 'node:test';
import { zmqAddress } from '../../src/oxenmq/address.ts';
import { randomKeyPair } from '../../src/oxenmq/keys.ts';
import type { Incoming } from '../../src/oxenmq/remote.ts';
import { busy } from '../support/busy.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { addressOf, failureOf, Happenings, openPeers, RawServer, temporaryDirectory } from './support.ts';

test('a connection says HI once, under L and the public key, and is up with the HELLO', async (t) => {
  const serverKeys = randomKeyPair();
  const server = await RawServer.open(t, { keys: serverKeys });
  const { peers, events, keys } = openPeers(t);
  const connection = peers.connect(addressOf(server.endpoint, serverKeys.publicKey), { label: 'node', data: 7 });
  assert.equal(connection.state, 'connecting');
  await events.first((e) => e.event === 'hello');
  assert.equal(connection.state, 'up');
  assert.equal(connection.data, 7);
  assert.equal(connection.id, 'node#1');
  const hi = await server.message('HI');
  assert.deepEqual(hi.route, Buffer.concat([Buffer.from('L'), keys.publicKey]));
  assert.deepEqual(
    events.all.map((e) => e.event),
    ['handshake', 'hello'],
  );
  // What comes after it has followed nothing else.
  connection.send('a.b');
  await server.message('a.b');
  assert.equal(server.received.all.length, 0);
});

test('plain and encrypted connections share one socket, over tcp and ipc', async (t) => {
  const serverKeys = randomKeyPair();
  const directory = await temporaryDirectory(t);
  const servers = await Promise.all([
    RawServer.open(t),
    RawServer.open(t, { keys: serverKeys }),
    RawServer.open(t, { address: `ipc://${directory}/plain` }),
    RawServer.open(t, { address: `ipc://${directory}/curve`, keys: serverKeys }),
  ]);
  const warnings: Error[] = [];
  const warned = (warning: Error) => warnings.push(warning);
  process.on('warning', warned);
  t.after(() => process.off('warning', warned));
  const { peers } = openPeers(t);
  const connections = servers.map((server, i) =>
    peers.connect(addressOf(server.endpoint, i % 2 ? serverKeys.publicKey : undefined)),
  );
  for (const [i, server] of servers.entries()) {
    const reply = connections[i]!.request('a.b', []);
    const { route, frames } = await server.message('a.b');
    await server.send(route, 'REPLY', frames[0]!, `from ${i}`);
    assert.deepEqual((await reply).map(String), [`from ${i}`]);
  }
  assert.deepEqual(warnings, []);
});

test('our own routing id can be set for all connections and for one', async (t) => {
  const server = await RawServer.open(t);
  const secret = Buffer.from('80ff00c3', 'hex');
  const { peers } = openPeers(t, { routingId: secret });
  peers.connect(addressOf(server.endpoint)).send('a.first');
  peers.connect(addressOf(server.endpoint), { routingId: Buffer.from([0xfe]) }).send('a.second');
  peers.connect(addressOf(server.endpoint), { routingId: Buffer.from('x') }).send('a.third');
  assert.deepEqual((await server.message('a.first')).route, secret);
  assert.deepEqual((await server.message('a.second')).route, Buffer.from([0xfe]));
  assert.deepEqual((await server.message('a.third')).route, Buffer.from('x'));
  for (const wrong of [Buffer.from([0, 1]), Buffer.alloc(0), Buffer.alloc(256, 1), Buffer.alloc(300, 1)])
    assert.throws(() => peers.connect(addressOf(server.endpoint), { routingId: wrong }), RangeError);
  const longest = Buffer.alloc(255, 1);
  peers.connect(addressOf(server.endpoint), { routingId: longest }).send('a.fourth');
  assert.deepEqual((await server.message('a.fourth')).route, longest);
});

test('what is sent before the HELLO follows the HI, in order', async (t) => {
  const server = await RawServer.open(t);
  const { peers } = openPeers(t);
  const connection = peers.connect(addressOf(server.endpoint));
  for (let i = 0; i < 20; i++) assert.equal(connection.send('a.b', String(i), '', Buffer.from([255])), true);
  await server.received.when((all) => (all.length === 21 ? true : undefined));
  assert.equal(String(server.received.all[0]![1]), 'HI');
  for (let i = 0; i < 20; i++) {
    const [, name, ...parts] = server.received.all[i + 1]!;
    assert.equal(String(name), 'a.b');
    assert.deepEqual(parts, [Buffer.from(String(i)), Buffer.alloc(0), Buffer.from([255])]);
  }
});

test('a request carries 15 random bytes, and the first reply with them answers it', async (t) => {
  const server = await RawServer.open(t);
  const { peers, events } = openPeers(t);
  const connection = peers.connect(addressOf(server.endpoint));
  const first = connection.request('a.b', ['part']);
  const second = connection.request('a.c', []);
  const b = await server.message('a.b');
  const c = await server.message('a.c');
  assert.equal(b.frames[0]!.length, 15);
  assert.notDeepEqual(b.frames[0], c.frames[0]);
  assert.deepEqual(b.frames.slice(1).map(String), ['part']);
  await server.send(c.route, 'REPLY', c.frames[0]!);
  await server.send(c.route, 'REPLY', c.frames[0]!, 'again');
  await server.send(b.route, 'REPLY', b.frames[0]!, 'x', '');
  assert.deepEqual(await second, []);
  assert.deepEqual((await first).map(String), ['x', '']);
  await events.first((e) => e.reason === 'a reply to no request');
  assert.equal(peers.counters.strayReplies, 1);
});

test('a reply counts only on the connection that was asked', async (t) => {
  const asked = await RawServer.open(t);
  const other = await RawServer.open(t);
  const { peers, events } = openPeers(t);
  const connection = peers.connect(addressOf(asked.endpoint));
  peers.connect(addressOf(other.endpoint));
  const reply = connection.request('a.b', []);
  const { route, frames } = await asked.message('a.b');
  await other.message('HI');
  await other.send(route, 'REPLY', frames[0]!, 'forged');
  await events.first((e) => e.event === 'stray');
  await asked.send(route, 'REPLY', frames[0]!, 'true');
  assert.deepEqual((await reply).map(String), ['true']);
});

test("a request fails with the peer's error, by its tag or, if the peer does not know the name, by that", async (t) => {
  const server = await RawServer.open(t);
  const { peers, events } = openPeers(t);
  const connection = peers.connect(addressOf(server.endpoint));
  const requests = ['a.b', 'a.c', 'a.c', 'a.d'].map((name) => failureOf(connection.request(name, [])));
  const b = await server.message('a.b');
  await server.message('a.c');
  const { route, frames } = await server.message('a.c');
  const d = await server.message('a.d');
  await server.send(route, 'FORBIDDEN', 'REPLY', b.frames[0]!);
  await server.send(route, 'UNKNOWNCOMMAND', 'a.c');
  await server.send(route, 'UNKNOWNCOMMAND', 'x.y');
  await server.send(route, 'NOT_A_SERVICE_NODE', 'REPLY', d.frames[0]!);
  await events.first((e) => e.reason === 'UNKNOWNCOMMAND to no request');
  // The oldest of the two has failed; the other one still waits.
  await server.send(route, 'REPLY', frames[0]!);
  assert.deepEqual(await Promise.all(requests), ['FORBIDDEN', 'UNKNOWNCOMMAND', 'answered', 'NOT_A_SERVICE_NODE']);
});

test('a request fails when its time is over', async (t) => {
  const clock = new FakeClock();
  const server = await RawServer.open(t);
  const { peers, events } = openPeers(t, { clock });
  const connection = peers.connect(addressOf(server.endpoint));
  await events.first((e) => e.event === 'hello');
  const short = failureOf(connection.request('a.b', [], 5000));
  const usual = failureOf(connection.request('a.b', []));
  await clock.advance(5000);
  assert.equal(await short, 'TIMEOUT');
  await clock.advance(9999);
  assert.equal(clock.pending, 1);
  await clock.advance(1);
  assert.equal(await usual, 'TIMEOUT');
  assert.equal(clock.pending, 0);
});

test('a peer may call what we offer, and is refused what it may not', async (t) => {
  const server = await RawServer.open(t);
  const calls = new Happenings<string[]>();
  const { peers, events } = openPeers(t, {
    commands: {
      notify: {
        access: 'none',
        commands: {
          message: {
            kind: 'command',
            handler: ({ remote, parts, reply }) => calls.add([remote.id, ...parts.map(String), typeof reply]),
          },
          check: {
            kind: 'request',
            handler: async (message) => {
              await Promise.resolve();
              message.reply('yes', ...message.parts);
              message.reply('twice');
            },
          },
        },
      },
      admin: { access: 'admin', commands: { stop: { kind: 'request', handler: () => assert.fail() } } },
    },
  });
  peers.connect(addressOf(server.endpoint), { label: 'node' });
  const { route } = await server.message('HI');
  const tag = Buffer.from('the tag');
  await server.send(route, 'notify.message', 'one', 'two');
  await server.send(route, 'notify.check', tag, 'part');
  await server.send(route, 'notify.check');
  await server.send(route, 'admin.stop', tag);
  await server.send(route, 'no.such', tag, 'x');
  const seen = await server.received.when((all) =>
    all.length === 4 ? all.map((f) => f.slice(1).map(String)) : undefined,
  );
  // The answer to the request may come before or after what is answered at once.
  assert.deepEqual(seen.sort(), [
    ['FORBIDDEN', 'REPLY', 'the tag'],
    ['NO_REPLY_TAG', 'notify.check'],
    ['REPLY', 'the tag', 'yes', 'part'],
    ['UNKNOWNCOMMAND', 'no.such'],
  ]);
  assert.deepEqual(calls.all, [['node#1', 'one', 'two', 'function']]);
  assert.equal(peers.counters.refusals, 3);
  assert.ok(events.all.every((e) => e.event !== 'failure'));
});

test('a handler that throws or rejects is counted, and nothing else happens', async (t) => {
  const server = await RawServer.open(t);
  const { peers, events } = openPeers(t, {
    commands: {
      a: {
        access: 'none',
        commands: {
          throws: {
            kind: 'command',
            handler: () => {
              throw new Error('thrown');
            },
          },
          rejects: { kind: 'request', handler: () => Promise.reject(new Error('rejected')) },
        },
      },
    },
  });
  peers.connect(addressOf(server.endpoint));
  const { route } = await server.message('HI');
  await server.send(route, 'a.throws');
  await server.send(route, 'a.rejects', 'tag');
  await events.first((e) => e.reason === 'the handler of a.throws failed: thrown');
  await events.first((e) => e.reason === 'the handler of a.rejects failed: rejected');
  assert.equal(peers.counters.handlerErrors, 2);
});

test('callbacks of the owner may throw, close and connect', async (t) => {
  const server = await RawServer.open(t);
  const hellos = new Happenings<string>();
  const { peers } = openPeers(t, {
    on: {
      handshake: () => {
        throw new Error('handshake');
      },
      hello: (connection) => {
        hellos.add(connection.id);
        connection.close();
        if (hellos.all.length < 5) peers.connect(connection.address, { label: 'again' });
      },
    },
  });
  peers.connect(addressOf(server.endpoint), { label: 'again' });
  await hellos.first((id) => id === 'again#5');
  assert.equal(peers.counters.handlerErrors, 5);
  assert.equal(peers.size, 0);
});

test('garbage is dropped and counted', async (t) => {
  const server = await RawServer.open(t);
  const { peers, events } = openPeers(t);
  const connection = peers.connect(addressOf(server.endpoint));
  await events.first((e) => e.event === 'hello');
  const { route } = await server.message('HI');
  const garbage = [
    ['nodot'],
    ['.leading'],
    ['', 'x'],
    ['REPLY'],
    [`${'c'.repeat(50)}.${'n'.repeat(201)}`],
    ['FORBIDDEN'],
    ['UNKNOWNCOMMAND', 'REPLY', 'tag', 'more'],
    [Buffer.from([0xff, 0xfe])],
  ];
  for (const frames of garbage) await server.send(route, ...frames);
  await events.when((all) => (all.filter((e) => e.event === 'stray').length === garbage.length ? true : undefined));
  assert.equal(peers.counters.garbage, garbage.length);
  assert.equal(connection.state, 'up');
});

test('a message that is too large ends its connection for good, and no other', async (t) => {
  const server = await RawServer.open(t);
  const steady = await RawServer.open(t);
  const { peers, events } = openPeers(t, { maxMessageSize: 10_000 });
  const connection = peers.connect(addressOf(server.endpoint));
  const other = peers.connect(addressOf(steady.endpoint));
  await events.when((all) => (all.filter((e) => e.event === 'hello').length === 2 ? true : undefined));
  const { route } = await server.message('HI');
  await server.send(route, 'a.b', Buffer.alloc(10_001));
  assert.match((await events.first((e) => e.event === 'failure')).reason, /too large/);
  assert.equal(connection.state, 'closed');
  assert.equal(other.state, 'up');
  // The address can be connected to anew.
  const next = peers.connect(addressOf(server.endpoint));
  await events.first((e) => e.event === 'hello' && e.id === next.id);
});

for (const [what, parts, words] of [
  ['of very many parts', Array.from({ length: 20_000 }, () => ''), /sent a message of 20001 parts/],
  ['of large parts, each within the limit', Array.from({ length: 50 }, () => Buffer.alloc(9000)), /of 450003 bytes/],
] as const) {
  test(`a message ${what} ends its connection for good, as an offence, and no other`, async (t) => {
    const offences: string[] = [];
    const [server, steady] = [await RawServer.open(t), await RawServer.open(t)];
    const happenings = new Happenings<string>();
    let calls = 0;
    const { peers } = openPeers(t, {
      maxMessageSize: 10_000,
      commands: { a: { access: 'none', commands: { b: { kind: 'command', handler: () => void calls++ } } } },
      on: {
        hello: ({ label }) => happenings.add(`hello ${label}`),
        failure: ({ label }, reason, offence) => {
          if (offence) offences.push(label);
          happenings.add(reason);
        },
      },
    });
    const connection = peers.connect(addressOf(server.endpoint), { label: 'bad' });
    const other = peers.connect(addressOf(steady.endpoint), { label: 'good' });
    await happenings.when((all) => all.length === 2 || undefined);
    const waiting = failureOf(connection.request('c.d', []));
    const { route } = await server.message('HI');
    // Once: libzmq ends the process of a sender that closes its socket while a message is half sent and the peer hangs
    // up.
    await server.send(route, 'a.b', ...parts);
    await happenings.first((one) => words.test(one));
    assert.equal(connection.state, 'closed');
    assert.equal(await waiting, 'UNREACHABLE');
    assert.deepEqual(offences, ['bad']);
    const { route: reply } = await steady.message('HI');
    await steady.send(reply, 'a.b', ...Array.from({ length: 99 }, () => ''));
    const answer = other.request('a.c', []);
    const { frames } = await steady.message('a.c');
    await steady.send(reply, 'REPLY', frames[0]!);
    await answer;
    assert.equal(calls, 1, 'a hundred parts are no offence');
    assert.equal(peers.counters.excessive, 1);
    assert.equal(other.state, 'up');
  });
}

test('no routing id is ever given out twice, for which libzmq would end the process', async (t) => {
  const server = await RawServer.open(t);
  const { peers } = openPeers(t);
  const ids = new Set<string>();
  for (let round = 0; round < 40; round++) {
    const labels = ['a', 'a#1', 'a#1#1', '#', ''.padEnd(60, 'x'), ''.padEnd(61, 'x')];
    const all = labels.map((label) => peers.connect(addressOf(server.endpoint), { label }));
    for (const connection of all) ids.add(connection.id);
    for (const connection of all) connection.close();
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal(ids.size, 40 * 6);
});

test('connections to one address are told apart, also when one of them is closed', async (t) => {
  const directory = await temporaryDirectory(t);
  const addresses = ['tcp://127.0.0.1:*', `ipc://${directory}/s`];
  for (const address of addresses) {
    const keys = randomKeyPair();
    const server = await RawServer.open(t, { address, keys });
    const clock = new FakeClock();
    const { peers, events } = openPeers(t, { clock });
    const to = addressOf(server.endpoint, keys.publicKey);
    const connections = ['a', 'b', 'c'].map((id) => peers.connect(to, { label: id, routingId: Buffer.from(id) }));
    const impostor = peers.connect(addressOf(server.endpoint, randomKeyPair().publicKey), { label: 'impostor' });
    await events.when((all) => all.filter((e) => e.event === 'hello').length === 3 || undefined);
    await clock.advance(10_000);
    await events.first((e) => e.event === 'failure');
    const [a, b, c] = connections as [(typeof connections)[0], (typeof connections)[0], (typeof connections)[0]];
    assert.deepEqual([a.state, b.state, c.state, impostor.state], ['up', 'up', 'up', 'closed']);
    b.close();
    for (const connection of [a, c]) {
      const reply = connection.request('a.b', []);
      const { route, frames } = await server.message('a.b');
      assert.equal(String(route), connection.label);
      await server.send(route, 'REPLY', frames[0]!);
      await reply;
    }
    const again = peers.connect(to, { label: 'd', routingId: Buffer.from('b') });
    await events.first((e) => e.event === 'hello' && e.id === again.id);
    assert.ok(events.all.every((e) => e.event !== 'disconnect'));
  }
});

test('the loudest connection is the one over which most came in since the counting began', async (t) => {
  const happenings = new Happenings<string>();
  const commands = {
    a: {
      access: 'none' as const,
      commands: {
        b: { kind: 'command' as const, handler: ({ remote }: Incoming) => happenings.add(remote.id) },
      },
    },
  };
  const { peers, events } = openPeers(t, { commands });
  const servers = [await RawServer.open(t), await RawServer.open(t)];
  const connections = servers.map(({ endpoint }) => peers.connect(addressOf(endpoint)));
  const routes = await Promise.all(servers.map(async (server) => (await server.message('HI')).route));
  await events.when((all) => all.filter(({ event }) => event === 'hello').length === 2 || undefined);
  const say = async (n: number, bytes: number) => {
    const before = happenings.all.length;
    await servers[n]!.send(routes[n]!, 'a.b', Buffer.alloc(bytes));
    await happenings.when((all) => all.length > before || undefined);
  };
  const loudest = () => peers.loudest()?.connection;
  peers.countAnew();
  assert.equal(peers.loudest(), undefined);
  await say(0, 5_000);
  for (let i = 0; i < 3; i++) await say(1, 4_000);
  assert.equal(loudest(), connections[1]);
  assert.ok(peers.loudest()!.bytes >= 12_000);
  peers.countAnew();
  assert.equal(peers.loudest(), undefined);
  await say(1, 500);
  await say(0, 1_000);
  assert.equal(loudest(), connections[0]);
});

test('messages that take their time, however many wait, let the event loop turn between a few of them', async (t) => {
  const server = await RawServer.open(t);
  const happenings = new Happenings<'last'>();
  const count = 400;
  let [taken, turns] = [0, 0];
  const turn = () => {
    turns++;
    if (taken < count) setImmediate(turn);
  };
  const handler = () => {
    if (taken === 0) setImmediate(turn);
    busy(1);
    if (++taken === count) happenings.add('last');
  };
  const { peers, events } = openPeers(t, {
    commands: { a: { access: 'none', commands: { b: { kind: 'command', handler } } } },
  });
  peers.connect(addressOf(server.endpoint));
  await events.first((e) => e.event === 'hello');
  const { route } = await server.message('HI');
  // The queue between the two holds a thousand.
  for (let n = 0; n < count; n++) void server.send(route, 'a.b');
  await happenings.first(() => true);
  assert.ok(turns > 15, `${turns} turns`);
});

test('a connection that is made in the moment in which another is closed takes what is sent at once, in order', async (t) => {
  const server = await RawServer.open(t);
  const { peers, events } = openPeers(t);
  const to = addressOf(server.endpoint);
  const before = peers.connect(to);
  await events.first((e) => e.event === 'hello');
  await new Promise((resolve) => setImmediate(resolve));
  // The server knows both by the same name, and would not hear the second beside the first.
  before.close();
  const next = peers.connect(to);
  assert.ok(next.send('a.b', '1'));
  const reply = next.request('a.c', []);
  assert.ok(next.send('a.b', '2'));
  const { route, frames } = await server.message('a.c');
  await server.send(route, 'REPLY', frames[0]!, 'yes');
  assert.equal(String((await reply)[0]), 'yes');
  for (const text of ['1', '2']) assert.equal(String((await server.message('a.b')).frames[0]), text);
  await events.first((e) => e.event === 'hello' && e.id === next.id);
});

test('one abstract ipc address takes one connection, and the second is told so', async (t) => {
  const { peers, events } = openPeers(t);
  const address = { protocol: 'ipc', path: `@spns-test-${process.pid}` } as const;
  peers.connect(address);
  peers.connect(address);
  assert.match((await events.first((e) => e.event === 'failure')).reason, /a connection to ipc:\/\/@.* already/);
});

test('a peer that accepts nothing costs a bounded queue', async (t) => {
  const server = await RawServer.open(t);
  const { peers, events } = openPeers(t);
  // Nobody is there: the queue in front is all there is.
  const connection = peers.connect({ protocol: 'ipc', path: `${await temporaryDirectory(t)}/none` });
  peers.connect(addressOf(server.endpoint));
  await events.first((e) => e.event === 'hello');
  let taken = 0;
  while (connection.send('a.b', String(taken))) taken++;
  // What ZeroMQ turned away of that one burst is held, and while it is, nothing more is taken.
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(taken, 1000);
  for (let i = 0; i < 3; i++) {
    while (connection.send('a.b', String(taken))) taken++;
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.ok(taken <= 2000, `${taken} messages were taken`);
  assert.equal(connection.send('a.b'), false);
  assert.equal(await failureOf(connection.request('a.b', [])), 'UNREACHABLE');
  const { lost } = peers.counters;
  connection.close();
  assert.ok(peers.counters.lost > lost);
});

test('what a full queue turned away follows in order when there is room', async (t) => {
  const address = { protocol: 'ipc', path: `${await temporaryDirectory(t)}/s` } as const;
  const { peers } = openPeers(t);
  const connection = peers.connect(address);
  let taken = 0;
  for (let i = 0; i < 3; i++) {
    while (connection.send('a.b', String(taken))) taken++;
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.ok(taken > 1000);
  const server = await RawServer.open(t, { address: zmqAddress(address) });
  await server.received.when((all) => (all.length === taken + 1 ? true : undefined));
  server.received.all.slice(1).forEach((frames, i) => {
    assert.equal(String(frames[2]), String(i));
  });
  assert.equal(connection.send('a.b'), true);
});

test('closing fails what waits, ends every timer, and may be done twice', async (t) => {
  const clock = new FakeClock();
  const server = await RawServer.open(t);
  const { peers, events } = openPeers(t, { clock });
  const connection = peers.connect(addressOf(server.endpoint));
  const second = peers.connect(addressOf(server.endpoint));
  await events.first((e) => e.event === 'hello');
  const waiting = failureOf(connection.request('a.b', []));
  second.close();
  second.close();
  await Promise.all([peers.close(), peers.close()]);
  assert.equal(await waiting, 'CLOSED');
  assert.equal(connection.send('a.b'), false);
  assert.equal(clock.pending, 0);
  assert.throws(() => peers.connect(addressOf(server.endpoint)), /closed/);
});
