import assert from 'node:assert/strict';
import { existsSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Dealer } from 'zeromq';
import { systemClock } from '../../src/clock.ts';
import { randomKeyPair } from '../../src/oxenmq/keys.ts';
import { Listener } from '../../src/oxenmq/listener.ts';
import type { Commands, Incoming, Remote } from '../../src/oxenmq/remote.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { ownAddress } from '../support/loopback.ts';
import { until } from '../support/until.ts';
import {
  ACCEPTED,
  addressOf,
  failureOf,
  greet,
  greetAs,
  Happenings,
  openListener,
  openPeers,
  rawClient,
  reasonFor,
  temporaryDirectory,
} from './support.ts';

/** Offers `a.command` and `a.request`, and writes down what comes. */
function offers(calls: Happenings<Incoming>): Commands {
  const handler = (call: Incoming) => calls.add(call);
  return {
    a: { access: 'none', commands: { command: { kind: 'command', handler }, request: { kind: 'request', handler } } },
  };
}

test('HI is answered with HELLO, and a request now or later with its tag', async (t) => {
  const calls = new Happenings<Incoming>();
  const listener = await openListener(t, { commands: offers(calls) });
  const client = rawClient(t, listener.endpoint);
  await greet(client);
  await client.send(['a.request', 'tag 1', 'x']);
  await client.send(['a.request', 'tag 2']);
  await calls.when((all) => (all.length === 2 ? true : undefined));
  const [first, second] = calls.all as [Incoming, Incoming];
  assert.deepEqual(first.parts.map(String), ['x']);
  second.reply('two', '');
  first.reply();
  first.reply('again');
  assert.deepEqual((await client.receive()).map(String), ['REPLY', 'tag 2', 'two', '']);
  assert.deepEqual((await client.receive()).map(String), ['REPLY', 'tag 1']);
  await client.send('HI');
  assert.deepEqual((await client.receive()).map(String), ['HELLO']);
});

test('a client that never said HI is served, and its remote can be called back', async (t) => {
  const calls = new Happenings<Incoming>();
  const listener = await openListener(t, { commands: offers(calls) });
  const routingId = Buffer.from('4c80ff00', 'hex');
  const client = rawClient(t, listener.endpoint, { routingId });
  await client.send(['a.command', '', 'x']);
  const { remote, parts, reply } = await calls.first(() => true);
  assert.deepEqual(parts.map(String), ['', 'x']);
  assert.equal(typeof reply, 'function');
  assert.equal(remote.id, routingId.toString('latin1'));
  assert.equal(listener.remote(routingId), remote);
  assert.equal(remote.send('notifier.push', 'dict'), true);
  const reply1 = remote.request('notifier.validate', ['apns', 'json']);
  assert.deepEqual((await client.receive()).map(String), ['notifier.push', 'dict']);
  const [name, tag, ...rest] = await client.receive();
  assert.equal(String(name), 'notifier.validate');
  assert.equal(tag!.length, 15);
  assert.deepEqual(rest.map(String), ['apns', 'json']);
  await client.send(['REPLY', tag!, '0', 'id']);
  assert.deepEqual((await reply1).map(String), ['0', 'id']);
});

test('refusals have the form and the order of the original', async (t) => {
  const stop = () => assert.fail('must not be called');
  const strays: string[] = [];
  const listener = await openListener(t, {
    access: 'basic',
    on: { stray: (reason) => strays.push(reason) },
    commands: {
      open: { access: 'none', commands: { ask: { kind: 'request', handler: stop } } },
      admin: {
        access: 'admin',
        commands: { ask: { kind: 'request', handler: stop }, say: { kind: 'command', handler: stop } },
      },
    },
  });
  const client = rawClient(t, listener.endpoint);
  const cases: [string[], string[]][] = [
    [['no.such'], ['UNKNOWNCOMMAND', 'no.such']],
    [
      ['no.such', 'tag', 'x'],
      ['UNKNOWNCOMMAND', 'no.such'],
    ],
    [['open.'], ['UNKNOWNCOMMAND', 'open.']],
    [
      ['admin.ask', 'tag', 'x'],
      ['FORBIDDEN', 'REPLY', 'tag'],
    ],
    [['admin.ask'], ['FORBIDDEN', 'admin.ask']],
    [
      ['admin.say', 'tag'],
      ['FORBIDDEN', 'admin.say'],
    ],
    [['open.ask'], ['NO_REPLY_TAG', 'open.ask']],
  ];
  for (const [call, answer] of cases) {
    await client.send(call);
    assert.deepEqual((await client.receive()).map(String), answer);
  }
  assert.equal(listener.counters.refusals, cases.length);
  assert.deepEqual(
    strays,
    cases.map(([, [word]]) => `a call was answered with ${word}`),
  );
});

