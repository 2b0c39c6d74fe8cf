import { setTimeout as sleep } from 'node:timers/promises';
import type { Account } from '../src/devnet/account.ts';
import { checksByWorker, crypto } from './crypto.ts';
import { feed } from './feed.ts';
import { hiveminds } from './hiveminds.ts';
import { intake } from './intake.ts';
import { memory } from './memory.ts';
import { burst, droppedCopy, flatOut, steady } from './messages.ts';
import { notifier } from './notifiers.ts';
import { onionRequests } from './onion.ts';
import { receivers } from './receiver.ts';
import { secondCopy } from './second-copy.ts';
import { growth, idle, startUp } from './start-up.ts';
import { subscriptions } from './subscriptions.ts';
import { type BenchWorld, makeAccounts, startBench, startBenchNetwork, subscribeRequest, tokenOf } from './world.ts';

/**
 * `npm run bench [row …]`: measures the hivemind over simulated storage servers and the notifiers over fake
 * providers, and prints one line of JSON a row.
 * Machines differ and are shared: compare only figures of one run.
 */
const ROWS = [
  'subscriptions',
  'onion',
  'receivers',
  'intake',
  'second-copy',
  'crypto',
  'flat-out',
  'dropped-copy',
  'burst',
  'burst-of-200000',
  'steady',
  'start-up',
  'idle',
  'growth',
  'memory',
  'feed',
  'hiveminds',
  'apns',
  'firebase',
  'huawei',
  'webpush',
] as const;
/** Rows that take minutes: measured only by name. */
const LONG: readonly string[] = ['growth', 'memory'];
const chosen = process.argv.slice(2);
const unknown = chosen.filter((row) => !(ROWS as readonly string[]).includes(row));
if (unknown.length > 0) {
  process.stderr.write(`no such row: ${unknown.join(', ')}; there are ${ROWS.join(', ')}\n`);
  process.exit(2);
}
const wanted = (row: (typeof ROWS)[number]) => (chosen.length === 0 ? !LONG.includes(row) : chosen.includes(row));
const print = (row: object) => process.stdout.write(`${JSON.stringify(row)}\n`);

if (['subscriptions', 'onion', 'flat-out', 'burst', 'steady'].some((row) => wanted(row as (typeof ROWS)[number])))
  await hivemindRows();
if (wanted('burst-of-200000')) {
  print(await inWorld(10, async (world) => burst(world, await subscribed(world), 20_000)));
}
if (wanted('dropped-copy')) {
  const measured = (servers: number) => inWorld(servers, async (world) => flatOut(world, await subscribed(world)));
  print(droppedCopy(await measured(5), await measured(10)));
}
if (wanted('memory')) print(await inWorld(5, async (world) => memory(world, await subscribed(world))));
if (wanted('receivers')) print(await receivers());
if (wanted('intake')) print(intake());
if (wanted('crypto')) {
  print(crypto());
  print(await checksByWorker());
}
if (wanted('second-copy')) print(await secondCopy());
if (wanted('start-up')) print(await startUp());
if (wanted('idle')) print(await idle());
if (wanted('growth')) for await (const row of growth()) print(row);
if (wanted('feed')) print(await feed());
if (wanted('hiveminds')) for await (const row of hiveminds()) print(row);
for (const service of ['apns', 'firebase', 'huawei', 'webpush'] as const)
  if (wanted(service)) print(await notifier(service));
process.exit(0);

/** Five servers in one swarm: five copies of each message, as the figures of the original were taken. */
async function hivemindRows(): Promise<void> {
  await inWorld(5, async (world) => {
    if (wanted('subscriptions')) for await (const row of subscriptions(world)) print(row);
    if (wanted('onion')) for await (const row of onionRequests(world)) print(row);
    if (!(wanted('flat-out') || wanted('burst') || wanted('steady'))) return;
    const accounts = await subscribed(world);
    if (wanted('flat-out')) print(await flatOut(world, accounts));
    if (wanted('burst')) print(await burst(world, accounts, 10_000));
    if (wanted('steady')) print(await steady(world, accounts));
  });
}

/** So many servers in one swarm, and a hivemind. */
async function inWorld<T>(servers: number, work: (world: BenchWorld) => Promise<T>): Promise<T> {
  const world = await startBench(await startBenchNetwork(servers, 1));
  try {
    await world.startHivemind();
    return await work(world);
  } finally {
    await world.stop();
  }
}

/** A thousand accounts, when each server of their swarm monitors them all. */
async function subscribed(world: BenchWorld): Promise<Account[]> {
  const accounts = makeAccounts(1_000);
  const now = Math.floor(Date.now() / 1000);
  const subscribe = (account: Account) =>
    world.client.request('push.subscribe', [subscribeRequest(account, tokenOf(account), now)], 60_000);
  const replies = await Promise.all(accounts.map(subscribe));
  const refused = replies.find(([reply]) => !reply?.includes('"success":true'));
  if (refused) throw new Error(`a subscription was refused: ${refused[0]}`);
  const monitored = () =>
    accounts.every(({ id }) => world.network.membersFor(id).every((server) => server.monitorsOf(id, 0) > 0));
  while (!monitored()) await sleep(20);
  return accounts;
}
