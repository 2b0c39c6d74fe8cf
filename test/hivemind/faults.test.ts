import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { sessionAccount } from '../../src/devnet/account.ts';
import { startPostgres } from '../../src/devnet/postgres.ts';
import { startOwnServer } from '../support/postgres.ts';
import { subscribe } from '../support/requests.ts';
import { message, monitored, startWorld, stats, TestNotifier } from '../support/session-world.ts';
import { until } from '../support/until.ts';

test('pushing goes on without a database; requests fail with a temporary error, and work again when it is back', async (t) => {
  const { dataDir, server } = await startOwnServer();
  let postgres = server;
  t.after(() => postgres.remove());
  await postgres.createDatabase('spns');
  const world = await startWorld(t, { database: postgres.url('spns') });
  const account = sessionAccount(randomBytes);
  await world.send('subscribe', subscribe(account, 'phone'));
  await monitored(world, account);

  await postgres.stop('immediate');
  world.network.deliver(message(account, 'without a database'));
  await world.notifier.pushes(1);
  const refused = (await world.send('subscribe', subscribe(sessionAccount(randomBytes), 'other'))) as { error: number };
  assert.equal(refused.error, 5);
  assert.equal(world.hivemind.daemon.ready?.().ok, false, '/ready says so');
  // What the statistics counted meanwhile is not lost either.
  assert.equal((await stats(world)).subscriptions.total, 1);

  postgres = await startPostgres({ dataDir, fsync: false });
  const again = sessionAccount(randomBytes);
  await until(async () => {
    const reply = (await world.send('subscribe', subscribe(again, 'again'))) as { success?: boolean };
    return reply.success === true;
  });
  assert.equal((await stats(world)).subscriptions.total, 2);
});

test('a storage server that restarts is asked again at once for everything of its swarm', async (t) => {
  const world = await startWorld(t);
  const accounts = Array.from({ length: 20 }, () => sessionAccount(randomBytes));
  await world.send(
    'subscribe',
    accounts.map((account, index) => subscribe(account, `phone ${index}`)),
  );
  for (const account of accounts) await monitored(world, account);
  const [member] = world.network.servers;
  assert.ok(member);
  const before = member.server.monitors;
  await member.server.stop();
  await member.server.start();
  await until(() => member.server.monitors === before);
});

test('a storage server that refuses, is silent or sends nonsense delays no other', async (t) => {
  const world = await startWorld(t);
  const account = sessionAccount(randomBytes);
  const [sick, ...healthy] = world.network.membersFor(account.id);
  assert.ok(sick);
  sick.behaviour.silent = true;
  await world.send('subscribe', subscribe(account, 'phone'));
  await until(() => healthy.every((server) => server.monitorsOf(account.id, 0) > 0));
  assert.equal(world.network.deliver(message(account, 'hello')), healthy.length);
  await world.notifier.pushes(1);
});

test('an oxend that comes late, goes away and comes back is waited for, and the swarms stay meanwhile', async (t) => {
  const world = await startWorld(t);
  const account = sessionAccount(randomBytes);
  await world.send('subscribe', subscribe(account, 'phone'));
  await monitored(world, account);
  await world.network.oxend.stop();
  world.network.deliver(message(account, 'without oxend'));
  await world.notifier.pushes(1);
  const before = world.network.oxend.counters.lists;
  await world.network.oxend.start();
  await until(() => world.network.oxend.counters.lists > before);
});

test('an account is monitored by its new swarm when the swarms change', async (t) => {
  const world = await startWorld(t);
  const accounts = Array.from({ length: 40 }, () => sessionAccount(randomBytes));
  await world.send(
    'subscribe',
    accounts.map((account, index) => subscribe(account, `phone ${index}`)),
  );
  for (const account of accounts) await monitored(world, account);
  // A third swarm appears in the middle of the larger half, made of one server of each of the others.
  const [first, second] = world.network.servers;
  assert.ok(first && second);
  const middle = BigInt.asUintN(64, (world.network.swarms[0] ?? 0n) + 2n ** 62n);
  world.network.move(first, middle);
  world.network.move(second, middle);
  world.network.oxend.mine();
  for (const account of accounts) await monitored(world, account);
  for (const account of accounts) world.network.deliver(message(account, 'hello'));
  await world.notifier.pushes(accounts.length);
});

test('every push is accounted for when notifiers die under load', async (t) => {
  const world = await startWorld(t);
  const accounts = Array.from({ length: 50 }, () => sessionAccount(randomBytes));
  await world.send(
    'subscribe',
    accounts.map((account, index) => subscribe(account, `phone ${index}`)),
  );
  for (const account of accounts) await monitored(world, account);
  let current = world.notifier;
  current.acknowledge = false;
  const rounds = 5;
  for (let round = 0; round < rounds; round++) {
    for (const account of accounts) world.network.deliver(message(account, `round ${round}`));
    await current.pushes(1);
    if (round === rounds - 1) break;
    current.connection.close();
    const next = new TestNotifier(world.hivemind);
    next.acknowledge = false;
    current = await next.register();
  }
  // None before acknowledged anything, so the last one must get everything, and does so once.
  const total = accounts.length * rounds;
  await current.pushes(total);
  const ids = current.sealed.map(({ id }) => id);
  assert.equal(ids.length, total);
  assert.equal(new Set(ids).size, total);
  current.report({ accepted: ids });
  await until(async () => {
    const [body] = await world.client.request('admin.get_services', []);
    const [service] = JSON.parse(body?.toString() ?? '') as { accepted: number; queued: number; in_flight: number }[];
    return service?.accepted === total && service.queued === 0 && service.in_flight === 0;
  });
});