test('garbage is dropped and counted, and creates no remote', async (t) => {
  const strays = new Happenings<string>();
  const listener = await openListener(t, { maxMessageSize: 10_000, on: { stray: (reason) => strays.add(reason) } });
  const client = rawClient(t, listener.endpoint);
  const garbage = [
    ['nodot'],
    ['.x'],
    [''],
    ['', ''],
    ['REPLY'],
    ['x'.repeat(252)],
    ['BYE'],
    ['HELLO'],
    ['', '', '', ''],
  ];
  for (const frames of garbage) await client.send(frames);
  // An empty message alone looks like libzmq's own notice, and there is nobody yet whom it could be about.
  await strays.when((all) => (all.length === garbage.length - 1 ? true : undefined));
  assert.equal(listener.counters.garbage, garbage.length - 1);
  assert.equal(listener.size, 0);
  await client.send(['a.b', Buffer.alloc(10_001)]);
  const other = rawClient(t, listener.endpoint);
  await greet(other);
  assert.equal(listener.size, 1);
});

test('a message of too many parts or bytes is dropped and counted, and delays nobody', async (t) => {
  const strays: string[] = [];
  let calls = 0;
  const handler = (call: Incoming) => {
    calls++;
    call.reply('yes');
  };
  const listener = await openListener(t, {
    maxMessageSize: 10_000,
    commands: { a: { access: 'none', commands: { b: { kind: 'request', handler } } } },
    on: { stray: (reason) => strays.push(reason) },
  });
  const [bad, good] = [
    rawClient(t, listener.endpoint, { routingId: Buffer.from('bad') }),
    rawClient(t, listener.endpoint, { routingId: Buffer.from('good') }),
  ];
  await greet(good);
  const tag = Buffer.alloc(15, 1);
  await bad.send(['a.b', tag, ...Array.from({ length: 5000 }, () => '')]);
  await bad.send(['a.b', tag, ...Array.from({ length: 40 }, () => Buffer.alloc(9000))]);
  // libzmq has no way to end the one connection, so it is still answered.
  await bad.send(['a.b', tag]);
  assert.deepEqual((await bad.receive()).map(String), ['REPLY', String(tag), 'yes']);
  assert.deepEqual(strays, ['a message of 5002 parts', 'a message of 360018 bytes']);
  assert.equal(listener.counters.excessive, 2);
  await good.send(['a.b', tag]);
  assert.equal(String((await good.receive())[2]), 'yes');
  assert.equal(calls, 2);
});

test('callbacks of the owner may throw, which is counted', async (t) => {
  const strays = new Happenings<string>();
  const calls = new Happenings<Incoming>();
  const listener = await openListener(t, {
    commands: offers(calls),
    on: {
      disconnect: () => {
        throw new Error('of disconnect');
      },
      stray: (reason) => {
        strays.add(reason);
        throw new Error('of stray');
      },
    },
  });
  const client = rawClient(t, listener.endpoint);
  await client.send(['nodot']);
  await strays.first((reason) => reason === 'no category');
  assert.equal(listener.counters.handlerErrors, 1);
  await client.send(['a.command']);
  await calls.first(() => true);
  client.close();
  await strays.first((reason) => reason === 'a callback failed: of disconnect');
  assert.equal(listener.counters.handlerErrors, 3);
});

