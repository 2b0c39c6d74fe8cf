import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import type { QueryConfig } from 'pg';
import type { DeviceKey, DeviceRow } from '../../../src/hivemind/devices/device.ts';
import { Devices } from '../../../src/hivemind/devices/devices.ts';
import { type Change, ClusterStore } from '../../../src/hivemind/store/cluster-store.ts';
import type { Connection } from '../../../src/hivemind/store/connection.ts';
import { slotOf } from '../../../src/session/slots.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { connectTo, removeAsOriginal, startMember, writeAsOriginal } from '../../support/members.ts';
import { createDatabase } from '../../support/postgres.ts';
import { makeRow } from '../../support/rows.ts';
import { until } from '../../support/until.ts';
import { differences } from './differences.ts';
import { makeFeed } from './make-feed.ts';

describe('the feed', () => {
  it('brings into memory what another member has stored and removed, for the slots that are held', async (t) => {
    const url = await createDatabase(t);
    const holds = (slot: number) => slot < 128;
    const [a, b] = [await startMember(t, url, 'a'), await startMember(t, url, 'b', { holds })];
    const rows = Array.from({ length: 100 }, () => makeRow());
    await Promise.all(rows.map((row) => a.upsert(row)));
    const mine = rows.filter(({ account }) => holds(slotOf(account)));
    await until(() => b.devices.size === mine.length);
    assert.deepEqual(await differences(b.devices, await connectTo(t, url), holds), []);
    await Promise.all(mine.map((row) => b.remove(row, row.signedAt)));
    await until(() => a.devices.size === rows.length - mine.length);
    assert.equal(a.feed.complaint, undefined);
  });

  it('reloads in place what it cannot be told of: what is stored throughout is in memory throughout', async (t) => {
    const url = await createDatabase(t);
    const [a, b] = [await startMember(t, url, 'a'), await startMember(t, url, 'b')];
    let gone = 0;
    b.devices.onAccountRemoved = () => void gone++;
    const other = await connectTo(t, url);
    const rows = Array.from({ length: 60 }, () => makeRow());
    await Promise.all(rows.map((row) => a.upsert(row)));
    await until(() => b.devices.size === rows.length);
    await other.query('BEGIN');
    await other.query("UPDATE spns_members SET position = NULL WHERE name = 'b'");
    for (const row of rows.slice(0, 20)) await removeAsOriginal(other, row);
    const fresh = makeRow();
    await writeAsOriginal(other, fresh);
    await other.query('COMMIT');
    await until(() => b.feed.counters.reloads > 0);
    await until(async () => (await differences(b.devices, other)).length === 0);
    assert.equal(gone, 20, 'no more than those that are gone');
    // From there on it is told of changes as before.
    await a.upsert({ ...rows[30]!, signedAt: rows[30]!.signedAt + 100 });
    await until(async () => (await differences(b.devices, other)).length === 0);
    assert.equal(b.feed.counters.reloads, 1);
  });

  it('reads again what is being written here, for what it has read of it may be older', async () => {
    const row = makeRow();
    const clock = new FakeClock();
    const devices = new Devices({ random: randomBytes });
    const writing = new Set([row.serviceId]);
    const inWork = new Set([row.serviceId]);
    const asked: Change[][] = [];
    const feed = makeFeed({
      clock,
      devices,
      inWork: (_, serviceId) => inWork.has(serviceId),
      store: {
        load: () => Promise.reject(new Error('nothing is to be loaded')),
        watchWrites: () => ({ has: ({ serviceId }) => writing.has(serviceId), end: () => {} }),
      },
      cluster: {
        readChanges: async () => ({ changes: asked.length === 0 ? [{ id: '5' }] : [], more: false }),
        readCurrent: async (changes) => {
          asked.push([...changes]);
          return [{ ...key(row), row: asked.length === 1 ? undefined : row }];
        },
        skip: () => {},
        trim: async () => false,
      },
    });
    devices.upsert(row, row.signedAt);
    feed.start();
    await clock.advance(75);
    assert.equal(devices.size, 1, 'the writer knows better');
    writing.clear();
    await clock.advance(75);
    assert.equal(devices.size, 1, 'so does the request of a client, until it is answered');
    inWork.clear();
    await clock.advance(75);
    await clock.advance(75);
    assert.deepEqual(asked.slice(1), [[key(row)], [key(row)]]);
    assert.deepEqual(devices.get(row.account, row.service, row.serviceId), row);
    await feed.stop();
  });

  it('loses nothing that it was told of when the database goes away before it has read the current state', async () => {
    const row = makeRow();
    const clock = new FakeClock();
    const devices = new Devices({ random: randomBytes });
    let [told, asked] = [false, 0];
    const feed = makeFeed({
      clock,
      devices,
      cluster: {
        readChanges: async () => {
          const changes = told ? [] : [{ id: '5' }];
          told = true;
          return { changes, more: false };
        },
        readCurrent: async () => {
          if (++asked < 3) throw new Error('the database cannot be reached');
          return [{ ...key(row), row }];
        },
        skip: () => {},
        trim: async () => false,
      },
    });
    feed.start();
    for (let n = 0; n < 5; n++) await clock.advance(75);
    assert.equal(asked, 3);
    assert.deepEqual(devices.get(row.account, row.service, row.serviceId), row);
    await feed.stop();
  });

  it('reloads rather than read very many changes', async () => {
    const clock = new FakeClock();
    let [pages, skipped, loads] = [0, false, 0];
    const feed = makeFeed({
      clock,
      store: {
        load: async () => {
          loads++;
          return { rows: 0, skipped: 0 };
        },
        watchWrites: () => ({ has: () => false, end: () => {} }),
      },
      cluster: {
        readChanges: async () => {
          if (skipped) return 'reload';
          pages++;
          return { changes: [], more: true };
        },
        readCurrent: async () => [],
        skip: () => {
          skipped = true;
        },
        trim: async () => false,
      },
    });
    feed.start();
    await clock.advance(75);
    await until(() => loads > 0);
    assert.equal(pages, 25);
    await feed.stop();
  });

  it('loads once, however long the server takes to tell where the load begins', async () => {
    const clock = new FakeClock();
    const told = Promise.withResolvers<void>();
    const place = { snapshot: '10:10:', server: 'one' };
    const connection = {
      query: async ({ text }: QueryConfig) => {
        if (text.startsWith('SELECT pg_current_snapshot()')) await told.promise;
        return { rows: [{ ...place, lost: false, xid: null }] };
      },
    } as unknown as Pick<Connection, 'query'>;
    const cluster = new ClusterStore(connection, { name: 'b', generation: 1n, run: 1n }, () => {});
    const feed = makeFeed({
      clock,
      cluster,
      store: {
        load: () => cluster.whileLoading(async () => ({ rows: 0, skipped: 0 })),
        watchWrites: () => ({ has: () => false, end: () => {} }),
      },
    });
    feed.start();
    await clock.advance(10_000);
    assert.ok(feed.complaint, 'what has not been loaded is not read');
    told.resolve();
    await clock.advance(1_000);
    assert.deepEqual([feed.counters.reloads, feed.complaint], [1, undefined]);
    await feed.stop();
  });

  it('reads at once when another member hints at a change, but not for every hint', async () => {
    const clock = new FakeClock();
    let reads = 0;
    const feed = makeFeed({
      clock,
      cluster: {
        readChanges: async () => {
          reads++;
          return { changes: [], more: false };
        },
        readCurrent: async () => [],
        skip: () => {},
        trim: async () => false,
      },
    });
    feed.hint();
    await clock.advance(20);
    assert.equal(reads, 0, 'nothing is read before the start');
    feed.start();
    feed.hint();
    await clock.advance(1);
    assert.equal(reads, 1);
    for (let n = 0; n < 100; n++) feed.hint();
    await clock.advance(10);
    assert.equal(reads, 1);
    await clock.advance(10);
    assert.equal(reads, 2);
    await feed.stop();
    feed.hint();
    await clock.advance(200);
    assert.equal(reads, 2);
  });

  it('reports to the operator that it cannot read, and tries to load until it can', async () => {
    const clock = new FakeClock();
    const devices = new Devices({ random: randomBytes });
    const row = makeRow();
    devices.upsert(makeRow(), row.signedAt);
    let answer: 'fails' | 'reload' | 'works' = 'fails';
    let loads = 0;
    const feed = makeFeed({
      clock,
      devices,
      store: {
        load: async (visit) => {
          if (++loads < 3) throw new Error('the connection was lost');
          visit(row);
          answer = 'works';
          return { rows: 1, skipped: 0 };
        },
        watchWrites: () => ({ has: () => false, end: () => {} }),
      },
      cluster: {
        readChanges: async () => {
          if (answer === 'fails') throw new Error('the database cannot be reached');
          return answer === 'reload' ? 'reload' : { changes: [], more: false };
        },
        readCurrent: async () => [],
        skip: () => {},
        trim: async () => false,
      },
    });
    feed.start();
    await clock.advance(9_900);
    assert.equal(feed.complaint, undefined);
    await clock.advance(1_000);
    assert.match(
      feed.complaint ?? '',
      /^changes that other hiveminds made in the database have not been read for 10 s$/,
    );
    answer = 'reload';
    for (let n = 0; n < 40; n++) await clock.advance(100);
    assert.equal(loads, 3);
    assert.equal(feed.complaint, undefined);
    assert.equal(devices.size, 1);
    assert.deepEqual(devices.get(row.account, row.service, row.serviceId), row);
    await feed.stop();
  });
});

const key = ({ account, service, serviceId }: DeviceRow): DeviceKey => ({ account, service, serviceId });
