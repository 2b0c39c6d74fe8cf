import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import type { DeviceKey, DeviceRow } from '../../../src/hivemind/devices/device.ts';
import { Devices } from '../../../src/hivemind/devices/devices.ts';
import type { Change } from '../../../src/hivemind/store/cluster-store.ts';
import { StoreError } from '../../../src/hivemind/store/store.ts';
import { slotOf } from '../../../src/session/slots.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import {
  connectTo,
  cutConnections,
  type FedMember,
  removeAsOriginal,
  startMember,
  writeAsOriginal,
} from '../../support/members.ts';
import { createDatabase } from '../../support/postgres.ts';
import { seededRandom } from '../../support/random.ts';
import { makeRow } from '../../support/rows.ts';
import { until } from '../../support/until.ts';
import { makeFeed } from './make-feed.ts';

/** What is stored, by key, in the form of {@link plain}. */
async function stored(client: pg.Client): Promise<Map<string, { key: DeviceKey; row: string }>> {
  const { rows } = await client.query<Record<'account' | 'signature', Buffer> & Record<string, string>>(
    `SELECT account, service, svcid, signature_ts, signature,
       (SELECT string_agg(namespace::text, ',' ORDER BY namespace) FROM sub_namespaces WHERE subscription = id) AS namespaces
     FROM subscriptions`,
  );
  return new Map(
    rows.map(({ account, service = '', svcid: serviceId = '', signature_ts, signature, namespaces }) => {
      const key = { account, service, serviceId };
      return [keyOf(key), { key, row: `${signature_ts} ${signature.toString('hex')} ${namespaces}` }];
    }),
  );
}

const keyOf = ({ account, service, serviceId }: DeviceKey) => `${account.toString('hex')} ${service} ${serviceId}`;
const plain = (row: DeviceRow | undefined) =>
  row && `${row.signedAt} ${row.signature.toString('hex')} ${row.namespaces.join()}`;

/** What is in memory but not stored, or the other way round, or otherwise. */
async function differences(devices: Devices, client: pg.Client, holds = (_: number) => true): Promise<string[]> {
  const held = [...(await stored(client)).values()].filter(({ key }) => holds(slotOf(key.account)));
  const found = held
    .filter(({ key, row }) => plain(devices.get(key.account, key.service, key.serviceId)) !== row)
    .map(({ key }) => keyOf(key));
  if (devices.size !== held.length) found.push(`${devices.size} in memory, ${held.length} stored`);
  return found;
}

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

describe('the feed under load', () => {
  it('leaves all members with what is stored, whoever writes, for however long, and whatever is rolled back', async (t) => {
    const random = seededRandom();
    t.diagnostic(`SPNS_TEST_SEED=${random.seed}`);
    const url = await createDatabase(t);
    const members = [await startMember(t, url, 'a'), await startMember(t, url, 'b')];
    const now = 1_700_000_000;
    let time = now;
    const keys = Array.from({ length: 150 }, () => makeRow({}, random));
    const rowOf = (one: DeviceRow): DeviceRow => ({
      ...one,
      signature: random.bytes(64),
      signedAt: ++time,
      namespaces: random.pick([[0], [0, 3], [-10, 0, 11]]),
    });
    let running = true;

    const phone = async (member: FedMember) => {
      while (running) {
        const one = random.pick(keys);
        const what = random.int(10);
        try {
          if (what < 7) await member.upsert(rowOf(one));
          else if (what < 9) await member.remove(one, ++time);
          else await removeDead(member, one);
        } catch (error) {
          assert.ok(error instanceof StoreError && error.code === 'unavailable', String(error));
          await sleep(5);
        }
      }
    };
    // As a dead device goes: from memory first, if it is there.
    const removeDead = async ({ devices, store }: FedMember, one: DeviceRow) => {
      const [gone] = devices.removeDevice(one.service, one.serviceId, time + 1_000);
      while (gone) {
        const removed = await store.removeDevices([{ ...key(one), signedAt: gone.signedAt }]).catch(() => undefined);
        if (removed !== undefined) return;
      }
    };
    const original = async (patience: number) => {
      const other = await connectTo(t, url);
      while (running) {
        await other.query('BEGIN');
        // In one order, or two of them would wait for each other.
        const some = [...new Set(Array.from({ length: 3 }, () => random.int(keys.length)))].sort((x, y) => x - y);
        for (const n of some) {
          if (random.int(3) > 0) await writeAsOriginal(other, rowOf(keys[n]!)).catch(() => {});
          else await removeAsOriginal(other, keys[n]!).catch(() => {});
        }
        await sleep(random.int(patience));
        await other.query(random.int(4) === 0 ? 'ROLLBACK' : 'COMMIT');
      }
    };
    const long = async () => {
      const other = await connectTo(t, url);
      while (running) {
        await other.query('BEGIN');
        await writeAsOriginal(other, makeRow({}, random));
        await sleep(700);
        await other.query(random.int(3) === 0 ? 'ROLLBACK' : 'COMMIT');
      }
    };
    const loader = async (member: FedMember) => {
      while (running) {
        await member.store.load((row) => member.devices.upsert(row, row.signedAt)).catch(() => {});
        await sleep(300);
      }
    };
    const cutter = async () => {
      const other = await connectTo(t, url);
      while (running) {
        await sleep(900);
        await cutConnections(other, 'one');
      }
    };
    const work = [
      ...members.flatMap((member) => [...Array.from({ length: 8 }, () => phone(member)), loader(member)]),
      original(20),
      original(60),
      long(),
      cutter(),
    ];
    await sleep(Number(process.env.FEED_SECONDS ?? 5) * 1_000);
    running = false;
    await Promise.all(work);
    const client = await connectTo(t, url);
    for (const { devices } of members) {
      let found: string[] = [];
      await until(
        async () => {
          found = await differences(devices, client);
          return found.length === 0;
        },
        100,
        () => `no difference, but ${found.slice(0, 3).join('; ')}`,
      );
    }
    for (const { feed } of members) assert.ok(feed.counters.changes > 100, `${feed.counters.changes}`);
  });

  it('catches up with what was changed while the database could not be reached', async (t) => {
    const url = await createDatabase(t);
    const [a, b] = [await startMember(t, url, 'a'), await startMember(t, url, 'b')];
    const admin = await connectTo(t, url);
    const rows = Array.from({ length: 300 }, () => makeRow());
    for (let at = 0; at < rows.length; at += 100) {
      await cutConnections(admin, 'one');
      for (const row of rows.slice(at, at + 100)) {
        await (at % 200 === 0 ? a : b).upsert(row).catch(() => writeAsOriginal(admin, row));
      }
    }
    await until(() => a.devices.size === rows.length && b.devices.size === rows.length);
    assert.equal(a.feed.counters.reloads + b.feed.counters.reloads, 0);
  });
});
