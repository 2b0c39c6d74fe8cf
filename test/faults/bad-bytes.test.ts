import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import net from 'node:net';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Dealer } from 'zeromq';
import { sessionAccount } from '../../src/devnet/account.ts';
import { listed } from '../../src/devnet/network.ts';
import { type KeyPair, randomKeyPair } from '../../src/oxenmq/keys.ts';
import type { Listener } from '../../src/oxenmq/listener.ts';
import { encodeNotification } from '../../src/session/notification.ts';
import { ownAddress } from '../support/loopback.ts';
import { closed, once } from '../support/once.ts';
import { subscribe } from '../support/requests.ts';
import { message, monitored, startWorld } from '../support/session-world.ts';
import { SkippingClock } from '../support/skipping-clock.ts';
import { openStorageListener } from '../support/storage-listener.ts';
import { until } from '../support/until.ts';
import { assertOnceEach, checkFigures, nodeAt, readFigures, sum } from './support.ts';

const TOO_LARGE = Buffer.alloc(11 * 1024 * 1024, 'x');
/** What bencode can be made into: broken off, deep, with numbers that nobody can hold, with lengths that lie. */
const RUBBISH = [
  Buffer.alloc(0),
  Buffer.from('x'),
  Buffer.from('d1:@'),
  Buffer.from('l'.repeat(1_000_000)),
  Buffer.from('d1:a'.repeat(100_000)),
  Buffer.from(`i${'9'.repeat(1_000_000)}e`),
  Buffer.from(`d1:hi-${'9'.repeat(30)}ee`),
  Buffer.from('99999999999999999999:x'),
  Buffer.from('4294967296:x'),
  Buffer.from('i-0e'),
  randomBytes(1_000),
];

/** A server that speaks whatever `say` makes it. */
async function startTcp(t: TestContext, say: (socket: net.Socket) => void): Promise<number> {
  const sockets = new Set<net.Socket>();
  const server = net.createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {}).on('close', () => sockets.delete(socket));
    say(socket.resume());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(async () => {
    for (const socket of sockets) socket.destroy();
    server.close();
    await once(server, 'close');
  });
  return (server.address() as net.AddressInfo).port;
}

const portOf = ({ endpoint }: Listener) => Number(endpoint.slice(endpoint.lastIndexOf(':') + 1));

/** A storage server that is asked like any other, and answers as `answer` likes. */
function startRogue(t: TestContext, keys: KeyPair, answer: () => Buffer[] | undefined): Promise<Listener> {
  return openStorageListener(t, {
    keys,
    monitor(request, listener) {
      lastRemotes.set(listener, request.remote.id);
      const parts = answer();
      if (parts) request.reply(...parts);
    },
  });
}

const lastRemotes = new WeakMap<Listener, string>();
const victim = (listener: Listener) => listener.remote(Buffer.from(lastRemotes.get(listener) ?? '', 'latin1'));

