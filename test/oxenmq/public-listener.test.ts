import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { statSync, writeFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import { randomKeyPair } from '../../src/oxenmq/keys.ts';
import type { Commands, Incoming, Remote } from '../../src/oxenmq/remote.ts';
import { encodeFrame, greeting } from '../../src/oxenmq/zmtp.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { closed, once } from '../support/once.ts';
import { until } from '../support/until.ts';
import { CurveClient } from './curve-client.ts';
import { echo, enter, openPublic, plainSocket, receive } from './public-support.ts';
import { frame, GREETING, PING, ready } from './raw-zmtp.ts';
import { addressOf, greet, Happenings, openPeers, rawClient, temporaryDirectory } from './support.ts';

for (const security of ['plain', 'CURVE'] as const) {
  test(`libzmq's clients are answered (${security}): greeting, requests of any size, parts, refusals`, async (t) => {
    const keys = security === 'CURVE' ? randomKeyPair() : undefined;
    const listener = await openPublic(t, { keys });
    const client = rawClient(t, listener.endpoint, keys && { serverKey: keys.publicKey });
    await greet(client);
    for (const size of [0, 1, 200, 255, 256, 70_000, 500_000]) {
      const body = randomBytes(size);
      await client.send(['push.echo', 'tag', body, '', 'last']);
      const [word, tag, ...parts] = await client.receive();
      assert.deepEqual([String(word), String(tag)], ['REPLY', 'tag']);
      assert.deepEqual(parts, [body, Buffer.alloc(0), Buffer.from('last')]);
    }
    await client.send(['admin.stop', 'tag']);
    assert.deepEqual((await client.receive()).map(String), ['FORBIDDEN', 'REPLY', 'tag']);
    await client.send(['no.such', 'x']);
    assert.deepEqual((await client.receive()).map(String), ['UNKNOWNCOMMAND', 'no.such']);
  });

  test(`our own peers connect (${security}), and learn when the connection ends`, async (t) => {
    const keys = security === 'CURVE' ? randomKeyPair() : undefined;
    const gone = new Happenings<Remote>();
    // Its clock stands still: a handshake that takes longer than it may would be another end of a connection.
    const listener = await openPublic(t, {
      keys,
      clock: new FakeClock(),
      on: { disconnect: (remote) => gone.add(remote) },
    });
    const { peers, events } = openPeers(t);
    const connection = peers.connect(addressOf(listener.endpoint, keys?.publicKey));
    await events.first(({ event }) => event === 'hello');
    const many = await Promise.all(Array.from({ length: 200 }, (_, i) => connection.request('push.echo', [String(i)])));
    assert.deepEqual(
      many.map(String),
      Array.from({ length: 200 }, (_, i) => String(i)),
    );
    connection.close();
    await gone.first(() => true);
    assert.equal(listener.size, 0);
  });
}

test('over a Unix socket, with the permissions asked for, and again after a process that was killed', async (t) => {
  const address = `ipc://${await temporaryDirectory(t)}/push.sock`;
  const first = await openPublic(t, { address, mode: 0o660 });
  assert.equal(first.endpoint, address);
  assert.equal(statSync(address.slice('ipc://'.length)).mode & 0o777, 0o660);
  await greet(rawClient(t, address));
  await assert.rejects(openPublic(t, { address }), /another process is listening there/);
});

test('only keys that are admitted get in, and only clients that know ours', async (t) => {
  const [keys, friend] = [randomKeyPair(), randomKeyPair()];
  const strays = new Happenings<string>();
  const listener = await openPublic(t, {
    keys,
    allow: (key) => key.equals(friend.publicKey),
    on: { stray: (reason) => strays.add(reason) },
  });
  const clock = new FakeClock();
  const { peers, events } = openPeers(t, { clock });
  peers.connect(addressOf(listener.endpoint, keys.publicKey), { label: 'stranger' });
  peers.connect(addressOf(listener.endpoint, randomKeyPair().publicKey), { label: 'misled' });
  await strays.first((reason) => reason === 'a client was cut off: its key is not admitted');
  await strays.first((reason) => reason === 'a client was cut off: its message cannot be decrypted');
  await clock.advance(10_000);
  await events.when((all) => (all.filter(({ event }) => event === 'failure').length === 2 ? true : undefined));
  assert.ok(listener.counters.denied > 0);
  assert.equal(listener.counters.handshakes, 0);
  await greet(rawClient(t, listener.endpoint, { serverKey: keys.publicKey, keys: friend }));
  assert.equal(listener.counters.handshakes, 1);
});

test('clients with the same routing id are told apart, and each gets its own answers', async (t) => {
  const listener = await openPublic(t);
  const clients = Array.from({ length: 5 }, () => rawClient(t, listener.endpoint, { routingId: Buffer.from('one') }));
  for (const [i, client] of clients.entries()) await client.send(['push.echo', 't', String(i)]);
  for (const [i, client] of clients.entries()) {
    assert.deepEqual((await client.receive()).map(String), ['REPLY', 't', String(i)]);
  }
});

const offences: { readonly [name: string]: Buffer } = {
  'no ZMTP': Buffer.from('GET / HTTP/1.1\r\nHost: push.example.org\r\n\r\n'.padEnd(80)),
  'a message that is too long': Buffer.concat([GREETING, ready('DEALER', ''), frame(Buffer.alloc(1024 * 1024 + 1))]),
  'parts that are too long together': Buffer.concat([
    GREETING,
    ready('DEALER', ''),
    ...Array.from({ length: 20 }, () => frame(Buffer.alloc(60_000), true)),
  ]),
  'parts without end': Buffer.concat([
    GREETING,
    ready('DEALER', ''),
    ...Array.from({ length: 101 }, () => frame('', true)),
  ]),
  'the length of a frame that never comes': Buffer.concat([
    GREETING,
    ready('DEALER', ''),
    Buffer.from([2, 0, 0, 0, 1, 0, 0, 0, 0]),
  ]),
  'a frame of no kind': Buffer.concat([GREETING, ready('DEALER', ''), Buffer.from([0xff, 0xff])]),
  'no name': Buffer.concat([GREETING, ready('DEALER', ''), frame('', true), frame('')]),
  'a message before the handshake': Buffer.concat([GREETING, frame('HI')]),
};
for (const [name, bytes] of Object.entries(offences)) {
  test(`a client that sends ${name} is cut off, and others go on`, async (t) => {
    const listener = await openPublic(t);
    const honest = rawClient(t, listener.endpoint);
    await greet(honest);
    const socket = plainSocket(listener.endpoint);
    socket.resume();
    await once(socket, 'connect');
    socket.write(bytes);
    await closed(socket);
    await honest.send(['push.echo', 't', 'still here']);
    assert.equal(String((await honest.receive())[2]), 'still here');
  });
}

test('bytes that come one by one, with PINGs among them, make the same message', async (t) => {
  const calls = new Happenings<Incoming>();
  const commands: Commands = {
    push: { access: 'none', commands: { echo: { kind: 'request', handler: (m) => calls.add(m) } } },
  };
  const listener = await openPublic(t, { commands });
  const socket = await enter(listener.endpoint);
  const body = randomBytes(300);
  for (const byte of Buffer.concat([PING, frame('push.echo', true), frame('tag', true), frame(body)])) {
    socket.write(Buffer.from([byte]));
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.deepEqual((await calls.first(() => true)).parts, [body]);
  socket.destroy();
});

test('a client that says nothing is disconnected after ten seconds', async (t) => {
  const clock = new FakeClock();
  const listener = await openPublic(t, { clock });
  const socket = plainSocket(listener.endpoint);
  const [greeting] = (await once(socket, 'data')) as [Buffer];
  assert.equal(greeting.length, 64);
  await clock.advance(9_999);
  assert.equal(listener.size, 1);
  const gone = closed(socket);
  await clock.advance(1);
  await gone;
  assert.equal(listener.size, 0);
});

test('when there is no room a newcomer takes the place of the quietest connection of those who hold most', async (t) => {
  const listener = await openPublic(t, { maxConnections: 10 });
  const others = [await enter(listener.endpoint, '127.0.0.2'), await enter(listener.endpoint, '127.0.0.3')];
  const crowd: Socket[] = [];
  for (let i = 0; i < 50; i++) crowd.push(await enter(listener.endpoint));
  const honest = await enter(listener.endpoint, '127.0.0.4');
  assert.equal(listener.size, 10);
  assert.equal(listener.limit.crowdedOut, 43);
  for (const socket of [...others, honest, crowd.at(-1)!]) {
    socket.write(Buffer.concat([frame('push.echo', true), frame('t', true), frame('here')]));
    assert.match(await receive(socket, 'here'), /REPLY.*here/s);
  }
  for (const socket of [...others, ...crowd, honest]) socket.destroy();
});

test('a client is not read from while it has so many requests in progress, and then goes on', async (t) => {
  const calls = new Happenings<Incoming>();
  const commands: Commands = {
    push: { access: 'none', commands: { wait: { kind: 'request', handler: (m) => calls.add(m) } } },
  };
  const listener = await openPublic(t, { commands, inFlight: 4 });
  const client = rawClient(t, listener.endpoint);
  for (let i = 0; i < 20; i++) await client.send(['push.wait', `t${i}`]);
  for (let answered = 0; answered < 20; answered++) {
    await calls.when((all) => (all.length > answered ? true : undefined));
    assert.ok(calls.all.length <= answered + 4, `${calls.all.length} with ${answered} answered`);
    calls.all[answered]!.reply('done');
    assert.equal(String((await client.receive())[1]), `t${answered}`);
  }
});

test('a client that does not read its answers costs a bounded number of them, and gives way to others', async (t) => {
  let calls = 0;
  const handler = (message: Incoming) => {
    calls++;
    message.reply(Buffer.alloc(100_000));
  };
  const commands: Commands = { push: { access: 'none', commands: { much: { kind: 'request', handler } } } };
  const listener = await openPublic(t, { commands, maxConnections: 2 });
  const silent = await enter(listener.endpoint);
  silent.pause();
  silent.write(Buffer.concat(Array.from({ length: 5000 }, () => [frame('push.much', true), frame('t')]).flat()));
  const honest = rawClient(t, listener.endpoint);
  for (let i = 0; i < 300; i++) {
    await honest.send(['push.much', 't']);
    await honest.receive();
  }
  assert.ok(calls < 1000, `${calls} were answered`);
  const gone = closed(silent);
  await greet(rawClient(t, listener.endpoint));
  silent.resume();
  await gone;
  await honest.send(['push.much', 't']);
  await honest.receive();
});

test('bytes that come one by one count as what they occupy until the message is complete', async (t) => {
  const listener = await openPublic(t);
  const socket = await enter(listener.endpoint);
  socket.setNoDelay(true);
  socket.write(frame(Buffer.alloc(1000)).subarray(0, 9));
  await until(() => listener.limit.bytes > 0, 0);
  for (let i = 0; i < 50; i++) {
    const before = listener.limit.bytes;
    socket.write('x');
    await until(() => listener.limit.bytes > before, 0);
  }
  assert.ok(listener.limit.bytes > 50 * 500, `${listener.limit.bytes} bytes`);
  socket.destroy();
});

test('answers that a client has not read count as held until it reads them', async (t) => {
  const commands: Commands = {
    push: {
      access: 'none',
      commands: { much: { kind: 'request', handler: (m) => m.reply(Buffer.alloc(100_000)) } },
    },
  };
  const listener = await openPublic(t, { commands });
  const silent = await enter(listener.endpoint);
  silent.pause();
  await until(async () => {
    const { received } = listener.counters;
    silent.write(Buffer.concat([frame('push.much', true), frame('t')]));
    await until(() => listener.counters.received > received, 0);
    return listener.limit.bytes >= 100_000;
  }, 0);
  silent.resume();
  await until(() => listener.limit.bytes === 0, 0);
  assert.equal(listener.size, 1);
  silent.destroy();
});

test('a network may begin 50 CURVE handshakes a second, and all networks together 200', async (t) => {
  const clock = new FakeClock();
  const keys = randomKeyPair();
  const strays: string[] = [];
  const listener = await openPublic(t, {
    clock,
    keys,
    maxConnections: 1000,
    on: { stray: (reason) => strays.push(reason) },
  });
  /** Whether HELLO is answered. */
  const begins = async (network: string) => {
    const socket = plainSocket(listener.endpoint, network);
    t.after(() => socket.destroy());
    const hello = encodeFrame(new CurveClient(keys.publicKey).hello(), { command: true });
    socket.write(Buffer.concat([greeting('CURVE', false), hello]));
    let received = '';
    socket.on('data', (data) => (received += data.toString('latin1')));
    await until(() => received.includes('WELCOME') || socket.closed, 0);
    return !socket.closed;
  };
  const fifty = async (network: string) => {
    for (let n = 0; n < 50; n++) assert.equal(await begins(network), true, `${network}, ${n}`);
  };
  for (let second = 0; second < 2; second++) {
    await fifty('127.0.0.2');
    assert.equal(await begins('127.0.0.2'), false);
    for (const network of ['127.0.0.3', '127.0.0.4', '127.0.0.5']) await fifty(network);
    assert.equal(await begins('127.0.0.6'), false);
    await clock.advance(999);
    assert.equal(await begins('127.0.0.6'), false);
    await clock.advance(1);
  }
  assert.deepEqual(new Set(strays), new Set(['a client was cut off: too many handshakes']));
  assert.equal(strays.length, 6);
});

test('the unfinished messages of all clients may hold 64 MiB', async (t) => {
  const { limit } = await openPublic(t);
  let closings = 0;
  const client = { network: 'a', lastActive: 0, bytes: 0, busy: false, close: () => void closings++ };
  limit.admit(client);
  limit.hold(client, 64 * 1024 * 1024);
  assert.equal(closings, 0);
  limit.hold(client, 64 * 1024 * 1024 + 1);
  assert.equal(closings, 1);
});

test('commands, refused calls and answers to our own requests are not work in progress', async (t) => {
  const calls = new Happenings<Incoming>();
  const commands: Commands = {
    ...echo,
    a: { access: 'none', commands: { b: { kind: 'command', handler: (call) => calls.add(call) } } },
  };
  const listener = await openPublic(t, { commands, inFlight: 1 });
  const client = rawClient(t, listener.endpoint);
  for (let n = 0; n < 3; n++) await client.send(['a.b', `${n}`]);
  const { remote } = await calls.when((all) => (all.length === 3 ? all[2] : undefined));
  for (const [call, answer] of [
    [['no.such'], ['UNKNOWNCOMMAND', 'no.such']],
    [
      ['admin.stop', 't'],
      ['FORBIDDEN', 'REPLY', 't'],
    ],
    [['push.echo'], ['NO_REPLY_TAG', 'push.echo']],
    [
      ['push.echo', 't', 'x'],
      ['REPLY', 't', 'x'],
    ],
  ] as const) {
    await client.send(call as unknown as string[]);
    assert.deepEqual((await client.receive()).map(String), answer);
  }
  const reply = remote.request('x.y', ['z']);
  const [name, tag, part] = await client.receive();
  assert.deepEqual([String(name), String(part)], ['x.y', 'z']);
  await client.send(['REPLY', tag!, 'yes']);
  assert.deepEqual((await reply).map(String), ['yes']);
  await client.send(['a.b', 'last']);
  await calls.when((all) => all.length === 4 || undefined);
  assert.equal(listener.counters.received, 9);
});

test('the owner learns of a client who it is, from which network, and that it has gone, and may throw', async (t) => {
  const calls = new Happenings<Incoming>();
  const gone = new Happenings<Remote>();
  const strays = new Happenings<string>();
  const listener = await openPublic(t, {
    commands: { a: { access: 'none', commands: { b: { kind: 'command', handler: (call) => calls.add(call) } } } },
    on: {
      disconnect: (remote) => gone.add(remote),
      stray: (reason) => {
        strays.add(reason);
        throw new Error('of stray');
      },
    },
  });
  const sockets = [await enter(listener.endpoint, '127.0.0.7'), await enter(listener.endpoint, '127.0.0.8')];
  for (const [index, socket] of sockets.entries()) {
    socket.write(frame('a.b'));
    await calls.when((all) => all.length === index + 1 || undefined);
  }
  const [one, two] = calls.all.map(({ remote }) => remote) as [Remote, Remote];
  assert.notEqual(one.id, two.id);
  assert.deepEqual(
    [one, two].map((remote) => listener.networkOf(remote)),
    ['127.0.0.7', '127.0.0.8'],
  );
  sockets[0]!.destroy();
  assert.equal(await gone.first(() => true), one);
  assert.equal(listener.networkOf(one), undefined);
  assert.equal(listener.counters.disconnects, 1);
  sockets[1]!.write(Buffer.concat([frame('REPLY', true), frame('t')]));
  await strays.first((reason) => reason === 'a reply to no request');
  assert.equal(listener.counters.handlerErrors, 1);
  assert.equal(listener.size, 1);
  sockets[1]!.destroy();
});

test('an address that cannot be bound is an error that names it, and what is there stays', async (t) => {
  const folder = await temporaryDirectory(t);
  writeFileSync(`${folder}/file`, 'precious');
  const taken = await openPublic(t);
  for (const [address, reason] of [
    [taken.endpoint, 'EADDRINUSE'],
    [`ipc://${folder}/file`, 'something other than a socket'],
    ['nonsense', 'must be an address'],
  ] as const) {
    await assert.rejects(openPublic(t, { address }), (error: Error) => {
      assert.ok(error.message.startsWith(`cannot listen on ${address}: `), error.message);
      return error.message.includes(reason);
    });
  }
  assert.ok(statSync(`${folder}/file`).isFile());
});

test('a closed listener has let go of its clients and its address, and may be closed again', async (t) => {
  const abstract = `ipc://@spns-public-${process.pid}`;
  const listener = await openPublic(t, { address: abstract });
  assert.equal(listener.endpoint, abstract);
  const client = rawClient(t, abstract);
  await greet(client);
  await Promise.all([listener.close(), listener.close()]);
  assert.equal(listener.size, 0);
  const overTcp = await openPublic(t);
  await overTcp.close();
  assert.throws(() => overTcp.endpoint, /not listening on tcp:/);
  const next = await openPublic(t, { address: abstract });
  await greet(rawClient(t, abstract));
  assert.equal(next.counters.received, 1);
});
