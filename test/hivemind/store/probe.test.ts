import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import type pg from 'pg';
import { Store } from '../../../src/hivemind/store/store.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { connectTo, silent } from '../../support/members.ts';
import { createDatabase } from '../../support/postgres.ts';
import { makeRow } from '../../support/rows.ts';
import { until } from '../../support/until.ts';

/** A store on a clock that is moved by hand, and another connection to its database. */
async function openStore(t: TestContext) {
  const url = await createDatabase(t);
  const clock = new FakeClock();
  // The server's own limit is in true time.
  const store = await Store.open({ url, clock, log: silent, timeout: 60_000 });
  t.after(() => store.close());
  const admin = await connectTo(t, url);
  // The connection does one statement after the other: what a timer has asked of it is done before the time goes on.
  const settle = async () => void (await store.time());
  const pass = (ms: number) => clock.advance(ms, settle);
  return { store, clock, admin, url, settle, pass };
}

/** How many numbers of subscriptions were given out: for good, also to rows that are taken back, as a trial does. */
async function numbersGiven(client: pg.Client): Promise<number> {
  const { rows } = await client.query<{ given: string }>(
    'SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS given FROM subscriptions_id_seq',
  );
  return Number(rows[0]?.given);
}

describe('whether the database writes', () => {
  it('is tried when nobody has written for a minute, and nothing of that is left behind', async (t) => {
    const { store, admin, pass } = await openStore(t);
    await pass(4 * 60_000);
    assert.equal(store.connected, true);
    assert.equal(await numbersGiven(admin), 4, 'after 5, 65, 125 and 185 seconds');
    const left =
      'SELECT FROM subscriptions UNION ALL SELECT FROM sub_namespaces UNION ALL SELECT FROM spns_unsubscribed';
    assert.equal((await admin.query(left)).rowCount, 0);
  });

  it('is tried a minute after the last write, which has shown that it does', async (t) => {
    const { store, admin, pass } = await openStore(t);
    await pass(30_000);
    await store.upsert(makeRow());
    await pass(60_000);
    assert.equal(await numbersGiven(admin), 2);
    await pass(5_000);
    assert.equal(await numbersGiven(admin), 3);
  });

  it('is tried every five seconds while it does not', async (t) => {
    const { store, admin, pass } = await openStore(t);
    /** Seconds until the trouble is, or is no more. */
    const secondsUntil = async (isTroubled: boolean) => {
      let seconds = 0;
      for (; (store.trouble !== undefined) !== isTroubled && seconds < 200; seconds += 5) await pass(5_000);
      return seconds;
    };
    await pass(5_000);
    await admin.query('ALTER TABLE spns_unsubscribed RENAME TO elsewhere');
    assert.equal(await secondsUntil(true), 60);
    assert.match(store.trouble ?? '', /^the database does not write: relation "spns_unsubscribed" does not exist/);
    assert.deepEqual([...store.errors], [['schema', 1]]);
    await admin.query('ALTER TABLE elsewhere RENAME TO spns_unsubscribed');
    assert.equal(await secondsUntil(false), 5);
    assert.equal(store.connected, true);
  });

  it('is tried when one kind of write works and another has failed, once a second', async (t) => {
    const { store, clock, admin, settle } = await openStore(t);
    const row = makeRow();
    await admin.query(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'full' USING ERRCODE = '53100'; END $$;
      CREATE TRIGGER refuse BEFORE INSERT ON spns_unsubscribed FOR EACH ROW EXECUTE FUNCTION refuse()`);
    await assert.rejects(store.remove(row.account, row.service, row.serviceId, row.signedAt));
    const failures: (number | undefined)[] = [];
    for (const ms of [0, 999, 1]) {
      clock.run(ms);
      await store.upsert(row);
      await settle();
      failures.push(store.errors.get('disk_full'));
    }
    assert.deepEqual(failures, [2, 2, 3]);
    await admin.query('DROP TRIGGER refuse ON spns_unsubscribed');
    clock.run(1_000);
    await store.upsert(row);
    await settle();
    assert.equal(store.trouble, undefined);
  });

  it('is not tried again before the last trial is answered', async (t) => {
    const { store, clock, admin, settle } = await openStore(t);
    await admin.query('BEGIN; LOCK TABLE spns_unsubscribed');
    clock.run(5_000);
    const waiting = "SELECT FROM pg_locks WHERE relation = 'spns_unsubscribed'::regclass AND NOT granted";
    await until(async () => (await admin.query(waiting)).rowCount === 1);
    clock.run(5_000);
    await admin.query('COMMIT');
    await settle();
    assert.equal(await numbersGiven(admin), 1);
    assert.equal(store.connected, true);
  });

  it('is not asked of one that does not answer', async (t) => {
    const { store, clock, admin } = await openStore(t);
    await admin.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'spns hivemind'
       AND datname = current_database()`,
    );
    await until(() => !store.connected);
    assert.equal(store.trouble, 'the database does not answer: terminating connection due to administrator command');
    // Before it has connected anew, which takes turns of the event loop.
    clock.run(120_000);
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual([...store.errors], []);
  });
});
