import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { type Account, sessionAccount } from '../../src/devnet/account.ts';
import { envelope } from '../../src/devnet/storage-server.ts';
import type { NodeReport } from '../../src/hivemind/network/node.ts';
import type { ServerRecord } from '../../src/hivemind/notifications/server-records.ts';
import type { Notification } from '../../src/session/notification.ts';
import { openPayload } from '../../src/session/payload.ts';
import type { Cleaner } from '../support/hivemind.ts';
import type { FaultyProxy, Way } from '../support/proxy.ts';
import { subscribe } from '../support/requests.ts';
import { message, monitored, startWorld, type World } from '../support/session-world.ts';
import { SkippingClock } from '../support/skipping-clock.ts';
import { until } from '../support/until.ts';
import { assertOnceEach, checkFigures, nodeAt, readFigures, startProxies } from './support.ts';

/** A world with a proxy before each storage server; `ways` are those of the first few from the start. */
async function startProxiedWorld(t: Cleaner, ways: readonly Way[] = []) {
  let proxies: FaultyProxy[] = [];
  const clock = new SkippingClock();
  const world = await startWorld(t, {
    clock,
    prepare: async (network) => {
      proxies = await startProxies(t, network);
      for (const [index, way] of ways.entries()) proxies[index]!.way = way;
    },
  });
  const [first] = world.network.servers;
  return { world, clock, proxies, sick: first!.server, sickProxy: proxies[0]! };
}

/** Accounts whose messages the first storage server holds, too. */
function accountsOfFirst({ network }: World, count: number): Account[] {
  const accounts: Account[] = [];
  while (accounts.length < count) {
    const account = sessionAccount(randomBytes);
    if (network.membersFor(account.id).includes(network.servers[0]!.server)) accounts.push(account);
  }
  return accounts;
}

const subscribeAll = (world: World, accounts: readonly Account[]) =>
  world.send(
    'subscribe',
    accounts.map((account, index) => subscribe(account, `phone ${index}`)),
  );

/** Every member of their swarm but the first server monitors them. */
async function watchedByOthers({ network }: World, accounts: readonly Account[]): Promise<void> {
  await until(() =>
    accounts.every((account) =>
      network
        .membersFor(account.id)
        .every((server) => server === network.servers[0]!.server || server.monitorsOf(account.id, 0) > 0),
    ),
  );
}

/** Waits until all notifications are in, and checks what became of them. */
async function checkAccount(world: World, sent: number): Promise<void> {
  await until(async () => (await readFigures(world.client)).since_start.raw >= sent);
  await until(async () => (await readFigures(world.client)).services[0]!.in_flight === 0);
  const figures = await readFigures(world.client);
  checkFigures(figures);
  assert.equal(figures.since_start.raw, sent);
}

test('a storage server whose connection is reset is asked for everything again, and the others notice nothing', async (t) => {
  const { world, sick, proxies, sickProxy } = await startProxiedWorld(t);
  const accounts = accountsOfFirst(world, 20);
  await subscribeAll(world, accounts);
  for (const account of accounts) await monitored(world, account);
  const before = proxies.map(({ accepted }) => accepted);

  const messages = [];
  let sent = 0;
  for (let round = 0; round < 3; round++) {
    sick.forget();
    sickProxy.reset();
    // While the one is away or comes back, the rest of its swarm tells of everything.
    for (const account of accounts) {
      const one = message(account, `round ${round}`);
      messages.push(one);
      sent += world.network.deliver(one);
    }
    await world.notifier.pushes(messages.length);
    await until(async () => {
      const { state, confirmed, unconfirmed } = await nodeAt(world.client, sickProxy.port);
      return state === 'up' && confirmed === accounts.length && unconfirmed === 0 && sick.monitors === accounts.length;
    });
  }
  assertOnceEach([world.notifier], messages);
  await checkAccount(world, sent);
  const after = proxies.map(({ accepted }) => accepted);
  assert.equal(after[0]! - before[0]!, 3);
  assert.deepEqual(after.slice(1), before.slice(1), 'the other connections stayed');
});

test('a storage server that turns into a black hole is noticed as silent, and asked for everything when it is back', async (t) => {
  const { world, clock, sick, sickProxy } = await startProxiedWorld(t);
  const accounts = accountsOfFirst(world, 10);
  await subscribeAll(world, accounts.slice(0, 5));
  for (const account of accounts.slice(0, 5)) await monitored(world, account);
  // Its answer, too, must be through.
  await until(async () => (await nodeAt(world.client, sickProxy.port)).confirmed === 5);
  sickProxy.way = 'hole';
  await subscribeAll(world, accounts.slice(5));
  await watchedByOthers(world, accounts);
  // It is asked, and nobody can know yet that it will not answer.
  await until(async () => {
    const { state, unconfirmed, in_flight: waiting } = await nodeAt(world.client, sickProxy.port);
    return state === 'up' && unconfirmed === 5 && waiting > 0;
  });
  await until(async () => (await readFigures(world.client)).freshness.fresh_nodes === 5);

  // Three requests in a row without an answer, and their waits: it counts as silent.
  await until(async () => {
    // Not while another has a question to answer, which would be too late then.
    if ((await readFigures(world.client)).freshness.fresh_nodes === 5) clock.skip(15_000);
    return (await nodeAt(world.client, sickProxy.port)).state === 'silent';
  });
  assert.ok(world.hivemind.daemon.ready?.().reasons.some((reason) => reason.startsWith('1 storage servers')));
  const messages = accounts.map((account) => message(account, 'in the meantime'));
  let sent = 0;
  for (const one of messages) {
    const reports = world.network.deliver(one);
    // The hole swallows what the sick one reports, of the accounts that it monitored.
    sent += reports - (sick.monitorsOf(one.account, 0) > 0 ? 1 : 0);
  }
  await world.notifier.pushes(messages.length);

  sickProxy.way = 'pass';
  sickProxy.reset();
  await until(async () => {
    const { state, confirmed } = await nodeAt(world.client, sickProxy.port);
    return state === 'up' && confirmed === accounts.length;
  });
  for (const account of accounts) {
    const one = message(account, 'again');
    messages.push(one);
    sent += world.network.deliver(one);
  }
  await world.notifier.pushes(messages.length);
  assertOnceEach([world.notifier], messages);
  await until(async () => (await readFigures(world.client)).freshness.fresh_nodes === 6);
  await checkAccount(world, sent);
});

