import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it, type TestContext } from 'node:test';
import { Arena } from '../../../src/hivemind/devices/arena.ts';
import type { DeviceRow } from '../../../src/hivemind/devices/device.ts';
import { Devices } from '../../../src/hivemind/devices/devices.ts';
import { NamespaceSets } from '../../../src/hivemind/devices/namespace-sets.ts';
import { Records } from '../../../src/hivemind/devices/records.ts';
import { SipHash } from '../../../src/hivemind/devices/siphash.ts';
import { seededRandom } from '../../support/random.ts';
import { makeRow } from '../../support/rows.ts';

const NOW = 1_700_000_000;
const GROUP = Buffer.alloc(33, 3);

/** As many namespaces as a subscription may have, alike but for the last: the most work to tell apart. */
function wide(last: number): number[] {
  return [...Array.from({ length: 255 }, (_, n) => n - 20_000), last];
}

/** An account with so many devices, no two of which ask for the same. */
function crowded(devices: number, subaccounts: boolean): { index: Devices; rows: DeviceRow[] } {
  const index = new Devices({ random: randomBytes });
  const rows = Array.from({ length: devices }, (_, n) =>
    makeRow({
      account: GROUP,
      subaccount: subaccounts ? { tag: randomBytes(36), signature: randomBytes(64) } : null,
      namespaces: wide(n),
      signedAt: NOW + n,
    }),
  );
  for (const row of rows) index.upsert(row, row.signedAt);
  return { index, rows };
}

/** How often sets are held against each other, and steps are made from one device to the next, while `work` is done. */
function effort(t: TestContext, work: () => void): { comparisons: number; steps: number } {
  const comparisons = t.mock.method(NamespaceSets.prototype, 'includes');
  const steps = t.mock.method(Records.prototype, 'next');
  work();
  const count = { comparisons: comparisons.mock.callCount(), steps: steps.mock.callCount() };
  comparisons.mock.restore();
  steps.mock.restore();
  return count;
}

describe('an account with many devices that ask for much', () => {
  for (const subaccounts of [false, true]) {
    it(`costs an update no more than a small one does, ${subaccounts ? 'each device a subaccount' : 'all its own'}`, (t) => {
      for (const size of [33, 1_000]) {
        const { index, rows } = crowded(size, subaccounts);
        const { account, service, serviceId } = rows[0]!;
        const renewed = { ...rows[size - 1]!, signature: randomBytes(64), signedAt: NOW + 2_000 };
        for (const [what, work] of [
          ['renewal', () => index.upsert(renewed, NOW)],
          ['other namespaces', () => index.upsert({ ...renewed, namespaces: wide(30_000) }, NOW)],
          ['new device', () => index.upsert(makeRow({ account: GROUP, namespaces: wide(30_001) }), NOW)],
          ['removal', () => index.remove(account, service, serviceId)],
        ] as const) {
          const { comparisons, steps } = effort(t, work);
          assert.ok(comparisons <= 100 && steps <= 100, `${what} among ${size}: ${comparisons} and ${steps}`);
        }
      }
    });
  }

  it('finds one of them among the accounts of the device, and an account of many that a device has by its devices', (t) => {
    const [many, others, steps] = [1_000, 3, 20];
    const { index, rows } = crowded(many, false);
    const device = rows[0]!;
    const accountsOf = (row: DeviceRow, count: number) => {
      const more = Array.from({ length: count }, () => ({ ...row, account: makeRow().account }));
      for (const one of more) index.upsert(one, NOW);
      return more;
    };
    // The device was put into the crowded account first, and the account of `busy` before all others.
    accountsOf(device, others);
    const [busy] = accountsOf(makeRow(), many) as [DeviceRow];
    for (const { account, service, serviceId, signature } of [device, busy]) {
      let found: DeviceRow | undefined;
      const taken = effort(t, () => {
        found = index.get(account, service, serviceId);
      });
      assert.deepEqual(found?.signature, signature);
      assert.ok(taken.steps <= steps, `${taken.steps} steps`);
    }
    assert.equal(index.get(GROUP, busy.service, busy.serviceId), undefined);
  });

  it('chooses what to ask the storage servers for without comparing all devices', (t) => {
    const out = Buffer.alloc(1_100_000);
    for (const [size, most] of [
      [32, 32 * 32],
      [1_000, 0],
    ] as const) {
      const { index } = crowded(size, false);
      const { comparisons } = effort(t, () => assert.ok(index.writeMonitors(0, out, 0) > 0));
      assert.ok(comparisons <= most, `${comparisons} comparisons among ${size}`);
    }
  });

  it('leaves out what another device covers among 32, and only what is the same among more', () => {
    for (const [devices, dicts] of [
      [32, 31],
      [33, 33],
    ] as const) {
      const index = new Devices({ random: randomBytes });
      const of = (namespaces: number[]) => index.upsert(makeRow({ account: GROUP, namespaces }), NOW);
      of([0, 1]);
      of([0]);
      for (let n = 2; n < devices; n++) of([n]);
      const refs: number[] = [];
      index.writeMonitors(0, Buffer.alloc(100_000), 0, undefined, refs);
      assert.equal(refs.length, dicts);
      of([2]);
      refs.length = 0;
      index.writeMonitors(0, Buffer.alloc(100_000), 0, undefined, refs);
      assert.equal(refs.length, devices, 'of more, the same once');
    }
  });

  it('reports whether more is asked for than before, which storage servers must hear of at once', () => {
    const index = new Devices({ random: randomBytes });
    const told: boolean[] = [];
    index.onUpstreamChanged = (_id, isMore) => told.push(isMore);
    const after = (row: DeviceRow) => {
      index.upsert(row, NOW);
      return told.splice(0);
    };
    const subaccount = (n: number) => ({ tag: Buffer.alloc(36, n), signature: Buffer.alloc(64, n) });
    const member = makeRow({ account: GROUP, subaccount: subaccount(1), namespaces: [11, 12, 13], wantData: false });
    assert.deepEqual(after(member), []);
    const renewed = { ...member, signature: randomBytes(64), signedAt: NOW + 1 };
    assert.deepEqual(after(renewed), [false], 'renewed');
    assert.deepEqual(after(makeRow({ ...member, subaccount: subaccount(2), serviceId: 'x'.repeat(40) })), [false]);
    const other = makeRow({ account: GROUP, namespaces: [11, 14], wantData: false });
    assert.deepEqual(after(other), [true], 'another namespace');
    assert.deepEqual(after({ ...renewed, wantData: true, signedAt: NOW + 2 }), [true], 'with data');
    assert.deepEqual(after({ ...renewed, namespaces: [11], signedAt: NOW + 3 }), [false], 'less');
    assert.deepEqual(after({ ...renewed, namespaces: [11, 12], signedAt: NOW + 4 }), [false], 'what another asks for');
    index.remove(GROUP, other.service, other.serviceId);
    assert.deepEqual(told, [false], 'removed');
  });

  it('keeps each set of namespaces once, and none that nobody asks for', () => {
    const index = new Devices({ random: randomBytes });
    const rows = Array.from({ length: 2_000 }, () => makeRow({ namespaces: wide(0) }));
    for (const row of rows) index.upsert(row, NOW);
    assert.ok(index.memory.inUse < 2_000 * 400, `${index.memory.inUse} bytes`);
    for (const row of rows) index.upsert({ ...row, namespaces: [row.account[5]!] }, NOW);
    for (const row of rows) index.remove(row.account, row.service, row.serviceId);
    assert.equal(index.memory.inUse, 0);
  });
});