test('the owner learns that a client has gone, and its requests fail', async (t) => {
  const calls = new Happenings<Incoming>();
  const gone = new Happenings<Remote>();
  const listener = await openListener(t, { commands: offers(calls), on: { disconnect: (remote) => gone.add(remote) } });
  const client = rawClient(t, listener.endpoint, { routingId: Buffer.from('one') });
  const other = rawClient(t, listener.endpoint, { routingId: Buffer.from('two') });
  await greet(other);
  await client.send(['a.command']);
  const { remote } = await calls.first(() => true);
  const waiting = failureOf(remote.request('x.y', []));
  await client.receive();
  client.close();
  assert.equal(await gone.first(() => true), remote);
  assert.equal(await waiting, 'UNREACHABLE');
  assert.equal(remote.send('x.y'), false);
  assert.equal(listener.size, 1);
  assert.equal(listener.counters.disconnects, 1);

  // When it comes back it is another remote.
  const again = await greetAs(t, listener.endpoint, Buffer.from('one'));
  assert.notEqual(listener.remote(Buffer.from('one')), remote);
  assert.equal(listener.remote(Buffer.from('one')).send('x.y'), true);
  assert.deepEqual((await again.receive()).map(String), ['x.y']);
  assert.equal(gone.all.length, 1);
});

test('a routing id that is in use stays with its owner, and is free again when that one has gone', async (t) => {
  const calls = new Happenings<Incoming>();
  const gone = new Happenings<Remote>();
  const listener = await openListener(t, { commands: offers(calls), on: { disconnect: (remote) => gone.add(remote) } });
  const owner = rawClient(t, listener.endpoint, { routingId: Buffer.from('one') });
  await greet(owner);
  const second = rawClient(t, listener.endpoint, { routingId: Buffer.from('one') });
  await second.send(['a.command', 'of the second']);
  // By then the second has long been heard, or not.
  await greet(rawClient(t, listener.endpoint));
  await owner.send(['a.command', 'of the owner']);
  const { remote } = await calls.first(({ parts }) => String(parts[0]) === 'of the owner');
  assert.equal(remote.send('x.y'), true);
  assert.deepEqual((await owner.receive()).map(String), ['x.y']);
  second.close();
  owner.close();
  await gone.first((one) => one === remote);
  // For a moment libzmq may have given the id to the second, which is gone as well.
  await greetAs(t, listener.endpoint, Buffer.from('one'));
});

test('a message to nobody is lost, counted, and ends the remote', async (t) => {
  const gone = new Happenings<Remote>();
  const listener = await openListener(t, { on: { disconnect: (remote) => gone.add(remote) } });
  const nobody = listener.remote(Buffer.from('nobody'));
  const waiting = failureOf(nobody.request('x.y', []));
  assert.equal(await waiting, 'UNREACHABLE');
  assert.equal(await gone.first(() => true), nobody);
  assert.equal(nobody.send('x.y'), false);
  assert.equal(listener.counters.lost, 1);
  assert.equal(listener.size, 0);
});

test('a client that does not read costs a bounded queue, and the others nothing', async (t) => {
  const calls = new Happenings<Incoming>();
  const listener = await openListener(t, { commands: offers(calls) });
  const slow = rawClient(t, listener.endpoint, { routingId: Buffer.from('slow') });
  slow.receiveHighWaterMark = 1;
  await slow.send(['a.command']);
  const { remote } = await calls.first(() => true);
  const push = Buffer.alloc(10_000);
  let taken = 0;
  let refused = 0;
  // More than the buffers of both kernels and libzmq's queues can hold together.
  while (refused < 20) {
    if (remote.send('notifier.push', String(taken), push)) {
      taken++;
      continue;
    }
    refused++;
    await sleep(5);
  }
  const fast = rawClient(t, listener.endpoint);
  await greet(fast);
  // Once it reads it gets all that was taken, in order.
  for (let i = 0; i < taken; i++) assert.equal(String((await slow.receive())[1]), String(i));
  await slow.send('HI');
  assert.deepEqual((await slow.receive()).map(String), ['HELLO']);
});

/** Sends without end, as fast as ZeroMQ takes it. */
async function flood(client: Dealer, count: number, message: (number: number) => (string | Buffer)[]): Promise<void> {
  for (let number = 0; number < count; ) {
    try {
      await client.send(message(number) as string[]);
      number++;
    } catch {
      await sleep(1);
    }
  }
}

