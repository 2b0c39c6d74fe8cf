import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { sessionAccount } from '../../src/devnet/account.ts';
import { encodeDeviceGone } from '../../src/session/notifier-protocol.ts';
import type { Cleaner } from '../support/hivemind.ts';
import { seconds, subscribe, unsubscribe } from '../support/requests.ts';
import { message, monitored, startWorld, stats, TestNotifier, type World } from '../support/session-world.ts';
import { createSkewedDatabase, type SkewedDatabase } from '../support/skewed-database.ts';
import { SkippingClock } from '../support/skipping-clock.ts';
import { until } from '../support/until.ts';

const SECOND = 1_000;
const HOUR = 3_600 * SECOND;
const DAY = 24 * HOUR;
const YEAR = 365 * DAY;

interface Setup {
  world: World;
  clock: SkippingClock;
  database: SkewedDatabase;
  /** The machine's clock is ahead by so much, and with it the database's if that is on the same machine. */
  step(ms: number, along: boolean): Promise<void>;
  reasons(): string;
}

async function setup(t: Cleaner, database?: SkewedDatabase, ahead = 0, along = true): Promise<Setup> {
  const clock = new SkippingClock();
  const db = database ?? (await createSkewedDatabase(t));
  clock.jump(ahead);
  await db.skew(along ? ahead : 0);
  const world = await startWorld(t, { clock, database: db.url });
  let at = ahead;
  return {
    world,
    clock,
    database: db,
    reasons: () => world.hivemind.daemon.ready?.().reasons.join('; ') ?? '',
    async step(ms, isAlong) {
      clock.jump(ms - at);
      at = ms;
      await db.skew(isAlong ? ms : 0);
    },
  };
}

/** So much time passes for the hivemind; what falls due in it is done. The network's servers live in true time. */
async function pass({ clock, world, database }: Setup, ms: number): Promise<void> {
  await database.othersIdle();
  clock.jump(ms);
  clock.skip(ms);
  // Behind the timers that the skip has made due: what they began is under way.
  await sleep(1);
  // Twice, for an answer may lead to another question; and a question to its event loop, which then has the answer.
  for (let round = 0; round < 2; round++) {
    await database.othersIdle();
    await stats(world);
  }
  clock.jump(-ms);
}

async function send(world: World, body: unknown): Promise<{ error?: number; success?: boolean }> {
  return (await world.send('subscribe', body)) as { error?: number; success?: boolean };
}

async function count(database: SkewedDatabase, table: string): Promise<number> {
  return Number((await database.query<{ n: string }>(`SELECT count(*) AS n FROM ${table}`))[0]!.n);
}

