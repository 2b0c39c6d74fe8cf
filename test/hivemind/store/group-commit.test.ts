import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { QueryConfig } from 'pg';
import type { Connection } from '../../../src/hivemind/store/connection.ts';
import { GroupCommit } from '../../../src/hivemind/store/group-commit.ts';
import { StoreError } from '../../../src/hivemind/store/store-error.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { makeRow } from '../../support/rows.ts';

const NOW = 1_700_000_000;
const namespaces = (count: number) => Array.from({ length: count }, (_, n) => n);
const many = <T>(count: number, make: (n: number) => T) => Array.from({ length: count }, (_, n) => make(n));
const of = (first: number) => Buffer.alloc(33, first);
const sqlError = (code: string) => Object.assign(new Error('its words'), { code });
const refusal =
  (code: string, message = /./) =>
  (error: unknown) =>
    error instanceof StoreError && error.code === code && message.test(error.message);

/** What the server makes of a statement: which rows it writes. */
type Answer = (statement: QueryConfig) => { n: number; added?: boolean }[];

const numbersIn = ({ values }: QueryConfig) => values![0] as number[];
const takesAll: Answer = (statement) =>
  numbersIn(statement).map((n) => (statement.name === 'upsert' ? { n, added: true } : { n }));

/** A group commit on a connection that answers as the test likes. */
function setUp() {
  const clock = new FakeClock();
  const statements: QueryConfig[] = [];
  const waits: number[] = [];
  const health = { failures: [] as unknown[], successes: 0 };
  const server = {
    answer: takesAll,
    connected: true,
    /** Called while somebody waits for the connection. */
    whileWaiting: (ms: number): void => clock.stall(ms),
  };
  const connection = {
    get connected() {
      return server.connected;
    },
    whenConnected: async (ms: number) => {
      waits.push(ms);
      server.whileWaiting(ms);
      return server.connected;
    },
    query: async (statement: QueryConfig) => {
      statements.push(statement);
      return { rows: server.answer(statement) };
    },
  } as Pick<Connection, 'query' | 'whenConnected' | 'connected'>;
  const commits = new GroupCommit(connection, clock, {
    failed: (error) => health.failures.push(error),
    succeeded: () => health.successes++,
  });
  const sizes = () => statements.map((statement) => numbersIn(statement).length);
  return { clock, commits, server, statements, sizes, waits, health };
}

test('what came together is written by one statement a kind, of 256 changes at most', async () => {
  const { commits, statements, sizes, health } = setUp();
  const key = (n: number) => ({ account: of(n), service: 'apns', serviceId: 'x', signedAt: NOW });
  const results = await Promise.all([
    ...many(254, () => commits.upsert(makeRow())),
    commits.remove(key(1)),
    commits.drop(key(2)),
    commits.upsert(makeRow()),
    commits.drop(key(3)),
  ]);
  assert.deepEqual(
    statements.map(({ name }, n) => [name, sizes()[n]]),
    [
      ['upsert', 254],
      ['remove', 1],
      ['drop', 1],
      ['upsert', 1],
      ['drop', 1],
    ],
  );
  assert.deepEqual(results.slice(253), ['added', true, true, 'added', true]);
  assert.deepEqual([commits.counters.commits, commits.counters.rows, health.successes], [5, 258, 5]);
});

test('each is answered with what became of it', async () => {
  const { commits, server } = setUp();
  server.answer = () => [
    { n: 0, added: false },
    { n: 2, added: true },
  ];
  assert.deepEqual(await Promise.all(many(3, () => commits.upsert(makeRow()))), ['updated', 'stale', 'added']);
  server.answer = () => [{ n: 1 }];
  const keys = many(2, (n) => ({ account: of(n), service: 'apns', serviceId: 'x', signedAt: NOW }));
  assert.deepEqual(await Promise.all(keys.map((key) => commits.remove(key))), [false, true]);
  assert.deepEqual(await Promise.all(keys.map((key) => commits.drop(key))), [false, true]);
  // More than are answered in one turn.
  server.answer = () => many(200, (n) => ({ n, added: true })).slice(100);
  const results = await Promise.all(many(200, () => commits.upsert(makeRow())));
  assert.deepEqual([results.indexOf('added'), results.lastIndexOf('stale')], [100, 99]);
});

