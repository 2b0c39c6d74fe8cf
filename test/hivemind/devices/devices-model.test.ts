import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { pino } from 'pino';
import { systemClock } from '../../../src/clock.ts';
import type { DeviceRow } from '../../../src/hivemind/devices/device.ts';
import { Devices } from '../../../src/hivemind/devices/devices.ts';
import { Store } from '../../../src/hivemind/store/store.ts';
import { slotOf } from '../../../src/session/slots.ts';
import { createDatabase } from '../../support/postgres.ts';
import { seededRandom } from '../../support/random.ts';
import { covers, isSame } from '../../support/reference.ts';
import { makeRow } from '../../support/rows.ts';

/** MODEL_STEPS=300000 looks longer. */
const STEPS = Number(process.env.MODEL_STEPS ?? 25_000);
const START = 1_700_000_000;
/** Small, so that accounts come and go all the time. */
const ACCOUNTS = 600;
const DEVICES = 120;
const LIFETIME = 3_000;

interface Entry {
  row: DeviceRow;
  confirmedAt: number;
}

/** What the index must be: a plain map, and plain searches through it. */
class Model {
  readonly entries = new Map<string, Entry>();
  readonly byAccount = new Map<string, Map<string, Entry>>();

  key = (row: Pick<DeviceRow, 'account' | 'service' | 'serviceId'>) =>
    `${row.account.toString('latin1')}/${row.service}/${row.serviceId}`;

  upsert(row: DeviceRow, confirmedAt: number): 'added' | 'updated' | 'stale' {
    const key = this.key(row);
    const old = this.entries.get(key);
    if (old && old.row.signedAt - 60 > row.signedAt) return 'stale';
    const entry = { row, confirmedAt };
    this.entries.set(key, entry);
    const account = row.account.toString('latin1');
    const list = this.byAccount.get(account) ?? new Map<string, Entry>();
    list.set(key, entry);
    this.byAccount.set(account, list);
    return old ? 'updated' : 'added';
  }

  remove(row: Pick<DeviceRow, 'account' | 'service' | 'serviceId'>): boolean {
    const key = this.key(row);
    const account = row.account.toString('latin1');
    const list = this.byAccount.get(account);
    list?.delete(key);
    if (list?.size === 0) this.byAccount.delete(account);
    return this.entries.delete(key);
  }

  rowsOf(account: Buffer): DeviceRow[] {
    return [...(this.byAccount.get(account.toString('latin1'))?.values() ?? [])].map(({ row }) => row);
  }

  /**
   * The signatures that go to the storage servers; among those that ask for the same at the same second any will do.
   */
  upstream(account: Buffer): DeviceRow[] {
    const rows = this.rowsOf(account).sort((a, b) => b.signedAt - a.signedAt || refOf(b) - refOf(a));
    const distinct: DeviceRow[] = [];
    for (const row of rows) if (!distinct.some((newer) => isSame(newer, row))) distinct.push(row);
    return distinct.filter((row) => !distinct.some((other) => other !== row && covers(other, row)));
  }
}

const refOf = (row: DeviceRow) => row.signature.readUIntBE(0, 6);

describe('the index, checked against a model', () => {
  it(`is the same as a plain map through ${STEPS} random steps, and as PostgreSQL at the end`, async (t) => {
    const random = seededRandom();
    t.diagnostic(`SPNS_TEST_SEED=${random.seed}`);
    try {
      const { devices, model, ever } = run(random);
      await compareWithPostgres(await createDatabase(t), devices, model, ever);
    } catch (error) {
      throw new Error(`with SPNS_TEST_SEED=${random.seed}: ${(error as Error).message}`, { cause: error });
    }
  });
});