for (const [name, ms] of [
  ['15 days ahead', 15 * DAY],
  ['15 days back', -15 * DAY],
  ['30 years ahead', 30 * YEAR],
  ['into 1970', -Date.now()],
] as const) {
  test(`a clock that steps ${name} for a while costs no subscription, no request and no push`, async (t) => {
    for (const along of [true, false]) {
      const setting = await setup(t);
      const { world, database, reasons, step } = setting;
      const accounts = Array.from({ length: 5 }, () => sessionAccount(randomBytes));
      await send(
        world,
        accounts.map((account, index) => subscribe(account, `phone ${index}`)),
      );
      const left = sessionAccount(randomBytes);
      const before = subscribe(left, 'gone', { at: seconds() - 100 });
      await send(world, before);
      await world.send('unsubscribe', unsubscribe(left, 'gone'));
      for (const account of accounts) await monitored(world, account);
      const said = reasons();
      assert.doesNotMatch(said, /time/);

      await step(ms, along);
      assert.match(reasons(), /the time is in doubt: this machine's clock says/, 'at once');
      await pass(setting, 40 * SECOND);
      assert.equal((await stats(world)).subscriptions.total, 5);
      assert.equal(await count(database, 'subscriptions'), 5);
      assert.ok((await count(database, 'spns_unsubscribed')) > 0, 'who unsubscribed is remembered');
      // Requests are taken, old copies are not; what no clock takes is told to retry.
      const more = sessionAccount(randomBytes);
      assert.equal((await send(world, subscribe(more, 'more'))).success, true);
      assert.equal((await send(world, subscribe(more, 'more', { at: seconds() - 400 * 86_400 }))).error, 5);
      assert.equal((await send(world, before)).error, 4, 'signed before it unsubscribed');
      world.network.deliver(message(accounts[0]!, 'in the wrong time'));
      await world.notifier.pushes(1);

      await step(0, along);
      await pass(setting, 11 * SECOND);
      await until(() => reasons() === said);
      await pass(setting, 60 * SECOND);
      assert.equal((await stats(world)).subscriptions.total, 6);
      assert.equal(await count(database, 'subscriptions'), 6);
      assert.equal((await send(world, subscribe(more, 'more', { at: seconds() - 400 * 86_400 }))).error, 4);
      await world.hivemind.stop();
    }
  });
}

test('a machine that was suspended for days recovers the time by itself, and serves its clients meanwhile', async (t) => {
  const setting = await setup(t);
  const { world, reasons, step } = setting;
  const account = sessionAccount(randomBytes);
  await send(world, subscribe(account, 'phone'));
  await monitored(world, account);
  await step(3 * DAY, true);
  const then = seconds() + (3 * DAY) / SECOND;
  await pass(setting, 40 * SECOND);
  assert.match(reasons(), /in doubt/);
  const other = sessionAccount(randomBytes);
  assert.equal((await send(world, subscribe(other, 'other', { at: then }))).success, true);
  await pass(setting, HOUR);
  await step(3 * DAY + HOUR, true);
  await pass(setting, 11 * SECOND);
  await step(3 * DAY + HOUR + 11 * SECOND, true);
  await until(() => !reasons().includes('in doubt'));
  assert.equal((await stats(world)).subscriptions.total, 2);
});

test('started in 1970 it turns nobody away for good, and is right as soon as the clock is', async (t) => {
  const setting = await setup(t, undefined, -Date.now() + 1000);
  const { world, reasons, step } = setting;
  assert.match(reasons(), /says 1970.* must be later than/);
  const account = sessionAccount(randomBytes);
  assert.equal((await send(world, subscribe(account, 'phone'))).error, 5);
  assert.equal(((await world.send('unsubscribe', unsubscribe(account, 'phone'))) as { error: number }).error, 5);
  await step(0, true);
  assert.equal((await send(world, subscribe(account, 'phone'))).success, true, 'at once');
  await pass(setting, 11 * SECOND);
  await until(() => !reasons().includes('in doubt'));
});

test('started 15 days ahead it keeps everything, pushes, and turns nobody away for good', async (t) => {
  const first = await setup(t);
  const accounts = Array.from({ length: 5 }, () => sessionAccount(randomBytes));
  await send(
    first.world,
    accounts.map((account, index) => subscribe(account, `phone ${index}`)),
  );
  await first.world.hivemind.stop();

  const setting = await setup(t, first.database, 15 * DAY);
  const { world, database, reasons, step } = setting;
  // Connections that are still being made would be given up in the time that passes.
  await monitored(world, accounts[0]!);
  await pass(setting, 40 * SECOND);
  assert.match(reasons(), /more than 2 of 5 subscriptions seem to be out of date .* "spns expire --yes"/);
  assert.equal((await stats(world)).subscriptions.total, 5);
  assert.equal(await count(database, 'subscriptions'), 5);
  await monitored(world, accounts[0]!);
  world.network.deliver(message(accounts[0]!, 'from the past, it seems'));
  await world.notifier.pushes(1);
  const more = sessionAccount(randomBytes);
  assert.equal((await send(world, subscribe(more, 'more', { at: seconds() - 3 * 86_400 }))).error, 5);

  await step(0, true);
  await pass(setting, 40 * SECOND);
  assert.equal((await send(world, subscribe(more, 'more'))).success, true);
  assert.equal((await stats(world)).subscriptions.total, 6);
  assert.equal(await count(database, 'subscriptions'), 6);
});

test('started before its own subscriptions were signed it recognises that its clock is behind', async (t) => {
  const first = await setup(t);
  await send(first.world, subscribe(sessionAccount(randomBytes), 'phone'));
  await first.world.hivemind.stop();
  const { world, reasons } = await setup(t, first.database, -15 * DAY);
  assert.match(reasons(), /must be later than/);
  assert.equal((await send(world, subscribe(sessionAccount(randomBytes), 'other'))).error, 5);
});

test("started with the wrong time beside a database with the right one, it uses the database's", async (t) => {
  for (const ahead of [15 * DAY, -Date.now()]) {
    const { world, reasons, database } = await setup(t, undefined, ahead, false);
    assert.match(reasons(), /in doubt/);
    const account = sessionAccount(randomBytes);
    assert.equal((await send(world, subscribe(account, 'phone'))).success, true);
    await monitored(world, account);
    world.network.deliver(message(account, 'hello'));
    await world.notifier.pushes(1);
    assert.equal(await count(database, 'subscriptions'), 1);
    await world.hivemind.stop();
  }
});

test('after two weeks off the operator releases what has really expired', async (t) => {
  const first = await setup(t);
  const accounts = Array.from({ length: 3 }, () => sessionAccount(randomBytes));
  await send(
    first.world,
    accounts.map((account, index) => subscribe(account, `phone ${index}`)),
  );
  await first.world.hivemind.stop();
  await first.database.query('UPDATE subscriptions SET signature_ts = signature_ts - 15 * 86400');

  const { world, database } = await setup(t, first.database);
  const ask = async (...words: string[]) =>
    JSON.parse(String((await world.client.request('admin.expire', words))[0])) as { expired: number; held?: string };
  const fresh = sessionAccount(randomBytes);
  assert.equal((await send(world, subscribe(fresh, 'fresh'))).success, true);
  assert.match((await ask()).held ?? '', /more than 1 of 3/);
  assert.equal(await count(database, 'subscriptions'), 4);
  assert.deepEqual(await ask('yes'), { expired: 3 });
  await until(async () => (await count(database, 'subscriptions')) === 1);
  assert.equal((await stats(world)).subscriptions.total, 1);
});

test('a provider calls a device gone while the clock is wrong: what subscribed after that stays', async (t) => {
  const { world, step } = await setup(t);
  const account = sessionAccount(randomBytes);
  await send(world, subscribe(account, 'phone'));
  const gone = async (time: number, expected: number) => {
    const report = { service: 'test', serviceId: 'phone'.padEnd(32, '.'), time, reason: 'test', local: false };
    new TestNotifier(world.hivemind).connection.send('admin.device_gone', encodeDeviceGone(report));
    // The command comes before the question on no common way: asked until it was counted.
    await until(async () => {
      const [body] = await world.client.request('admin.get_services', []);
      return (JSON.parse(String(body)) as { gone: number }[])[0]!.gone === expected;
    });
  };
  await step(-15 * DAY, true);
  await gone(Date.now() - HOUR, 1);
  assert.equal((await stats(world)).subscriptions.total, 1);
  await step(15 * DAY, true);
  await gone(Date.now() - HOUR, 2);
  assert.equal((await stats(world)).subscriptions.total, 1);
  await step(0, true);
  await gone(Date.now() + HOUR, 3);
  await until(async () => (await stats(world)).subscriptions.total === 0);
});