test('a storage server that accepts connections and says nothing delays no other, and is tried again', async (t) => {
  const { world, clock, sickProxy } = await startProxiedWorld(t, ['hole']);
  const accounts = accountsOfFirst(world, 10);
  await subscribeAll(world, accounts);
  await watchedByOthers(world, accounts);
  await until(() => sickProxy.accepted > 0);
  await until(async () => (await nodeAt(world.client, sickProxy.port)).state === 'connecting');
  const messages = accounts.map((account) => message(account, 'hello'));
  let sent = 0;
  for (const one of messages) sent += world.network.deliver(one);
  await world.notifier.pushes(messages.length);

  clock.skip(10_000);
  await until(async () => (await nodeAt(world.client, sickProxy.port)).state === 'cooldown');
  const { last_error: reason } = await nodeAt(world.client, sickProxy.port);
  assert.match(reason, /no HELLO within 10000 ms: the peer accepted the connection and said nothing/);
  await until(async () => (await readFigures(world.client)).freshness.fresh_nodes === 5);

  sickProxy.way = 'pass';
  // Jittered: between 10 and 12.5 s.
  clock.skip(12_500);
  for (const account of accounts) await monitored(world, account);
  await until(async () => (await readFigures(world.client)).freshness.fresh_nodes === 6);
  assertOnceEach([world.notifier], messages);
  await checkAccount(world, sent);
});

test('storage servers behind slow and sliced connections are monitored and heard like the others', async (t) => {
  const { world } = await startProxiedWorld(t, ['slice', { delay: 150 }, 'slice', { delay: 30 }]);
  const accounts = Array.from({ length: 20 }, () => sessionAccount(randomBytes));
  await subscribeAll(world, accounts);
  for (const account of accounts) await monitored(world, account);
  const messages = accounts.map((account) => message(account, 'x'.repeat(2_000)));
  let sent = 0;
  for (const one of messages) sent += world.network.deliver(one);
  await checkAccount(world, sent);
  assertOnceEach([world.notifier], messages);
  assert.equal((await readFigures(world.client)).since_start.duplicates, sent - messages.length);
});

test('a storage server that refuses every connection is left alone for a while, and connected when it accepts them again', async (t) => {
  const { world, clock, sickProxy } = await startProxiedWorld(t, ['refuse']);
  const accounts = accountsOfFirst(world, 5);
  await subscribeAll(world, accounts);
  await watchedByOthers(world, accounts);
  await until(() => sickProxy.accepted > 1);
  clock.skip(10_000);
  await until(async () => (await nodeAt(world.client, sickProxy.port)).state === 'cooldown');
  sickProxy.way = 'pass';
  clock.skip(12_500);
  for (const account of accounts) await monitored(world, account);
  const messages = accounts.map((account) => message(account, 'hello'));
  let sent = 0;
  for (const one of messages) sent += world.network.deliver(one);
  await checkAccount(world, sent);
  assertOnceEach([world.notifier], messages);
});

test('a storage server that lies about messages can neither suppress nor change them, and its lies are recorded', async (t) => {
  const world = await startWorld(t);
  const { server: liar } = world.network.servers[0]!;
  const accounts = accountsOfFirst(world, 4);
  await subscribeAll(world, accounts);
  for (const account of accounts) await monitored(world, account);
  const tell = (lie: Notification, truth: Notification) => {
    liar.store(envelope(lie));
    const members = world.network.membersFor(truth.account);
    for (const server of members) if (server !== liar) server.store(envelope(truth));
    return members.length;
  };
  const lies: ((truth: Notification) => Notification)[] = [
    (truth) => ({ ...truth, timestamp: 1, expiry: 1 }),
    (truth) => ({ ...truth, expiry: Date.now() + 60_000 }),
    (truth) => ({ ...truth, data: Buffer.from('junk') }),
    (truth) => ({ ...truth, data: null }),
  ];
  const messages = accounts.map((account) => message(account, 'hello'));
  let sent = 0;
  for (const [index, truth] of messages.entries()) sent += tell(lies[index]!(truth), truth);
  await until(async () => (await readFigures(world.client)).services[0]!.accepted === messages.length);
  await checkAccount(world, sent);
  assertOnceEach([world.notifier], messages);
  for (const { payload } of world.notifier.sealed) {
    const { metadata, data } = openPayload(payload, Buffer.alloc(32, 9));
    assert.equal(String(data), 'hello');
    assert.ok(messages.some(({ expiry }) => expiry === metadata.expiry));
  }
  // Whether the lie comes before the truth is up to the sockets.
  const record = async () => (await nodeAt(world.client, liar.port)) as NodeReport & ServerRecord;
  for (let n = 0; (await record()).contradicted === 0; n++) {
    const truth = message(accounts[0]!, `again ${n}`);
    tell({ ...truth, data: Buffer.from('junk') }, truth);
  }
  await until(() => world.hivemind.log.some((line) => /storage server \S+ at \S+ contradicts the others/.test(line)));
});
