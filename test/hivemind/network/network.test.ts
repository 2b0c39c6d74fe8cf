import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { systemClock } from '../../../src/clock.ts';
import { Network, type NetworkOptions, routingId } from '../../../src/hivemind/network/network.ts';
import type { Node } from '../../../src/hivemind/network/node.ts';
import { type KeyPair, keyPairFromSecret, randomKeyPair } from '../../../src/oxenmq/keys.ts';
import { Listener } from '../../../src/oxenmq/listener.ts';
import type { Remote } from '../../../src/oxenmq/remote.ts';
import { Happenings } from '../../oxenmq/support.ts';
import { busy } from '../../support/busy.ts';
import { once } from '../../support/once.ts';
import { openStorageListener } from '../../support/storage-listener.ts';
import { until } from '../../support/until.ts';
import { FakeAccounts, readRequest, SUCCESS } from '../monitoring/support/fake-accounts.ts';

const LOW = 2n ** 62n;
const HIGH = 2n ** 64n - 2n ** 62n;

/** What a storage server or oxend was asked: by whom, and for which accounts. */
interface Asked {
  server: string;
  remote: Remote;
  accounts: number[];
}

interface Server {
  name: string;
  keys: KeyPair;
  listener: Listener;
  swarm: bigint;
  answers: boolean;
  /** As oxend lists it, which knows not every server's. */
  ip?: string;
}

/** A storage server with a real CURVE socket, which says yes to everything. */
async function openServer(
  t: TestContext,
  asked: Happenings<Asked>,
  name: string,
  swarm: bigint,
  old?: Server,
): Promise<Server> {
  const keys = old?.keys ?? randomKeyPair();
  const listener = await openStorageListener(t, {
    keys,
    ...(old && { address: old.listener.endpoint }),
    monitor(message) {
      const request = readRequest(message.parts[0]!);
      asked.add({ server: name, remote: message.remote, accounts: request.map(({ account }) => account) });
      if (server.answers) message.reply(Buffer.from(`l${SUCCESS.repeat(request.length)}e`));
    },
  });
  const server = { name, keys, listener, swarm, answers: true };
  return server;
}

/** An oxend that lists the servers it is given. */
async function openOxend(t: TestContext, address: string, asked: Happenings<Asked>, listed: Server[]) {
  const state = { height: 1000 };
  const listener = new Listener({
    clock: systemClock,
    address,
    access: 'admin',
    commands: {
      sub: {
        access: 'basic',
        commands: {
          block: {
            kind: 'request',
            handler: (message) => {
              asked.add({ server: 'sub.block', remote: message.remote, accounts: [] });
              message.reply('OK');
            },
          },
        },
      },
      rpc: {
        access: 'basic',
        commands: {
          get_service_nodes: {
            kind: 'request',
            handler: (message) => {
              asked.add({ server: 'get_service_nodes', remote: message.remote, accounts: [] });
              const nodes = listed.map(({ keys, listener, swarm, ip = '127.0.0.1' }) => {
                const port = new URL(listener.endpoint).port;
                const key = keys.publicKey.toString('hex');
                return `{"pubkey_x25519":"${key}","public_ip":"${ip}","storage_lmq_port":${port},"swarm_id":${swarm}}`;
              });
              const hash = 'ab'.repeat(32);
              message.reply(
                '200',
                `{"block_hash":"${hash}","height":${state.height},"service_node_states":[${nodes}],"status":"OK"}`,
              );
            },
          },
        },
      },
    },
  });
  await listener.bind();
  t.after(() => listener.close());
  return { state, listener };
}

async function openNetwork(
  t: TestContext,
  accounts: FakeAccounts,
  warnings = new Happenings<string>(),
  options: Partial<NetworkOptions> = {},
) {
  const directory = await mkdtemp(join(tmpdir(), 'spns-'));
  t.after(() => rm(directory, { recursive: true }));
  const oxend = `ipc://${directory}/oxend.sock`;
  const secret = randomBytes(32);
  const notifications = new Happenings<{ node: Node; body: Buffer }>();
  const network = new Network({
    clock: systemClock,
    random: randomBytes,
    accounts,
    secret,
    oxend,
    maxConnects: 10,
    allowPrivate: true,
    interval: 30_000,
    log: { info: () => {}, warn: (text) => warnings.add(text), debug: () => {} },
    onNotification: (node, body) => notifications.add({ node, body }),
    ...options,
  });
  t.after(() => network.stop());
  return { network, oxend, secret, notifications };
}

