import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import pg from 'pg';
import { Connection, type ConnectionOptions } from '../../../src/hivemind/store/connection.ts';
import { StoreError } from '../../../src/hivemind/store/store-error.ts';
import { keepLog } from '../../notifiers/support.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { connectTo } from '../../support/members.ts';
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

/** A connection that is not open yet, whose waits are noted, on a clock that is moved by hand. */
async function prepare(t: TestContext, more: Partial<ConnectionOptions> = {}) {
  const url = more.url ?? (await createDatabase(t));
  const admin = await connectAdmin(t, url);
  const name = /\/\/\/(\w+)\?/.exec(url)![1]!;
  const clock = new FakeClock();
  const waits: number[] = [];
  const cancelled: number[] = [];
  const setTimeout = clock.setTimeout.bind(clock);
  clock.setTimeout = (callback, ms) => {
    waits.push(ms);
    const timer = setTimeout(callback, ms);
    return {
      cancel: () => {
        cancelled.push(ms);
        timer.cancel();
      },
    };
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
  t.after(() => connection.close());
  const drop = () => admin.query(`DROP DATABASE ${name} WITH (FORCE)`);
  const restore = () => admin.query(`CREATE DATABASE ${name}`);
  /** The server is shared with other tests. */
  const ours = `pg_stat_activity WHERE datname = '${name}' AND application_name = 'spns hivemind'`;
  /** Resolves when the server has that many connections of ours. */
  const served = (count: number) => until(async () => (await admin.query(`SELECT FROM ${ours}`)).rowCount === count);
  /** Ends our connection, and waits until its lock is free: a next one would otherwise be refused. */
  const cut = async () => {
    await admin.query(`SELECT pg_terminate_backend(pid) FROM ${ours}`);
    await served(0);
  };
  const of = (level: string) => lines.filter((line) => line.includes(`"level":"${level}"`));
  return { clock, connection, waits, cancelled, url, taken, cut, served, drop, restore, of, admin, name };
}

async function setUp(t: TestContext, more: Partial<ConnectionOptions> = {}) {
  const all = await prepare(t, more);
  await all.connection.open(async () => {});
  return all;
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
    assert.equal(connection.fault, 'terminating connection due to administrator command');
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
  const { clock, connection, waits, cancelled, drop, restore } = await setUp(t);
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
  assert.equal(cancelled.filter((ms) => ms === 40).length, 1, 'who has given up is not told again');
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
  // Long enough for the server never to come to its own limit, in true time.
  const { clock, connection } = await setUp(t, { timeout: 100_000 });
  let failure: unknown;
  const query = connection.query({ text: 'SELECT pg_sleep(100)' }).catch((error: unknown) => {
    failure = error;
  });
  // What was given before is on its way.
  await until(() => clock.pending === 1);
  clock.run(100_999);
  assert.equal(connection.connected, true);
  clock.run(1);
  await query;
  assert.ok(failure instanceof StoreError);
  assert.deepEqual(
    [failure.code, failure.message],
    ['unavailable', 'The database did not carry the statement out: no answer within 100000 ms'],
  );
  assert.deepEqual([connection.connected, connection.fault], [false, 'no answer']);
});

test('a first connection is waited for while another hivemind holds the lock, for three seconds', async (t) => {
  const { clock, connection, waits, url, served } = await prepare(t);
  const other = await connectTo(t, url);
  await other.query('SELECT pg_advisory_lock(1397771859, 2)');
  const refused = assert.rejects(
    connection.open(async () => {}),
    { code: 'locked' },
  );
  await until(() => waits.filter(isRetry).length === 1);
  clock.stall(2_900);
  clock.run(100);
  await until(() => waits.filter(isRetry).length === 2);
  clock.run(100);
  await refused;
  assert.deepEqual(waits.filter(isRetry), [100, 100]);
  await served(0);
});

test('a first connection that fails otherwise fails at once, and leaves nothing open', async (t) => {
  const { connection, waits, served, admin, name, url } = await prepare(t);
  const refusal = new StoreError('refused', 'its words');
  await assert.rejects(
    connection.open(() => Promise.reject(refusal)),
    (error) => error === refusal,
  );
  const divide = (client: pg.Client) => client.query('SELECT 1 / 0');
  const fail = (cause: unknown) => Promise.reject(new Error('our words', { cause }));
  for (const [work, code, message] of [
    [divide, 'refused', 'division by zero'],
    [(client: pg.Client) => divide(client).catch(fail), 'refused', 'our words'],
    [() => fail(undefined), 'unavailable', 'our words'],
  ] as const)
    await assert.rejects(
      connection.open(async (client) => void (await work(client))),
      { code, message },
    );
  await served(0);
  await admin.query(`DROP DATABASE ${name}`);
  await assert.rejects(
    connection.open(async () => {}),
    { code: 'unavailable', message: /^The database cannot be reached: .* does not exist$/ },
  );
  const wrong = await prepare(t, { url: `${url}&service=x` });
  await assert.rejects(
    wrong.connection.open(async () => {}),
    { code: 'refused', message: '[db].url: service is not supported' },
  );
  assert.deepEqual([...waits, ...wrong.waits].filter(isRetry), []);
});

