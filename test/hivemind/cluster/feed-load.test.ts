import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { DeviceRow } from '../../../src/hivemind/devices/device.ts';
import { StoreError } from '../../../src/hivemind/store/store.ts';
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
import { differences } from './differences.ts';

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
        const removed = await store.removeDevices([{ ...one, signedAt: gone.signedAt }]).catch(() => undefined);
        // After an attempt that failed, the feed may have put it into memory again.
        if (removed) devices.remove(one.account, one.service, one.serviceId);
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
    try {
      // On a machine that is busy that may have been little.
      await until(() => members.every(({ feed }) => feed.counters.changes > 100));
    } finally {
      running = false;
    }
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