/** Accounts of both swarms: numbers 0, 2, 4… of LOW and 1, 3, 5… of HIGH. */
function someAccounts(count: number): FakeAccounts {
  const accounts = new FakeAccounts();
  for (let i = 0; i < count; i++) accounts.add(undefined, (i % 2 === 0 ? LOW : HIGH) + BigInt(i));
  return accounts;
}

/** Waits until `server` has been asked for each of these accounts, in requests after the first `after`. */
function isAskedFor(asked: Happenings<Asked>, server: string, accounts: number[], after = 0): Promise<boolean> {
  return asked.when((all) => {
    const seen = new Set(all.slice(after).flatMap((one) => (one.server === server ? one.accounts : [])));
    return accounts.every((account) => seen.has(account)) || undefined;
  });
}

test('over real sockets: from oxend to the storage servers to a notification', { timeout: 60_000 }, async (t) => {
  const asked = new Happenings<Asked>();
  const accounts = someAccounts(10);
  const said: string[] = [];
  const log = { info: (text: string) => void said.push(text), warn() {}, debug() {} };
  const { network, oxend, secret, notifications } = await openNetwork(t, accounts, undefined, { log });
  const [low, high] = [await openServer(t, asked, 'low', LOW), await openServer(t, asked, 'high', HIGH)];
  network.start();
  assert.equal(network.oxendUp, false);
  assert.equal(network.complaints().length, 1);

  // oxend comes later than we do.
  const listed = [low, high];
  const { state, listener } = await openOxend(t, oxend, asked, listed);
  await isAskedFor(asked, 'low', [0, 2, 4, 6, 8]);
  await isAskedFor(asked, 'high', [1, 3, 5, 7, 9]);
  assert.deepEqual(
    asked.all.slice(0, 2).map(({ server }) => server),
    ['sub.block', 'get_service_nodes'],
  );
  const { publicKey } = keyPairFromSecret(secret);
  const toOxend = asked.all[0]!.remote;
  assert.equal(toOxend.id, `L${publicKey.toString('latin1')}`, 'oxend knows us by our public key');
  const toLow = await asked.first(({ server }) => server === 'low');
  assert.equal(toLow.remote.id, routingId('storage server', secret).toString('latin1'), 'storage servers by a secret');

  toLow.remote.send('notify.message', 'd1:@…e');
  const { node, body } = await notifications.first(() => true);
  assert.equal(body.toString(), 'd1:@…e');
  assert.ok(network.monitoring.accepts(node.swarmMember, accounts.idOf(0)));
  assert.ok(!network.monitoring.accepts(node.swarmMember, accounts.idOf(1)));

  // A new subscription.
  const before = asked.all.length;
  const number = accounts.add(undefined, HIGH);
  await isAskedFor(asked, 'high', [number], before);

  // A new server, of which a block tells.
  const third = await openServer(t, asked, 'third', HIGH);
  listed.push(third);
  state.height = 1001;
  listener.remote(Buffer.from(toOxend.id, 'latin1')).send('notify.block', '1001', Buffer.alloc(32));
  await isAskedFor(asked, 'third', [1, 3, 5, 7, 9, number]);
  assert.equal(network.summary().blockHeight, 1001);
  assert.deepEqual(
    said.filter((text) => text.startsWith('height')),
    ['height 1000: 2 storage servers in 2 swarms'],
    'said again only when the swarms are others',
  );
  assert.equal(network.summary().nodes, 3);
  assert.equal(network.oxendUp, true);
  assert.deepEqual(network.complaints(), []);
});

test('a storage server that restarted is asked for everything again', { timeout: 60_000 }, async (t) => {
  const asked = new Happenings<Asked>();
  const { network, oxend } = await openNetwork(t, someAccounts(10));
  const [low, high] = [await openServer(t, asked, 'low', LOW), await openServer(t, asked, 'high', HIGH)];
  await openOxend(t, oxend, asked, [low, high]);
  network.start();
  await isAskedFor(asked, 'low', [0, 2, 4, 6, 8]);
  await isAskedFor(asked, 'high', [1, 3, 5, 7, 9]);
  const before = asked.all.length;
  await low.listener.close();
  await openServer(t, asked, 'low again', LOW, low);
  await isAskedFor(asked, 'low again', [0, 2, 4, 6, 8]);
  assert.ok(!asked.all.slice(before).some(({ server }) => server === 'high'), 'the other one is left alone');
});

test('a storage server behind a wrong key delays nobody else', { timeout: 60_000 }, async (t) => {
  const asked = new Happenings<Asked>();
  const { network, oxend } = await openNetwork(t, someAccounts(10));
  const [low, high] = [await openServer(t, asked, 'low', LOW), await openServer(t, asked, 'high', HIGH)];
  await openOxend(t, oxend, asked, [{ ...low, keys: randomKeyPair() }, high]);
  network.start();
  await isAskedFor(asked, 'high', [1, 3, 5, 7, 9]);
  assert.ok(!asked.all.some(({ server }) => server === 'low'));
  assert.equal(network.summary().connected, 1);
});