test('3,000 answers given in one turn all arrive, though ZeroMQ accepts a third of them at a time', async (t) => {
  const calls = new Happenings<Incoming>();
  const listener = await openListener(t, { commands: offers(calls) });
  const client = rawClient(t, listener.endpoint);
  await flood(client, 3_000, (number) => ['a.request', String(number)]);
  await calls.when((all) => (all.length === 3_000 ? true : undefined));
  for (const call of calls.all) call.reply('x'.repeat(100));
  const tags = new Set<string>();
  while (tags.size < 3_000) tags.add(String((await client.receive())[1]));
  assert.equal(listener.counters.unanswered + listener.counters.lost + listener.counters.overrun, 0);
});

test('no more is accepted from a client that does not read its answers; every request is answered or counted, and nobody else waits', async (t) => {
  const handled = { count: 0 };
  const answer = Buffer.alloc(20_000);
  const listener = await openListener(t, {
    commands: {
      a: {
        access: 'none',
        commands: {
          request: {
            kind: 'request',
            handler: (call) => {
              handled.count++;
              call.reply(answer);
            },
          },
        },
      },
    },
  });
  const deaf = rawClient(t, listener.endpoint);
  const { counters } = listener;
  const other = rawClient(t, listener.endpoint);
  const others = async () => {
    await other.send(['a.request', 'mine']);
    assert.equal(String((await other.receive())[1]), 'mine');
  };
  await flood(deaf, 6_000, (number) => ['a.request', String(number)]);
  await until(async () => {
    await others();
    return counters.received >= 6_000;
  }, 0);
  await others();
  const mine = handled.count - (6_000 - counters.overrun);
  assert.ok(
    mine > 0 && counters.overrun > 1_000,
    `${counters.overrun} of 6,000 were refused before work was done for them`,
  );
  // Once it reads it gets every answer that was made, and is served again.
  for (let answered = 0; answered < 6_000 - counters.overrun - counters.unanswered; answered++) await deaf.receive();
  await deaf.send(['a.request', 'again']);
  assert.equal(String((await deaf.receive())[1]), 'again');
  assert.equal(counters.unanswered + counters.lost, 0);
});

test('answers for clients that have gone are counted', async (t) => {
  const calls = new Happenings<Incoming>();
  const gone = new Happenings<Remote>();
  const listener = await openListener(t, { commands: offers(calls), on: { disconnect: (remote) => gone.add(remote) } });
  const client = rawClient(t, listener.endpoint);
  await client.send(['a.request', 'tag']);
  const call = await calls.first(() => true);
  client.close();
  await gone.first(() => true);
  call.reply('too late');
  assert.equal(listener.counters.unanswered, 1);
});

test('a CURVE listener admits the keys it is told to, each listener its own', async (t) => {
  const keys = randomKeyPair();
  const [admin, stranger] = [randomKeyPair(), randomKeyPair()];
  const asked: string[] = [];
  const closed = await openListener(t, {
    keys,
    allow: (key) => {
      asked.push(key.toString('hex'));
      return key.equals(admin.publicKey);
    },
  });
  const open = await openListener(t, { keys });
  const failing = await openListener(t, {
    keys,
    allow: () => {
      throw new Error('no list');
    },
  });
  const plain = await openListener(t);
  await greet(rawClient(t, closed.endpoint, { keys: admin, serverKey: keys.publicKey }));
  await greet(rawClient(t, open.endpoint, { keys: stranger, serverKey: keys.publicKey }));
  await greet(rawClient(t, plain.endpoint));
  const outside = openPeers(t, { keys: stranger, helloTimeout: 500 });
  const [refused, failed, unencrypted] = await Promise.all([
    reasonFor(outside, addressOf(closed.endpoint, keys.publicKey), {}, ACCEPTED),
    reasonFor(outside, addressOf(failing.endpoint, keys.publicKey), {}, ACCEPTED),
    reasonFor(outside, addressOf(open.endpoint), {}, ACCEPTED),
  ]);
  assert.match(refused, /the handshake failed: 400/);
  assert.match(failed, /the handshake failed: 400/);
  assert.match(unencrypted, /the handshake failed/);
  assert.equal(outside.peers.counters.handshakes, 0);
  assert.ok(closed.counters.denied >= 1);
  assert.ok(failing.counters.denied >= 1);
  assert.deepEqual(new Set(asked), new Set([admin.publicKey.toString('hex'), stranger.publicKey.toString('hex')]));

  // The handler outlives the listener that made it, as long as any needs it.
  for (const listener of [closed, failing]) {
    await listener.close();
    await greet(rawClient(t, open.endpoint, { serverKey: keys.publicKey }));
  }
  await open.close();
  // Each of these is the only one, and needs a new handler at the place of the last.
  for (let round = 0; round < 20; round++) {
    const next = await openListener(t, { keys });
    if (round === 19) await greet(rawClient(t, next.endpoint, { serverKey: keys.publicKey }));
    await next.close();
  }
});

