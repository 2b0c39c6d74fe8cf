import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import pg from 'pg';
import { pino } from 'pino';
import { systemClock } from '../../../src/clock.ts';
import type { DeviceRow } from '../../../src/hivemind/devices/device.ts';
import { migrate } from '../../../src/hivemind/store/migrate.ts';
import { Store, StoreError } from '../../../src/hivemind/store/store.ts';
import { createDatabase } from '../../support/postgres.ts';
import { makeRow } from '../../support/rows.ts';

const NOW = 1_700_000_000;
const log = pino({ level: 'silent' });

/** The original's tables, after docs/spec/hivemind.md, section 4. */
const ORIGINAL = `
CREATE TABLE subscriptions (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account BYTEA NOT NULL,
  session_ed25519 BYTEA,
  subaccount_tag BYTEA,
  subaccount_sig BYTEA,
  signature BYTEA NOT NULL,
  signature_ts BIGINT NOT NULL,
  want_data BOOLEAN NOT NULL,
  enc_key BYTEA NOT NULL,
  service VARCHAR NOT NULL,
  svcid VARCHAR NOT NULL,
  svcdata BYTEA,
  UNIQUE (account, service, svcid)
);
CREATE INDEX sub_sig_ts_idx ON subscriptions (signature_ts);
CREATE INDEX sub_service_idx ON subscriptions (service);
CREATE TABLE sub_namespaces (
  subscription BIGINT NOT NULL REFERENCES subscriptions (id) ON DELETE CASCADE,
  namespace SMALLINT NOT NULL,
  PRIMARY KEY (subscription, namespace)
);
CREATE TABLE service_stats (
  service VARCHAR NOT NULL,
  name VARCHAR NOT NULL,
  val_str VARCHAR,
  val_int BIGINT,
  PRIMARY KEY (service, name),
  CHECK ((val_str IS NULL) <> (val_int IS NULL))
);`;

const BEFORE_SUBACCOUNTS = `${ORIGINAL}
ALTER TABLE subscriptions DROP COLUMN subaccount_tag, DROP COLUMN subaccount_sig, ADD COLUMN subkey_tag BYTEA;`;

/** As the original inserts: columns by name, then the namespaces. */
async function insertAsOriginal(client: pg.Client, row: DeviceRow): Promise<void> {
  const { rows } = await client.query<{ id: string }>(
    `INSERT INTO subscriptions (account, session_ed25519, signature, signature_ts, want_data, enc_key, service, svcid, svcdata)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id`,
    [
      row.account,
      row.sessionEd25519,
      row.signature,
      row.signedAt,
      row.wantData,
      row.encKey,
      row.service,
      row.serviceId,
      row.serviceData,
    ],
  );
  for (const namespace of row.namespaces) {
    await client.query('INSERT INTO sub_namespaces VALUES ($1, $2)', [rows[0]!.id, namespace]);
  }
}

async function connect(t: TestContext, url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  t.after(() => client.end());
  return client;
}