test('of several changes to one key each has a statement of its own, and other keys do not wait for them', async () => {
  const { commits, sizes } = setUp();
  const row = makeRow();
  await Promise.all([commits.upsert(row), commits.upsert(row), commits.upsert(row), commits.upsert(makeRow())]);
  assert.deepEqual(sizes(), [2, 1, 1]);
});

test('a statement takes the first four megabytes of service data', async () => {
  const { commits, sizes } = setUp();
  const of = (bytes: number) => commits.upsert(makeRow({ serviceData: Buffer.alloc(bytes) }));
  await Promise.all([of(3_999_999), of(1), of(0)]);
  assert.deepEqual(sizes().splice(0), [2, 1]);
  await Promise.all([of(3_999_999), commits.upsert(makeRow()), of(0)]);
  assert.deepEqual(sizes().slice(2), [3]);
});

test('one account has 256 namespaces of a statement, or one subscription with more, and nothing of it goes before the rest', async () => {
  const { commits, sizes } = setUp();
  const account = of(3);
  const upsert = (count: number, more = {}) =>
    commits.upsert(makeRow({ account, namespaces: namespaces(count), ...more }));
  await Promise.all([upsert(128), upsert(127), upsert(1)]);
  assert.deepEqual(sizes().splice(0), [3]);
  await Promise.all([upsert(128), upsert(128), upsert(1), upsert(1)]);
  assert.deepEqual(sizes().slice(1), [2, 2]);
  await Promise.all([upsert(1), upsert(256)]);
  assert.deepEqual(sizes().slice(3), [1, 1]);
  // A removal counts as one, and stays behind what it came after.
  const order: string[] = [];
  const key = { account, service: 'apns', serviceId: 'x', signedAt: NOW };
  await Promise.all([
    upsert(200),
    upsert(100).then(() => order.push('second')),
    commits.remove(key).then(() => order.push('removal')),
    upsert(300, { account: of(4) }).then(() => order.push('other account')),
  ]);
  assert.deepEqual(sizes().slice(5), [2, 1, 1]);
  assert.deepEqual(order, ['other account', 'second', 'removal']);
  await Promise.all(many(200, (n) => commits.remove({ ...key, serviceId: `${n}` })));
  assert.deepEqual(sizes().slice(8), [200]);
});

test('of subscriptions with more than 32 namespaces, those with 1,024 together are in a statement', async () => {
  const { commits, sizes } = setUp();
  const upsert = (count: number) => commits.upsert(makeRow({ namespaces: namespaces(count) }));
  const together = async (...counts: number[]) => {
    const before = sizes().length;
    await Promise.all(counts.map(upsert));
    return sizes().slice(before);
  };
  assert.deepEqual(await together(...many(40, () => 32), 33), [41]);
  assert.deepEqual(await together(...many(40, () => 33), 32), [32, 9]);
  assert.deepEqual(await together(256, 256, 256, 256, 256), [4, 1]);
  assert.deepEqual(await together(256, 256, 256, 257), [3, 1]);
  assert.deepEqual(await together(2_000, 2_000), [1, 1], 'the first goes however wide it is');
});

test('only the first 4,096 that wait are looked at for a statement', async () => {
  for (const [before, first] of [
    [4_095, 2],
    [4_096, 1],
  ] as const) {
    const { commits, sizes, server } = setUp();
    const account = of(3);
    const row = makeRow({ account, namespaces: namespaces(256) });
    const all = many(before, () => commits.upsert(row));
    all.push(commits.upsert(makeRow()));
    // What comes after the first statement does not matter here.
    server.answer = (statement) => {
      server.connected = false;
      return takesAll(statement);
    };
    await Promise.allSettled(all);
    assert.deepEqual(sizes(), [first]);
  }
});