test('an ipc socket gets its permissions, replaces a dead one, and is removed', async (t) => {
  const path = `${await temporaryDirectory(t)}/s`;
  const first = await openListener(t, { address: `ipc://${path}`, mode: 0o660 });
  assert.equal(statSync(path).mode & 0o777, 0o660);
  await greet(rawClient(t, first.endpoint));

  const second = new Listener({ clock: systemClock, address: `ipc://${path}`, access: 'admin', commands: {} });
  await assert.rejects(second.bind(), {
    message: `cannot listen on ipc://${path}: another process is listening there`,
  });
  await greet(rawClient(t, first.endpoint));
  await first.close();
  assert.equal(existsSync(path), false);

  // What a killed process leaves behind: a socket file where nobody listens.
  const dead = createServer();
  await new Promise<void>((resolve) => dead.listen(`${path}.dead`, resolve));
  const { renameSync } = await import('node:fs');
  renameSync(`${path}.dead`, path);
  await new Promise((resolve) => dead.close(resolve));
  assert.equal(existsSync(path), true);
  const third = await openListener(t, { address: `ipc://${path}` });
  await greet(rawClient(t, third.endpoint));
});

test('an address that cannot be bound is an error that names it', async (t) => {
  const directory = await temporaryDirectory(t);
  writeFileSync(`${directory}/file`, 'precious');
  const taken = await openListener(t);
  const addresses = [
    `ipc://${directory}/none/s`,
    `ipc://${directory}/file`,
    `ipc://${directory}/${'x'.repeat(120)}`,
    taken.endpoint,
    'tcp://192.0.2.1:1',
    'nonsense',
  ];
  for (const address of addresses) {
    const listener = new Listener({ clock: systemClock, address, access: 'none', commands: {}, keys: randomKeyPair() });
    await assert.rejects(listener.bind(), (error: Error) => error.message.startsWith(`cannot listen on ${address}: `));
    assert.throws(() => listener.endpoint, /not listening/);
  }
  assert.equal(existsSync(`${directory}/file`), true);
});

test('closing fails what waits and frees the address at once', async (t) => {
  const clock = new FakeClock();
  const calls = new Happenings<Incoming>();
  const listener = await openListener(t, { clock, address: ownAddress(), commands: offers(calls) });
  const client = rawClient(t, listener.endpoint);
  await client.send(['a.request', 'tag']);
  const call = await calls.first(() => true);
  const waiting = failureOf(call.remote.request('x.y', []));
  const { endpoint } = listener;
  await Promise.all([listener.close(), listener.close()]);
  assert.equal(await waiting, 'CLOSED');
  assert.equal(listener.size, 0);
  assert.equal(call.remote.send('x.y'), false);
  call.reply('too late');
  assert.equal(clock.pending, 0);
  const next = await openListener(t, { address: endpoint });
  assert.equal(next.endpoint, endpoint);
});

test('a listener that was never bound can be closed, and leaves nothing behind', async () => {
  // More than libzmq's sockets of a process.
  for (let n = 0; n < 1100; n++)
    await new Listener({ clock: systemClock, address: 'tcp://127.0.0.1:*', access: 'none', commands: {} }).close();
});