test('storage servers that greet with garbage, hang up, or hold another key harm nobody but themselves', async (t) => {
  const clock = new SkippingClock();
  const greetings = [
    (socket: net.Socket) => socket.write(randomBytes(2_000)),
    (socket: net.Socket) => socket.write('HTTP/1.1 400 Bad Request\r\n\r\n'),
    // A ZMTP 3 greeting of the mechanism NULL, and then a frame of 2^63 bytes.
    (socket: net.Socket) => {
      const greeting = Buffer.alloc(64);
      greeting.set([0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 3, 0]);
      greeting.write('NULL', 12);
      socket.write(Buffer.concat([greeting, Buffer.from([2, 0x7f, 255, 255, 255, 255, 255, 255, 255])]));
    },
    (socket: net.Socket) => socket.destroy(),
  ];
  const ports: number[] = [];
  const world = await startWorld(t, {
    clock,
    prepare: async ({ oxend, servers }) => {
      for (const greeting of greetings) ports.push(await startTcp(t, greeting));
      const good = listed(servers[0]!);
      // A second entry for a good server's address, with a key that it does not have.
      oxend.nodes = [
        ...oxend.nodes,
        ...ports.map((port) => ({ ...good, publicKey: randomKeyPair().publicKey, host: '127.0.0.1', port })),
        { ...good, publicKey: randomKeyPair().publicKey },
      ];
    },
  });
  const accounts = Array.from({ length: 10 }, () => sessionAccount(randomBytes));
  await world.send(
    'subscribe',
    accounts.map((account, index) => subscribe(account, `phone ${index}`)),
  );
  for (const account of accounts) await monitored(world, account);
  await until(async () => (await readFigures(world.client)).pending_connections === 5);
  clock.skip(10_000);
  await until(async () => (await readFigures(world.client)).pending_connections === 0);
  for (const port of ports) {
    const { state, last_error: reason } = await nodeAt(world.client, port);
    assert.equal(state, 'cooldown');
    assert.notEqual(reason, '');
  }
  const messages = accounts.map((account) => message(account, 'hello'));
  let sent = 0;
  for (const one of messages) sent += world.network.deliver(one);
  await world.notifier.pushes(messages.length);
  await until(async () => (await readFigures(world.client)).since_start.raw === sent);
  await until(async () => (await readFigures(world.client)).services[0]!.in_flight === 0);
  checkFigures(await readFigures(world.client));
  assertOnceEach([world.notifier], messages);
  assert.equal((await readFigures(world.client)).connections, 6);
});

test('rubbish from a storage server is dropped and counted, and too much of it ends its connection', async (t) => {
  const keys = randomKeyPair();
  let asked = 0;
  const answers = [...RUBBISH.map((part) => [part]), [], [Buffer.from('le'), Buffer.from('le')]];
  let rogue!: Listener;
  const clock = new SkippingClock();
  const world = await startWorld(t, {
    clock,
    prepare: async ({ oxend, servers }) => {
      rogue = await startRogue(t, keys, () => answers[asked++]);
      // One swarm, so that the rogue one is asked about every account.
      oxend.nodes = [
        ...servers.map((member) => ({ ...listed(member), swarm: 7n })),
        { publicKey: keys.publicKey, host: '127.0.0.1', port: portOf(rogue), swarm: 7n },
      ];
    },
  });
  const account = sessionAccount(randomBytes);
  await world.send('subscribe', subscribe(account, 'phone'));
  await until(() => world.network.servers.every(({ server }) => server.monitorsOf(account.id, 0) > 0));
  // Each answer makes no sense, so it is asked again and again, more and more rarely.
  await until(() => asked > 0);
  for (let before = asked; asked <= answers.length; before = asked) {
    clock.skip(60_000);
    await world.notifier.register();
    // What is under way takes real time: skipped over and over, it would never come about on a slow machine.
    await Promise.race([until(() => asked > before), sleep(200)]);
  }
  const { unconfirmed } = await nodeAt(world.client, portOf(rogue));
  assert.equal(unconfirmed, 1);

  const genuine = message(account, 'hello');
  const good = encodeNotification(genuine).toString('latin1');
  const notifications = [
    ...RUBBISH,
    Buffer.from(good.replace(/1:ni-?\d+e/, `1:ni${'9'.repeat(40)}e`), 'latin1'),
    Buffer.from(good.replace(/1:ti\d+e/, `1:ti${2n ** 64n}e`), 'latin1'),
    Buffer.from(good.slice(0, -9), 'latin1'),
  ];
  for (const body of notifications) victim(rogue).send('notify.message', body);
  victim(rogue).send('notify.message');
  const bad = notifications.length + 1;
  // Under names and with numbers of parts that nobody offers.
  victim(rogue).send('notify.nothing', 'x');
  victim(rogue).send('admin.get_stats', randomBytes(15));
  victim(rogue).send('push.subscribe', randomBytes(15), '{}');
  await until(async () => (await readFigures(world.client)).since_start.raw === bad);
  assert.equal(sum((await readFigures(world.client)).since_start.malformed), bad);
  // So far it has kept to the protocol: it is connected, and counts as one that answers nothing.
  assert.equal((await nodeAt(world.client, portOf(rogue))).state, 'silent');

  victim(rogue).send('notify.message', TOO_LARGE);
  await until(async () => (await nodeAt(world.client, portOf(rogue))).state !== 'silent');
  const sent = world.network.servers.length;
  const stored = { key: account.id.toString('latin1'), namespace: 0, full: () => encodeNotification(genuine) };
  for (const { server } of world.network.servers) server.store({ ...stored, bare: stored.full });
  await world.notifier.pushes(1);
  await until(async () => (await readFigures(world.client)).since_start.raw === bad + sent);
  await until(async () => (await readFigures(world.client)).services[0]!.in_flight === 0);
  checkFigures(await readFigures(world.client));
  assertOnceEach([world.notifier], [genuine]);
});