function run(random: ReturnType<typeof seededRandom>): { devices: Devices; model: Model; ever: DeviceRow[] } {
  const devices = new Devices({ random: random.bytes });
  const model = new Model();
  const accounts = Array.from({ length: ACCOUNTS }, (_, n) =>
    Buffer.concat([Buffer.of(n % 3 === 0 ? 0x03 : 0x05), random.bytes(32)]),
  );
  const serviceIds = Array.from({ length: DEVICES }, () => random.bytes(16 + random.int(60)).toString('hex'));
  const tags = Array.from({ length: 3 }, () => ({ tag: random.bytes(36), signature: random.bytes(64) }));
  const namespaceSets = [[0], [0, 2, 3, 4, 5], [2, 4], [-10], [11, 12, 13, 14], [-32768, 32767], [0, 1], [1]];
  const out = Buffer.alloc(2_000_000);
  /** Every row that was put in at any time: the last of each key is what a database saw last. */
  const ever: DeviceRow[] = [];
  let now = START;

  // What the owner would know of the accounts by the hooks alone.
  const live = new Set<number>();
  let added = 0;
  let changed: number[] = [];
  devices.onAccountAdded = (id) => {
    assert.ok(!live.has(id));
    live.add(id);
    added++;
  };
  devices.onAccountRemoved = (id) => {
    assert.ok(live.delete(id));
  };
  devices.onUpstreamChanged = (id) => {
    assert.ok(live.has(id));
    changed.push(id);
  };

  const randomRow = (): DeviceRow => {
    const account = random.pick(accounts);
    return makeRow(
      {
        account,
        subaccount: account[0] === 0x03 && random.int(2) === 0 ? random.pick(tags) : null,
        // Now and then signed before what is there.
        signedAt: now - random.int(random.int(4) === 0 ? LIFETIME : 5),
        wantData: random.int(3) > 0,
        service: random.pick(['apns', 'firebase', 'huawei']),
        serviceId: random.pick(serviceIds),
        serviceData: random.int(10) === 0 ? random.bytes(random.int(random.int(20) === 0 ? 50_000 : 100)) : null,
        namespaces:
          random.int(50) === 0 ? Array.from({ length: 500 }, (_, n) => n * 7 - 900) : random.pick(namespaceSets),
      },
      random,
    );
  };

  const upstreamOf = (account: Buffer): number[] => {
    const id = devices.accountId(account);
    if (id < 0) return [];
    const refs: number[] = [];
    assert.notEqual(devices.writeMonitors(id, out, 0, undefined, refs), -1);
    return refs;
  };

  for (let step = 0; step < STEPS; step++) {
    if (random.int(20) === 0) now += random.int(20);
    const what = random.int(100);
    const row = randomRow();
    const before = upstreamOf(row.account);
    const wasLive = devices.accountId(row.account);
    changed = [];
    if (what < 60) {
      const result = devices.upsert(row, now);
      assert.equal(result, model.upsert(row, now));
      if (result !== 'stale') ever.push(row);
    } else if (what < 80) {
      assert.equal(devices.remove(row.account, row.service, row.serviceId), model.remove(row));
    } else if (what < 83) {
      const notAfter = now - random.int(300);
      const expected = [...model.entries.values()].filter(
        (entry) =>
          entry.row.service === row.service &&
          entry.row.serviceId === row.serviceId &&
          Math.max(entry.row.signedAt, entry.confirmedAt) <= notAfter,
      );
      const removed = devices.removeDevice(row.service, row.serviceId, notAfter);
      assert.deepEqual(
        removed.map(({ account, signedAt }) => `${account.toString('hex')} ${signedAt}`).sort(),
        expected.map((entry) => `${entry.row.account.toString('hex')} ${entry.row.signedAt}`).sort(),
      );
      for (const entry of expected) model.remove(entry.row);
    } else if (what < 84) {
      const cutoff = now - LIFETIME;
      const expected = [...model.entries.values()].filter((entry) => entry.row.signedAt <= cutoff);
      assert.equal(devices.expire(cutoff), expected.length);
      for (const entry of expected) model.remove(entry.row);
    } else if (what < 85 && random.int(20) === 0) {
      const isRemoved = (bytes: Uint8Array, offset: number) => slotOf(bytes, offset) < 16;
      for (let from: number | undefined = 0; from !== undefined; ) from = devices.removeAccounts(isRemoved, from);
      for (const entry of [...model.entries.values()]) if (isRemoved(entry.row.account, 0)) model.remove(entry.row);
    } else if (what < 86 && random.int(20) === 0) {
      const isCompared = (bytes: Uint8Array, offset: number) => slotOf(bytes, offset) < 64;
      devices.beginComparison();
      for (const entry of [...model.entries.values()]) {
        // Those that are compared no further than they were stay whether they are seen or not.
        if (random.int(4) > 0) devices.replace(entry.row, entry.row.signedAt);
        else if (isCompared(entry.row.account, 0)) model.remove(entry.row);
      }
      for (let from: number | undefined = 0; from !== undefined; ) from = devices.removeUnseen(isCompared, from);
    }

    // The account that the step was about, looked at from every side.
    const rows = model.rowsOf(row.account);
    const id = devices.accountId(row.account);
    assert.equal(id >= 0, rows.length > 0);
    assert.equal(devices.size, model.entries.size);
    assert.equal(devices.accounts, model.byAccount.size);
    const stored = model.entries.get(model.key(row))?.row;
    assert.deepEqual(devices.get(row.account, row.service, row.serviceId), stored);
    if (id < 0) continue;
    assert.ok(devices.isLive(id) && live.has(id) && id < devices.capacity);
    const { bytes, offset } = devices.account(id);
    assert.ok(row.account.equals(bytes.subarray(offset, offset + 33)));
    const namespace = random.pick([0, 1, 2, -10, 13, 32767, -900]);
    const wanting: string[] = [];
    devices.forEachWanting(id, namespace, (device) => {
      wanting.push(`${device.service}/${device.serviceId}/${device.wantData}/${device.encKey.toString('hex')}`);
    });
    assert.deepEqual(
      wanting.sort(),
      rows
        .filter(({ namespaces }) => namespaces.includes(namespace))
        .map((one) => `${one.service}/${one.serviceId}/${one.wantData}/${one.encKey.toString('hex')}`)
        .sort(),
    );
    const after = upstreamOf(row.account);
    assert.deepEqual([...after].sort(), model.upstream(row.account).map(refOf).sort());
    if (wasLive >= 0 && wasLive === id && rows.length <= 30) {
      assert.equal(
        changed.includes(id),
        before.join() !== after.join(),
        'told of a change upstream when there was one',
      );
    }
  }
  assert.equal(live.size, devices.accounts);
  assert.ok(added > ACCOUNTS, 'accounts went and came again');
  const counts = new Map<string, number>();
  for (const { row } of model.entries.values()) counts.set(row.service, (counts.get(row.service) ?? 0) + 1);
  assert.deepEqual(new Map([...devices.countByService()].sort()), new Map([...counts].sort()));
  // Memory that came free was used again: what is taken is not far above the most that was ever needed.
  const { reserved, inUse } = devices.memory;
  assert.ok(reserved < 3 * inUse + 40_000_000, `${reserved} bytes for ${inUse}`);
  return { devices, model, ever };
}

