import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { sessionAccount } from '../../src/devnet/account.ts';
import { listed } from '../../src/devnet/network.ts';
import type { Contact } from '../../src/devnet/swarm-view.ts';
import type { Cleaner } from '../support/hivemind.ts';
import { subscribe } from '../support/requests.ts';
import { message, monitored, startWorld, type World } from '../support/session-world.ts';
import { SkippingClock } from '../support/skipping-clock.ts';
import { until } from '../support/until.ts';
import { assertOnceEach, readFigures, readNodes } from './support.ts';

const ACCOUNTS = 40;

async function start(t: Cleaner) {
  const clock = new SkippingClock();
  const world = await startWorld(t, { clock });
  const accounts = Array.from({ length: ACCOUNTS }, () => sessionAccount(randomBytes));
  const list = accounts.map((account, index) => subscribe(account, `phone ${index}`));
  await world.send('subscribe', list);
  for (const account of accounts) await monitored(world, account);
  return { world, clock, accounts };
}

/** Lets time pass until it is so; gives the seconds. */
async function secondsUntil({ client }: World, clock: SkippingClock, so: () => boolean): Promise<number> {
  let seconds = 0;
  await until(async () => {
    if (so()) return true;
    // What the clock set off goes over real sockets, and must be over before more time passes.
    if ((await readNodes(client)).some((node) => node.in_flight > 0)) return false;
    clock.skip(1000);
    seconds++;
    return false;
  }, 50);
  return seconds;
}

/** What the storage servers take for the network when they are at the block that oxend will list. */
function takeOver({ network }: World): void {
  const swarms = new Map<bigint, Contact[]>();
  for (const { server, swarm } of network.servers) swarms.set(swarm, [...(swarms.get(swarm) ?? []), server]);
  for (const { server, swarm } of network.servers) server.takeOver({ own: swarm, swarms });
}

async function allRing(world: World, accounts: readonly ReturnType<typeof sessionAccount>[]): Promise<void> {
  const messages = accounts.map((account) => message(account, 'hello'));
  const sent = messages.reduce((sum, one) => sum + world.network.deliver(one), 0);
  await until(async () => (await readFigures(world.client)).since_start.raw === sent);
  await world.notifier.pushes(messages.length);
  await until(async () => (await readFigures(world.client)).services[0]!.in_flight === 0);
  assertOnceEach([world.notifier], messages);
}

test('a server that moves announces the monitors it has ended, and every account is asked for where it is now', async (t) => {
  const { world, accounts } = await start(t);
  const { network } = world;
  const [mover] = network.servers;
  network.move(mover!, network.swarms.find((swarm) => swarm !== mover!.swarm)!);
  network.oxend.mine();
  await until(() => mover!.server.counters.ended > 0);
  for (const account of accounts) await monitored(world, account);
  await until(async () => (await readFigures(world.client)).freshness.unconfirmed === 0);
  await allRing(world, accounts);
});

test('servers a block ahead of oxend: what they end and refuse is asked for anew, and found once oxend knows', async (t) => {
  const { world, clock, accounts } = await start(t);
  const { network } = world;
  const { oxend } = network;
  const known = oxend.nodes;
  const [mover] = network.servers;
  network.move(mover!, network.swarms.find((swarm) => swarm !== mover!.swarm)!);
  oxend.nodes = known;
  const lists = oxend.counters.lists;
  takeOver(world);
  await until(() => mover!.server.counters.ended > 0);
  // The list is asked for; it has nothing new yet, so the server is asked again, and refuses.
  const before = mover!.server.counters.refused;
  await secondsUntil(world, clock, () => oxend.counters.lists > lists && mover!.server.counters.refused > before);
  oxend.nodes = network.servers.map(listed);
  const seconds = await secondsUntil(world, clock, () =>
    accounts.every(({ id }) => network.membersFor(id).every((server) => server.monitorsOf(id, 0) > 0)),
  );
  assert.ok(seconds <= 40, `${seconds} s, without a word from oxend`);
  await until(async () => (await readFigures(world.client)).freshness.unconfirmed === 0);
  await allRing(world, accounts);
});

for (const [what, swarms] of [
  ['say for a block that all accounts are elsewhere', new Map<bigint, Contact[]>([[7n, []]])],
  ['know no swarms for a while', new Map<bigint, Contact[]>()],
] as const) {
  test(`servers that ${what} have everything again within seconds of their return`, async (t) => {
    const { world, clock, accounts } = await start(t);
    const { network } = world;
    for (const { server } of network.servers) {
      server.forget();
      server.takeOver({ own: 9n, swarms });
    }
    // A new device makes us ask for an account of each server.
    await world.send(
      'subscribe',
      accounts.map((account, index) => subscribe(account, `tablet ${index}`, { namespaces: [0, 2] })),
    );
    await until(() => network.servers.every(({ server }) => server.counters.refused > 0));
    takeOver(world);
    const seconds = await secondsUntil(world, clock, () =>
      accounts.every(({ id }) => network.membersFor(id).every((server) => server.monitorsOf(id, 2) > 0)),
    );
    assert.ok(seconds <= 30, `${seconds} s`);
  });
}

test('a list without nearly all addresses, and a small part of the list, cost no connection and no push', async (t) => {
  const { world, accounts } = await start(t);
  const { oxend } = world.network;
  const whole = oxend.nodes;
  const mine = async (nodes: typeof whole) => {
    const { lists } = oxend.counters;
    oxend.nodes = nodes;
    oxend.mine();
    await until(() => oxend.counters.lists > lists);
  };
  await mine(whole.map((node, index) => (index === 0 ? node : { publicKey: node.publicKey, swarm: node.swarm })));
  await until(async () => (await readFigures(world.client)).block_height === oxend.height);
  assert.deepEqual(world.hivemind.daemon.ready!().reasons, []);
  await mine(whole.slice(0, 2));
  await until(() => world.hivemind.daemon.ready!().reasons.some((reason) => /2 of 6 storage servers/.test(reason)));
  assert.match(await world.hivemind.registry.metrics(), /^spns_oxend_list_doubted 1$/m);
  const { snodes, swarms, connections } = await readFigures(world.client);
  assert.deepEqual({ snodes, swarms, connections }, { snodes: 6, swarms: 2, connections: 6 });
  await mine(whole);
  await until(() => world.hivemind.daemon.ready!().reasons.length === 0);
  await allRing(world, accounts);
});
