import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { pino } from 'pino';
import { systemClock } from '../../../src/clock.ts';
import type { ClusterOptions } from '../../../src/hivemind/store/cluster-start.ts';
import type { Change, ClusterStore } from '../../../src/hivemind/store/cluster-store.ts';
import { Store, StoreError, type StoreOptions } from '../../../src/hivemind/store/store.ts';
import { SLOTS, slotOf } from '../../../src/session/slots.ts';
import { createDatabase } from '../../support/postgres.ts';
import { makeRow } from '../../support/rows.ts';

const log = pino({ level: process.env.SPNS_TEST_LOG ?? 'silent' });
const ALL = Array.from({ length: SLOTS }, (_, slot) => slot);
const NO_SLOTS = Buffer.alloc(SLOTS / 8);

function member(name: string, given: Partial<ClusterOptions> = {}): ClusterOptions {
  return {
    name,
    copies: 2,
    keyFingerprint: Buffer.alloc(8, 1),
    version: '2.0.0',
    address: `tcp://10.0.0.1:22030/${name}`,
    pushAddress: `tcp://10.0.0.1:22031/${name}`,
    ...given,
  };
}

type Member = Store & { cluster: ClusterStore };

async function open(
  t: TestContext,
  url: string,
  cluster: ClusterOptions,
  options: Partial<StoreOptions> = {},
): Promise<Member> {
  const store = await Store.open({ url, clock: systemClock, log, timeout: 2_000, cluster, ...options });
  t.after(() => store.close());
  assert.ok(store.cluster);
  return store as Member;
}

const load = (store: Store, slots?: readonly number[]) => store.load(() => {}, undefined, slots);

async function read(store: Member, slots: readonly number[] = ALL): Promise<readonly Change[]> {
  const changes = await store.cluster.readChanges(slots);
  assert.ok(changes !== 'reload');
  assert.equal(changes.more, false);
  return changes.changes;
}

const ids = (changes: readonly Change[]) => changes.map(({ serviceId }) => serviceId).sort();

function refusal(code: string, words: RegExp) {
  return (error: unknown) => {
    assert.ok(error instanceof StoreError, String(error));
    assert.equal(error.code, code);
    assert.match(error.message, words);
    return true;
  };
}

describe('several hiveminds on one database', () => {
  it('see each other by their signs of life', async (t) => {
    const url = await createDatabase(t);
    const a = await open(t, url, member('a'));
    const b = await open(t, url, member('b'));
    const covers = Buffer.alloc(32, 0xa5);
    await a.cluster.beat({ state: 'ready', covers });
    const { now, members } = await b.cluster.beat({ state: 'starting', covers: NO_SLOTS });
    assert.ok(Math.abs(now - Date.now()) < 60_000);
    assert.deepEqual(
      members.map(({ name, state, generation }) => [name, state, generation]),
      [
        ['a', 'ready', 1n],
        ['b', 'starting', 1n],
      ],
    );
    assert.deepEqual(members[0]?.covers, covers);
    assert.equal(members[0]?.address, 'tcp://10.0.0.1:22030/a');
    assert.equal(members[0]?.pushAddress, 'tcp://10.0.0.1:22031/a');
    assert.ok(now - (members[1]?.seen ?? 0) < 1_000 && (members[1]?.started ?? 0) <= (members[1]?.seen ?? 0));
    assert.notEqual(members[0]?.run, members[1]?.run);
  });

  it('read what others have changed, and what it is now', async (t) => {
    const url = await createDatabase(t);
    const a = await open(t, url, member('a'));
    const b = await open(t, url, member('b'));
    for (const one of [a, b]) {
      await load(one);
      assert.deepEqual(await read(one), []);
    }
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
  });

  it('load the subscriptions of some slots, and hear of those alone', async (t) => {
    const url = await createDatabase(t);
    const a = await open(t, url, member('a'));
    const b = await open(t, url, member('b'));
    const rows = Array.from({ length: 200 }, () => makeRow());
    await Promise.all(rows.map((row) => a.upsert(row)));
    for (const slots of [ALL.slice(0, 10), ALL.slice(0, 128), []]) {
      const found: string[] = [];
      await b.load((row) => found.push(row.serviceId), undefined, slots);
      const wanted = rows.filter(({ account }) => slots.includes(slotOf(account)));
      assert.deepEqual(found.sort(), wanted.map(({ serviceId }) => serviceId).sort());
    }
    await Promise.all(rows.map((row) => a.remove(row.account, row.service, row.serviceId, row.signedAt)));
    const slots = ALL.slice(100, 200);
    const wanted = rows.filter(({ account }) => slots.includes(slotOf(account)));
    assert.deepEqual(ids(await read(b, slots)), wanted.map(({ serviceId }) => serviceId).sort());
  });

  it('are found out by wrong settings', async (t) => {
    const url = await createDatabase(t);
    const a = await open(t, url, member('a'));
    await a.cluster.beat({ state: 'ready', covers: NO_SLOTS });
    const start = (cluster: ClusterOptions) => Store.open({ url, clock: systemClock, log, cluster });
    await assert.rejects(
      start(member('b', { keyFingerprint: Buffer.alloc(8, 2) })),
      refusal('refused', /^The hivemind a works on this database with another key: give all the same file/),
    );
    await assert.rejects(
      start(member('b', { copies: 1 })),
      refusal('refused', /^The hivemind a works on this database with copies = 2, this one has 1: give all the same/),
    );
    await assert.rejects(
      start(member('b', { version: '3.0.0' })),
      refusal('refused', /^The hivemind a on this database is of version 2\.0\.0, this one of 3\.0\.0/),
    );
    await a.cluster.leave();
    await a.close();
    await open(t, url, member('b', { copies: 1 }));
  });
});
