import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import type { PublicListener, PublicListenerOptions } from '../../src/oxenmq/public-listener.ts';
import type { Commands, Incoming } from '../../src/oxenmq/remote.ts';
import { encodeCommand, encodeFrame } from '../../src/oxenmq/zmtp.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { closed, once } from '../support/once.ts';
import { until } from '../support/until.ts';
import { echo, enter, enterSeen, openPublic, plainSocket, receive } from './public-support.ts';
import { frame, GREETING, ready } from './raw-zmtp.ts';
import { Happenings } from './support.ts';

/** Bytes that may wait in a socket. */
const MAX_UNREAD = 256 * 1024;
/** Bytes of an answer besides its part, if that is shorter than 256 bytes: two more heads, `REPLY` and the tag `t`. */
const ANSWER = 2 + 5 + 2 + 1 + 2;

const request = (name: string, ...parts: (string | Buffer)[]) =>
  Buffer.concat([
    frame(name, true),
    frame('t', parts.length > 0),
    ...parts.map((part, at) => frame(part, at < parts.length - 1)),
  ]);

/** A listener with a clock of its own that writes down why clients are cut off. */
async function open(t: TestContext, options: Partial<PublicListenerOptions> = {}) {
  const clock = new FakeClock();
  const strays: string[] = [];
  const listener = await openPublic(t, { clock, on: { stray: (reason) => strays.push(reason) }, ...options });
  return { clock, strays, listener };
}

/** A command `a.b` that writes down what comes. */
function commandsFor(calls: Happenings<Incoming>): Commands {
  return { a: { access: 'none', commands: { b: { kind: 'command', handler: (call) => calls.add(call) } } } };
}

/** Sends bytes, and waits until the listener has cut the client off. @returns why */
async function cutOff({ listener, strays }: Awaited<ReturnType<typeof open>>, bytes: Buffer, socket?: Socket) {
  const client = socket ?? plainSocket(listener.endpoint);
  client.resume();
  client.write(bytes);
  await closed(client);
  assert.equal(listener.size, 0);
  return strays.splice(0).join();
}

test('a message may be as long as the limit in all, time and again, and no byte longer', async (t) => {
  const calls = new Happenings<Incoming>();
  const world = await open(t, { maxMessageSize: 1000, commands: commandsFor(calls) });
  const client = await enter(world.listener.endpoint);
  const message = (size: number) =>
    Buffer.concat([frame('a.b', true), frame(Buffer.alloc(500), true), frame(Buffer.alloc(size))]);
  for (let n = 1; n <= 3; n++) {
    client.write(message(497));
    await calls.when((all) => all.length === n || undefined);
  }
  assert.equal(await cutOff(world, message(498), client), 'a client was cut off: a message that is too long');
  // A single part is refused once its length is known, with what encryption may add to it.
  const part = (size: number) => Buffer.from([2, 0, 0, 0, 0, 0, 0, size >> 8, size & 255]);
  const overhead = 8 + 8 + 16 + 1;
  const fine = await enter(world.listener.endpoint);
  fine.write(part(1000 + overhead));
  assert.equal(
    await cutOff(world, part(1000 + overhead + 1), await only(world.listener, fine)),
    'a client was cut off: a frame that is too long',
  );
});

/** Hangs up one client, and gives another. */
async function only(listener: PublicListener, before: Socket): Promise<Socket> {
  const next = await enter(listener.endpoint);
  assert.equal(listener.size, 2);
  before.destroy();
  await until(() => listener.size === 1, 0);
  return next;
}

test('a message may have a hundred parts, and no more', async (t) => {
  const calls = new Happenings<Incoming>();
  const world = await open(t, { commands: commandsFor(calls) });
  const client = await enter(world.listener.endpoint);
  const parts = (count: number) => [frame('a.b', true), ...Array.from({ length: count - 2 }, () => frame('', true))];
  client.write(Buffer.concat([...parts(100), frame('')]));
  assert.equal((await calls.first(() => true)).parts.length, 99);
  assert.equal(
    await cutOff(world, Buffer.concat([...parts(101), frame('', true)]), client),
    'a client was cut off: a message of too many parts',
  );
});

