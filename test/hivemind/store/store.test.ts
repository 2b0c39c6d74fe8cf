import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import pg from 'pg';
import { pino } from 'pino';
import { systemClock } from '../../../src/clock.ts';
import type { DeviceRow } from '../../../src/hivemind/devices/device.ts';
import { Store, StoreError } from '../../../src/hivemind/store/store.ts';
import { slotOf } from '../../../src/session/slots.ts';
import { keepLog } from '../../notifiers/support.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { connectTo } from '../../support/members.ts';
import { createDatabase } from '../../support/postgres.ts';
import { makeRow } from '../../support/rows.ts';
import { until } from '../../support/until.ts';

const NOW = 1_700_000_000;
const log = pino({ level: process.env.SPNS_TEST_LOG ?? 'silent' });

async function openStore(t: TestContext, url?: string): Promise<{ store: Store; url: string }> {
  url ??= await createDatabase(t);
  const store = await Store.open({ url, clock: systemClock, log });
  t.after(() => store.close());
  return { store, url };
}

async function sql<Row extends pg.QueryResultRow>(url: string, text: string, values?: unknown[]): Promise<Row[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query<Row>(text, values)).rows;
  } finally {
    await client.end();
  }
}

/** What the store has, by service id; copies, since the rows are views. */
async function stored(store: Store): Promise<Map<string, DeviceRow>> {
  const rows = new Map<string, DeviceRow>();
  await store.load((row) => rows.set(row.serviceId, structuredCloneOf(row)));
  return rows;
}

function structuredCloneOf(row: DeviceRow): DeviceRow {
  const copy = (bytes: Buffer | null) => bytes && Buffer.from(bytes);
  return {
    ...row,
    account: copy(row.account)!,
    sessionEd25519: copy(row.sessionEd25519),
    subaccount: row.subaccount && { tag: copy(row.subaccount.tag)!, signature: copy(row.subaccount.signature)! },
    signature: copy(row.signature)!,
    encKey: copy(row.encKey)!,
    serviceData: copy(row.serviceData),
  };
}

function refusal(code: string) {
  return (error: unknown) => error instanceof StoreError && error.code === code;
}

