import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { after } from 'node:test';
import pg from 'pg';
import { type Postgres, startPostgres } from '../../src/devnet/postgres.ts';
import { migrate } from '../../src/hivemind/store/migrate.ts';
import { until } from './until.ts';

/** The environment variable that tells the test files the URL of the run's one server. */
const VARIABLE = 'SPNS_TEST_POSTGRES';
const TEMPLATE = 'spns_template';
const EMPTY = 'template1';

/** Starts a server with a template database that has our tables. It does not sync to disk. */
export async function startTestServer(): Promise<Postgres> {
  const { server } = await startOwnServer();
  await server.createDatabase(TEMPLATE);
  const client = new pg.Client({ connectionString: server.url(TEMPLATE) });
  await client.connect();
  await migrate(client);
  await client.end();
  process.env[VARIABLE] = server.url('postgres');
  return server;
}

/**
 * Starts an empty server for one test, which may stop, kill and restart it, and must `remove()` it.
 */
export async function startOwnServer(): Promise<{ dataDir: string; server: Postgres }> {
  const dataDir = await fs.mkdtemp(path.join(os.tmpdir(), 'spns-test-pg-'));
  return { dataDir, server: await startPostgres({ dataDir, fsync: false }) };
}

let started: Promise<Postgres> | undefined;

/** The URL of the run's server, or of one for this test file when it is run alone. */
async function serverUrl(): Promise<string> {
  const known = process.env[VARIABLE];
  if (known !== undefined) return known;
  started ??= startTestServer();
  return (await started).url('postgres');
}

after(async () => {
  const server = await started;
  await server?.remove();
});

let made = 0;

/**
 * Makes a database for one test and drops it after it.
 *
 * @param options.empty without our tables
 * @returns its connection URL
 */
export async function createDatabase(
  t: { after(fn: () => Promise<void>): void },
  options: { empty?: boolean } = {},
): Promise<string> {
  const admin = await serverUrl();
  const name = `test_${process.pid}_${++made}`;
  await execute(admin, `CREATE DATABASE ${name} TEMPLATE ${options.empty ? EMPTY : TEMPLATE}`);
  t.after(() => execute(admin, `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`));
  return admin.replace('///postgres?', `///${name}?`);
}

let roles = 0;

/** A database for one test whose tables belong to another user than the one of its URL, who may use them. */
export interface UnownedDatabase {
  readonly url: string;
  /** The user of the URL. */
  readonly role: string;
  /** A connection of the owner. */
  readonly owner: pg.Client;
}

/** As {@link createDatabase}. What connects by the URL must have ended before: its `t.after` comes before this. */
export async function createUnownedDatabase(t: { after(fn: () => Promise<void>): void }): Promise<UnownedDatabase> {
  const role = `test_user_${process.pid}_${++roles}`;
  let owner: pg.Client | undefined;
  // Before the database is dropped.
  t.after(async () => {
    await owner?.query(`DROP OWNED BY ${role}; DROP ROLE ${role}`);
    await owner?.end();
  });
  const url = await createDatabase(t);
  owner = new pg.Client({ connectionString: url });
  await owner.connect();
  await owner.query(`CREATE ROLE ${role} LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO ${role};
    GRANT CREATE ON SCHEMA public TO ${role}`);
  return { url: url.replace('user=postgres', `user=${role}`), role, owner };
}

/** Resolves when the client's database is at work for nobody else: what the others asked it has been carried out. */
export async function othersIdle(client: { query(text: string): Promise<{ rowCount: number | null }> }): Promise<void> {
  const others = `SELECT FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'`;
  await until(async () => (await client.query(others)).rowCount === 0);
}

async function execute(url: string, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query(sql);
  } finally {
    await client.end();
  }
}
