import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { syncBuiltinESMExports } from 'node:module';
import { describe, it, type TestContext } from 'node:test';
import timers from 'node:timers/promises';
import { Store } from '../../../src/hivemind/store/store.ts';
import { slotOf } from '../../../src/session/slots.ts';
import { keepLog } from '../../notifiers/support.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { connectTo } from '../../support/members.ts';
import { createDatabase } from '../../support/postgres.ts';
import { makeRow } from '../../support/rows.ts';
import { until } from '../../support/until.ts';

async function openStore(t: TestContext) {
  const url = await createDatabase(t);
  const clock = new FakeClock();
  const { log, lines } = keepLog();
  const store = await Store.open({ url, clock, log });
  t.after(() => store.close());
  const admin = await connectTo(t, url);
  /** Resolves when the database serves the store by so many connections. */
  const served = (count: number) =>
    until(async () => {
      const of = "datname = current_database() AND application_name = 'spns hivemind'";
      return (await admin.query(`SELECT FROM pg_stat_activity WHERE ${of}`)).rowCount === count;
    });
  return { store, clock, admin, lines, served };
}

describe('reading all subscriptions', () => {
  it('ends when it is told to, and leaves neither a connection nor a listener', async (t) => {
    const { store, admin, served } = await openStore(t);
    await admin.query(
      `INSERT INTO subscriptions (account, session_ed25519, signature, signature_ts, want_data, enc_key, service, svcid)
       SELECT '\\x05' || sha256(int4send(n)), sha256(int4send(n)), sha512(int4send(n)), 1700000000, true,
         sha256(int4send(n)), 'apns', 'device-' || lpad(n::text, 30, '0') FROM generate_series(1, 20000) n`,
    );
    await admin.query('INSERT INTO sub_namespaces SELECT id, 0 FROM subscriptions');
    const stopping = new AbortController();
    const { signal } = stopping;
    assert.deepEqual(await store.load(() => {}, signal), { rows: 20_000, skipped: 0 });
    assert.deepEqual(getEventListeners(signal, 'abort'), []);
    await served(1);
    await assert.rejects(
      store.load(() => stopping.abort(), signal),
      { code: 'unavailable', message: /^The subscriptions could not be read: / },
    );
    assert.deepEqual(getEventListeners(signal, 'abort'), []);
    await served(1);
  });

  it('lets others have their turn after eight milliseconds', async (t) => {
    const { store, clock } = await openStore(t);
    clock.stall(100);
    // Of more bytes than come at once.
    const serviceData = Buffer.alloc(99_000, 7);
    await Promise.all(Array.from({ length: 12 }, () => store.upsert(makeRow({ serviceData }))));
    const turns = t.mock.method(timers, 'setImmediate');
    syncBuiltinESMExports();
    t.after(syncBuiltinESMExports);
    for (const [ms, expected] of [
      [0, 0],
      [7, 0],
      [8, 1],
    ] as const) {
      turns.mock.resetCalls();
      let read = 0;
      await store.load(() => clock.stall(read++ === 0 ? ms : 0));
      assert.deepEqual([turns.mock.callCount(), read], [expected, 12], `${ms} ms for the first`);
    }
  });

  it('fails as the database does, or as what it is read for does, and leaves no connection', async (t) => {
    const { store, admin, served } = await openStore(t);
    await Promise.all(Array.from({ length: 3 }, () => store.upsert(makeRow())));
    let read = 0;
    const visit = () => {
      read++;
      throw new Error('no room');
    };
    await assert.rejects(store.load(visit), { message: 'The subscriptions could not be read: no room' });
    assert.equal(read, 1);
    await admin.query('ALTER TABLE sub_namespaces RENAME TO gone');
    await assert.rejects(
      store.load(() => {}),
      { code: 'unavailable', message: /could not be read: .*sub_namespaces.* does not exist/ },
    );
    await served(1);
  });

  it('tells before the first row about how many will come, of some slots their share', async (t) => {
    const { store, admin } = await openStore(t);
    const told: (number | 'row')[] = [];
    const load = (slots?: readonly number[]) =>
      store.load(
        () => told.push('row'),
        undefined,
        slots,
        (rows) => told.push(rows),
      );
    const rows = Array.from({ length: 4 }, () => makeRow());
    await Promise.all(rows.map((row) => store.upsert(row)));
    await load();
    assert.deepEqual(told.splice(0), [0, 'row', 'row', 'row', 'row'], 'never counted');
    await admin.query('ANALYZE subscriptions');
    await load();
    assert.deepEqual(told.splice(0), [4, 'row', 'row', 'row', 'row']);
    await load([slotOf(rows[0]!.account)]);
    assert.equal(told[0], 4 / 256);
  });

  it('needs no database that accepts changes', async (t) => {
    const { store, admin } = await openStore(t);
    await store.upsert(makeRow());
    const { rows } = await admin.query<{ name: string }>('SELECT current_database() AS name');
    await admin.query(`ALTER DATABASE ${rows[0]?.name} SET default_transaction_read_only = on`);
    assert.deepEqual(await store.load(() => {}), { rows: 1, skipped: 0 });
  });

  it('says how many it has skipped and why, if there are any', async (t) => {
    const { store, admin, lines } = await openStore(t);
    await store.upsert(makeRow());
    await store.load(() => {});
    assert.deepEqual(lines, []);
    for (const rest of [[], ['', '']]) {
      lines.length = 0;
      await Promise.all(rest.map(() => store.upsert(makeRow())));
      await admin.query("UPDATE subscriptions SET enc_key = ''");
      await store.load(() => {});
      const count = 1 + rest.length;
      assert.equal(lines.length, 1);
      assert.match(lines[0]!, new RegExp(`skipped invalid subscriptions, by reason: ${count} .*enc`));
    }
  });
});
