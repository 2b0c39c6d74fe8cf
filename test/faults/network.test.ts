import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs/promises';
import { test } from 'node:test';
import { sessionAccount } from '../../src/devnet/account.ts';
import { listed } from '../../src/devnet/network.ts';
import type { ListedNode } from '../../src/devnet/oxend.ts';
import type { Notification } from '../../src/session/notification.ts';
import { type FaultyProxy, startProxy } from '../support/proxy.ts';
import { subscribe } from '../support/requests.ts';
import { message, monitored, startWorld, TestNotifier, type World } from '../support/session-world.ts';
import { SkippingClock } from '../support/skipping-clock.ts';
import { until } from '../support/until.ts';
import { assertOnceEach, checkFigures, readFigures } from './support.ts';

async function startSubscribed(
  t: Parameters<typeof startWorld>[0],
  count: number,
  options: Parameters<typeof startWorld>[1],
) {
  const world = await startWorld(t, options);
  const accounts = Array.from({ length: count }, () => sessionAccount(randomBytes));
  await world.send(
    'subscribe',
    accounts.map((account, index) => subscribe(account, `phone ${index}`)),
  );
  return { world, accounts };
}

async function checkAccount(
  world: World,
  sent: number,
  messages: readonly Notification[],
  notifiers = [world.notifier],
) {
  await until(async () => (await readFigures(world.client)).since_start.raw === sent);
  await until(async () => (await readFigures(world.client)).services[0]!.accepted === messages.length);
  checkFigures(await readFigures(world.client));
  assertOnceEach(notifiers, messages);
}

test('whatever oxend answers, the known network stays, and the next good answer counts', async (t) => {
  const { world, accounts } = await startSubscribed(t, 10, {});
  for (const account of accounts) await monitored(world, account);
  const { oxend } = world.network;
  const before = await readFigures(world.client);
  const body = (states: unknown, more: object = {}) =>
    JSON.stringify({ block_hash: oxend.blockHash, height: oxend.height, service_node_states: states, ...more });
  const wrong: (readonly (string | Buffer)[])[] = [
    [],
    ['200'],
    ['200', body([]), 'more'],
    ['500', 'internal error'],
    ['200', ''],
    ['200', '{'],
    ['200', '[]'],
    ['200', 'null'],
    ['200', Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])],
    ['200', '['.repeat(100_000)],
    ['200', body({})],
    ['200', body([])],
    ['200', body([null, 1, 'x', [], {}])],
    ['200', body([{ pubkey_x25519: 'ab', public_ip: 'localhost', storage_lmq_port: 1e9, swarm_id: -1 }])],
    ['200', body([], { height: 'high' })],
    ['200', body([], { block_hash: 7 })],
  ];
  const messages: Notification[] = [];
  let sent = 0;
  for (const answer of wrong) {
    const asked = oxend.counters.lists;
    oxend.answer = answer;
    oxend.mine();
    await until(() => oxend.counters.lists > asked);
    await until(() => world.hivemind.daemon.ready!().reasons.some((reason) => reason.startsWith('oxend: ')));
    const { ok } = world.hivemind.daemon.ready!();
    assert.ok(ok, 'a complaint, but no reason to be taken out of service');
    const { snodes, swarms, connections, block_height } = await readFigures(world.client);
    assert.deepEqual(
      { snodes, swarms, connections, block_height },
      { snodes: 6, swarms: 2, connections: 6, block_height: before.block_height },
    );
    const one = message(accounts[messages.length % accounts.length]!, 'hello');
    messages.push(one);
    sent += world.network.deliver(one);
    // A good answer clears the complaint, so that the next wrong one is seen.
    oxend.answer = undefined;
    oxend.nodes = [...oxend.nodes];
    const height = oxend.height;
    oxend.mine();
    await until(async () => (await readFigures(world.client)).block_height > height);
    assert.deepEqual(world.hivemind.daemon.ready!().reasons, []);
    before.block_height = oxend.height;
  }
  await checkAccount(world, sent, messages);
});

