import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import type pg from 'pg';
import type { QueryConfig } from 'pg';
import { slotBits } from '../../../src/hivemind/cluster/roster.ts';
import { changesStatement, currentStatement } from '../../../src/hivemind/store/cluster-statements.ts';
import { ClusterStore, type Current } from '../../../src/hivemind/store/cluster-store.ts';
import type { Connection } from '../../../src/hivemind/store/connection.ts';
import type { Store, StoreError } from '../../../src/hivemind/store/store.ts';
import { slotOf } from '../../../src/session/slots.ts';
import {
  ALL_SLOTS,
  connectTo,
  EVERY_SLOT,
  type MemberStore,
  NO_SLOTS,
  openMember,
  removeAsOriginal,
  writeAsOriginal,
} from '../../support/members.ts';
import { createDatabase } from '../../support/postgres.ts';
import { makeRow } from '../../support/rows.ts';
import { createSkewedDatabase } from '../../support/skewed-database.ts';

const load = (store: Store, slots?: readonly number[]) => store.load(() => {}, undefined, slots);
const beat = (store: MemberStore) => store.cluster.beat({ state: 'ready', covers: NO_SLOTS });

async function read(store: MemberStore, slots: readonly number[] = ALL_SLOTS): Promise<readonly Current[]> {
  const changes = await store.cluster.readChanges(slotBits(slots));
  assert.ok(changes !== 'reload');
  assert.equal(changes.more, false);
  return store.cluster.readCurrent(changes.changes);
}

/** A member that has loaded what there is, and read all changes. */
async function openReader(t: TestContext, url: string, name: string): Promise<MemberStore> {
  const store = await openMember(t, url, name);
  await load(store);
  await read(store);
  return store;
}

const ids = (changes: readonly Current[]) => changes.map(({ serviceId }) => serviceId).sort();

async function count(client: pg.Client, table: string): Promise<number> {
  return Number((await client.query<{ n: string }>(`SELECT count(*) AS n FROM ${table}`)).rows[0]?.n);
}

describe('several hiveminds on one database', () => {
  it('see each other by their heartbeats', async (t) => {
    const url = await createDatabase(t);
    const a = await openMember(t, url, 'a');
    const b = await openMember(t, url, 'b');
    const state = async (store: MemberStore, name: string) => {
      const { members } = await beat(store);
      const member = members.find((one) => one.name === name);
      return [member?.state, member?.covers, member?.version];
    };
    assert.deepEqual(await state(b, 'a'), ['starting', NO_SLOTS, '2.0.0']);
    const covers = Buffer.alloc(32, 0xa5);
    await a.cluster.beat({ state: 'ready', covers });
    const { now, members } = await b.cluster.beat({ state: 'starting', covers: NO_SLOTS });
    assert.ok(Math.abs(now - Date.now()) < 60_000);
    assert.deepEqual(
      members.map(({ name, state, generation }) => [name, state, generation]),
      [
        ['a', 'ready', a.cluster.membership.generation],
        ['b', 'starting', b.cluster.membership.generation],
      ],
    );
    assert.deepEqual(members[0]?.covers, covers);
    assert.equal(members[0]?.address, 'tcp://10.0.0.1:22030/a');
    assert.equal(members[0]?.pushAddress, 'tcp://10.0.0.1:22031/a');
    assert.ok(now - (members[1]?.seen ?? 0) < 1_000 && (members[1]?.started ?? 0) <= (members[1]?.seen ?? 0));
    assert.notEqual(members[0]?.run, members[1]?.run);
    await a.cluster.leave();
    assert.deepEqual(await state(b, 'a'), ['stopped', NO_SLOTS, '2.0.0']);
    await a.close();
    await assert.rejects(beat(a), { code: 'unavailable' });
  });

  it('load the subscriptions of some slots, and hear of those alone', async (t) => {
    const url = await createDatabase(t);
    const a = await openMember(t, url, 'a');
    const b = await openMember(t, url, 'b');
    const rows = Array.from({ length: 200 }, () => makeRow({ namespaces: [0, 3] }));
    await Promise.all(rows.map((row) => a.upsert(row)));
    for (const slots of [ALL_SLOTS.slice(0, 10), ALL_SLOTS.slice(0, 128), []]) {
      const found: string[] = [];
      await b.load((row) => found.push(`${row.serviceId} ${row.namespaces}`), undefined, slots);
      const wanted = rows.filter(({ account }) => slots.includes(slotOf(account)));
      assert.deepEqual(found.sort(), wanted.map(({ serviceId }) => `${serviceId} 0,3`).sort());
    }
    await read(b);
    await Promise.all(rows.map((row) => a.remove(row.account, row.service, row.serviceId, row.signedAt)));
    const slots = ALL_SLOTS.slice(100, 200);
    const wanted = rows.filter(({ account }) => slots.includes(slotOf(account)));
    assert.deepEqual(ids(await read(b, slots)), wanted.map(({ serviceId }) => serviceId).sort());
  });

  it('find what is stored, and how many devices an account has, whoever holds it', async (t) => {
    const store = await openMember(t, await createDatabase(t), 'a');
    const account = Buffer.alloc(33, 3);
    const subaccount = { tag: Buffer.alloc(36, 1), signature: Buffer.alloc(64, 2) };
    const rows = [
      makeRow({ account }),
      makeRow({ account, subaccount, serviceData: Buffer.of(7), namespaces: [-5, 0] }),
    ];
    for (const row of rows) await store.upsert(row);
    for (const row of rows) assert.deepEqual(await store.find(account, row.service, row.serviceId), row);
    assert.equal(await store.find(account, 'apns', rows[0]!.serviceId), undefined);
    assert.equal(await store.find(account, 'apns', 'a\0b'), undefined);
    assert.deepEqual(await store.countDevices(account), { all: 2, alike: 0 });
    assert.deepEqual(await store.countDevices(account, subaccount.tag), { all: 2, alike: 1 });
    assert.deepEqual(await store.countDevices(Buffer.alloc(33, 9)), { all: 0, alike: 0 });
  });
});

