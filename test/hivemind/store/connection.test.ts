import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import pg from 'pg';
import { Connection, type ConnectionOptions } from '../../../src/hivemind/store/connection.ts';
import { StoreError } from '../../../src/hivemind/store/store-error.ts';
import { keepLog } from '../../notifiers/support.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { createDatabase } from '../../support/postgres.ts';
import { until } from '../../support/until.ts';

/** Over which the database is taken away and brought back. */
async function connectAdmin(t: TestContext, url: string): Promise<pg.Client> {
  const [, name] = /\/\/\/(\w+)\?/.exec(url)!;
  const admin = new pg.Client({ connectionString: url.replace(`///${name}?`, '///postgres?') });
  await admin.connect();
  t.after(() => admin.end());
  return admin;
}

/** A connection whose waits are noted, on a clock that is moved by hand. */
async function setUp(t: TestContext, more: Partial<ConnectionOptions> = {}) {
  const url = await createDatabase(t);
  const admin = await connectAdmin(t, url);
  const name = /\/\/\/(\w+)\?/.exec(url)![1]!;
  const clock = new FakeClock();
  const waits: number[] = [];
  const setTimeout = clock.setTimeout.bind(clock);
  clock.setTimeout = (callback, ms) => {
    waits.push(ms);
    return setTimeout(callback, ms);
  };
  const { log, lines } = keepLog();
  const taken: StoreError[] = [];
  const connection = new Connection({
    url,
    clock,
    log,
    random: (bytes) => Buffer.alloc(bytes),
    timeout: 5_000,
    onTaken: (error) => taken.push(error),
    ...more,
  });
  await connection.open(async () => {});
  t.after(() => connection.close());
  const drop = () => admin.query(`DROP DATABASE ${name} WITH (FORCE)`);
  const restore = () => admin.query(`CREATE DATABASE ${name}`);
  /** The server is shared with other tests. */
  const cut = () =>
    admin.query(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND application_name = 'spns hivemind'",
      [name],
    );
  const of = (level: string) => lines.filter((line) => line.includes(`"level":"${level}"`));
  return { clock, connection, waits, url, taken, cut, drop, restore, of };
}

/** What an answer may take is not of interest here. */
const isRetry = (ms: number) => ms !== 6_000;

for (const [byte, share, what] of [
  [0x00, 0.5, 'half'],
  [0x80, 0.5 + 0x8080 / 2 ** 17, 'three quarters'],
] as const) {
  test(`a lost connection is made anew at growing intervals of at most ten seconds, of which it waits ${what} by chance`, async (t) => {
    const { clock, connection, waits, drop, restore, of } = await setUp(t, {
      random: (bytes) => Buffer.alloc(bytes, byte),
    });
    waits.length = 0;
    await drop();
    await until(() => !connection.connected);
    assert.match(connection.fault ?? '', /terminating connection|the connection was ended|Connection terminated/);
    for (let attempt = 1; attempt <= 9; attempt++) {
      await until(() => waits.filter(isRetry).length === attempt);
      clock.run(waits.filter(isRetry).at(-1)!);
    }
    await until(() => waits.filter(isRetry).length === 10);
    assert.deepEqual(
      waits.filter(isRetry),
      [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000, 10_000].map((ms) => ms * share),
    );
    assert.match(connection.fault ?? '', /^The database cannot be reached: .* does not exist$/);
    assert.deepEqual([of('error').length, of('debug').length], [1, 8], 'the first is said, the others are the same');
    await restore();
    clock.run(10_000);
    await until(() => connection.connected);
    assert.equal(connection.fault, undefined);
    assert.match(of('info').at(-1)!, /the database answers again, after 10 attempts/);
    assert.equal((await connection.query({ text: 'SELECT 1 AS one' })).rows.length, 1);
  });
}

