import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { systemClock } from '../../../src/clock.ts';
import { Store } from '../../../src/hivemind/store/store.ts';
import { keepLog } from '../../notifiers/support.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { connectTo, silent as log } from '../../support/members.ts';
import { createDatabase } from '../../support/postgres.ts';
import { makeRow } from '../../support/rows.ts';
import { until } from '../../support/until.ts';

describe('a store that is opened and closed', () => {
  it('refuses a database that another hivemind uses, with a sentence', async (t) => {
    const url = await createDatabase(t);
    const store = await Store.open({ url, clock: systemClock, log });
    t.after(() => store.close());
    await assert.rejects(Store.open({ url, clock: systemClock, log }), {
      code: 'locked',
      message: /^Another hivemind is at work on this database .*: stop it first/,
    });
  });

  it('can be opened as soon as the previous one is closed', async (t) => {
    const url = await createDatabase(t);
    const first = await Store.open({ url, clock: systemClock, log });
    // The three seconds for which it waits do not pass, however long this machine takes.
    const second = Store.open({ url, clock: { ...systemClock, monotonic: () => 0 }, log });
    await first.close();
    await (await second).close();
  });

  it('says that it has brought the database up to date, when it has', async (t) => {
    const url = await createDatabase(t, { empty: true });
    const { log, lines } = keepLog();
    const said = () =>
      lines.filter((line) => line.includes('the database was brought up to date: 001_original.sql')).length;
    await (await Store.open({ url, clock: systemClock, log })).close();
    assert.equal(said(), 1);
    await (await Store.open({ url, clock: systemClock, log })).close();
    assert.equal(lines.filter((line) => line.includes('up to date')).length, 1);
  });

  it('reports that there is no database', async () => {
    const url = 'postgresql:///spns?host=%2Fnonexistent&user=nobody';
    await assert.rejects(Store.open({ url, clock: systemClock, log }), { code: 'unavailable' });
  });

  it('leaves no timer behind when it is closed, whatever was wrong', async (t) => {
    const url = await createDatabase(t);
    const clock = new FakeClock();
    const { log, lines } = keepLog();
    const store = await Store.open({ url, clock, log });
    store.addStats('', { good: 1 });
    assert.deepEqual(lines, []);
    store.addStats('', { 'bad\0': 1 });
    await (await connectTo(t, url)).query('ALTER TABLE subscriptions RENAME TO elsewhere');
    await assert.rejects(store.upsert(makeRow()), { code: 'unavailable' });
    assert.equal(lines.length, 2);
    await store.close();
    assert.equal(clock.pending, 0);
  });

  it('gives a statement five seconds unless told otherwise, and the upgrade of the tables as long as it takes', async (t) => {
    // For the connection itself there is time.
    const url = `${await createDatabase(t)}&connect_timeout=60`;
    const other = await connectTo(t, url);
    await other.query(
      `CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN RAISE EXCEPTION '%', current_setting('statement_timeout') USING ERRCODE = '22000'; END $$;
       CREATE TRIGGER tell BEFORE INSERT ON subscriptions FOR EACH ROW EXECUTE FUNCTION tell()`,
    );
    for (const [timeout, said] of [
      [undefined, /: 5s /],
      [2_000, /: 2s /],
    ] as const) {
      // Held while the tables are changed, for longer than a statement may take if told so.
      await other.query('SELECT pg_advisory_lock(1397771859, 1)');
      const opening = Store.open({ url, clock: systemClock, log, ...(timeout && { timeout }) });
      const waiting = `SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'
        AND clock_timestamp() - query_start > INTERVAL '${(timeout ?? 0) + 100} ms'`;
      await until(async () => (await other.query(waiting)).rowCount === 1);
      await other.query('SELECT pg_advisory_unlock(1397771859, 1)');
      const store = await opening;
      await assert.rejects(store.upsert(makeRow()), said);
      await store.close();
    }
  });
});
