import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import { encode } from '../../src/codec/bencode.ts';
import { parseJson } from '../../src/codec/json.ts';
import { type Account, groupAccount, groupMember, sessionAccount } from '../../src/devnet/account.ts';
import { type Network, startNetwork } from '../../src/devnet/network.ts';
import { envelope, type StorageServer } from '../../src/devnet/storage-server.ts';
import { parseAddress } from '../../src/oxenmq/address.ts';
import { type Connection, Peers } from '../../src/oxenmq/peers.ts';
import { parseMonitorReply } from '../../src/session/monitor.ts';
import { type Notification, parseNotification } from '../../src/session/notification.ts';
import { monitorMessage, type Subscription } from '../../src/session/subscription.ts';
import { encodeMonitor } from '../support/reference.ts';
import { inTime } from '../support/until.ts';

/** A whole network on a clock that a test can turn, and a hivemind's end of it. */
async function start(t: TestContext, servers = 1, swarms = 1) {
  let ahead = 0;
  const clock = {
    ...systemClock,
    now: () => systemClock.now() + ahead,
    monotonic: () => systemClock.monotonic() + ahead,
  };
  const network = await startNetwork({ clock, random: randomBytes, servers, swarms });

  const heard: { from: string; notification: Notification }[] = [];
  const blocks: string[][] = [];
  const ended: { from: string; body: Buffer }[] = [];
  const waiting: { done: () => boolean; resolve: () => void }[] = [];
  const look = (): void => {
    for (const one of waiting.splice(0)) one.done() ? one.resolve() : waiting.push(one);
  };
  const peers = new Peers({
    clock: systemClock,
    commands: {
      notify: {
        access: 'none',
        commands: {
          message: {
            kind: 'command',
            handler({ remote, parts }) {
              const notification = parseNotification(parts[0]!);
              if (typeof notification !== 'string') heard.push({ from: (remote as Connection).label, notification });
              look();
            },
          },
          monitor_ended: {
            kind: 'command',
            handler({ remote, parts }) {
              ended.push({ from: (remote as Connection).label, body: parts[0]! });
              look();
            },
          },
          block: {
            kind: 'command',
            handler({ parts }) {
              blocks.push([parts[0]!.toString(), parts[1]!.toString('hex')]);
              look();
            },
          },
        },
      },
    },
    on: { handshake: look, hello: look, disconnect: look },
  });
  t.after(async () => {
    await peers.close();
    await network.stop();
  });
  const until = (done: () => boolean): Promise<void> =>
    inTime(
      new Promise((resolve) => {
        if (done()) resolve();
        else waiting.push({ done, resolve });
      }),
      () => `${done}`,
    );
  const connectTo = async (server: StorageServer, label = ''): Promise<Connection> => {
    const { host, port, publicKey } = server;
    const connection = peers.connect({ protocol: 'tcp', host, port, publicKey }, { label });
    await until(() => connection.state === 'up');
    return connection;
  };
  return {
    network,
    heard,
    blocks,
    ended,
    peers,
    until,
    connectTo,
    later: (ms: number) => {
      ahead += ms;
    },
  };
}

function subscription(account: Account, namespaces: number[], wantData = true): Subscription {
  const { id, sessionEd25519, subaccount } = account;
  const unsigned = {
    account: id,
    sessionEd25519,
    subaccount,
    namespaces,
    wantData,
    signedAt: Math.floor(Date.now() / 1000),
    signature: Buffer.alloc(64),
  };
  return { ...unsigned, signature: account.sign(monitorMessage(unsigned)) };
}

async function monitor(connection: Connection, subscriptions: Subscription[]) {
  const list = Buffer.concat([Buffer.from('l'), ...subscriptions.map(encodeMonitor), Buffer.from('e')]);
  const [reply] = await connection.request('monitor.messages', [list]);
  return parseMonitorReply(reply!, subscriptions.length);
}

function message(account: Account, namespace = 0, data = 'hello'): Notification {
  return {
    account: account.id,
    hash: Buffer.from(randomBytes(33).toString('base64').slice(0, 43)),
    namespace,
    timestamp: 1_700_000_000_123,
    expiry: 1_701_209_600_123,
    data: Buffer.from(data),
  };
}