test('with hundreds of storage servers that do not exist, no more are tried at a time than allowed, and all the others are found', async (t) => {
  const [dead, most] = [300, 20];
  const clock = new SkippingClock();
  let hole!: FaultyProxy;
  const { world, accounts } = await startSubscribed(t, 50, {
    clock,
    settings: { max_connects: most },
    prepare: async ({ oxend, servers }) => {
      hole = await startProxy(t, { port: 1 });
      hole.way = 'hole';
      const away = (index: number): ListedNode => ({
        ...listed(servers[index % servers.length]!),
        publicKey: randomBytes(32),
        // Some take the connection and say nothing, at others nobody listens.
        port: index % 3 === 0 ? 1 : hole.port,
      });
      oxend.nodes = [...oxend.nodes, ...Array.from({ length: dead }, (_, index) => away(index))];
    },
  });
  const descriptors = async () => (await fs.readdir('/proc/self/fd')).length;
  let [highest, mostDescriptors] = [0, 0];
  const before = await descriptors();
  const look = async () => {
    const figures = await readFigures(world.client);
    highest = Math.max(highest, figures.pending_connections);
    mostDescriptors = Math.max(mostDescriptors, await descriptors());
    return figures;
  };
  await until(async () => {
    const { connections, snodes, pending_connections: pending } = await look();
    if (snodes > 0 && connections === 6) return true;
    // When all that are being tried are of those that never answer, their ten seconds pass at once.
    const live = world.network.servers.length - connections;
    if (pending === most || (pending > 0 && live > 0)) {
      clock.skip(10_000);
      await world.notifier.register();
    }
    return false;
  });
  for (const account of accounts) await monitored(world, account);
  assert.ok(highest <= most, `${highest} were tried at a time`);
  // What libzmq closes takes a moment to go.
  assert.ok(hole.most <= 2 * most, `${hole.most} connections were open at a time`);
  assert.ok(mostDescriptors < before + 5 * most, `${mostDescriptors} file descriptors, at first ${before}`);

  const messages = accounts.map((account) => message(account, 'hello'));
  let sent = 0;
  for (const one of messages) sent += world.network.deliver(one);
  await checkAccount(world, sent, messages);
  // Servers may know of an account before the hivemind has their answer.
  await until(async () => (await readFigures(world.client)).freshness.uncovered === 0);
});

test('all storage servers break off at once, again and again: all come back, and nothing is announced twice', async (t) => {
  const { world, accounts } = await startSubscribed(t, 50, {});
  for (const account of accounts) await monitored(world, account);
  for (let round = 0; round < 3; round++) {
    await Promise.all(world.network.servers.map(({ server }) => server.stop()));
    await Promise.all(world.network.servers.map(({ server }) => server.start()));
    for (const account of accounts) await monitored(world, account);
  }
  const messages = accounts.map((account) => message(account, 'hello'));
  let sent = 0;
  for (const one of messages) sent += world.network.deliver(one);
  await checkAccount(world, sent, messages);
});

test('a wall clock that jumps, and a process that was suspended, lose nothing and duplicate nothing', async (t) => {
  const clock = new SkippingClock();
  const { world, accounts } = await startSubscribed(t, 20, { clock });
  for (const account of accounts) await monitored(world, account);
  const second = await new TestNotifier(world.hivemind).register();
  const messages: Notification[] = [];
  let sent = 0;
  for (const jump of [3_600_000, -7_200_000, 600_000]) {
    const round = accounts.map((account) => ({ ...message(account, 'hello'), expiry: Date.now() + 14 * 86_400_000 }));
    for (const one of round) sent += world.network.deliver(one);
    clock.jump(jump);
    // Later copies of the same messages, after the jump.
    for (const one of round) sent += world.network.deliver(one);
    messages.push(...round);
    // As after a stop: everything that was due is due at once, and nobody is dead because he was not heard meanwhile.
    clock.skip(19_000);
    await until(async () => (await readFigures(world.client)).since_start.raw === sent);
    for (const one of round) sent += world.network.deliver(one);
    await until(async () => (await readFigures(world.client)).since_start.raw === sent);
    assert.equal((await readFigures(world.client)).services[0]!.notifiers, 2);
  }
  await checkAccount(world, sent, messages, [world.notifier, second]);
});