describe('sets of namespaces', () => {
  it('are the same as plain sets, whatever comes and goes', (t) => {
    const random = seededRandom();
    t.diagnostic(`SPNS_TEST_SEED=${random.seed}`);
    const sets = new NamespaceSets(new Arena(), new SipHash(random.bytes(8)));
    const held: { set: number; list: number[] }[] = [];
    /** Often a part of another, and near it in size. */
    const randomList = (): number[] => {
      const base = held.length > 0 && random.int(2) === 0 ? random.pick(held).list : [];
      const list = new Set(base.filter(() => random.int(10) > 0));
      const spread = random.pick([4, 40, 300, 32_768]);
      for (let n = random.int(random.pick([3, 12, 300])); n >= 0; n--) list.add(random.int(2 * spread) - spread);
      return [...list].sort((a, b) => a - b);
    };
    for (let step = 0; step < 4_000; step++) {
      const list = held.length > 0 && random.int(3) === 0 ? random.pick(held).list : randomList();
      const set = sets.take(list);
      held.push({ set, list });
      assert.deepEqual(sets.list(set), list);
      const at = sets.encodedAt(set);
      const encoded = sets.bytes(set).toString('latin1', at, at + sets.encodedSize(set));
      assert.equal(encoded, list.map((namespace) => `i${namespace}e`).join(''));
      for (const namespace of [random.int(65_536) - 32_768, random.pick(list), random.pick(list) + 1])
        assert.equal(sets.has(set, namespace), list.includes(namespace));
      const other = random.pick(held);
      assert.equal(set === other.set, list.join() === other.list.join());
      const all = new Set(list);
      assert.equal(
        sets.includes(set, other.set),
        other.list.every((namespace) => all.has(namespace)),
      );
      while (held.length > 200) {
        const gone = held.splice(random.int(held.length), 1)[0]!;
        sets.release(gone.set);
      }
    }
    assert.equal(sets.size, new Set(held.map(({ list }) => list.join())).size);
    for (const { set } of held) sets.release(set);
    assert.equal(sets.size, 0);
  });
});