/**
 * Writes what the index went through to a database: the last row of each key, then its removal if it is gone by now.
 */
async function compareWithPostgres(
  url: string,
  devices: Devices,
  model: Model,
  ever: readonly DeviceRow[],
): Promise<void> {
  // A stall of a busy machine is no database that does not answer.
  const store = await Store.open({ url, clock: systemClock, log: pino({ level: 'silent' }), timeout: 60_000 });
  try {
    const last = new Map<string, DeviceRow>();
    for (const row of ever) last.set(model.key(row), row);
    const rows = [...last.values()];
    for (let at = 0; at < rows.length; at += 2_000) {
      await Promise.all(
        rows.slice(at, at + 2_000).map(async (row) => {
          if (row.signedAt % 8 > 0) assert.equal(await store.upsert(row), 'added');
          else {
            // Renewed, and asked for once too late, on the way.
            const before = {
              ...row,
              signedAt: row.signedAt - 61,
              namespaces: [row.namespaces[0]!],
              serviceData: Buffer.of(1),
            };
            const results = await Promise.all([store.upsert(before), store.upsert(row), store.upsert(before)]);
            assert.deepEqual(results, ['added', 'updated', 'stale']);
          }
          const isThere = model.entries.has(model.key(row));
          const { account, service, serviceId, signedAt } = row;
          if (!isThere) assert.equal(await store.remove(account, service, serviceId, signedAt), true);
        }),
      );
    }
    const seen = new Set<string>();
    const loaded = await store.load((row) => {
      const ours = devices.get(row.account, row.service, row.serviceId);
      assert.deepEqual(ours && comparable(ours), comparable(row));
      seen.add(model.key(row));
    });
    assert.deepEqual(loaded, { rows: devices.size, skipped: 0 });
    assert.equal(seen.size, devices.size);
  } finally {
    await store.close();
  }
}

/** Rows that are loaded are views, whose buffers have another prototype chain to compare than their bytes. */
function comparable(row: DeviceRow): Record<string, unknown> {
  const entries = Object.entries({
    ...row,
    tag: row.subaccount?.tag ?? null,
    tagSignature: row.subaccount?.signature ?? null,
  });
  return Object.fromEntries(
    entries
      .filter(([name]) => name !== 'subaccount')
      .map(([name, value]) => [name, Buffer.isBuffer(value) ? value.toString('hex') : value]),
  );
}