test('the secret routing id cannot be guessed from the public key, is stable and does not start with NUL', () => {
  const secret = Buffer.alloc(32, 7);
  const id = routingId('storage server', secret);
  assert.deepEqual(routingId('storage server', Buffer.alloc(32, 7)), id);
  assert.notDeepEqual(routingId('storage server', Buffer.alloc(32, 8)), id);
  assert.notEqual(id[0], 0);
  // ZeroMQ takes 255 at most.
  assert.equal(id.length, 33);
  assert.equal(id.includes(keyPairFromSecret(secret).publicKey), false);
});

for (const [what, parts] of [
  ['tens of thousands of empty parts', Array.from({ length: 20_000 }, () => '')],
  [
    'more bytes than a message may have, in parts that are each within the limit',
    Array.from({ length: 3 }, () => Buffer.alloc(4_000_000)),
  ],
] as const) {
  test(`a storage server that sends ${what} is cut off, and delays nobody else`, { timeout: 60_000 }, async (t) => {
    const asked = new Happenings<Asked>();
    const warnings = new Happenings<string>();
    const { network, oxend, notifications } = await openNetwork(t, someAccounts(10), warnings);
    const [low, high] = [await openServer(t, asked, 'low', LOW), await openServer(t, asked, 'high', HIGH)];
    await openOxend(t, oxend, asked, [low, high]);
    network.start();
    await isAskedFor(asked, 'low', [0, 2, 4, 6, 8]);
    await isAskedFor(asked, 'high', [1, 3, 5, 7, 9]);
    const { remote } = await asked.first(({ server }) => server === 'low');
    // Once: libzmq ends the process of a sender that closes its socket while a message is half sent and the peer hangs
    // up.
    remote.send('notify.message', ...parts);
    const warning = await warnings.first((text) => text.includes('cut off'));
    assert.match(
      warning,
      /^storage server [0-9a-f]{12} at 127\.0\.0\.1:\d+ is cut off for an hour: the peer sent a message of \d+ (parts|bytes)$/,
    );
    const report = network.nodes(() => ({})).find(({ key }) => low.keys.publicKey.toString('hex').startsWith(key))!;
    assert.equal(report.state, 'cut-off');
    assert.match(report.last_error, /the peer sent a message of/);
    assert.deepEqual(network.complaints(), ['1 storage servers are cut off for what they sent']);
    const other = await asked.first(({ server }) => server === 'high');
    other.remote.send('notify.message', 'd1:@…e');
    await notifications.first(() => true);
    assert.equal(notifications.all.length, 1);
    assert.equal(warnings.all.filter((text) => text.includes('cut off')).length, 1);
    assert.equal(network.counters.peers.excessive, 1);
    assert.equal(network.counters.nodes.cutOff, 1);
  });
}

test('an oxend that sends a message of too many parts is cut off and reported, and the storage servers stay', {
  timeout: 60_000,
}, async (t) => {
  const asked = new Happenings<Asked>();
  const { network, oxend } = await openNetwork(t, someAccounts(2));
  const low = await openServer(t, asked, 'low', LOW);
  await openOxend(t, oxend, asked, [low]);
  network.start();
  await isAskedFor(asked, 'low', [0, 1]);
  asked.all[0]!.remote.send('notify.block', ...Array.from({ length: 5000 }, () => ''));
  await until(() => !network.oxendUp);
  assert.deepEqual(network.complaints(), ['oxend: the peer sent a message of 5001 parts']);
  assert.equal(network.summary().connected, 1);
  assert.equal(network.counters.toOxend.excessive, 1);
});

