import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { type Account, sessionAccount } from '../../src/devnet/account.ts';
import type { Notification } from '../../src/session/notification.ts';
import type { Cleaner } from '../support/hivemind.ts';
import { once } from '../support/once.ts';
import { createDatabase } from '../support/postgres.ts';
import { startProxy } from '../support/proxy.ts';
import { subscribe } from '../support/requests.ts';
import { message, monitored, startWorld, type World } from '../support/session-world.ts';
import { SkippingClock } from '../support/skipping-clock.ts';
import { until } from '../support/until.ts';
import { assertOnceEach, checkFigures, pushedHashes, readFigures } from './support.ts';

/** A world whose hivemind reaches PostgreSQL through a proxy. */
async function startProxiedWorld(t: Cleaner, settings: Record<string, string | number> = {}) {
  const url = await createDatabase(t);
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), 'spns-fault-'));
  const [, given = ''] = /[?&]host=([^&]+)/.exec(url) ?? [];
  const socket = (directory: string) => path.join(directory, '.s.PGSQL.5432');
  const proxy = await startProxy(t, { path: socket(decodeURIComponent(given)) }, socket(folder));
  t.after(() => fs.rm(folder, { recursive: true, force: true }));
  const clock = new SkippingClock();
  const database = url.replace(given, encodeURIComponent(folder));
  return { world: await startWorld(t, { clock, database, settings }), clock, proxy };
}

type Reply = { success?: boolean; error?: number };
const ask = (world: World, account: Account, token: string) =>
  world.send('subscribe', subscribe(account, token)) as Promise<Reply>;

async function checkAccount(world: World, sent: number, messages: readonly Notification[]): Promise<void> {
  await until(async () => (await readFigures(world.client)).since_start.raw === sent);
  await world.notifier.pushes(messages.length);
  await until(async () => (await readFigures(world.client)).services[0]!.in_flight === 0);
  checkFigures(await readFigures(world.client));
  assertOnceEach([world.notifier], messages);
}

test('a half-open connection to the database is given up in bounded time, and the next one takes its lock over', async (t) => {
  const { world, clock, proxy } = await startProxiedWorld(t);
  const account = sessionAccount(randomBytes);
  await ask(world, account, 'phone');
  await monitored(world, account);
  const before = proxy.accepted;

  // PostgreSQL still believes in the old connection, and with it in the lock that it holds.
  proxy.freeze();
  const validated = once(world.notifier, 'validated');
  const stuck = ask(world, sessionAccount(randomBytes), 'stuck');
  await validated;
  // The hivemind has read the verdict when it answers what came after it. What the client waits for is the database.
  await readFigures(world.notifier.connection);
  const first = message(account, 'meanwhile');
  let sent = world.network.deliver(first);
  await world.notifier.pushes(1);
  await until(() => {
    // The server has 5 s for an answer, and we listen for one more.
    clock.skip(6_000);
    return world.hivemind.daemon.ready?.().ok === false;
  });
  assert.equal((await stuck).error, 5);
  const again = sessionAccount(randomBytes);
  await until(async () => (await ask(world, again, 'again')).success === true);
  assert.ok(proxy.accepted > before);
  await monitored(world, again);
  const second = message(again, 'afterwards');
  sent += world.network.deliver(second);
  await checkAccount(world, sent, [first, second]);
});

test('a database that answers after a second delays neither pushes nor the event loop, at any rate', async (t) => {
  const { world, proxy } = await startProxiedWorld(t);
  const accounts = Array.from({ length: 50 }, () => sessionAccount(randomBytes));
  const signed = accounts.map((account, index) => subscribe(account, `phone ${index}`));
  await world.send('subscribe', signed);
  for (const account of accounts) await monitored(world, account);

  proxy.way = { delay: 500 };
  // Renewals wait for the database, all the while.
  let answered = false;
  const renewals = world.send('subscribe', signed).finally(() => (answered = true));
  const messages: Notification[] = [];
  let sent = 0;
  let rounds = 0;
  while (!answered || messages.length < 5_000) {
    for (const account of accounts) {
      const one = message(account, 'x'.repeat(500));
      messages.push(one);
      sent += world.network.deliver(one);
    }
    await world.notifier.pushes(messages.length);
    rounds++;
  }
  assert.ok(((await renewals) as Reply[]).every(({ success }) => success));
  // Had the messages waited for the database, a question and its answer would have passed for each round of them.
  assert.ok(proxy.delayed < rounds, `${proxy.delayed} pieces passed to and fro while ${rounds} rounds were written`);
  proxy.way = 'pass';
  await checkAccount(world, sent, messages);
});

test('a database that answers slowly costs bounded memory: what does not fit is dropped, oldest first, and counted', async (t) => {
  const { world, proxy } = await startProxiedWorld(t, { outbox_max_bytes: 500_000 });
  const accounts = Array.from({ length: 50 }, () => sessionAccount(randomBytes));
  const signed = accounts.map((account, index) => subscribe(account, `phone ${index}`));
  await world.send('subscribe', signed);
  for (const account of accounts) await monitored(world, account);
  proxy.way = { delay: 500 };
  const replies = world.send('subscribe', signed) as Promise<Reply[]>;
  world.notifier.acknowledge = false;
  let sent = 0;
  for (let round = 0; round < 60; round++) {
    for (const account of accounts) sent += world.network.deliver(message(account, 'x'.repeat(500)));
    await until(async () => (await readFigures(world.client)).since_start.raw === sent);
    const [service] = (await readFigures(world.client)).services;
    // A quarter more for what is with the notifier, and one push.
    assert.ok(service!.queued_bytes <= 630_000, `${service!.queued_bytes} bytes wait`);
  }
  assert.ok((await replies).every(({ success }) => success));
  // What the notifier may hold is full, too, and no more goes out.
  await until(async () => {
    const [service] = (await readFigures(world.client)).services;
    return service!.in_flight > 0 && service!.in_flight === world.notifier.sealed.length;
  });
  const figures = await readFigures(world.client);
  checkFigures(figures);
  const [service] = figures.services;
  assert.ok(service!.dropped.overflow! > 0);
  assert.equal(figures.since_start.unique, 60 * accounts.length);
  assert.equal(new Set(pushedHashes([world.notifier])).size, service!.in_flight, 'nothing twice');
});
