import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import pg from 'pg';
import { startPostgres } from '../../../src/devnet/postgres.ts';
import { preparePlaces } from '../../../src/devnet/postgres-files.ts';
import { createDatabase, startOwnServer } from '../../support/postgres.ts';
import { inTime } from '../../support/until.ts';

const ROOT = join(import.meta.dirname, '../../..');
const MAIN = join(ROOT, 'src/hivemind/store/database-main.ts');

/** What the process says to a task, and its exit code. */
async function run(task: readonly string[], url?: string): Promise<readonly [number | null, string]> {
  const child = spawn(join(ROOT, 'src/cli/node'), [MAIN, ...task], {
    env: { ...process.env, SPNS_DATABASE_URL: url },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const code = new Promise<number | null>((resolve) => child.on('exit', resolve));
  const said = await inTime(text(child.stdout), () => `the end of ${task.join(' ')}`);
  return [await code, said];
}

/** A database, its owner, and a user who may only log in. */
async function setUp(t: TestContext, options: { empty: boolean }) {
  const user = `looks_${randomUUID().replaceAll('-', '')}`;
  let owner: pg.Client | undefined;
  // Before the database is dropped.
  t.after(async () => {
    await owner?.query(`DROP OWNED BY ${user} CASCADE; DROP ROLE ${user}`);
    await owner?.end();
  });
  const url = await createDatabase(t, options);
  owner = new pg.Client({ connectionString: url });
  await owner.connect();
  await owner.query(`CREATE ROLE ${user} LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC`);
  return { owner, user, url, theirs: url.replace('user=postgres', `user=${user}`) };
}

test('an address is read without looking at what is there', async () => {
  assert.deepEqual(await run(['address'], 'postgresql://nobody@127.0.0.1:1/none'), [0, '']);
  assert.deepEqual(await run(['address'], 'postgresql://h/d?service=x'), [1, 'service is not supported\n']);
});

test('an empty database is fine for a user who may create the tables, and else is told what is to be granted', async (t) => {
  const { owner, user, url, theirs } = await setUp(t, { empty: true });
  const [code, said] = await run(['check'], url);
  assert.equal(code, 0);
  assert.match(
    said,
    /^PostgreSQL \d+\.\d+.* answers; the tables will be created at the hivemind's first start, or by "spns migrate"\n$/,
  );
  const mayNot = [1, `the user ${user} may not create the tables: GRANT CREATE ON SCHEMA public TO ${user}\n`] as const;
  assert.deepEqual(await run(['check'], theirs), mayNot);
  // Looking has made nothing.
  const { rows } = await owner.query("SELECT FROM pg_tables WHERE schemaname = 'public'");
  assert.equal(rows.length, 0);
  const [migrated, done] = await run(['migrate'], url);
  assert.equal(migrated, 0);
  assert.match(done, /^done: 001_original\.sql, 002_.*\.sql\n$/);
  assert.deepEqual(await run(['migrate'], url), [0, 'the tables are up to date\n']);
  await owner.query('DELETE FROM spns_migrations WHERE number = 5');
  assert.deepEqual(await run(['migrate'], url), [0, 'done: 005_apns_tokens.sql\n']);
});

test('tables that the user may not use, or not upgrade, are told with what is to be granted', async (t) => {
  const { owner, user, url, theirs } = await setUp(t, { empty: false });
  await owner.query(`GRANT SELECT, INSERT, UPDATE, DELETE ON service_stats TO ${user};
    GRANT ALL ON spns_migrations TO ${user}`);
  assert.deepEqual(await run(['check'], theirs), [
    1,
    `the user ${user} may not use the tables: GRANT ALL ON subscriptions, sub_namespaces TO ${user}, or make it their owner\n`,
  ]);
  await owner.query(`GRANT ALL ON sub_namespaces TO ${user}`);
  const [, ofOne] = await run(['check'], theirs);
  assert.match(ofOne, /: GRANT ALL ON subscriptions TO /);
  await owner.query(`GRANT ALL ON ALL TABLES IN SCHEMA public TO ${user}`);
  const good = /^PostgreSQL \d+\.\d+.* answers; 1,234 subscriptions\n$/;
  await owner.query(`INSERT INTO subscriptions (account, signature, signature_ts, want_data, enc_key, service, svcid)
    SELECT int4send(n), '', 0, TRUE, '', 'apns', 'x' FROM generate_series(1, 1234) n`);
  for (const [task, as] of [
    [['check'], theirs],
    [['check'], url],
    [['check', 'shared'], url],
  ] as const) {
    const [code, said] = await run(task, as);
    assert.equal(code, 0, said);
    assert.match(said, good);
  }
  const owned = ['subscriptions', 'sub_namespaces', 'service_stats'].map((name) => `${name} of postgres`).join(', ');
  const remedy = `and ${owned} is not ${user}'s: GRANT postgres TO ${user}\n`;
  assert.deepEqual(await run(['check', 'shared'], theirs), [
    1,
    `the first of several hiveminds switches triggers on, which only the owner of the tables may do, ${remedy}`,
  ]);

  await owner.query('DELETE FROM spns_migrations WHERE number = 6');
  for (const task of [['check'], ['check', 'shared']])
    assert.deepEqual(await run(task, theirs), [
      1,
      `the tables must be upgraded, which only their owner may do, ${remedy}`,
    ]);
  const [code, said] = await run(['check'], url);
  assert.equal(code, 0);
  assert.match(
    said,
    /answers; its tables will be upgraded at the hivemind's first start, or by "spns migrate"; 1,234 subscriptions\n$/,
  );
  // As the original leaves them.
  await owner.query('DROP TABLE spns_migrations');
  assert.deepEqual(await run(['check'], url), [0, said]);
  await owner.query(`ALTER TABLE subscriptions OWNER TO ${user}; ALTER TABLE sub_namespaces OWNER TO ${user}`);
  const [, ofOther] = await run(['check'], theirs);
  assert.match(ofOther, /, and service_stats of postgres is not /);
  await owner.query(`ALTER TABLE service_stats OWNER TO ${user}`);
  assert.deepEqual(await run(['check'], theirs), [
    1,
    `the user ${user} may not create the tables: GRANT CREATE ON SCHEMA public TO ${user}\n`,
  ]);
});

test('a table that somebody has locked is not waited for', async (t) => {
  const { owner, url } = await setUp(t, { empty: false });
  await owner.query('BEGIN; LOCK TABLE subscriptions');
  assert.deepEqual(await run(['check'], url), [1, 'canceling statement due to statement timeout\n']);
  await owner.query('ROLLBACK');
});

test('a standby is told from a primary', async (t) => {
  const { dataDir, server: primary } = await startOwnServer();
  await primary.stop();
  const { cluster } = await preparePlaces(dataDir);
  writeFileSync(join(cluster, 'standby.signal'), '');
  const standby = await startPostgres({ dataDir, fsync: false });
  t.after(() => standby.remove());
  t.after(() => rmSync(dataDir, { recursive: true, force: true }));
  assert.deepEqual(await run(['check'], standby.url('postgres')), [
    1,
    'this PostgreSQL is a standby, which accepts no changes: name the primary in [db].url\n',
  ]);
});