test('a client counts with what it has sent of a message, with each part and each chunk, until it is complete', async (t) => {
  const calls = new Happenings<Incoming>();
  const { listener } = await open(t, { commands: commandsFor(calls) });
  const client = await enter(listener.endpoint);
  assert.equal(listener.limit.bytes, 0);
  client.write(Buffer.concat([frame('a.b', true), frame(Buffer.alloc(10), true), Buffer.from([0, 20])]));
  await until(() => listener.limit.bytes > 0, 0);
  assert.equal(listener.limit.bytes, 3 + 10 + 2 * 256 + 2 + 512);
  client.write(Buffer.alloc(20));
  await calls.first(() => true);
  await turn();
  assert.equal(listener.limit.bytes, 0);
  // Nor does it count when it has gone.
  client.write(frame('a.b', true));
  await until(() => listener.limit.bytes === 3 + 256, 0);
  client.destroy();
  await until(() => listener.size === 0, 0);
  assert.equal(listener.limit.bytes, 0);
});

test('in the handshake a frame has 1,024 bytes at most', async (t) => {
  const world = await open(t);
  const head = (size: number) => Buffer.from([6, 0, 0, 0, 0, 0, 0, size >> 8, size & 255]);
  const reason = await cutOff(world, Buffer.concat([GREETING, head(1025)]));
  assert.equal(reason, 'a client was cut off: a frame that is too long');
  const client = plainSocket(world.listener.endpoint);
  const metadata = Buffer.alloc(1024 - 6);
  client.write(Buffer.concat([GREETING, encodeFrame(encodeCommand('READY', metadata), { command: true })]));
  await receive(client, 'READY');
  client.destroy();
});

test('what is no handshake is told as what it is', async (t) => {
  const world = await open(t);
  const command = (name: string) => encodeFrame(encodeCommand(name, Buffer.alloc(0)), { command: true });
  for (const [bytes, reason] of [
    [Buffer.alloc(64), 'not a greeting of ZMTP 3'],
    [Buffer.concat([GREETING, frame('HI')]), 'a message before the handshake'],
    [Buffer.concat([GREETING, command('PING')]), 'READY was expected'],
    [Buffer.concat([GREETING, ready('DEALER', ''), frame('HELLO')]), 'hello from a client'],
    [Buffer.concat([GREETING, ready('DEALER', ''), frame('BYE')]), 'bye from a client'],
    [Buffer.concat([GREETING, ready('DEALER', ''), frame('nodot')]), 'no category'],
    [Buffer.concat([GREETING, ready('DEALER', ''), frame('')]), 'notice from a client'],
  ] as const)
    assert.equal(await cutOff(world, bytes), `a client was cut off: ${reason}`);
  assert.equal(world.listener.counters.garbage, 4);
  assert.equal(world.listener.counters.disconnects, 7);
});

test('PING is answered with its context of up to 16 bytes, and other commands are passed over', async (t) => {
  const { listener } = await open(t);
  const client = await enter(listener.endpoint);
  const context = Buffer.from('0123456789abcdefXYZ');
  const command = (name: string, data: Buffer) => encodeFrame(encodeCommand(name, data), { command: true });
  client.write(command('SUBSCRIBE', context));
  client.write(command('PING', Buffer.concat([Buffer.from([0, 9]), context])));
  const [answer] = await once(client, 'data');
  assert.equal(answer, command('PONG', context.subarray(0, 16)).toString('latin1'));
  client.destroy();
});

