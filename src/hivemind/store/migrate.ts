import fs from 'node:fs/promises';
import type { ClientBase } from 'pg';
import { StoreError } from './store-error.ts';

const FOLDER = new URL('./migrations/', import.meta.url);

/**
 * Held while the tables are changed, so that processes that start together do it one after the other. Any fixed numbers
 * would do.
 */
const MIGRATION_LOCK = [0x53504e53, 1];

/** The oldest PostgreSQL with the types that we use. */
const OLDEST = 13;

/**
 * Brings a database up to date: an empty one, one of the original's (its current tables or those from before
 * subaccounts), or one of ours. Runs the numbered files of `migrations/` that have not been run yet, each in a
 * transaction of its own.
 *
 * @returns the names of the files that were run
 * @throws StoreError `refused` if the database is of a later version than this program, or PostgreSQL is older than
 *   {@link OLDEST}; Error if a file fails
 */
export async function migrate(client: ClientBase): Promise<string[]> {
  await requireVersion(client);
  await client.query('SELECT pg_advisory_lock($1, $2)', MIGRATION_LOCK);
  try {
    await client.query(
      'CREATE TABLE IF NOT EXISTS spns_migrations (number INT PRIMARY KEY, name VARCHAR NOT NULL, applied TIMESTAMPTZ NOT NULL DEFAULT now())',
    );
    const names = await pendingMigrations(client);
    for (const name of names) await apply(client, name);
    return names;
  } finally {
    await client.query('SELECT pg_advisory_unlock($1, $2)', MIGRATION_LOCK);
  }
}

/**
 * The names of the files that {@link migrate} would run. Changes nothing.
 *
 * @throws StoreError `refused` if the database is of a later version than this program
 */
export async function pendingMigrations(client: ClientBase): Promise<string[]> {
  const files = (await fs.readdir(FOLDER)).filter((name) => /^\d{3}_.*\.sql$/.test(name)).sort();
  const { rows: found } = await client.query("SELECT WHERE to_regclass('spns_migrations') IS NOT NULL");
  if (found.length === 0) return files;
  const { rows } = await client.query<{ number: number }>('SELECT number FROM spns_migrations');
  const done = new Set(rows.map((row) => row.number));
  const latest = Math.max(0, ...done);
  if (latest > files.length) {
    throw new StoreError(
      'refused',
      `The database was last used by a later version (its tables are at ${latest}, this version knows ${files.length}): install that version`,
    );
  }
  return files.filter((name) => !done.has(numberOf(name)));
}

/** @throws StoreError `refused` if PostgreSQL is older than {@link OLDEST} */
export async function requireVersion(client: Pick<ClientBase, 'query'>): Promise<void> {
  const { rows } = await client.query<{ number: number; version: string }>(
    `SELECT current_setting('server_version_num')::int AS number, current_setting('server_version') AS version`,
  );
  const { number, version } = rows[0] ?? { number: 0, version: 'unknown' };
  if (number < OLDEST * 10_000)
    throw new StoreError('refused', `PostgreSQL ${OLDEST} or later is needed, and this is ${version}`);
}

function numberOf(name: string): number {
  return Number(name.slice(0, 3));
}

async function apply(client: ClientBase, name: string): Promise<void> {
  const sql = await fs.readFile(new URL(name, FOLDER), 'utf8');
  await client.query('BEGIN');
  try {
    await client.query(sql);
    await client.query('INSERT INTO spns_migrations (number, name) VALUES ($1, $2)', [numberOf(name), name]);
    await client.query('COMMIT');
  } catch (error) {
    await client.query('ROLLBACK');
    throw new Error(`The database could not be brought up to date by ${name}: ${(error as Error).message}`, {
      cause: error,
    });
  }
}