test('every member of the swarm announces a message to those who asked for its account and namespace', async (t) => {
  const { network, heard, until, connectTo } = await start(t, 6, 2);
  const ada = sessionAccount(randomBytes);
  const member = groupMember(groupAccount(randomBytes), randomBytes);
  for (const { server } of network.servers) {
    const connection = await connectTo(server);
    const results = await monitor(connection, [subscription(ada, [0, 2]), subscription(member, [-11, 11], false)]);
    assert.deepEqual(
      results.map(({ code }) => code),
      [0, 0],
    );
  }
  const toAda = message(ada);
  const toGroup = message(member, -11);
  assert.equal(network.deliver(toAda), 3);
  assert.equal(network.deliver(message(ada, 3)), 0, 'a namespace that nobody asked for');
  assert.equal(network.deliver(message(sessionAccount(randomBytes))), 0, 'an account that nobody asked for');
  assert.equal(network.deliver(toGroup), 3);
  await until(() => heard.length === 6);
  const expected = [
    toAda,
    toAda,
    toAda,
    { ...toGroup, data: null },
    { ...toGroup, data: null },
    { ...toGroup, data: null },
  ];
  const byNamespace = heard.map(({ notification }) => notification).sort((a, b) => b.namespace - a.namespace);
  assert.deepEqual(byNamespace, expected);
});

test('a renewal adds and never removes, and a monitor ends after 65 minutes without one', async (t) => {
  const { network, connectTo, later } = await start(t);
  const { server } = network.servers[0]!;
  const ada = sessionAccount(randomBytes);
  const connection = await connectTo(server);
  await monitor(connection, [subscription(ada, [0])]);
  later(40 * 60_000);
  await monitor(connection, [subscription(ada, [5], false)]);
  later(40 * 60_000);
  assert.deepEqual(
    [server.monitorsOf(ada.id, 0), server.monitorsOf(ada.id, 5), server.monitorsOf(ada.id, 2)],
    [1, 1, 0],
  );
  assert.equal(network.deliver(message(ada)), 1);
  assert.equal(server.monitors, 1);
  later(25 * 60_000 + 1);
  assert.equal(server.monitorsOf(ada.id, 0), 0);
  assert.equal(network.deliver(message(ada)), 0);
});

test('a forged signature is refused, and the rest of the list is accepted', async (t) => {
  const { network, connectTo } = await start(t);
  const { server } = network.servers[0]!;
  const connection = await connectTo(server);
  const [ada, bo] = [sessionAccount(randomBytes), sessionAccount(randomBytes)];
  const forged = { ...subscription(ada, [0]), signature: randomBytes(64) };
  assert.deepEqual(await monitor(connection, [forged, subscription(bo, [0])]), [
    { code: 5, error: 'Signature verification failed' },
    { code: 0 },
  ]);
  assert.deepEqual([server.monitorsOf(ada.id, 0), server.monitorsOf(bo.id, 0)], [0, 1]);
  const [bare] = await connection.request('monitor.messages', [encodeMonitor(subscription(ada, [0]))]);
  assert.deepEqual(bare, encode({ success: 1 }), 'a dict is answered with a dict');
});

test('a server can forget, refuse, delay, be silent, go away and come back under its key and port', async (t) => {
  const { network, connectTo, until } = await start(t);
  const { server } = network.servers[0]!;
  const ada = sessionAccount(randomBytes);
  const connection = await connectTo(server);
  await monitor(connection, [subscription(ada, [0])]);
  server.forget();
  assert.equal(server.monitorsOf(ada.id, 0), 0);

  server.behaviour.refuse = { errcode: 4, error: 'no' };
  assert.deepEqual(await monitor(connection, [subscription(ada, [0])]), [{ code: 4, error: 'no' }]);
  server.behaviour.refuse = undefined;
  server.behaviour.delay = 30;
  assert.deepEqual(await monitor(connection, [subscription(ada, [0])]), [{ code: 0 }]);
  server.behaviour.delay = 0;
  server.behaviour.silent = true;
  await assert.rejects(connection.request('monitor.messages', ['le'], 100), { code: 'TIMEOUT' });
  server.behaviour.silent = false;

  await server.stop();
  await until(() => connection.state === 'down');
  await server.start();
  await until(() => connection.state === 'up');
  assert.equal(server.monitorsOf(ada.id, 0), 0, 'it forgot');
  assert.deepEqual(await monitor(connection, [subscription(ada, [0])]), [{ code: 0 }]);
});

async function askOxend(network: Network, peers: Peers, until: (done: () => boolean) => Promise<void>) {
  const connection = peers.connect(parseAddress(network.oxend.address));
  await until(() => connection.state === 'up');
  return connection;
}