test('up to 256 KiB wait in the socket for a client that does not read, and a PING is answered up to there', async (t) => {
  const { listener } = await open(t);
  const { client, served } = await enterSeen(listener.endpoint);
  // What is written then stays in the socket.
  served.cork();
  const ping = encodeFrame(encodeCommand('PING', Buffer.from([0, 0])), { command: true });
  const body = Buffer.alloc(MAX_UNREAD - ANSWER - 7);
  client.write(request('push.echo', body));
  await until(() => served.writableLength >= body.length, 0);
  assert.equal(served.writableLength, MAX_UNREAD);
  const waiting = async (bytes: Buffer) => {
    const { received } = listener.counters;
    client.write(Buffer.concat([bytes, frame('HI')]));
    await until(() => listener.counters.received === received + (bytes === ping ? 1 : 2), 0);
    await turn();
    return served.writableLength;
  };
  const PONG = 2 + 5;
  assert.equal(await waiting(ping), MAX_UNREAD + PONG, 'and no HELLO after it');
  assert.equal(await waiting(ping), MAX_UNREAD + PONG);
  assert.equal(await waiting(request('push.echo', 'x')), MAX_UNREAD + PONG);
  assert.equal(listener.limit.bytes, MAX_UNREAD + PONG);
  served.uncork();
  await receive(client, 'REPLY');
  client.destroy();
});

test('a client that lets its answers wait may be closed to make room, and one whose request is in progress may not', async (t) => {
  const calls = new Happenings<Incoming>();
  const { listener, strays } = await open(t, {
    maxConnections: 1,
    commands: {
      a: { access: 'none', commands: { wait: { kind: 'request', handler: (call) => calls.add(call) } } },
    },
  });
  const { client, served } = await enterSeen(listener.endpoint);
  served.cork();
  client.write(Buffer.concat([request('a.wait'), request('a.wait')]));
  await calls.when((all) => all.length === 2 || undefined);
  const newcomer = plainSocket(listener.endpoint);
  await closed(newcomer.resume());
  assert.equal(listener.size, 1);
  calls.all[0]!.reply(Buffer.alloc(MAX_UNREAD));
  await turn();
  const second = plainSocket(listener.endpoint);
  await closed(second.resume());
  assert.deepEqual(strays, []);
  // The second answer finds the socket full.
  calls.all[1]!.reply('x');
  await turn();
  const third = await enter(listener.endpoint);
  assert.deepEqual(strays, ['a client was cut off: there are too many connections']);
  assert.equal(listener.size, 1);
  third.destroy();
  client.destroy();
});

test('the connection that did something useful last is not the one that is closed to make room', async (t) => {
  const { clock, listener } = await open(t, { maxConnections: 2 });
  const first = await enter(listener.endpoint);
  await clock.advance(10);
  const second = await enter(listener.endpoint);
  await clock.advance(10);
  first.write(request('push.echo', 'useful'));
  await receive(first, 'useful');
  const gone = closed(second);
  await clock.advance(10);
  const third = await enter(listener.endpoint);
  await gone;
  // A handshake that ends late is as good as an answer.
  const slow = plainSocket(listener.endpoint);
  const firstGone = closed(first);
  await once(slow, 'data');
  await firstGone;
  await clock.advance(10);
  slow.write(Buffer.concat([GREETING, ready('DEALER', '')]));
  await receive(slow, 'READY');
  await clock.advance(10);
  const thirdGone = closed(third);
  const last = await enter(listener.endpoint);
  await thirdGone;
  assert.equal(listener.size, 2);
  for (const socket of [slow, last]) socket.destroy();
});

test('a client is read from no further while it has as many requests in progress as it may', async (t) => {
  const calls = new Happenings<Incoming>();
  const { listener } = await open(t, {
    inFlight: 2,
    commands: { a: { access: 'none', commands: { wait: { kind: 'request', handler: (call) => calls.add(call) } } } },
  });
  const { client, served } = await enterSeen(listener.endpoint);
  client.write(request('a.wait', '1'));
  await calls.when((all) => all.length === 1 || undefined);
  await turn();
  assert.equal(served.isPaused(), false);
  client.write(Buffer.concat([request('a.wait', '2'), request('a.wait', '3')]));
  await calls.when((all) => all.length === 2 || undefined);
  for (let n = 0; n < 3; n++) await turn();
  assert.equal(served.isPaused(), true);
  assert.equal(calls.all.length, 2);
  for (const call of calls.all.slice()) call.reply('done');
  await calls.when((all) => all.length === 3 || undefined);
  for (let n = 0; n < 3; n++) await turn();
  assert.equal(served.isPaused(), false);
  client.destroy();
});