test('a connection has the settings by which statements find their rows, also when it is made anew', async (t) => {
  const { clock, connection, waits, cut } = await setUp(t, {
    name: 'a',
    random: (bytes) => Buffer.alloc(bytes, 0x01),
  });
  const settings = [
    'enable_seqscan',
    'enable_bitmapscan',
    'jit',
    'plan_cache_mode',
    'statement_timeout',
    'spns.origin',
  ];
  const columns = settings.map((setting) => `current_setting('${setting}')`).join(", ' ', ");
  const said = async () =>
    (await connection.query<{ all: string }>({ text: `SELECT concat(${columns}) AS all` })).rows[0]?.all;
  const expected = `off off off force_generic_plan 5s ${0x010101010101}`;
  assert.equal(await said(), expected);
  waits.length = 0;
  await cut();
  await until(() => waits.some(isRetry));
  clock.run(10_000);
  await until(() => connection.connected);
  assert.equal(await said(), expected);
});

test('a statement that fails leaves the connection alone, unless the server is of no use any more', async (t) => {
  const { clock, connection, served } = await setUp(t);
  for (const [state, code, isLost] of [
    ['22012', '22012', false],
    ['40001', '40001', false],
    ['42P01', '42P01', false],
    ['08006', 'unavailable', false],
    ['53200', 'unavailable', false],
    ['57014', 'unavailable', false],
    ['25006', 'unavailable', true],
    ['57P01', 'unavailable', true],
  ] as const) {
    const text = `DO $$ BEGIN RAISE EXCEPTION 'its words' USING ERRCODE = '${state}'; END $$`;
    const message = code === state ? 'its words' : 'The database did not carry the statement out: its words';
    await assert.rejects(connection.query({ text }), { code, message });
    assert.deepEqual([connection.connected, connection.fault], isLost ? [false, 'its words'] : [true, undefined]);
    if (!isLost) continue;
    await served(0);
    clock.run(50);
    await until(() => connection.connected);
  }
});

test('a start is content with a database that accepts no changes, and a lost connection with none', async (t) => {
  const { clock, connection, waits, cut, admin, name } = await prepare(t);
  await admin.query(`ALTER DATABASE ${name} SET default_transaction_read_only = on`);
  await connection.open(async () => {});
  waits.length = 0;
  await cut();
  await until(() => waits.filter(isRetry).length === 1);
  clock.run(50);
  await until(() => waits.filter(isRetry).length === 2);
  assert.match(connection.fault ?? '', /it accepts no changes/);
});

test('a connection that is made in the second attempt is said to be', async (t) => {
  const { clock, connection, waits, drop, restore, of } = await setUp(t);
  waits.length = 0;
  await drop();
  await until(() => waits.filter(isRetry).length === 1);
  clock.run(50);
  await until(() => waits.filter(isRetry).length === 2);
  await restore();
  clock.run(100);
  await until(() => connection.connected);
  assert.match(of('info').at(-1)!, /the database answers again, after 2 attempts/);
});

test('what is being connected when it is closed is not kept, and if it fails not tried again', async (t) => {
  for (const isThere of [true, false]) {
    const { clock, connection, waits, cut, drop, served, of } = await setUp(t);
    waits.length = 0;
    await (isThere ? cut() : drop());
    await until(() => waits.some(isRetry));
    clock.run(50);
    await connection.close();
    await until(() => of(isThere ? 'info' : 'error').length === 1);
    await served(0);
    assert.deepEqual([connection.connected, clock.pending, of('warning').length], [false, 0, 1]);
  }
});

test('a lost connection of ours that the server still believes in is ended by the next, and nobody else is', async (t) => {
  for (const name of [undefined, 'a']) {
    const random = (bytes: number) => Buffer.alloc(bytes, 0xff);
    const first = await setUp(t, { name, random });
    const another = await prepare(t, { url: first.url, name, random: (bytes) => Buffer.alloc(bytes, 0x01) });
    const refused = assert.rejects(
      another.connection.open(async () => {}),
      { code: 'locked' },
    );
    await until(() => another.waits.some(isRetry));
    another.clock.stall(3_000);
    another.clock.run(100);
    await refused;
    assert.equal(first.connection.connected, true);
    const next = await prepare(t, { url: first.url, name, random });
    await assert.rejects(
      next.connection.open(async () => {}),
      { code: 'unavailable', message: 'The lost connection still held the lock, and has been ended' },
    );
    await first.served(0);
    await next.connection.open(async () => {});
  }
});