async function columns(client: pg.Client): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable AS name
     FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1`,
  );
  return rows.map(({ name }) => name);
}

async function indexes(client: pg.Client): Promise<number> {
  const { rows } = await client.query(
    "SELECT FROM pg_indexes WHERE tablename = 'subscriptions' AND indexdef ~ '\\((service|signature_ts)\\)'",
  );
  return rows.length;
}

describe('the migrations', () => {
  for (const [name, schema] of [
    ["the original's database", ORIGINAL],
    ["the original's database from before subaccounts", BEFORE_SUBACCOUNTS],
  ] as const) {
    it(`take over ${name} with its rows, and leave it usable by the original`, async (t) => {
      const url = await createDatabase(t, { empty: true });
      const client = await connect(t, url);
      await client.query(schema);
      const rows = [makeRow({ namespaces: [-10, 0, 3] }), makeRow({ serviceData: Buffer.of(1, 2) })];
      for (const row of rows) await insertAsOriginal(client, row);
      const before = await indexes(client);

      const store = await Store.open({ url, clock: systemClock, log });
      const found: string[] = [];
      assert.deepEqual(await store.load((row) => found.push(`${row.serviceId} ${row.namespaces}`)), {
        rows: 2,
        skipped: 0,
      });
      assert.deepEqual(found.sort(), rows.map((row) => `${row.serviceId} ${row.namespaces}`).sort());
      assert.equal(await store.upsert({ ...rows[0]!, signedAt: NOW + 1 }), 'updated');
      await store.close();

      assert.equal(before, 2);
      assert.equal(await indexes(client), 2);
      await insertAsOriginal(client, makeRow());
    });
  }

  it("take over another user's database once that user's rights are granted, and the way back needs nothing", async (t) => {
    const url = await createDatabase(t, { empty: true });
    const admin = await connect(t, url);
    const [database] = (await admin.query<{ name: string }>('SELECT current_database() AS name')).rows;
    const [theirs, ours] = [`original_${database!.name}`, `spns_${database!.name}`];
    const as = (user: string) => connect(t, url.replace('user=postgres', `user=${user}`));
    await admin.query(`CREATE ROLE ${theirs} LOGIN; CREATE ROLE ${ours} LOGIN`);
    // Roles belong to the whole server, and can go once the database has gone.
    t.after(async () => {
      const server = new pg.Client({ connectionString: url.replace(`///${database!.name}?`, '///postgres?') });
      await server.connect();
      await server.query(`DROP ROLE ${ours}; DROP ROLE ${theirs}`);
      await server.end();
    });
    await admin.query(`ALTER DATABASE ${database!.name} OWNER TO ${theirs}`);
    const original = await as(theirs);
    await original.query(BEFORE_SUBACCOUNTS);
    await insertAsOriginal(original, makeRow({ namespaces: [0] }));
    await original.end();

    const mine = { url: url.replace('user=postgres', `user=${ours}`), clock: systemClock, log };
    await assert.rejects(Store.open(mine), /permission denied|must be owner/);
    await admin.query(`GRANT ${theirs} TO ${ours}`);
    const store = await Store.open(mine);
    assert.deepEqual(await store.load(() => undefined), { rows: 1, skipped: 0 });
    assert.equal(await store.upsert(makeRow({ signedAt: NOW })), 'added');
    await store.close();

    const again = await as(theirs);
    await insertAsOriginal(again, makeRow());
    assert.equal((await again.query('DELETE FROM subscriptions')).rowCount, 3);
    await again.query('ALTER TABLE subscriptions ADD COLUMN of_tomorrow INT; CREATE TABLE of_tomorrow (x INT)');
    await again.end();
  });

  it('create the same tables from every starting point', async (t) => {
    const shapes: string[][] = [];
    for (const schema of ['', ORIGINAL, BEFORE_SUBACCOUNTS]) {
      const client = await connect(t, await createDatabase(t, { empty: true }));
      await client.query(schema);
      assert.equal((await migrate(client)).length, 6);
      assert.deepEqual(await migrate(client), []);
      assert.equal(await indexes(client), 2);
      shapes.push(await columns(client));
    }
    assert.deepEqual(shapes[1], shapes[0]);
    assert.deepEqual(shapes[2], shapes[0]);
  });

  it('give each Apple device one name, and leave it its newest subscription', async (t) => {
    const url = await createDatabase(t, { empty: true });
    const client = await connect(t, url);
    await client.query(ORIGINAL);
    const upper = 'AB'.repeat(32);
    const account = makeRow().account;
    const add = (serviceId: string, signedAt: number, more: Partial<DeviceRow> = {}) =>
      insertAsOriginal(client, makeRow({ account, service: 'apns', serviceId, signedAt, ...more }));
    await add(upper, NOW + 2, { namespaces: [0, 3] });
    await add(upper.toLowerCase(), NOW + 1);
    await add(`aB${upper.slice(2)}`, NOW);
    await add(upper, NOW, { service: 'apns-sandbox' });
    await add(upper, NOW, { service: 'firebase' });
    await add(`Z${upper.slice(1)}`, NOW);
    await add(upper, NOW, { account: makeRow().account });

    const store = await Store.open({ url, clock: systemClock, log });
    t.after(() => store.close());
    const found: string[] = [];
    await store.load((row) => {
      const whose = row.account.equals(account) ? '' : ' another';
      found.push(`${row.service} ${row.serviceId} ${row.signedAt - NOW} ${row.namespaces}${whose}`);
    });
    const lower = upper.toLowerCase();
    assert.deepEqual(
      found.sort(),
      [
        `apns ${lower} 0 0 another`,
        `apns ${lower} 2 0,3`,
        `apns Z${upper.slice(1)} 0 0`,
        `apns-sandbox ${lower} 0 0`,
        `firebase ${upper} 0 0`,
      ].sort(),
    );
  });

  it('run once when two processes start together', async (t) => {
    const url = await createDatabase(t, { empty: true });
    const clients = await Promise.all([connect(t, url), connect(t, url)]);
    const applied = await Promise.all(clients.map((client) => migrate(client)));
    assert.deepEqual(applied.map((names) => names.length).sort(), [0, 6]);
  });

  it('refuse a PostgreSQL that is too old before they have changed anything', async (t) => {
    const url = await createDatabase(t, { empty: true });
    const client = await connect(t, url);
    await client.query(`CREATE FUNCTION current_setting(name TEXT) RETURNS TEXT LANGUAGE sql AS
      $$ SELECT CASE name WHEN 'server_version_num' THEN '120022' ELSE '12.22' END $$`);
    await client.query('SET search_path = public, pg_catalog');
    await assert.rejects(migrate(client), {
      code: 'refused',
      message: 'PostgreSQL 13 or later is needed, and this is 12.22',
    });
    await client.query(`CREATE OR REPLACE FUNCTION current_setting(name TEXT) RETURNS TEXT LANGUAGE sql AS
      $$ SELECT CASE name WHEN 'server_version_num' THEN '130000' ELSE '13.0' END $$`);
    assert.equal((await migrate(client)).length, 6);
  });

  it('undo a file whose end cannot be noted, and keep those before it', async (t) => {
    const client = await connect(t, await createDatabase(t, { empty: true }));
    await client.query(`CREATE TABLE spns_migrations (number INT PRIMARY KEY CHECK (number < 3), name VARCHAR NOT NULL,
      applied TIMESTAMPTZ NOT NULL DEFAULT now())`);
    await assert.rejects(
      migrate(client),
      /^Error: The database could not be brought up to date by 003_unsubscribed\.sql: /,
    );
    const { rows } = await client.query(
      "SELECT to_regclass('spns_unsubscribed') AS made, (SELECT count(*)::int FROM spns_migrations) AS noted",
    );
    assert.deepEqual(rows, [{ made: null, noted: 2 }]);
  });

  it('refuse the database of a later version', async (t) => {
    const url = await createDatabase(t);
    const client = await connect(t, url);
    await client.query("INSERT INTO spns_migrations (number, name) VALUES (99, '099_later.sql')");
    await assert.rejects(Store.open({ url, clock: systemClock, log }), (error: unknown) => {
      assert.ok(error instanceof StoreError);
      assert.equal(error.code, 'refused');
      assert.match(error.message, /last used by a later version/);
      return true;
    });
  });
});