test('20,000 requests wait at most, and one more fails at once and is counted as overload', async () => {
  const { commits, server, health } = setUp();
  const row = makeRow();
  const all = many(20_000, () => commits.upsert(row));
  await assert.rejects(commits.upsert(makeRow()), refusal('unavailable', /^Too many requests wait/));
  assert.equal(health.failures.length, 1);
  // To write them would take seconds.
  server.connected = false;
  await Promise.allSettled(all);
  server.connected = true;
  assert.equal(await commits.upsert(makeRow()), 'added');
});

test('a request waits two seconds for the connection, from when it came', async () => {
  const { clock, commits, server, sizes, waits, health } = setUp();
  server.connected = false;
  const first = assert.rejects(commits.upsert(makeRow()), refusal('unavailable', /cannot be reached/));
  clock.stall(500);
  let second: Promise<string> | undefined;
  server.whileWaiting = (ms) => {
    clock.stall(ms - 1);
    second ??= commits.upsert(makeRow());
    clock.stall(1);
    if (waits.length === 2) server.connected = true;
  };
  await first;
  assert.equal(health.failures.length, 1);
  assert.equal(await second, 'added');
  assert.deepEqual(waits, [1_500, 1_999]);
  assert.deepEqual(sizes(), [1]);
});

test('a request is given up after two seconds, neither earlier nor later', async () => {
  for (const [waited, expected] of [
    [1_999, [1]],
    [2_000, []],
  ] as const) {
    const { clock, commits, server, waits } = setUp();
    server.connected = false;
    const end = assert.rejects(commits.upsert(makeRow()), refusal('unavailable', /cannot be reached/));
    clock.stall(waited);
    await end;
    assert.deepEqual(waits, expected);
  }
});

test('a wait that ends a moment early goes on, and counts as no failure', async () => {
  const { clock, commits, server, waits, health } = setUp();
  server.connected = false;
  server.whileWaiting = (ms) => clock.stall(Math.max(ms - 1, 1));
  await assert.rejects(commits.upsert(makeRow()), refusal('unavailable', /cannot be reached/));
  assert.deepEqual([waits, health.failures.length], [[2_000, 1], 1]);
});

test('when the connection is back in time, all that waited are written together', async () => {
  const { commits, server, sizes, health } = setUp();
  server.connected = false;
  server.whileWaiting = () => {
    server.connected = true;
  };
  assert.deepEqual(await Promise.all(many(3, () => commits.upsert(makeRow()))), ['added', 'added', 'added']);
  assert.deepEqual([sizes(), health.failures], [[3], []]);
});

test('a statement that deadlocks is tried three times, any other that fails once', async () => {
  const { commits, server, statements, health } = setUp();
  const failing = (code: string, times: number): Answer => {
    let failures = 0;
    return (statement) => {
      if (failures++ < times) throw sqlError(code);
      return takesAll(statement);
    };
  };
  server.answer = failing('40P01', 2);
  assert.equal(await commits.upsert(makeRow()), 'added');
  assert.deepEqual([statements.length, health.failures.length], [3, 0]);
  server.answer = failing('40P01', 3);
  await assert.rejects(commits.upsert(makeRow()), refusal('unavailable', /did not store it: its words \(40P01\)$/));
  assert.deepEqual([statements.length, health.failures.length], [6, 1]);
  server.answer = failing('53100', 1);
  await assert.rejects(commits.upsert(makeRow()), refusal('unavailable', /\(53100\)$/));
  assert.equal(statements.length, 7);
  server.answer = () => {
    throw new Error('its words');
  };
  await assert.rejects(commits.upsert(makeRow()), refusal('unavailable', /its words \(no SQLSTATE\)$/));
});

test('a row that the database cannot store is found among its neighbours, which are written', async () => {
  const { commits, server, sizes } = setUp();
  server.answer = (statement) => {
    if ((statement.values![9] as string[]).includes('wrong')) throw sqlError('22001');
    return takesAll(statement);
  };
  const rows = many(5, (n) => makeRow(n === 3 ? { service: 'wrong' } : {}));
  const results = await Promise.allSettled(rows.map((row) => commits.upsert(row)));
  assert.deepEqual(
    results.map((result) => (result.status === 'fulfilled' ? result.value : (result.reason as StoreError).code)),
    ['added', 'added', 'added', 'refused', 'added'],
  );
  assert.deepEqual(sizes(), [5, 2, 3, 1, 2, 1, 1]);
});

