import type pg from 'pg';
import { conninfo, openClient, requireSession } from './client.ts';
import { migrate, pendingMigrations, requireVersion } from './migrate.ts';

/**
 * The database work of the `spns` command, as a process of its own: `address` only parses the address, `check` changes
 * nothing (`check shared`: for several hiveminds), `migrate` brings the tables up to date. The address comes in
 * SPNS_DATABASE_URL, since every user of the machine can read arguments. Prints one sentence; exit code 1 if that is a
 * problem.
 */

/** For a connection or a statement, in ms. */
const TIMEOUT = 5_000;
const TABLES = ['subscriptions', 'sub_namespaces', 'service_stats'];

/** Checks the database, and gives the sentence to print. @param shared whether several hiveminds will share it */
async function check(client: pg.Client, shared: boolean): Promise<string> {
  await requireVersion(client);
  const { rows } = await client.query<{
    version: string;
    user: string;
    tables: string[];
    create: boolean;
    standby: boolean;
  }>(
    `SELECT current_setting('server_version') AS version, current_user AS user, pg_is_in_recovery() AS standby,
       has_schema_privilege(current_schema(), 'CREATE') AS create,
       ARRAY(SELECT name FROM unnest($1::text[]) AS name WHERE to_regclass(name) IS NOT NULL) AS tables`,
    [TABLES],
  );
  const { version, user, tables, create, standby } = only(rows);
  if (standby) throw new Error('this PostgreSQL is a standby, which accepts no changes: name the primary in [db].url');
  const mayNotMake = `the user ${user} may not create the tables: GRANT CREATE ON SCHEMA public TO ${user}`;
  if (tables.length < TABLES.length) {
    if (!create) throw new Error(mayNotMake);
    return `PostgreSQL ${version} answers; the tables will be created at the hivemind's first start, or by "spns migrate"`;
  }
  const refused = await client.query<{ name: string }>(
    "SELECT name FROM unnest($1::text[]) AS name WHERE NOT has_table_privilege(name, 'SELECT, INSERT, UPDATE, DELETE')",
    [TABLES],
  );
  if (refused.rows.length > 0) {
    const names = refused.rows.map(({ name }) => name).join(', ');
    throw new Error(
      `the user ${user} may not use the tables: GRANT ALL ON ${names} TO ${user}, or make it their owner`,
    );
  }
  const { rows: foreign } = await client.query<{ name: string; owner: string }>(
    `SELECT relname AS name, pg_get_userbyid(relowner) AS owner
       FROM unnest($1::text[]) WITH ORDINALITY AS t(name, n) JOIN pg_class ON oid = to_regclass(t.name)
       WHERE NOT pg_has_role(relowner, 'USAGE') ORDER BY n`,
    [TABLES],
  );
  const pending = await pendingMigrations(client);
  if ((pending.length > 0 || shared) && foreign.length > 0) {
    const why =
      pending.length > 0
        ? 'the tables must be upgraded, which only their owner may do'
        : 'the first of several hiveminds switches triggers on, which only the owner of the tables may do';
    const owned = foreign.map(({ name, owner }) => `${name} of ${owner}`).join(', ');
    const change = [...new Set(foreign.map(({ owner }) => `GRANT ${owner} TO ${user}`))].join('; ');
    throw new Error(`${why}, and ${owned} is not ${user}'s: ${change}`);
  }
  if (pending.length > 0 && !create) throw new Error(mayNotMake);
  const { rows: counted } = await client.query<{ count: string }>('SELECT count(*) FROM subscriptions');
  const upgrade =
    pending.length > 0 ? ` its tables will be upgraded at the hivemind's first start, or by "spns migrate";` : '';
  return `PostgreSQL ${version} answers;${upgrade} ${Number(only(counted).count).toLocaleString('en')} subscriptions`;
}

/** The only row of a result. */
function only<T>([row]: readonly T[]): T {
  if (row === undefined) throw new Error('PostgreSQL answered without a row');
  return row;
}

async function main([task, shared]: readonly string[]): Promise<void> {
  const url = process.env.SPNS_DATABASE_URL ?? '';
  if (task === 'address') {
    conninfo(url);
    return;
  }
  const { client } = await openClient(url, TIMEOUT);
  try {
    if (task === 'check') {
      await client.query(`SET statement_timeout = ${TIMEOUT}`);
      const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
      await requireSession(client, only(rows).pid, url, TIMEOUT);
      process.stdout.write(`${await check(client, shared === 'shared')}\n`);
      return;
    }
    const applied = await migrate(client);
    process.stdout.write(applied.length > 0 ? `done: ${applied.join(', ')}\n` : 'the tables are up to date\n');
  } finally {
    await client.end();
  }
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  process.stdout.write(`${(error as Error).message}\n`);
  process.exitCode = 1;
}