test('oxend lists the nodes with swarm ids above 2^63, in a different order each time', async (t) => {
  const { network, peers, until } = await start(t, 8, 2);
  const connection = await askOxend(network, peers, until);
  assert.deepEqual(await connection.request('ping.ping', []), [Buffer.from('pong')]);
  const orders = new Set<string>();
  for (let i = 0; i < 5; i++) {
    const [code, json] = await connection.request('rpc.get_service_nodes', ['{"active_only": true}']);
    assert.equal(code!.toString(), '200');
    const list = parseJson(json!) as {
      height: number;
      service_node_states: { swarm_id: bigint; pubkey_x25519: string }[];
    };
    assert.equal(list.height, network.oxend.height);
    const swarms = new Set(list.service_node_states.map(({ swarm_id }) => BigInt(swarm_id)));
    assert.deepEqual(
      [...swarms].sort((a, b) => (a < b ? -1 : 1)),
      network.swarms,
    );
    assert.ok([...swarms].some((id) => id > 2n ** 63n));
    orders.add(list.service_node_states.map(({ pubkey_x25519 }) => pubkey_x25519).join());
  }
  assert.ok(orders.size > 1);
  const [code, text] = await connection.request('rpc.get_service_nodes', ['{nonsense']);
  assert.deepEqual([code!.toString(), text!.toString()], ['400', 'Unable to parse request: invalid JSON']);
  network.oxend.answer = ['500', 'out of order'];
  assert.deepEqual((await connection.request('rpc.get_service_nodes', ['{}'])).map(String), ['500', 'out of order']);
});

test('oxend announces blocks to its subscribers, and forgets them when it is restarted', async (t) => {
  const { network, peers, blocks, until } = await start(t);
  const { oxend } = network;
  const connection = await askOxend(network, peers, until);
  assert.deepEqual((await connection.request('sub.block', [])).map(String), ['OK']);
  assert.deepEqual((await connection.request('sub.block', [])).map(String), ['ALREADY']);
  oxend.mine();
  await until(() => blocks.length === 1);
  assert.deepEqual(blocks, [[String(oxend.height), oxend.blockHash]]);

  const { address } = oxend;
  await oxend.stop();
  await until(() => connection.state === 'down');
  await oxend.start();
  assert.equal(oxend.address, address);
  await until(() => connection.state === 'up');
  oxend.mine();
  assert.deepEqual((await connection.request('sub.block', [])).map(String), ['OK']);
  assert.equal(blocks.length, 1);
});

test('a server that moves changes the swarm, and the list', async (t) => {
  const { network } = await start(t, 4, 1);
  const ada = sessionAccount(randomBytes);
  assert.equal(network.membersFor(ada.id).length, 4);
  const [member] = network.servers;
  network.move(member!, network.swarms[0]! ^ (1n << 62n));
  assert.equal(network.swarms.length, 2);
  const sizes = [1, 3];
  assert.ok(sizes.includes(network.membersFor(ada.id).length));
  assert.deepEqual(network.oxend.nodes.map(({ swarm }) => swarm).filter((swarm) => swarm === member!.swarm).length, 1);
});

test('with the block that takes accounts from a server, it tells those who monitored them, and no longer accepts them', async (t) => {
  const { network, connectTo, ended, until, heard } = await start(t, 2, 1);
  const [mover, stayer] = network.servers;
  const accounts = Array.from({ length: 40 }, () => sessionAccount(randomBytes));
  const connection = await connectTo(mover!.server, 'mover');
  const list = accounts.map((account) => subscription(account, [0]));
  assert.ok((await monitor(connection, list)).every(({ code }) => code === 0));

  network.move(mover!, network.swarms[0]! ^ (1n << 63n));
  assert.equal(mover!.server.counters.ended, 0, 'nobody notices without a block');
  network.oxend.mine();
  const gone = accounts.filter(({ id }) => !network.membersFor(id).includes(mover!.server));
  assert.ok(gone.length > 0 && gone.length < 40);
  await until(() => ended.length === gone.length);
  assert.deepEqual(
    new Set(ended.map(({ body }) => body.subarray(7, 40).toString('hex'))),
    new Set(gone.map(({ id }) => id.toString('hex'))),
  );
  const key = stayer!.server.publicKey.toString('hex');
  for (const { from, body } of ended) {
    assert.equal(from, 'mover');
    const text = body.toString('latin1');
    assert.ok(text.startsWith('d1:@33:'));
    assert.match(
      text.slice(40),
      /^7:errcodei6e5:error56:Account is no longer stored by this service node's swarm6:snodesl/,
    );
    assert.ok(
      text.endsWith(
        `13:pubkey_x2551964:${key}ee5:swarm${stayer!.swarm.toString(16).length}:${stayer!.swarm.toString(16)}e`,
      ),
    );
  }
  for (const account of gone) assert.equal(mover!.server.store(envelope(message(account))), 0, 'deleted first');
  const results = await monitor(connection, list);
  assert.deepEqual(
    results.map(({ code }) => code),
    accounts.map((account) => (gone.includes(account) ? 6 : 0)),
  );
  assert.equal(heard.length, 0);
});
