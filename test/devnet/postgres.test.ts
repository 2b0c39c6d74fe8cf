import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { describe, it } from 'node:test';
import pg from 'pg';
import { type Postgres, startPostgres } from '../../src/devnet/postgres.ts';
import { once } from '../support/once.ts';
import { until } from '../support/until.ts';

async function query(server: Postgres, database: string, sql: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString: server.url(database) });
  await client.connect();
  try {
    return (await client.query(sql)).rows;
  } finally {
    await client.end();
  }
}

async function gone(pid: number): Promise<void> {
  await until(() => {
    try {
      process.kill(pid, 0);
      return false;
    } catch {
      return true;
    }
  }, 10);
}

const START = new URL('../../src/devnet/postgres.ts', import.meta.url).href;

describe('the embedded PostgreSQL', () => {
  it('keeps its data from one run to the next, and leaves no process', async () => {
    const dataDir = await fs.mkdtemp(path.join(os.tmpdir(), 'spns-devnet-'));
    const first = await startPostgres({ dataDir, fsync: false });
    await first.createDatabase('kept');
    await first.createDatabase('kept');
    await query(first, 'kept', 'CREATE TABLE t AS SELECT 7 AS seven');
    await first.stop();
    await gone(first.pid);

    const second = await startPostgres({ dataDir, fsync: false });
    assert.equal(second.url('kept'), first.url('kept'));
    assert.deepEqual(await query(second, 'kept', 'SELECT seven FROM t'), [{ seven: 7 }]);
    await assert.rejects(startPostgres({ dataDir, fsync: false }), /is in use by process \d+/);
    await second.remove();
    await assert.rejects(fs.stat(dataDir), { code: 'ENOENT' });
  });

  it('ends when its run is killed, and the next run takes over the data', async () => {
    // A folder that only its owner can enter, below which a user without rights cannot keep a database.
    const parent = await fs.mkdtemp(path.join(os.tmpdir(), 'spns-devnet-'));
    const dataDir = path.join(parent, 'deeper', 'database');
    const child = spawn(
      process.execPath,
      [
        '--input-type=module',
        '-e',
        `import { startPostgres } from ${JSON.stringify(START)};
         const server = await startPostgres({ dataDir: ${JSON.stringify(dataDir)}, fsync: false });
         await server.createDatabase('kept');
         console.log(server.pid);
         setInterval(() => {}, 1000);`,
      ],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    const [line] = (await once(child.stdout, 'data')) as [Buffer];
    child.kill('SIGKILL');
    await gone(Number(line.toString()));

    const next = await startPostgres({ dataDir, fsync: false });
    assert.deepEqual(await query(next, 'kept', 'SELECT 1 AS one'), [{ one: 1 }]);
    await next.remove();
    await fs.rm(parent, { recursive: true });
  });

  it('serves from a folder whose path is too long for a socket', async () => {
    const parent = await fs.mkdtemp(path.join(os.tmpdir(), 'spns-devnet-'));
    await fs.chmod(parent, 0o755);
    const dataDir = path.join(parent, 'x'.repeat(100));
    const server = await startPostgres({ dataDir, fsync: false });
    assert.deepEqual(await query(server, 'postgres', 'SELECT 1 AS one'), [{ one: 1 }]);
    await server.remove();
    await fs.rm(parent, { recursive: true });
  });
});