test('a connection that is back at once is said to be, and the next loss begins with short waits', async (t) => {
  const { clock, connection, waits, cut, of } = await setUp(t);
  for (let n = 1; n <= 2; n++) {
    waits.length = 0;
    await cut();
    await until(() => waits.some(isRetry));
    assert.deepEqual(waits.filter(isRetry), [50]);
    clock.run(50);
    await until(() => connection.connected);
    assert.equal(of('info').length, n);
    assert.match(of('info').at(-1)!, /"the database answers again"/);
    assert.match(of('warning').at(-1)!, /the connection to the database is lost/);
  }
});

test('who waits for a connection is told when it is back, or when the wait is over', async (t) => {
  const { clock, connection, waits, drop, restore } = await setUp(t);
  assert.equal(await connection.whenConnected(5_000), true);
  waits.length = 0;
  await drop();
  await until(() => waits.some(isRetry));
  const inVain = connection.whenConnected(40);
  const inTime = connection.whenConnected(5_000);
  clock.run(40);
  assert.equal(await inVain, false);
  await restore();
  clock.run(10);
  assert.equal(await inTime, true);
  await connection.close();
  assert.equal(await connection.whenConnected(5_000), false, 'nobody waits for one that is closed');
});

test('whoever waits when it is closed is told at once, and nothing is tried any more', async (t) => {
  const { clock, connection, waits, drop } = await setUp(t);
  waits.length = 0;
  await drop();
  await until(() => waits.some(isRetry));
  const waiting = connection.whenConnected(5_000);
  await connection.close();
  assert.equal(await waiting, false);
  assert.equal(clock.pending, 0);
  await assert.rejects(connection.query({ text: 'SELECT 1' }), (error) => {
    return error instanceof StoreError && error.code === 'unavailable';
  });
});

test('another hivemind that holds the lock for three seconds has taken the database, one that lets go has not', async (t) => {
  for (const [held, isTaken] of [
    [2_900, false],
    [3_000, true],
  ] as const) {
    const { clock, connection, waits, url, taken, cut } = await setUp(t);
    const other = new pg.Client({ connectionString: url });
    await other.connect();
    const lock = other.query('SELECT pg_advisory_lock(1397771859, 2)');
    waits.length = 0;
    await cut();
    await lock;
    await until(() => waits.filter(isRetry).length === 1);
    clock.run(50);
    await until(() => waits.filter(isRetry).length === 2);
    const seenAt = clock.monotonic();
    // It looks often enough to be back soon.
    clock.run(waits.filter(isRetry).at(-1)!);
    await until(() => waits.filter(isRetry).length === 3);
    assert.ok(Math.max(...waits.filter(isRetry)) <= 200, `${waits.filter(isRetry)}`);
    clock.stall(held - 200 - (clock.monotonic() - seenAt));
    clock.run(200);
    if (isTaken) {
      await until(() => taken.length === 1);
      assert.equal(taken[0]!.code, 'locked');
      assert.equal(clock.pending, 0, 'there is no coming back');
    } else {
      await until(() => waits.filter(isRetry).length === 4);
      await other.end();
      clock.run(200);
      await until(() => connection.connected);
      assert.deepEqual(taken, []);
    }
    await other.end().catch(() => {});
    await connection.close();
  }
});

test('a server that does not answer a second after it should have loses the connection, and that is said', async (t) => {
  const { clock, connection } = await setUp(t);
  let failure: unknown;
  const query = connection.query({ text: 'SELECT pg_sleep(30)' }).catch((error: unknown) => {
    failure = error;
  });
  // What was given before is on its way.
  await until(() => clock.pending === 1);
  clock.run(5_999);
  assert.equal(connection.connected, true);
  clock.run(1);
  await query;
  assert.ok(failure instanceof StoreError);
  assert.deepEqual(
    [failure.code, failure.message],
    ['unavailable', 'The database did not carry the statement out: no answer within 5000 ms'],
  );
  assert.deepEqual([connection.connected, connection.fault], [false, 'no answer']);
});
