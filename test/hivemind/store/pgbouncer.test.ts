import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { systemClock } from '../../../src/clock.ts';
import { category, createLog } from '../../../src/daemon/log.ts';
import { conninfo, openClient } from '../../../src/hivemind/store/client.ts';
import { Store } from '../../../src/hivemind/store/store.ts';
import { createDatabase } from '../../support/postgres.ts';
import { makeRow } from '../../support/rows.ts';

const skip = hasPgBouncer() ? false : 'pgbouncer is not installed';

function hasPgBouncer(): boolean {
  try {
    execFileSync('pgbouncer', ['--version']);
    return true;
  } catch {
    return false;
  }
}

/** A PgBouncer of its own in front of the tests' server. @returns the database's address through it */
async function startPgBouncer(t: TestContext, mode: 'session' | 'transaction'): Promise<string> {
  const { hosts, database } = conninfo(await createDatabase(t));
  const folder = mkdtempSync(join(tmpdir(), 'spns-bouncer-'));
  chmodSync(folder, 0o777);
  const file = join(folder, 'pgbouncer.ini');
  writeFileSync(
    file,
    [
      '[databases]',
      `* = host=${hosts[0]!.host} port=5432 user=postgres`,
      '[pgbouncer]',
      `unix_socket_dir = ${folder}`,
      'listen_port = 6432',
      'auth_type = any',
      `pool_mode = ${mode}`,
    ].join('\n'),
  );
  // It refuses to run as root, too; the server's socket is open to whom the server runs as.
  const root = process.getuid?.() === 0;
  const { uid, gid } = statSync(hosts[0]!.host);
  const child = spawn('pgbouncer', [file], {
    stdio: ['ignore', 'ignore', 'pipe'],
    ...(root && { uid, gid }),
  });
  t.after(async () => {
    child.kill('SIGKILL');
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
    rmSync(folder, { recursive: true });
  });
  const url = `postgresql:///${database}?host=${encodeURIComponent(folder)}&port=6432&user=${userInfo().username}`;
  for (let tries = 0; ; tries++) {
    try {
      const { client } = await openClient(url, 5_000);
      await client.end();
      return url;
    } catch (error) {
      if (tries > 500) throw error;
      await wait(20);
    }
  }
}

const log = category(createLog({ level: 'none', levels: new Map(), format: 'plain' }, 'test'), 'pg');

describe('behind PgBouncer', { skip }, () => {
  it('in session mode everything works', async (t) => {
    const url = await startPgBouncer(t, 'session');
    const row = makeRow();
    const store = await Store.open({ url, clock: systemClock, log });
    try {
      assert.equal(await store.upsert(row), 'added');
      const seen: Buffer[] = [];
      await store.load(({ account }) => seen.push(Buffer.from(account)));
      assert.deepEqual(seen, [row.account]);
      await assert.rejects(Store.open({ url, clock: systemClock, log }), /Another hivemind is at work/);
    } finally {
      await store.close();
    }
  });

  it("in transaction mode it is refused, for the lock would be anybody's", async (t) => {
    const url = await startPgBouncer(t, 'transaction');
    await assert.rejects(Store.open({ url, clock: systemClock, log }), /set pool_mode = session, or connect directly/);
  });
});
