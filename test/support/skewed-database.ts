import pg from 'pg';
import type { Cleaner } from './hivemind.ts';
import { createDatabase, othersIdle } from './postgres.ts';

/** A database whose clock a test can set. */
export interface SkewedDatabase {
  readonly url: string;
  /** @param ms by how much its clock is ahead of the true time */
  skew(ms: number): Promise<void>;
  /** Stops its clock, for tests of what holds for some seconds only. */
  stopClock(): Promise<void>;
  /** As {@link othersIdle} of the database. */
  othersIdle(): Promise<void>;
  query<Row extends pg.QueryResultRow>(text: string): Promise<Row[]>;
}

/** PostgreSQL takes its time from the machine; here a function of the same name is found before the server's own. */
export async function createSkewedDatabase(t: Cleaner): Promise<SkewedDatabase> {
  const url = await createDatabase(t);
  const client = new pg.Client({ connectionString: url });
  // The database is dropped with it connected.
  client.on('error', () => {});
  await client.connect();
  t.after(() => client.end().catch(() => {}));
  await client.query(`
    CREATE TABLE skew (by INTERVAL);
    INSERT INTO skew VALUES ('0');
    CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
      AS 'SELECT pg_catalog.clock_timestamp() + by FROM public.skew';
    DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = public, pg_catalog', current_database()); END $$`);
  return {
    url,
    skew: async (ms) => void (await client.query('UPDATE skew SET by = make_interval(secs => $1)', [ms / 1000])),
    async stopClock() {
      const { rows } = await client.query<{ now: string }>('SELECT clock_timestamp()::text AS now');
      await client.query(`CREATE OR REPLACE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
        AS $$ SELECT TIMESTAMPTZ '${rows[0]!.now}' $$`);
    },
    othersIdle: () => othersIdle(client),
    query: async (text) => (await client.query(text)).rows,
  };
}