test('a connection that is lost fails its statement with its own error', async () => {
  const { commits, server, health } = setUp();
  const error = new StoreError('unavailable', 'The database did not carry it out');
  server.answer = () => {
    throw error;
  };
  await assert.rejects(commits.upsert(makeRow()), (thrown) => thrown === error);
  assert.deepEqual(health.failures, [error]);
});

test('64 are answered in one turn of the event loop, from the one in which they were written', async () => {
  for (const [count, expected] of [
    [130, [64, 64, 2]],
    [64, [64, 1]],
  ] as const) {
    const { commits } = setUp();
    const answered: number[] = [];
    let turn = 0;
    const note = () => {
      answered[turn] = (answered[turn] ?? 0) + 1;
    };
    const row = makeRow();
    const all = many(count, (n) => commits.upsert(n === 0 ? row : makeRow()).then(note));
    // The second change to a key is in the statement after, one turn later.
    if (count === 64) all.push(commits.upsert(row).then(note));
    const end = Promise.all(all).then(() => true);
    for (; !(await Promise.race([end, nextTurn(false)])); turn++) assert.ok(turn < 1_000, 'it does not end');
    assert.deepEqual(answered, expected);
  }
});

test('a watch knows what was being written when it began and what has come since, until it ends', async () => {
  const { commits } = setUp();
  const [before, during, since, after] = many(4, () => makeRow());
  await commits.upsert(before!);
  // Its sender has taken note of the answer one turn later.
  const early = commits.watch();
  assert.ok(early.has(before!));
  early.end();
  await nextTurn();
  await nextTurn();
  const writing = commits.upsert(during!);
  const watch = commits.watch();
  await writing;
  await nextTurn();
  await nextTurn();
  await commits.remove({ ...since!, signedAt: NOW });
  const known = () => [before, during, since, after].map((row) => watch.has(row!));
  assert.deepEqual(known(), [false, true, true, false]);
  watch.end();
  await commits.upsert(after!);
  assert.deepEqual(known(), [false, true, true, false]);
  assert.ok(!watch.has({ ...during!, service: 'another' }));
});

test('a key that is written twice is in work until the second is done', async () => {
  const { commits } = setUp();
  const row = makeRow();
  const [first, second] = [commits.upsert(row), commits.upsert(row)];
  await first;
  await nextTurn();
  const watch = commits.watch();
  assert.ok(watch.has(row));
  watch.end();
  await second;
  await nextTurn();
  await nextTurn();
  assert.ok(!commits.watch().has(row));
});

test('how long statements took together is counted, also of those that fail', async () => {
  const { clock, commits, server } = setUp();
  server.answer = (statement) => {
    clock.stall(7);
    return takesAll(statement);
  };
  await commits.upsert(makeRow());
  server.answer = () => {
    clock.stall(5);
    throw sqlError('53100');
  };
  await assert.rejects(commits.upsert(makeRow()));
  await nextTurn();
  assert.deepEqual(commits.counters, { commits: 1, rows: 1, commitMs: 12 });
});

test('once closed it takes no more, and what waits is answered without patience', async () => {
  const { commits, server, waits } = setUp();
  const written = commits.upsert(makeRow());
  const closed = commits.close();
  await assert.rejects(commits.upsert(makeRow()), refusal('unavailable', /being closed/));
  await closed;
  assert.equal(await written, 'added');

  const other = setUp();
  other.server.connected = false;
  const waiting = assert.rejects(other.commits.upsert(makeRow()), refusal('unavailable', /cannot be reached/));
  await other.commits.close();
  await waiting;
  assert.deepEqual(other.waits, [0]);
  assert.deepEqual([server.connected, waits], [true, []]);
});