test('notify.monitor_ended over a real socket: unconfirmed, and asked for again', { timeout: 60_000 }, async (t) => {
  const asked = new Happenings<Asked>();
  const accounts = someAccounts(10);
  const { network, oxend } = await openNetwork(t, accounts);
  const [low, high] = [await openServer(t, asked, 'low', LOW), await openServer(t, asked, 'high', HIGH)];
  await openOxend(t, oxend, asked, [low, high]);
  network.start();
  await isAskedFor(asked, 'low', [0, 2, 4, 6, 8]);
  await isAskedFor(asked, 'high', [1, 3, 5, 7, 9]);
  const { remote } = await asked.first(({ server }) => server === 'low');
  const lists = () => asked.all.filter(({ server }) => server === 'get_service_nodes').length;
  const [before, listsBefore] = [asked.all.length, lists()];
  await until(() => network.summary().unconfirmed === 0);
  const notice = (number: number) =>
    Buffer.concat([
      Buffer.from('d1:@33:'),
      accounts.bytesOf(number),
      Buffer.from('7:errcodei6e5:error2:no6:snodesle5:swarm1:7e'),
    ]);
  remote.send('notify.monitor_ended', notice(4));
  remote.send('notify.monitor_ended', notice(1));
  remote.send('notify.monitor_ended', 'rubbish');
  await isAskedFor(asked, 'low', [4], before);
  // The last of the three.
  await until(() => network.counters.ended.malformed === 1);
  const again = asked.all.slice(before).filter(({ server }) => server === 'low' || server === 'high');
  assert.deepEqual(
    again.map(({ server, accounts }) => [server, accounts]),
    [['low', [4]]],
  );
  assert.deepEqual(network.counters.ended, { taken: 1, moved: 0, unasked: 1, malformed: 1 });
  await asked.when(() => lists() > listsBefore || undefined);
});

test('a server that sends more than can be read is cut off before the memory is full', {
  timeout: 60_000,
}, async (t) => {
  const asked = new Happenings<Asked>();
  const warnings = new Happenings<string>();
  const honest = new Happenings<string>();
  const bound = 64;
  const { network, oxend } = await openNetwork(t, someAccounts(10), warnings, {
    maxUnread: bound * 1024 ** 2,
    onNotification: (_, body) => {
      if (body.length < 100) honest.add(body.toString());
      // However fast or busy this machine is, the flood is faster than this.
      busy(1);
    },
  });
  const low = await openServer(t, asked, 'low', LOW);
  const child = fork(join(import.meta.dirname, 'flooding-server.ts'));
  t.after(() => child.kill('SIGKILL'));
  const [{ port, publicKey }] = (await once(child, 'message')) as [{ port: number; publicKey: string }];
  const flooding = { ...low, keys: { ...low.keys, publicKey: Buffer.from(publicKey, 'hex') }, swarm: HIGH };
  flooding.listener = { endpoint: `tcp://127.0.0.1:${port}` } as Listener;
  network.start();
  await openOxend(t, oxend, asked, [low, flooding]);
  const { remote } = await asked.first(({ server }) => server === 'low');

  const warning = await warnings.first((text) => text.includes('cut off'));
  assert.match(
    warning,
    new RegExp(`^storage server ${publicKey.slice(0, 12)} at .* messages arrive faster than they are`),
  );
  const waiting = Number(/about (\d+) MB are waiting/.exec(warning)?.[1]);
  assert.ok(waiting >= bound && waiting < 4 * bound, warning);
  assert.equal(network.find(publicKey)?.state, 'cut-off');

  remote.send('notify.message', 'honest');
  await honest.first((text) => text === 'honest');
  assert.equal(network.find(low.keys.publicKey.toString('hex'))?.state, 'up');
  assert.equal(network.counters.nodes.cutOff, 1);
});

test('servers without an address are a complaint when they are more than half of all', {
  timeout: 60_000,
}, async (t) => {
  const asked = new Happenings<Asked>();
  const { network, oxend } = await openNetwork(t, someAccounts(2));
  const [low, high] = [await openServer(t, asked, 'low', LOW), await openServer(t, asked, 'high', HIGH)];
  const unknown = (): Server => ({ ...low, keys: randomKeyPair(), ip: '0.0.0.0' });
  const listed = [low, high, unknown(), unknown()];
  await openOxend(t, oxend, asked, listed);
  network.start();
  await until(() => network.summary().connected === 2);
  assert.deepEqual(network.complaints(), []);
  listed.push(unknown());
  network.refresh();
  await until(() => network.summary().nodes === 5);
  assert.deepEqual(network.complaints(), ['3 of 5 storage servers have no address to connect to']);
});

test('that no storage server is connected is a complaint, but not where none should be', {
  timeout: 60_000,
}, async (t) => {
  for (const [maxConnects, complaints] of [
    [10, ['no storage server is connected']],
    [0, []],
  ] as const) {
    const asked = new Happenings<Asked>();
    const warnings = new Happenings<string>();
    const { network, oxend } = await openNetwork(t, someAccounts(2), warnings, { maxConnects });
    const low = await openServer(t, asked, 'low', LOW);
    await openOxend(t, oxend, asked, [{ ...low, keys: randomKeyPair() }]);
    network.start();
    await until(() => network.oxendUp);
    assert.deepEqual(network.complaints(), complaints);
    assert.equal(warnings.all.includes('max_connects is 0: no storage server will be connected'), maxConnects === 0);
  }
});