describe('a heartbeat', () => {
  it('without an answer about ourselves tells that we are no member any more', async () => {
    const gone: StoreError[] = [];
    const connection = { query: async () => ({ rows: [] }) } as unknown as Pick<Connection, 'query'>;
    const membership = { name: 'a', generation: 1n, run: 1n };
    const store = new ClusterStore(connection, membership, (error) => gone.push(error));
    const words = /^The database no longer knows this hivemind \(a\): /;
    await assert.rejects(store.beat({ state: 'ready', covers: NO_SLOTS }), { code: 'locked', message: words });
    assert.equal(gone.length, 1);
  });
});

describe('the changes that members read', () => {
  it('report everything that others write, in its current state, once', async (t) => {
    const url = await createDatabase(t);
    const a = await openReader(t, url, 'a');
    const b = await openReader(t, url, 'b');
    const row = makeRow({ namespaces: [-1, 0, 5], serviceData: Buffer.of(1, 2, 3) });
    await a.upsert(row);
    assert.deepEqual(await read(b), [{ account: row.account, service: row.service, serviceId: row.serviceId, row }]);
    assert.deepEqual(await read(b), [], 'once');
    assert.deepEqual(await read(a), [], 'its own it knows');
    await b.remove(row.account, row.service, row.serviceId, row.signedAt);
    assert.deepEqual(await read(a), [
      { account: row.account, service: row.service, serviceId: row.serviceId, row: undefined },
    ]);
    assert.deepEqual(await read(b), []);
    // One that has gone and come back: whichever change is looked at tells the same.
    await a.upsert(row);
    await a.remove(row.account, row.service, row.serviceId, row.signedAt);
    await a.upsert(row);
    const current = await read(b);
    assert.ok(current.length > 1);
    for (const one of current) assert.deepEqual(one.row, row);
    assert.deepEqual(await b.cluster.readCurrent([{ id: '1' }]), [], 'of what is gone another change tells');
  });

  it('report what an original hivemind and an operator write', async (t) => {
    const url = await createDatabase(t);
    const a = await openReader(t, url, 'a');
    const original = await connectTo(t, url);
    const row = makeRow({ namespaces: [0, 1], signedAt: 1_700_000_000 });
    await original.query('BEGIN');
    await writeAsOriginal(original, row);
    await original.query('COMMIT');
    assert.deepEqual(await read(a), [{ account: row.account, service: row.service, serviceId: row.serviceId, row }]);
    const renewed = { ...row, namespaces: [2], signedAt: row.signedAt - 1_000 };
    await original.query('BEGIN');
    await writeAsOriginal(original, renewed);
    await original.query('COMMIT');
    assert.deepEqual((await read(a)).at(0)?.row, renewed);
    await original.query("UPDATE subscriptions SET svcid = 'renamed-' || svcid");
    assert.deepEqual(
      (await read(a)).map(({ serviceId, row }) => [serviceId, row?.serviceId]).sort(),
      [
        [row.serviceId, undefined],
        [`renamed-${row.serviceId}`, `renamed-${row.serviceId}`],
      ].sort(),
    );
    await removeAsOriginal(original, { ...row, serviceId: `renamed-${row.serviceId}` });
    assert.deepEqual(
      (await read(a)).map(({ serviceId, row }) => [serviceId, row]),
      [[`renamed-${row.serviceId}`, undefined]],
    );
    // What is no account, or no good row, is nothing to anybody.
    await original.query(
      `INSERT INTO subscriptions (account, signature, signature_ts, want_data, enc_key, service, svcid)
       VALUES ('\\x01', '', 0, false, '', 'apns', 'short'), ($1, '', 0, false, '', 'apns', 'faulty')`,
      [row.account],
    );
    assert.deepEqual(
      (await read(a)).map(({ serviceId, row }) => [serviceId, row]),
      [['faulty', undefined]],
    );
    await original.query('TRUNCATE subscriptions CASCADE');
    assert.equal(await a.cluster.readChanges(EVERY_SLOT), 'reload');
    assert.equal(await a.cluster.readChanges(EVERY_SLOT), 'reload', 'until it was loaded');
    await load(a);
    assert.deepEqual(await read(a), []);
  });

  it('are not held back by a long transaction, nor missed when it ends, nor reported if it is rolled back', async (t) => {
    const url = await createDatabase(t);
    const a = await openReader(t, url, 'a');
    const b = await openReader(t, url, 'b');
    const [long, undone] = [await connectTo(t, url), await connectTo(t, url)];
    const [early, never, late] = [makeRow(), makeRow(), makeRow()];
    for (const [client, row] of [
      [long, early],
      [undone, never],
    ] as const) {
      await client.query('BEGIN');
      await writeAsOriginal(client, row);
    }
    await a.upsert(late);
    assert.deepEqual(ids(await read(b)), [late.serviceId]);
    // Neither are rows kept for it that everybody has read.
    await beat(a);
    await beat(b);
    await read(a);
    await beat(a);
    await b.cluster.trim();
    assert.equal(await count(long, 'spns_changes'), 1, 'its own, which nobody else sees');
    await undone.query('ROLLBACK');
    await long.query('COMMIT');
    assert.deepEqual(ids(await read(b)), [early.serviceId]);
    assert.deepEqual(ids(await read(a)), [early.serviceId]);
    assert.deepEqual(ids(await read(b)), []);
  });

  it('include what was written here while it was loaded, for the load may have put older rows in its place', async (t) => {
    const url = await createDatabase(t);
    const a = await openReader(t, url, 'a');
    const row = makeRow();
    await a.upsert(row);
    let removed: Promise<boolean> | undefined;
    await a.load(() => {
      removed ??= a.remove(row.account, row.service, row.serviceId, row.signedAt);
    });
    assert.equal(await removed, true);
    assert.deepEqual(
      (await read(a)).map(({ serviceId, row }) => [serviceId, row]),
      [[row.serviceId, undefined]],
    );
    assert.deepEqual(await read(a), []);
  });

  it('are read once more after a load, from where it began, whatever was read meanwhile', async (t) => {
    const url = await createDatabase(t);
    const a = await openReader(t, url, 'a');
    const b = await openMember(t, url, 'b');
    const [first, second] = [makeRow(), makeRow()];
    await a.cluster.whileLoading(async () => {
      await b.upsert(first);
      assert.deepEqual(ids(await read(a)), [first.serviceId]);
    });
    assert.deepEqual(ids(await read(a)), [first.serviceId], 'the load may have put what was before in its place');
    assert.deepEqual(ids(await read(a)), []);
    let reading: Promise<unknown> | undefined;
    await a.cluster.whileLoading(async () => {
      await b.upsert(second);
      reading = a.cluster.readChanges(EVERY_SLOT);
    });
    await reading;
    assert.deepEqual(ids(await read(a)), [second.serviceId], 'also when a reading ends after the load');
    // Until a load ends, nothing is taken away that comes after its beginning.
    await b.cluster.leave();
    await a.cluster.whileLoading(async () => {
      await b.upsert(first);
      await read(a);
      await beat(a);
      await a.cluster.trim();
    });
    assert.deepEqual(ids(await read(a)), [first.serviceId]);
  });

  it('are read in pages, and a transaction with more than one of them causes a reload', async (t) => {
    const url = await createDatabase(t);
    const a = await openReader(t, url, 'a');
    const other = await connectTo(t, url);
    const insert = (from: number, to: number) =>
      other.query(
        `INSERT INTO subscriptions (account, session_ed25519, signature, signature_ts, want_data, enc_key, service, svcid)
         SELECT '\\x05' || sha256(int4send(n)), sha256(int4send(n)), sha512(int4send(n)), 1700000000, true,
           sha256(int4send(n)), 'apns', 'device-' || lpad(n::text, 30, '0') FROM generate_series($1::int, $2) n`,
        [from, to],
      );
    for (let n = 0; n < 10; n++) await insert(n * 900, n * 900 + 899);
    await other.query('INSERT INTO sub_namespaces SELECT id, 0 FROM subscriptions');
    const found = new Set<string>();
    let pages = 0;
    for (let more = true; more; pages++) {
      const changes = await a.cluster.readChanges(EVERY_SLOT);
      assert.ok(changes !== 'reload');
      for (const { serviceId, row } of await a.cluster.readCurrent(changes.changes)) {
        assert.ok(!found.has(serviceId), 'once');
        assert.deepEqual(row?.namespaces, [0]);
        found.add(serviceId);
      }
      more = changes.more;
    }
    assert.equal(found.size, 9_000);
    assert.ok(pages >= 3, `${pages}`);
    await insert(10_000, 14_100);
    assert.equal(await a.cluster.readChanges(EVERY_SLOT), 'reload');
  });

  it('are read again from the start when the server has forgotten transactions, and its own until all are read', async () => {
    const asked: unknown[] = [];
    let rows: object[] = [];
    const connection = {
      query: async ({ values }: QueryConfig) => {
        if (values) asked.push(values[5]);
        return { rows };
      },
    } as unknown as Pick<Connection, 'query'>;
    const store = new ClusterStore(connection, { name: 'a', generation: 1n, run: 1n }, () => {});
    const at = (xmax: number, xids: readonly number[] = []) => {
      const first = { snapshot: `${xmax}:${xmax}:`, server: 's', lost: false };
      const changes = xids.map((xid) => ({ ...first, xid: String(xid), slot: 0, id: String(xid) }));
      rows = changes.length > 0 ? changes : [{ ...first, xid: null, slot: null }];
    };
    at(10);
    await store.whileLoading(async () => {});
    asked.length = 0;
    const page = Array.from({ length: 4_000 }, (_, n) => n + 20);
    at(10_000, page);
    const read = await store.readChanges(EVERY_SLOT);
    assert.ok(read !== 'reload');
    assert.deepEqual([read.changes.length, read.more], [3_999, true]);
    at(10_000, page.slice(1));
    await store.readChanges(EVERY_SLOT);
    at(10_000);
    await store.readChanges(EVERY_SLOT);
    assert.deepEqual(asked, [true, true, false]);
    at(9_999);
    assert.equal(await store.readChanges(EVERY_SLOT), 'reload');
  });

  it('are found by index alone, however many there are', async (t) => {
    const url = await createDatabase(t);
    await openReader(t, url, 'a');
    const client = await connectTo(t, url);
    await client.query(`SET spns.origin = 1; SET enable_bitmapscan = off; SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off;
      SET enable_hashjoin = off; SET enable_mergejoin = off`);
    for (const analyzed of [false, true]) {
      if (analyzed) {
        await client.query(`INSERT INTO spns_changes (slot, id) SELECT n % 256, n FROM generate_series(1, 50000) n`);
        await client.query('ANALYZE');
      }
      const plans: string[] = [];
      for (const { name, text, values } of [
        changesStatement({ name: 'a', run: 1n }, { xmax: 5n, xip: [3n] }, EVERY_SLOT, false),
        currentStatement([{ ...makeRow(), id: undefined }]),
      ]) {
        const plan = await client.query<{ 'QUERY PLAN': string }>({
          name: `${name} ${analyzed}`,
          text: `EXPLAIN ${text}`,
          values: values as unknown[],
        });
        plans.push(plan.rows.map((row) => row['QUERY PLAN']).join('\n'));
      }
      assert.match(plans[0]!, /Index Cond: \(xid = ANY/, plans[0]);
      assert.match(plans[0]!, /Index Cond: \(xid >= /, plans[0]);
      for (const plan of plans)
        assert.doesNotMatch(plan, /Seq Scan on (spns_changes|subscriptions|sub_namespaces)/, plan);
    }
  });
});

describe('the changes that are kept', () => {
  it('are those that some member has not read, and none for one that has been away for an hour', async (t) => {
    const url = await createDatabase(t);
    const a = await openReader(t, url, 'a');
    const b = await openReader(t, url, 'b');
    const admin = await connectTo(t, url);
    const rows = Array.from({ length: 30 }, () => makeRow());
    for (const row of rows) await a.upsert(row);
    await read(a);
    await beat(a);
    await a.cluster.trim();
    assert.equal(await count(admin, 'spns_changes'), 30, 'b has not read them');
    assert.deepEqual(ids(await read(b)), rows.map(({ serviceId }) => serviceId).sort());
    await beat(b);
    await a.cluster.trim();
    assert.equal(await count(admin, 'spns_changes'), 0);

    for (const row of rows) await a.upsert({ ...row, signedAt: row.signedAt + 100 });
    await admin.query("UPDATE spns_members SET seen = seen - INTERVAL '61 minutes' WHERE name = 'b'");
    await read(a);
    await beat(a);
    await a.cluster.trim();
    assert.equal(await count(admin, 'spns_changes'), 0);
    // It comes back: what it has missed it is not told, but that it has.
    await beat(b);
    assert.equal(await b.cluster.readChanges(EVERY_SLOT), 'reload');
    await load(b);
    await a.upsert({ ...rows[0]!, signedAt: rows[0]!.signedAt + 200 });
    await a.cluster.trim();
    assert.deepEqual(ids(await read(b)), [rows[0]!.serviceId]);
  });

  it('are removed some at a time, by one member at a time, so that nobody waits for it', async (t) => {
    const url = await createDatabase(t);
    const a = await openReader(t, url, 'a');
    const admin = await connectTo(t, url);
    for (let n = 0; n < 7; n++) {
      await admin.query('INSERT INTO spns_changes (slot, id) SELECT n % 256, n FROM generate_series(1, 1000) n');
      await read(a);
    }
    await beat(a);
    await admin.query('BEGIN; SELECT spns_trim(clock_timestamp())');
    assert.equal(await a.cluster.trim(), false);
    await admin.query('ROLLBACK');
    assert.equal(await count(admin, 'spns_changes'), 7_000);
    assert.equal(await a.cluster.trim(), true);
    assert.equal(await a.cluster.trim(), false);
    assert.equal(await count(admin, 'spns_changes'), 0);
  });

  it('do not grow without limit where all members are away and somebody else writes', async (t) => {
    const url = await createDatabase(t);
    const a = await openReader(t, url, 'a');
    await a.close();
    const other = await connectTo(t, url);
    const row = makeRow();
    const renew = () => other.query('UPDATE subscriptions SET want_data = NOT want_data');
    await writeAsOriginal(other, row);
    for (let n = 0; n < 1_100; n++) await renew();
    assert.ok((await count(other, 'spns_changes')) >= 1_100, 'it may come back');
    await other.query("UPDATE spns_members SET seen = seen - INTERVAL '61 minutes'");
    for (let n = 0; n < 1_100; n++) await renew();
    assert.ok((await count(other, 'spns_changes')) <= 1_100);
  });

  it('are bounded, and members are judged correctly, when the clock of the database goes back', async (t) => {
    const database = await createSkewedDatabase(t);
    const { url } = database;
    await database.skew(5 * 3_600_000);
    const a = await openReader(t, url, 'a');
    const b = await openReader(t, url, 'b');
    await beat(b);
    await b.close();
    await database.skew(0);
    await a.cluster.trim();
    const { now, members } = await beat(a);
    assert.deepEqual(
      members.map(({ name }) => name),
      ['a', 'b'],
    );
    for (const { seen } of members) assert.ok(seen <= now && seen > now - 10_000);
    await a.upsert(makeRow());
    await read(a);
    await database.skew(2 * 3_600_000);
    await beat(a);
    await a.cluster.trim();
    assert.equal((await database.query<{ n: string }>('SELECT count(*) AS n FROM spns_changes'))[0]?.n, '0');
  });

  it('are not treated as new where they come from an earlier life of the database', async (t) => {
    const url = await createDatabase(t);
    const admin = await connectTo(t, url);
    await (await openMember(t, url, 'a')).close();
    await admin.query("INSERT INTO spns_changes (xid, slot, id) VALUES ('9999999999', 0, 1)");
    const a = await openReader(t, url, 'a');
    assert.equal(await count(admin, 'spns_changes'), 0);
    // The tables of a dump that is played back are others, though the server is the same.
    await admin.query(`ALTER TABLE subscriptions RENAME TO former;
      CREATE TABLE subscriptions (LIKE former INCLUDING ALL)`);
    assert.equal(await a.cluster.readChanges(EVERY_SLOT), 'reload');
  });
});