test('rubbish from clients is answered or dropped, and too much of it costs them their connection', async (t) => {
  const world = await startWorld(t, { settings: { listen_push: ownAddress() } });
  const account = sessionAccount(randomBytes);
  await world.send('subscribe', subscribe(account, 'phone'));
  await monitored(world, account);
  const [, address = ''] = world.hivemind.log.map((line) => /listening at (tcp:\S+)/.exec(line)).find(Boolean) ?? [];

  const { client } = world;
  const nested = [
    `${'['.repeat(200_000)}${']'.repeat(200_000)}`,
    `{"a":${'{"a":'.repeat(100_000)}1${'}'.repeat(100_001)}`,
    `{"sig_ts":${'9'.repeat(100_000)}}`,
    `{"sig_ts":1e999999999}`,
    '[{"namespaces":[1e400]}]',
    '\u0000',
    ...RUBBISH,
  ];
  for (const body of nested) {
    for (const command of ['push.subscribe', 'push.unsubscribe']) {
      const [reply] = await client.request(command, [body]);
      const answer = JSON.parse(reply?.toString() ?? '');
      const [first] = Array.isArray(answer) ? answer : [answer];
      assert.equal(typeof first.error, 'number', `${command} ${String(body).slice(0, 20)}: ${reply}`);
    }
  }
  for (const part of RUBBISH) {
    for (const command of ['register_service', 'service_stats', 'push_report', 'device_gone', 'nothing']) {
      client.send(`admin.${command}`, part);
      client.send(`admin.${command}`, 'test', part, part);
    }
    // Requests that cannot be read are not answered.
    client.send('admin.register_notifier', randomBytes(15), part);
    client.send('admin.unregister_notifier', randomBytes(15), part);
  }

  // Greetings that are none, at the open port.
  const { hostname: host, port } = new URL(address);
  for (const greeting of [randomBytes(3_000), Buffer.from('GET / HTTP/1.1\r\n\r\n'), Buffer.alloc(64, 0xff)]) {
    const socket = net.connect({ port: Number(port), host });
    socket.on('error', () => {}).resume();
    socket.write(greeting);
    socket.end();
    await closed(socket);
  }
  const large = new Dealer({ linger: 0, sendTimeout: 5_000, receiveTimeout: 20_000 });
  large.connect(address);
  t.after(() => large.close());
  await large.send('HI');
  assert.equal(String(await large.receive()), 'HELLO');
  const broken = (async () => {
    for await (const event of large.events) if (event.type === 'disconnect') return;
  })();
  await large.send(['push.subscribe', randomBytes(15), TOO_LARGE]);
  await broken;

  const genuine = message(account, 'still there');
  const sent = world.network.deliver(genuine);
  await world.notifier.pushes(1);
  await until(async () => (await readFigures(client)).since_start.raw === sent);
  await until(async () => (await readFigures(client)).services[0]!.in_flight === 0);
  checkFigures(await readFigures(client));
  assertOnceEach([world.notifier], [genuine]);
});