describe('the store', () => {
  it('gives back every field of what it stored', async (t) => {
    const { store } = await openStore(t);
    const group = Buffer.alloc(33, 3);
    const rows = [
      makeRow(),
      makeRow({
        account: group,
        subaccount: { tag: Buffer.alloc(36, 1), signature: Buffer.alloc(64, 2) },
        wantData: false,
        service: 'apns-sandbox',
        serviceId: 'ünïcode-'.repeat(10),
        serviceData: Buffer.alloc(0),
        namespaces: [-32768, -10, 0, 11, 32767],
      }),
      makeRow({ serviceData: Buffer.alloc(99_999, 7), namespaces: Array.from({ length: 3000 }, (_, n) => n - 1500) }),
    ];
    assert.deepEqual(await Promise.all(rows.map((row) => store.upsert(row))), ['added', 'added', 'added']);
    assert.deepEqual(await stored(store), new Map(rows.map((row) => [row.serviceId, row])));
  });

  it('renews a subscription in place, with its new namespaces', async (t) => {
    const { store, url } = await openStore(t);
    const row = makeRow({ namespaces: [0, 2, 4] });
    await store.upsert(row);
    const [before] = await sql<{ id: string }>(url, 'SELECT id FROM subscriptions');
    const renewed = makeRow({ ...row, signature: Buffer.alloc(64, 9), signedAt: NOW + 5, namespaces: [-1, 2, 3] });
    assert.equal(await store.upsert(renewed), 'updated');
    assert.deepEqual((await stored(store)).get(row.serviceId), renewed);
    assert.deepEqual(await sql(url, 'SELECT id FROM subscriptions'), [before]);
  });

  it('changes nothing for a request that was signed more than a minute before the stored one', async (t) => {
    const { store } = await openStore(t);
    const row = makeRow();
    await store.upsert(row);
    const replay = makeRow({ ...row, signedAt: NOW - 61, encKey: Buffer.alloc(32, 6), namespaces: [7] });
    assert.equal(await store.upsert(replay), 'stale');
    assert.deepEqual((await stored(store)).get(row.serviceId), row);
    assert.equal(await store.remove(row.account, row.service, row.serviceId, NOW - 61), false);
    assert.equal((await stored(store)).size, 1);
  });

  it('follows the order of arrival within a minute, for the clocks of phones are wrong', async (t) => {
    const { store } = await openStore(t);
    const row = makeRow();
    const remove = (signedAt: number) => store.remove(row.account, row.service, row.serviceId, signedAt);
    const upsert = (signedAt: number) => store.upsert({ ...row, signedAt });
    assert.equal(await upsert(NOW + 30), 'added');
    assert.equal(await remove(NOW), true, 'who turns notifications off gets silence');
    assert.equal((await stored(store)).size, 0);
    assert.equal(await remove(NOW + 40), false);
    assert.equal(await upsert(NOW + 39), 'added');
    assert.equal(await upsert(NOW - 20), 'updated');
    assert.equal((await stored(store)).get(row.serviceId)?.signedAt, NOW - 20);
    assert.equal(await remove(NOW - 80), true);
    assert.equal(await upsert(NOW - 21), 'stale', 'the unsubscription of NOW + 40 is remembered');
    assert.equal(await upsert(NOW - 20), 'added');
  });

  it('does not bring an unsubscribed device back for an old request', async (t) => {
    const { store } = await openStore(t);
    const row = makeRow();
    await store.upsert(row);
    assert.equal(await store.remove(row.account, row.service, row.serviceId, NOW + 10), true);
    assert.equal(await store.remove(row.account, row.service, row.serviceId, NOW + 10), false);
    assert.equal(await store.upsert({ ...row, signedAt: NOW - 51 }), 'stale');
    assert.equal((await stored(store)).size, 0);
    assert.equal(await store.upsert({ ...row, signedAt: NOW + 10 }), 'added');

    const never = makeRow();
    assert.equal(await store.remove(never.account, never.service, never.serviceId, NOW), false);
    assert.equal(await store.upsert({ ...never, signedAt: NOW - 61 }), 'stale');
  });

  it('remembers only the latest 64 unsubscriptions of devices that never existed, and those of devices that did', async (t) => {
    const { store, url } = await openStore(t);
    const account = Buffer.alloc(33, 3);
    const remembered = () =>
      sql<{ svcid: string; was_there: boolean }>(
        url,
        'SELECT svcid, was_there FROM spns_unsubscribed WHERE account = $1 ORDER BY signature_ts',
        [account],
      );
    const real = Array.from({ length: 70 }, () => makeRow({ account }));
    await Promise.all(real.map((row) => store.upsert(row)));
    for (const row of real) assert.equal(await store.remove(account, row.service, row.serviceId, NOW), true);

    const ids = Array.from({ length: 600 }, (_, n) => `never${n}`.padEnd(40, 'x'));
    const remove = (n: number) => store.remove(account, 'firebase', ids[n]!, NOW + n);
    for (let n = 0; n < 100; n++) assert.equal(await remove(n), false);
    // And many in one statement.
    await Promise.all(Array.from({ length: 500 }, (_, n) => remove(100 + n)));
    const rows = await remembered();
    assert.deepEqual(
      rows.filter(({ was_there }) => !was_there).map(({ svcid }) => svcid),
      ids.slice(-64),
    );
    assert.equal(rows.length, 70 + 64);

    // What is remembered holds back what was signed before it; of what is not, nothing was ever there.
    assert.equal(await store.upsert(makeRow({ account, serviceId: ids[599]!, signedAt: NOW + 538 })), 'stale');
    for (const row of real) assert.equal(await store.upsert({ ...row, signedAt: NOW - 61 }), 'stale');
    assert.equal(await store.upsert(makeRow({ account, serviceId: ids[0]!, signedAt: NOW - 1 })), 'added');
    // One that was there once stays one that was, whatever comes.
    await store.remove(account, real[0]!.service, real[0]!.serviceId, NOW + 5_000);
    assert.equal((await remembered()).at(-1)!.was_there, true);
    // Other accounts are not touched by it.
    const other = makeRow();
    assert.equal(await store.remove(other.account, other.service, other.serviceId, NOW), false);
    assert.equal(await store.upsert({ ...other, signedAt: NOW - 61 }), 'stale');
  });

  it('remembers the latest thousand devices of an account that unsubscribed', async (t) => {
    const { store, url } = await openStore(t);
    const account = Buffer.alloc(33, 3);
    const rows = Array.from({ length: 1_100 }, () => makeRow({ account }));
    await Promise.all(rows.map((row) => store.upsert(row)));
    await Promise.all(rows.map((row, n) => store.remove(account, row.service, row.serviceId, NOW + n)));
    assert.deepEqual(
      await sql(url, 'SELECT count(*)::int AS n, min(signature_ts)::int AS first FROM spns_unsubscribed'),
      [{ n: 1_000, first: NOW + 100 }],
    );
  });

  it('remembers at most 100,000 devices that never existed, however many accounts there are', async (t) => {
    const { store, url } = await openStore(t);
    await sql(
      url,
      `INSERT INTO spns_unsubscribed (account, service, svcid, signature_ts, was_there)
       SELECT int4send(n), 'apns', 'x', ${NOW} + n, n % 10 = 0 FROM generate_series(1, 112000) n`,
    );
    await store.deleteExpired(NOW - 1, 1_000);
    const count = 'SELECT count(*)::int AS n FROM spns_unsubscribed WHERE was_there = $1';
    assert.deepEqual(await sql(url, count, [false]), [{ n: 100_000 }]);
    assert.deepEqual(await sql(url, count, [true]), [{ n: 11_200 }]);
    assert.deepEqual(
      await sql(url, 'SELECT min(signature_ts)::int AS first FROM spns_unsubscribed WHERE NOT was_there'),
      [{ first: NOW + 889 }],
    );
  });

  it('forgets unsubscriptions and deletes subscriptions when their time is over, however many', async (t) => {
    const { store, url } = await openStore(t);
    const old = Array.from({ length: 1201 }, () => makeRow({ signedAt: NOW }));
    const young = makeRow({ signedAt: NOW + 1 });
    await Promise.all([...old, young].map((row) => store.upsert(row)));
    const gone = makeRow();
    await store.remove(gone.account, gone.service, gone.serviceId, NOW);
    assert.equal(await store.deleteExpired(NOW, 300), 500, 'no more than it may, to a slice');
    assert.equal(await store.deleteExpired(NOW, 250), 250);
    assert.equal(await store.deleteExpired(NOW, 2_000), 451);
    assert.deepEqual([...(await stored(store)).keys()], [young.serviceId]);
    assert.deepEqual(await sql(url, 'SELECT count(*)::int AS n FROM sub_namespaces'), [{ n: 1 }]);
    assert.deepEqual(await sql(url, 'SELECT count(*)::int AS n FROM spns_unsubscribed'), [{ n: 0 }]);
  });

  it('writes what comes together in few commits, each answered for itself', async (t) => {
    const { store } = await openStore(t);
    const rows = Array.from({ length: 300 }, () => makeRow());
    await store.upsert(rows[0]!);
    const before = store.counters.commits;
    const results = await Promise.all(rows.map((row) => store.upsert(row)));
    assert.deepEqual(results, ['updated', ...Array.from({ length: 299 }, () => 'added')]);
    assert.ok(store.counters.commits - before <= 3, `${store.counters.commits - before} commits`);
  });

  it('writes a small subscription before the many wide ones of others that wait, and before those of one account', async (t) => {
    const { store } = await openStore(t);
    const namespaces = Array.from({ length: 256 }, (_, n) => n);
    const done: string[] = [];
    const write = (name: string, row: DeviceRow) => store.upsert(row).then(() => done.push(name));
    const all: Promise<unknown>[] = [];
    for (let n = 0; n < 12; n++) all.push(write('wide', makeRow({ namespaces })));
    const account = Buffer.alloc(33, 3);
    for (let n = 0; n < 12; n++) all.push(write('crowd', makeRow({ account, namespaces: namespaces.slice(0, 30) })));
    all.push(write('small', makeRow()));
    await Promise.all(all);
    // With the first statement went 4 wide ones and 8 of the account.
    assert.ok(done.indexOf('small') <= 12, `${done.indexOf('small')} went before it`);
    assert.equal(done.length, 25);
  });

  it('leaves namespaces alone that a renewal does not change', async (t) => {
    const { store, url } = await openStore(t);
    const rows = Array.from({ length: 20 }, (_, n) => makeRow({ namespaces: [n, n + 1, n + 2] }));
    await Promise.all(rows.map((row) => store.upsert(row)));
    const written = 'SELECT subscription, namespace, xmin::text, ctid::text FROM sub_namespaces ORDER BY 1, 2';
    const before = await sql(url, written);
    await Promise.all(rows.map((row) => store.upsert({ ...row, signedAt: NOW + 1 })));
    assert.deepEqual(await sql(url, written), before);
    assert.equal(before.length, 60);
  });

  it('answers a few requests of a statement in one turn of the event loop, so that what follows cannot hold it', async (t) => {
    const { store } = await openStore(t);
    await store.upsert(makeRow());
    let answered = 0;
    let most = 0;
    const count = () => {
      if (answered === 0) setImmediate(() => (answered = 0));
      most = Math.max(most, ++answered);
    };
    await Promise.all(Array.from({ length: 512 }, () => store.upsert(makeRow()).then(count)));
    assert.ok(most <= 128, `${most} in one turn`);
  });

  it('keeps the order of several changes to one key', async (t) => {
    const { store } = await openStore(t);
    const row = makeRow();
    const { account, service, serviceId } = row;
    const results = await Promise.all([
      store.upsert(row),
      store.upsert({ ...row, signedAt: NOW + 1 }),
      store.remove(account, service, serviceId, NOW + 2),
      store.remove(account, service, serviceId, NOW + 2),
      store.upsert({ ...row, signedAt: NOW - 59 }),
      store.upsert({ ...row, signedAt: NOW + 3 }),
      store.removeDevices([{ account, service, serviceId, signedAt: NOW + 2 }]),
      store.removeDevices([{ account, service, serviceId }]),
      store.upsert({ ...row, signedAt: NOW + 4 }),
    ]);
    assert.deepEqual(results, ['added', 'updated', true, false, 'stale', 'added', 0, 1, 'added']);
    assert.equal((await stored(store)).get(serviceId)?.signedAt, NOW + 4);
  });

  it('refuses bad rows without harm to those written with them', async (t) => {
    const { store, url } = await openStore(t);
    await sql(url, "ALTER TABLE subscriptions ADD CHECK (svcid NOT LIKE 'wrong%')");
    const rows = Array.from({ length: 100 }, (_, n) =>
      makeRow(n % 25 === 3 ? { serviceId: `wrong${n}`.padEnd(40, 'x') } : {}),
    );
    const results = await Promise.allSettled(rows.map((row) => store.upsert(row)));
    for (const [n, result] of results.entries()) {
      if (n % 25 === 3) assert.ok(result.status === 'rejected' && refusal('refused')(result.reason));
      else assert.deepEqual(result, { status: 'fulfilled', value: 'added' });
    }
    await assert.rejects(store.upsert(makeRow({ serviceId: `nul\0${'x'.repeat(40)}` })), refusal('refused'));
    await assert.rejects(store.upsert(makeRow({ namespaces: [] })), refusal('refused'));
    assert.equal((await stored(store)).size, 96);
  });

  it('skips rows that are not as they must be', async (t) => {
    const { store, url } = await openStore(t);
    const good = makeRow();
    await store.upsert(good);
    const insert = async (column: string, value: string) => {
      const row = makeRow();
      await store.upsert(row);
      await sql(url, `UPDATE subscriptions SET ${column} = ${value} WHERE svcid = $1`, [row.serviceId]);
      return row.serviceId;
    };
    await insert('account', "'\\x05'");
    await insert('session_ed25519', 'NULL');
    await insert('subaccount_tag', "'\\x0102'");
    await insert('signature', "''");
    await insert('enc_key', "'\\x00'");
    const old = await insert('signature_ts', String(NOW - 1_209_600));
    await insert('signature_ts', '-5');
    await insert('service', "''");
    await insert('svcid', "'short'");
    const bare = makeRow();
    await store.upsert(bare);
    await sql(url, 'DELETE FROM sub_namespaces WHERE subscription = (SELECT id FROM subscriptions WHERE svcid = $1)', [
      bare.serviceId,
    ]);
    const rows: string[] = [];
    assert.deepEqual(await store.load((row) => rows.push(row.serviceId)), { rows: 2, skipped: 9 });
    // What is out of date is no fault of the row's: who knows what time it is.
    assert.deepEqual(rows.sort(), [good.serviceId, old].sort());
  });

  it("adds up statistics in memory and writes them by the original's rules", async (t) => {
    const { store, url } = await openStore(t);
    await sql(
      url,
      "INSERT INTO service_stats VALUES ('apns', 'notifies', NULL, 40), ('apns', 'version', '1.0', NULL), ('apns', 'odd', 'text', NULL), ('apns', 'huge', NULL, 9223372036854775800)",
    );
    store.addStats('apns', { notifies: 2, odd: 3, huge: 1000 }, { version: '2.0', failures: 7 });
    store.addStats('apns', { notifies: 1, failures: 1 }, {});
    store.addStats('', {}, { 'last.apns': NOW });
    store.addStats('bad\0', { x: 1 }, {});
    const rows = await store.readStats();
    assert.deepEqual(
      rows.map(({ service, name, value }) => [service, name, value]),
      [
        ['', 'last.apns', NOW],
        ['apns', 'failures', 8],
        ['apns', 'huge', Number(9223372036854775807n)],
        ['apns', 'notifies', 43],
        ['apns', 'odd', 3],
        ['apns', 'version', '2.0'],
      ],
    );
  });

  it('says once that statistics cannot be stored, and stores the others', async (t) => {
    const url = await createDatabase(t);
    const { log, lines } = keepLog();
    const store = await Store.open({ url, clock: systemClock, log });
    t.after(() => store.close());
    for (let n = 0; n < 3; n++) store.addStats('odd', { ['n'.repeat(501)]: 1, good: 1 }, { text: 'x'.repeat(10_001) });
    assert.deepEqual(await store.readStats(), [{ service: 'odd', name: 'good', value: 3 }]);
    const said = lines.filter((line) => line.includes('statistics were dropped: '));
    assert.equal(said.length, 1, lines.join(''));
    assert.match(said[0]!, /"service":"odd".*"dropped":2\b/);
  });

  it('writes the last statistics when it is closed', async (t) => {
    const url = await createDatabase(t);
    const store = await Store.open({ url, clock: systemClock, log });
    store.addStats('', { pushes: 5 });
    const written = store.upsert(makeRow());
    await store.close();
    assert.equal(await written, 'added');
    assert.deepEqual(await sql(url, 'SELECT name, val_int FROM service_stats'), [{ name: 'pushes', val_int: '5' }]);
    await assert.rejects(store.upsert(makeRow()), refusal('unavailable'));
    await assert.rejects(store.find(makeRow().account, 'apns', 'x'), refusal('unavailable'));
    await assert.rejects(store.deleteExpired(NOW, 1), refusal('unavailable'));
    assert.equal(store.trouble, 'the database does not answer');
  });

  it('writes the statistics that came while others were being written, when it is read and when it is closed', async (t) => {
    const url = await createDatabase(t);
    const clock = new FakeClock();
    const store = await Store.open({ url, clock, log, timeout: 60_000 });
    const other = await connectTo(t, url);
    const waiting = "SELECT FROM pg_locks WHERE relation = 'service_stats'::regclass AND NOT granted";
    /** Statistics that come while the timer's flush waits for a lock, which ends after `work` was begun. */
    const meanwhile = async (work: () => Promise<unknown>) => {
      await other.query('BEGIN; LOCK TABLE service_stats IN SHARE MODE');
      store.addStats('', { pushes: 1 });
      clock.run(5_000);
      await until(async () => (await other.query(waiting)).rowCount === 1);
      store.addStats('', { pushes: 10 });
      const done = work();
      await other.query('COMMIT');
      return await done;
    };
    assert.deepEqual(await meanwhile(() => store.readStats()), [{ service: '', name: 'pushes', value: 11 }]);
    await meanwhile(() => store.close());
    assert.deepEqual(await sql(url, 'SELECT val_int FROM service_stats'), [{ val_int: '22' }]);
  });

  it('writes statistics every five seconds, and at once when they are read', async (t) => {
    const url = await createDatabase(t);
    const clock = new FakeClock();
    const store = await Store.open({ url, clock, log });
    t.after(() => store.close());
    const written = async () => (await sql<{ n: string }>(url, 'SELECT val_int AS n FROM service_stats'))[0]?.n;
    store.addStats('', { pushes: 5 });
    clock.run(4_999);
    assert.equal(await written(), undefined);
    clock.run(1);
    await until(async () => (await written()) === '5');
    store.addStats('', { pushes: 2 });
    assert.deepEqual(await store.readStats(), [{ service: '', name: 'pushes', value: 7 }]);
    assert.equal(await written(), '7');
  });

  it('keeps statistics that cannot be written for later, and says so once', async (t) => {
    const url = await createDatabase(t);
    const { log, lines } = keepLog();
    const store = await Store.open({ url, clock: systemClock, log });
    t.after(() => store.close());
    await sql(url, 'ALTER TABLE service_stats RENAME TO elsewhere');
    // Of more than go into one statement, what is behind the first is kept as well.
    const names = Array.from({ length: 2_500 }, (_, n) => `n${n}`);
    store.addStats('', Object.fromEntries(names.map((name) => [name, 1])));
    for (let n = 0; n < 3; n++) await assert.rejects(store.readStats(), refusal('refused'));
    store.addStats('', { n7: 1 });
    await sql(url, 'ALTER TABLE elsewhere RENAME TO service_stats');
    const rows = await store.readStats();
    assert.equal(rows.length, 2_500);
    assert.deepEqual(
      rows.filter(({ value }) => value !== 1),
      [{ service: '', name: 'n7', value: 2 }],
    );
    const said = lines.filter((line) => line.includes('statistics could not be written yet: relation'));
    assert.equal(said.length, 1, lines.join(''));
  });

  it('gives up 2,000 statistics of which the database can store one never, and writes the others', async (t) => {
    const url = await createDatabase(t);
    const { log, lines } = keepLog();
    const store = await Store.open({ url, clock: systemClock, log });
    t.after(() => store.close());
    await sql(url, "ALTER TABLE service_stats ADD CHECK (name <> 'n0')");
    store.addStats('', Object.fromEntries(Array.from({ length: 2_003 }, (_, n) => [`n${n}`, 1])));
    assert.deepEqual(
      (await store.readStats()).map(({ name }) => name),
      ['n2000', 'n2001', 'n2002'],
    );
    assert.match(lines.join(''), /"level":"error".*2000 statistics could not be written: /);
    assert.equal((await store.readStats()).length, 3);
  });

  it('finds what is stored of a device, and refuses names that no device can have without asking', async (t) => {
    const { store, url } = await openStore(t);
    const longest = makeRow({ serviceId: 'x'.repeat(999) });
    await store.upsert(longest);
    const find = (change: Partial<DeviceRow>) => {
      const { account, service, serviceId } = { ...longest, ...change };
      return store.find(account, service, serviceId);
    };
    assert.deepEqual(await find({}), longest);
    const impossible: Partial<DeviceRow>[] = [
      { account: Buffer.alloc(0) },
      { service: 'fire\0base' },
      { serviceId: 'x\0' },
      { serviceId: 'x'.repeat(1_000) },
    ];
    for (const change of impossible) {
      assert.equal(await find(change), undefined);
      const { account, service, serviceId } = { ...longest, ...change };
      await assert.rejects(store.remove(account, service, serviceId, NOW), refusal('refused'));
      assert.equal(await store.removeDevices([{ account, service, serviceId }]), 0);
    }
    assert.equal(await find({ service: 'apns' }), undefined);
    await sql(url, 'UPDATE subscriptions SET enc_key = $1', [Buffer.alloc(31)]);
    assert.equal(await find({}), undefined, 'one that is not as it must be is none');
    await sql(url, "UPDATE subscriptions SET enc_key = $1, subaccount_sig = '\\x01'", [longest.encKey]);
    assert.equal(await find({}), undefined, 'nor is one with half of a subaccount');
    assert.equal(await store.removeDevices([longest]), 1);
    assert.equal(await store.remove(Buffer.of(3), 'apns', 'x', NOW), false, 'any account may be asked about');
  });

  it('counts the devices of an account, and those of a subaccount among them', async (t) => {
    const { store, url } = await openStore(t);
    const account = Buffer.alloc(33, 3);
    const tag = Buffer.alloc(36, 1);
    const subaccount = { tag, signature: Buffer.alloc(64, 2) };
    const rows = [{}, {}, { subaccount }, { account: Buffer.alloc(33, 4), subaccount }];
    await Promise.all(rows.map((row) => store.upsert(makeRow({ account, ...row }))));
    assert.deepEqual(await store.countDevices(account, tag), { all: 3, alike: 1 });
    assert.deepEqual(await store.countDevices(account), { all: 3, alike: 0 });
    assert.deepEqual(await store.countDevices(Buffer.alloc(33, 5), tag), { all: 0, alike: 0 });
    await sql(
      url,
      `INSERT INTO subscriptions (account, subaccount_tag, signature, signature_ts, want_data, enc_key, service, svcid)
       SELECT $1, $2, '', 0, true, '', 'apns', n::text FROM generate_series(1, 1200) n`,
      [Buffer.alloc(33, 5), tag],
    );
    const many = await store.countDevices(Buffer.alloc(33, 5), tag);
    assert.deepEqual(many, { all: 1_100, alike: 1_100 }, 'no further than an account may have');
  });

  it('deletes what is out of date once at a time', async (t) => {
    const { store } = await openStore(t);
    await Promise.all(Array.from({ length: 300 }, () => store.upsert(makeRow({ signedAt: NOW }))));
    assert.deepEqual(await Promise.all([store.deleteExpired(NOW, 1_000), store.deleteExpired(NOW, 1_000)]), [300, 0]);
    await store.upsert(makeRow({ signedAt: NOW }));
    assert.equal(await store.deleteExpired(NOW, 1_000), 1);
  });

  it('reads the rows of some slots alone, and ends when it is told to', async (t) => {
    const { store } = await openStore(t);
    const rows = Array.from({ length: 40 }, () => makeRow());
    await Promise.all(rows.map((row) => store.upsert(row)));
    const slot = slotOf(rows[0]!.account);
    const read: string[] = [];
    const { rows: count } = await store.load((row) => read.push(row.serviceId), undefined, [slot]);
    const expected = rows.filter(({ account }) => slotOf(account) === slot).map(({ serviceId }) => serviceId);
    assert.deepEqual([read.sort(), count], [expected.sort(), expected.length]);
    await assert.rejects(
      store.load(() => {}, AbortSignal.abort()),
      refusal('unavailable'),
    );
  });
});
