import assert from 'node:assert/strict';
import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { pino } from 'pino';
import { systemClock } from '../../../src/clock.ts';
import { type Postgres, startPostgres } from '../../../src/devnet/postgres.ts';
import { Store, StoreError, type StoreOptions } from '../../../src/hivemind/store/store.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { startOwnServer } from '../../support/postgres.ts';
import { makeRow } from '../../support/rows.ts';
import { SkippingClock } from '../../support/skipping-clock.ts';
import { until } from '../../support/until.ts';

const log = pino({ level: process.env.SPNS_TEST_LOG ?? 'silent' });
/** What the database may take where it answers or is gone, ms. */
const TIMEOUT = 30_000;

const OURS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'spns hivemind'";
const TERMINATE = `SELECT pg_terminate_backend(pid) FROM (${OURS}) AS ours`;

const isUnavailable = (error: unknown) => error instanceof StoreError && error.code === 'unavailable';

describe('the store on a failing database', () => {
  let dataDir: string;
  let server: Postgres;
  let made = 0;

  // A server of our own: the one that all test files share must not be stopped.
  before(async () => {
    ({ dataDir, server } = await startOwnServer());
  });

  after(() => server.remove());

  async function openStore(
    t: TestContext,
    options: Partial<StoreOptions> = {},
  ): Promise<{ store: Store; url: string }> {
    const name = `fault_${++made}`;
    await server.createDatabase(name);
    const url = server.url(name);
    const store = await Store.open({ url, clock: systemClock, log, timeout: TIMEOUT, ...options });
    t.after(() => store.close());
    return { store, url };
  }

  async function admin<Row extends pg.QueryResultRow>(text: string): Promise<Row[]> {
    const client = new pg.Client({ connectionString: server.url('postgres') });
    await client.connect();
    try {
      return (await client.query<Row>(text)).rows;
    } finally {
      await client.end();
    }
  }

  /**
   * Runs upserts without a pause until `stop` is called; gives how many were confirmed, and every other error than
   * `unavailable` fails the test.
   */
  function writeOn(store: Store): { confirmed: Set<string>; failed: number; stop: () => Promise<void> } {
    const state = { confirmed: new Set<string>(), failed: 0, stop: async () => {} };
    let running = true;
    const writers = Array.from({ length: 20 }, async () => {
      while (running) {
        const row = makeRow();
        try {
          await store.upsert(row);
          state.confirmed.add(row.serviceId);
        } catch (error) {
          assert.ok(isUnavailable(error), String(error));
          state.failed++;
          await sleep(5);
        }
      }
    });
    state.stop = async () => {
      running = false;
      await Promise.all(writers);
    };
    return state;
  }

  async function idsIn(store: Store): Promise<Set<string>> {
    const ids = new Set<string>();
    await store.load((row) => ids.add(row.serviceId));
    return ids;
  }

  it('loses nothing that it confirmed when PostgreSQL crashes and comes back', async (t) => {
    // Statistics are written only when they are read: of those whose commit the crash keeps from being confirmed
    // nobody knows whether they were added.
    const { store } = await openStore(t, { clock: { ...systemClock, setInterval: () => ({ cancel() {} }) } });
    const work = writeOn(store);
    await until(() => work.confirmed.size > 200);
    store.addStats('', { pushes: 3 });
    await server.stop('immediate');
    await until(() => !store.connected && work.failed > 0);
    store.addStats('', { pushes: 4 });

    const before = work.confirmed.size;
    server = await startPostgres({ dataDir, fsync: false });
    await until(() => work.confirmed.size > before + 200);
    await work.stop();

    const ids = await idsIn(store);
    for (const id of work.confirmed) assert.ok(ids.has(id), 'a confirmed subscription is missing');
    const [pushes] = await store.readStats();
    assert.deepEqual(pushes, { service: '', name: 'pushes', value: 7 });
  });

  it('goes on when its connection is cut in the middle of a commit', async (t) => {
    const { store } = await openStore(t);
    const work = writeOn(store);
    for (let round = 1; round <= 3; round++) {
      const before = work.confirmed.size;
      await until(() => work.confirmed.size > before + 100);
      await admin(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'spns hivemind' AND state <> 'idle'",
      );
    }
    const before = work.confirmed.size;
    await until(() => work.confirmed.size > before + 100);
    await work.stop();
    const ids = await idsIn(store);
    for (const id of work.confirmed) assert.ok(ids.has(id), 'a confirmed subscription is missing');
  });

  it('fails requests in bounded time while nothing answers, and goes on when it does again', async (t) => {
    const clock = new SkippingClock();
    const { store } = await openStore(t, { clock });
    await store.upsert(makeRow());
    const pids = await admin<{ pid: number }>("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'");
    const processes = [server.pid, ...pids.map(({ pid }) => pid)];
    const signal = (name: NodeJS.Signals) => {
      for (const pid of processes) {
        try {
          process.kill(pid, name);
        } catch {
          // the backend that answered the query above is gone
        }
      }
    };
    signal('SIGSTOP');
    try {
      const failsIn = async (ms: number) => {
        let isOver = false;
        const failed = assert.rejects(store.upsert(makeRow()), isUnavailable).finally(() => {
          isOver = true;
        });
        // Again and again, for it begins to wait only some turns of the event loop from now.
        await until(() => {
          clock.skip(ms);
          return isOver;
        });
        await failed;
      };
      await failsIn(TIMEOUT + 1_000);
      assert.ok(!store.connected);
      await failsIn(2_000);
    } finally {
      signal('SIGCONT');
    }
    await until(() => store.connected);
    assert.equal(await store.upsert(makeRow()), 'added');
  });

  it('ends a statement that waits too long, and keeps its connection', async (t) => {
    // Of the two limits only the server's counts here: a busy machine might see both at once.
    const { store, url } = await openStore(t, { clock: new FakeClock(), timeout: 2_000 });
    const row = makeRow();
    await store.upsert(row);
    const other = new pg.Client({ connectionString: url });
    await other.connect();
    await other.query('BEGIN');
    await other.query('SELECT FROM subscriptions FOR UPDATE');
    await assert.rejects(store.upsert(row), isUnavailable);
    assert.ok(store.connected);
    await other.query('ROLLBACK');
    await other.end();
    assert.equal(await store.upsert(row), 'updated');
  });

  it('goes to the next server of its address when the first, after a failover, no longer accepts changes', async (t) => {
    const other = await startPostgres({
      dataDir: await fs.mkdtemp(path.join(os.tmpdir(), 'spns-test-pg-')),
      fsync: false,
    });
    t.after(() => other.remove());
    const name = `fault_${++made}`;
    await server.createDatabase(name);
    await other.createDatabase(name);
    const options = { clock: systemClock, log, timeout: TIMEOUT };
    await (await Store.open({ ...options, url: other.url(name) })).close();
    const url = new URL(server.url(name));
    const hosts = [server, other].map(({ socketDir }) => socketDir).join();
    url.searchParams.set('host', hosts);
    const store = await Store.open({ ...options, url: url.href });
    t.after(() => store.close());
    await store.upsert(makeRow());

    await admin(`ALTER DATABASE ${name} SET default_transaction_read_only = on`);
    await admin(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${name}'`);
    const client = new pg.Client({ connectionString: other.url(name) });
    await client.connect();
    const arrived = async () => (await client.query('SELECT FROM subscriptions')).rowCount;
    await until(async () => {
      await store.upsert(makeRow()).catch((error: unknown) => assert.ok(isUnavailable(error), String(error)));
      return (await arrived()) !== 0;
    });
    await client.end();
  });

  it('lets requests wait a moment for a database that is coming back', async (t) => {
    const clock = new FakeClock();
    const { store } = await openStore(t, { clock });
    await store.upsert(makeRow());
    await admin(TERMINATE);
    // Its lock is free then.
    await until(async () => !store.connected && (await admin(OURS)).length === 0);
    const added = store.upsert(makeRow());
    // Less than it waits, and enough for the next attempt to connect.
    clock.run(1_000);
    assert.equal(await added, 'added');
  });

  /** Somebody who waits for the lock, and has it the moment it is free. */
  async function waitForLock(url: string): Promise<{ held: Promise<unknown>; end: () => Promise<void> }> {
    const other = new pg.Client({ connectionString: url });
    await other.connect();
    const held = other.query('SELECT pg_advisory_lock(1397771859, 2)');
    const waiting = "SELECT FROM pg_stat_activity WHERE wait_event = 'advisory'";
    await until(async () => (await admin(waiting)).length === 1);
    return { held, end: () => other.end() };
  }

  it('gives up when another hivemind took over the database while its connection was lost, and says so once', async (t) => {
    const taken: Error[] = [];
    const { store, url } = await openStore(t, { onTaken: (error) => taken.push(error) });
    const other = await waitForLock(url);
    await admin(TERMINATE);
    await other.held;
    await until(() => taken.length > 0);
    assert.match(
      taken[0]!.message,
      /^Another hivemind is at work on this database \(from this machine, served by .* \d+\)/,
    );
    assert.ok(!store.connected);
    await assert.rejects(store.upsert(makeRow()), isUnavailable);
    await other.end();
    await sleep(500);
    assert.ok(!store.connected, 'whoever gave up does not come back beside the next');
    assert.equal(taken.length, 1);
  });

  it('goes on when another process takes the lock and releases it at once, as a start that fails does', async (t) => {
    const taken: Error[] = [];
    const { store, url } = await openStore(t, { onTaken: (error) => taken.push(error) });
    const other = await waitForLock(url);
    await admin(TERMINATE);
    await other.held;
    await until(() => !store.connected);
    await other.end();
    await until(() => store.connected);
    assert.equal(await store.upsert(makeRow()), 'added');
    assert.equal(taken.length, 0);
  });

  it('closes in bounded time while nothing answers', async (t) => {
    const { store } = await openStore(t);
    store.addStats('', { pushes: 1 });
    await server.stop('immediate');
    const waiting = assert.rejects(store.upsert(makeRow()), isUnavailable);
    await store.close();
    await waiting;
    server = await startPostgres({ dataDir, fsync: false });
  });
});
