import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { systemClock } from '../../../src/clock.ts';
import { slotBits } from '../../../src/hivemind/cluster/roster.ts';
import { conninfo, openClient } from '../../../src/hivemind/store/client.ts';
import { Store } from '../../../src/hivemind/store/store.ts';
import { ALL_SLOTS, openMember, silent } from '../../support/members.ts';
import { ended } from '../../support/once.ts';
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
  const end = ended(child);
  t.after(async () => {
    child.kill('SIGKILL');
    await end;
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

describe('behind PgBouncer', { skip }, () => {
  it('in session mode everything works', async (t) => {
    const url = await startPgBouncer(t, 'session');
    const row = makeRow();
    const store = await Store.open({ url, clock: systemClock, log: silent });
    try {
      assert.equal(await store.upsert(row), 'added');
      const seen: Buffer[] = [];
      await store.load(({ account }) => seen.push(Buffer.from(account)));
      assert.deepEqual(seen, [row.account]);
      await assert.rejects(Store.open({ url, clock: systemClock, log: silent }), /Another hivemind is at work/);
    } finally {
      await store.close();
    }
  });

  it('in session mode several hiveminds keep their names, and hear of what each other writes', async (t) => {
    const url = await startPgBouncer(t, 'session');
    const [a, b] = [await openMember(t, url, 'a'), await openMember(t, url, 'b')];
    await assert.rejects(openMember(t, url, 'a'), /hivemind/);
    await b.load(() => {});
    const row = makeRow();
    assert.equal(await a.upsert(row), 'added');
    const { members } = await b.cluster.beat({ state: 'ready', covers: slotBits(ALL_SLOTS) });
    assert.deepEqual(members.map(({ name }) => name).sort(), ['a', 'b']);
    const changes = await b.cluster.readChanges(slotBits(ALL_SLOTS));
    assert.ok(changes !== 'reload');
    const [current, ...more] = await b.cluster.readCurrent(changes.changes);
    assert.deepEqual([current?.serviceId, more.length], [row.serviceId, 0]);
  });

  it("in transaction mode it is refused, for the lock would be anybody's", async (t) => {
    const url = await startPgBouncer(t, 'transaction');
    const words = /set pool_mode = session, or connect directly/;
    await assert.rejects(Store.open({ url, clock: systemClock, log: silent }), words);
    await assert.rejects(openMember(t, url, 'a'), words);
    const node = join(import.meta.dirname, '../../../src/cli/node');
    const main = join(import.meta.dirname, '../../../src/hivemind/store/database-main.ts');
    const env = { ...process.env, SPNS_DATABASE_URL: url };
    const { status, stdout } = spawnSync(node, [main, 'check'], { env, encoding: 'utf8' });
    assert.equal(status, 1);
    assert.match(stdout, words);
  });
});