test('a hundred frames of one client are read in one turn of the event loop, and the rest in the next ones', async (t) => {
  const counts: number[] = [];
  let [taken, isCounting] = [0, false];
  const handler = () => {
    taken++;
    if (isCounting) return;
    isCounting = true;
    queueMicrotask(() => {
      counts.push(taken);
      [taken, isCounting] = [0, false];
    });
  };
  const { listener } = await open(t, {
    commands: { a: { access: 'none', commands: { b: { kind: 'command', handler } } } },
  });
  const { client, served } = await enterSeen(listener.endpoint);
  // As one chunk, whatever the kernel would make of it.
  served.emit('data', Buffer.concat(Array.from({ length: 250 }, () => frame('a.b'))));
  await until(() => counts.reduce((a, b) => a + b, 0) === 250, 0);
  assert.deepEqual(counts, [100, 100, 50]);
  client.destroy();
});

test('a client that is silent for five minutes is let go, and so is one that resets its connection', async (t) => {
  const { listener, strays, clock } = await open(t);
  const silent = await enterSeen(listener.endpoint);
  assert.equal(silent.served.timeout, 300_000);
  silent.served.emit('timeout');
  await closed(silent.client.resume());
  const resets = await enter(listener.endpoint);
  assert.equal(listener.size, 1);
  resets.resetAndDestroy();
  await until(() => listener.size === 0 && clock.pending === 0, 0);
  assert.deepEqual(strays, []);
});

test('when the listener closes, what was written still leaves, but a client that does not read has a second', async (t) => {
  // More than the kernel holds for either, and less than all clients may hold.
  const answer = Buffer.alloc(20 * 1024 * 1024);
  const { clock, listener } = await open(t, {
    commands: { a: { access: 'none', commands: { much: { kind: 'request', handler: (call) => call.reply(answer) } } } },
  });
  const clients = [await enterSeen(listener.endpoint), await enterSeen(listener.endpoint)] as const;
  for (const { client, served } of clients) {
    t.after(() => client.destroy());
    client.pause();
    client.write(request('a.much'));
    await until(() => served.writableLength > 0, 0);
  }
  const over = listener.close();
  assert.equal(listener.size, 0);
  assert.equal(clock.pending, 2);
  const [reads, deaf] = clients;
  let received = 0;
  reads.client.on('data', (data) => (received += data.length));
  reads.client.resume();
  await once(reads.client, 'end');
  assert.ok(received > answer.length);
  await until(() => clock.pending === 1, 0);
  await clock.advance(999);
  assert.equal(deaf.served.destroyed, false);
  await clock.advance(1);
  assert.equal(deaf.served.destroyed, true);
  await over;
});

test('a client that was cut off gets nothing more, and an answer for it counts as unanswered', async (t) => {
  const calls = new Happenings<Incoming>();
  const world = await open(t, {
    commands: { a: { access: 'none', commands: { wait: { kind: 'request', handler: (call) => calls.add(call) } } } },
  });
  const client = await enter(world.listener.endpoint);
  client.write(request('a.wait'));
  const call = await calls.first(() => true);
  assert.equal(await cutOff(world, frame('nodot'), client), 'a client was cut off: no category');
  call.reply('too late');
  await turn();
  assert.equal(world.listener.counters.unanswered, 1);
  assert.equal(world.listener.counters.disconnects, 1);
  assert.equal(call.remote.send('x.y'), false);
});

test('the answers to a client that reads again follow in order', async (t) => {
  const { clock, listener } = await open(t, { commands: echo });
  const { client, served } = await enterSeen(listener.endpoint);
  let text = '';
  client.on('data', (data) => (text += data));
  served.cork();
  client.write(request('push.echo', Buffer.alloc(MAX_UNREAD)));
  await until(() => served.writableLength > MAX_UNREAD, 0);
  const { received } = listener.counters;
  client.write(Buffer.concat(['one', 'two', 'three'].map((text) => request('push.echo', text))));
  await until(() => listener.counters.received === received + 3, 0);
  served.uncork();
  await until(() => served.writableLength === 0, 0);
  await clock.advance(250);
  await until(() => text.includes('three'), 0);
  assert.match(text, /one.*two.*three/s);
  client.destroy();
});
