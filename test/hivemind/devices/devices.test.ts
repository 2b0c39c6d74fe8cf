import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import type { DeviceRow } from '../../../src/hivemind/devices/device.ts';
import { Devices } from '../../../src/hivemind/devices/devices.ts';
import { SipHash } from '../../../src/hivemind/devices/siphash.ts';
import { encodeMonitor } from '../../support/reference.ts';
import { makeRow } from '../../support/rows.ts';
import covers from '../../vectors/covers.json' with { type: 'json' };

const NOW = 1_700_000_000;
const GROUP = Buffer.alloc(33, 3);

function makeDevices(rows: readonly DeviceRow[] = []): Devices {
  const devices = new Devices({ random: randomBytes });
  for (const row of rows) devices.upsert(row, row.signedAt);
  return devices;
}

function monitors(devices: Devices, account: Buffer, refused?: ReadonlySet<number>): { bytes: string; refs: number[] } {
  const out = Buffer.alloc(3_000_000);
  const refs: number[] = [];
  const end = devices.writeMonitors(devices.accountId(account), out, 10, refused, refs);
  return { bytes: out.toString('latin1', 10, end), refs };
}

function expected(...rows: DeviceRow[]): string {
  return rows.map((row) => encodeMonitor(row).toString('latin1')).join('');
}

const ref = (row: DeviceRow) => row.signature.readUIntBE(0, 6);

describe('the index of subscriptions', () => {
  it('gives back every field of what was put in', () => {
    const rows = [
      makeRow(),
      makeRow({
        account: GROUP,
        subaccount: { tag: randomBytes(36), signature: randomBytes(64) },
        wantData: false,
        serviceId: 'ünïcode-'.repeat(10),
        serviceData: Buffer.alloc(0),
        namespaces: [-32768, -10, 0, 11, 32767],
      }),
      makeRow({
        serviceId: 'x'.repeat(999),
        serviceData: randomBytes(99_999),
        namespaces: Array.from({ length: 65_536 }, (_, n) => n - 32_768),
      }),
    ];
    const devices = makeDevices(rows);
    for (const row of rows) assert.deepEqual(devices.get(row.account, row.service, row.serviceId), row);
    assert.equal(devices.get(GROUP, 'firebase', rows[0]!.serviceId), undefined);
    assert.equal(devices.get(GROUP, 'nobody', rows[1]!.serviceId), undefined);
    assert.deepEqual([devices.size, devices.accounts], [3, 3]);
  });

  it('trusts what the database has, whichever was signed later, and keeps what it knows better about the time', () => {
    const row = makeRow({ signedAt: NOW });
    const devices = makeDevices();
    devices.upsert(row, NOW + 50);
    const older = { ...row, signature: randomBytes(64), signedAt: NOW - 1_000 };
    assert.equal(devices.upsert(older, NOW + 60), 'stale');
    devices.replace(row, NOW);
    assert.deepEqual(devices.removeDevice(row.service, row.serviceId, NOW + 49), [], 'it was asked for at NOW + 50');
    devices.replace(older, NOW - 1_000);
    assert.deepEqual(devices.get(row.account, row.service, row.serviceId), older);
    assert.equal(devices.removeDevice(row.service, row.serviceId, NOW + 49).length, 1);
  });

  it('finds the devices that want a message, and hands out nothing that changes later', () => {
    const first = makeRow({ account: GROUP, namespaces: [-10, 0, 11], serviceData: Buffer.of(1, 2, 3) });
    const second = makeRow({ account: GROUP, namespaces: [1, 110], wantData: false, service: 'apns' });
    const devices = makeDevices([first, second, makeRow()]);
    const wanting = (namespace: number) => {
      const found: unknown[] = [];
      devices.forEachWanting(devices.accountId(GROUP), namespace, (device) => found.push(device));
      return found;
    };
    const of = ({ service, serviceId, serviceData, encKey, wantData }: DeviceRow) => [
      { service, serviceId, serviceData, encKey, wantData },
    ];
    const kept = wanting(0);
    for (const namespace of [-10, 0, 11]) assert.deepEqual(wanting(namespace), of(first));
    for (const namespace of [1, 110]) assert.deepEqual(wanting(namespace), of(second));
    for (const namespace of [-11, -1, 10, 2, 12, 111, -110]) assert.deepEqual(wanting(namespace), []);
    devices.remove(GROUP, first.service, first.serviceId);
    devices.upsert(makeRow({ account: GROUP, namespaces: [-10, 0, 11], serviceData: Buffer.of(9, 9, 9) }), NOW);
    assert.deepEqual(kept, of(first));
  });

  it('asks the storage servers in the bytes of a single subscription', () => {
    for (const row of [
      makeRow({ namespaces: [-400, -11, 0, 1, 2, 17] }),
      makeRow({ wantData: false }),
      makeRow({ account: GROUP, wantData: false }),
      makeRow({
        account: GROUP,
        subaccount: { tag: randomBytes(36), signature: randomBytes(64) },
        namespaces: [11, 12],
      }),
      makeRow({ namespaces: Array.from({ length: 65_536 }, (_, n) => n - 32_768), signedAt: 4_294_967_295 }),
    ]) {
      assert.deepEqual(monitors(makeDevices([row]), row.account), { bytes: expected(row), refs: [ref(row)] });
    }
  });

  it('asks once for what several devices want alike, by the newest signature', () => {
    const rows = [1, 3, 2].map((age) => makeRow({ account: GROUP, signedAt: NOW + age }));
    const other = makeRow({ account: GROUP, namespaces: [1], signedAt: NOW });
    const devices = makeDevices([...rows, other]);
    assert.deepEqual(monitors(devices, GROUP).bytes, expected(rows[1]!, other));
    // A storage server refused a signature: the next best.
    assert.deepEqual(monitors(devices, GROUP, new Set([ref(rows[1]!), ref(other)])).bytes, expected(rows[2]!));
    const all = new Set([...rows, other].map(ref));
    assert.deepEqual(monitors(devices, GROUP, all), { bytes: '', refs: [] });
  });

  it('leaves out what another subscription covers, as the vectors have it', () => {
    for (const { a, b, intended } of covers.cases) {
      const make = (side: typeof a | typeof b): DeviceRow | undefined => {
        if (side.namespaces.length === 0) return undefined;
        return makeRow({
          account: GROUP,
          namespaces: side.namespaces,
          wantData: side.data,
          signedAt: side.sig_ts,
          subaccount: side.subaccount
            ? { tag: Buffer.from(side.subaccount, 'hex'), signature: Buffer.alloc(64, 1) }
            : null,
        });
      };
      const rowA = make(a);
      const rowB = make(b);
      if (!rowA || !rowB || !intended) continue;
      const { refs } = monitors(makeDevices([rowA, rowB]), GROUP);
      const hasA = !intended.b_covers_a || (intended.is_same && a.sig_ts > b.sig_ts);
      const hasB = !intended.a_covers_b || (intended.is_same && b.sig_ts > a.sig_ts);
      if (intended.is_same && a.sig_ts === b.sig_ts) assert.equal(refs.length, 1);
      else assert.deepEqual(new Set(refs), new Set([...(hasA ? [ref(rowA)] : []), ...(hasB ? [ref(rowB)] : [])]));
    }
  });

  it('reports when the dicts do not fit, and leaves the list of signatures alone', () => {
    const rows = [makeRow({ account: GROUP }), makeRow({ account: GROUP, namespaces: [1] })];
    const devices = makeDevices(rows);
    const size = expected(...rows).length;
    const refs = [5];
    const id = devices.accountId(GROUP);
    assert.equal(devices.writeMonitors(id, Buffer.alloc(size - 1), 0, undefined, refs), -1);
    assert.deepEqual(refs, [5]);
    assert.equal(devices.writeMonitors(id, Buffer.alloc(size), 0, undefined, refs), size);
    assert.equal(refs.length, 3);
  });

  it('does not let one member of a group crowd out the others', () => {
    const subaccount = (n: number) => ({ tag: Buffer.alloc(36, n), signature: Buffer.alloc(64, n) });
    const honest = makeRow({ account: GROUP, subaccount: subaccount(1), namespaces: [11, 12, 13, 14] });
    const devices = makeDevices([honest]);
    for (let n = 0; n < 5000; n++) {
      const row = makeRow({ account: GROUP, subaccount: subaccount(2), namespaces: [n], signedAt: NOW + 100 });
      devices.upsert(row, NOW);
    }
    const { bytes, refs } = monitors(devices, GROUP);
    assert.ok(bytes.includes(expected(honest)));
    assert.ok(bytes.length <= 1_000_000 && refs.length > 1000);
  });

  it('has room for a thousand devices of an account and a hundred of a subaccount, and always for those it knows', () => {
    const subaccount = { tag: randomBytes(36), signature: randomBytes(64) };
    const crowd = (count: number, shared: Partial<DeviceRow>) =>
      Array.from({ length: count }, () => makeRow({ account: GROUP, sessionEd25519: null, ...shared }));
    const mine = crowd(100, { subaccount });
    const devices = makeDevices([...mine, ...crowd(899, { subaccount: null })]);
    const hasRoom = (serviceId: string, tag?: Buffer) => devices.hasRoom(GROUP, 'apns', serviceId, tag);
    assert.equal(hasRoom('x'.repeat(32), subaccount.tag), false);
    assert.equal(hasRoom('x'.repeat(32), randomBytes(36)), true);
    assert.equal(hasRoom('x'.repeat(32)), true);
    devices.upsert(makeRow({ account: GROUP, sessionEd25519: null, subaccount: null }), NOW);
    assert.equal(devices.size, 1_000);
    assert.equal(hasRoom('x'.repeat(32)), false);
    assert.equal(devices.hasRoom(GROUP, mine[0]!.service, mine[0]!.serviceId, subaccount.tag), true);
    assert.equal(devices.hasRoom(Buffer.alloc(33, 9), 'apns', 'x'.repeat(32), undefined), true);
  });

  it('knows which key an account signed with, from whichever subscription came last', () => {
    const [first, second] = [makeRow(), makeRow()];
    const tagged = { tag: randomBytes(36), signature: randomBytes(64) };
    const devices = makeDevices([first, second, makeRow({ account: GROUP, sessionEd25519: null, subaccount: tagged })]);
    const knows = (account: Buffer, key: Buffer) => devices.hasSessionKey(account, key);
    assert.equal(knows(first.account, first.sessionEd25519!), true);
    assert.equal(knows(first.account, second.sessionEd25519!), false);
    assert.equal(knows(GROUP, first.sessionEd25519!), false);
    assert.equal(knows(GROUP, tagged.signature.subarray(0, 32)), false);
    assert.equal(knows(Buffer.alloc(33, 5), first.sessionEd25519!), false);
    const sessionEd25519 = randomBytes(32);
    devices.upsert({ ...first, sessionEd25519, serviceId: 'another'.padEnd(32, '.') }, NOW);
    assert.equal(knows(first.account, sessionEd25519), true);
    devices.remove(second.account, second.service, second.serviceId);
    assert.equal(knows(second.account, second.sessionEd25519!), false);
  });

  it('accepts a later request for a device in place of an earlier one, and not the reverse if it was signed a minute before', () => {
    const row = makeRow({ namespaces: [0, 1] });
    const devices = makeDevices();
    assert.equal(devices.upsert(row, NOW), 'added');
    const later = makeRow({ ...row, signedAt: NOW + 1, namespaces: [2], serviceData: randomBytes(5000) });
    assert.equal(devices.upsert(later, NOW), 'updated');
    assert.equal(devices.upsert({ ...row, signedAt: NOW - 60 }, NOW), 'stale');
    assert.deepEqual(devices.get(row.account, row.service, row.serviceId), later);
    assert.equal(devices.upsert({ ...row, signedAt: NOW - 59 }, NOW), 'updated');
    assert.deepEqual([devices.size, devices.accounts], [1, 1]);
  });

  it('removes a device from all accounts, except where it has subscribed since', () => {
    const serviceId = 'd'.repeat(64);
    const old = makeRow({ serviceId });
    const renewed = makeRow({ serviceId });
    const signedLater = makeRow({ serviceId, signedAt: NOW + 50 });
    const elsewhere = makeRow({ serviceId, service: 'apns' });
    const devices = makeDevices([old, signedLater, elsewhere]);
    devices.upsert(renewed, NOW + 50);
    assert.deepEqual(devices.removeDevice('firebase', serviceId, NOW + 49), [{ account: old.account, signedAt: NOW }]);
    assert.equal(devices.size, 3);
    assert.deepEqual(devices.removeDevice('firebase', serviceId, NOW + 49), []);
    assert.equal(devices.removeDevice('firebase', serviceId, NOW + 50).length, 2);
    assert.deepEqual(devices.countByService(), new Map([['apns', 1]]));
    assert.deepEqual(devices.removeDevice('unknown', serviceId, NOW + 50), []);
  });

  it('tells devices and accounts with the same hash apart', () => {
    const key = Buffer.alloc(8, 7);
    const hash = new SipHash(key);
    /** Two of 33 bytes under one hash: 200,000 make some four such pairs. */
    const seen = new Map<number, number>();
    const bytesOf = (n: number) => Buffer.from(`\x03${`${n}`.padStart(32, '0')}`);
    let pair: [Buffer, Buffer] | undefined;
    for (let n = 0; pair === undefined; n++) {
      const value = hash.bytes(bytesOf(n), 0, 33);
      const other = seen.get(value);
      if (other !== undefined) pair = [bytesOf(other), bytesOf(n)];
      seen.set(value, n);
    }
    const devices = new Devices({ random: () => key });
    const ids = pair.map((bytes) => bytes.toString('latin1'));
    const accounts = [GROUP, ...pair];
    for (const account of accounts)
      for (const serviceId of ids) assert.equal(devices.upsert(makeRow({ account, serviceId }), NOW), 'added');
    assert.deepEqual([devices.size, devices.accounts], [6, 3]);
    for (const account of accounts)
      for (const serviceId of ids) {
        const row = devices.get(account, 'firebase', serviceId)!;
        assert.deepEqual([row.account, row.serviceId], [account, serviceId]);
      }
    const removed = devices.removeDevice('firebase', ids[0]!, NOW).map(({ account }) => account);
    assert.deepEqual(removed.sort(Buffer.compare), [...accounts].sort(Buffer.compare));
    assert.equal(devices.remove(pair[0], 'firebase', ids[0]!), false);
    assert.equal(devices.remove(pair[0], 'firebase', ids[1]!), true);
    assert.deepEqual(
      accounts.map((account) => devices.accountId(account) >= 0),
      [true, false, true],
    );
    assert.equal(devices.get(pair[1], 'firebase', ids[1]!)?.serviceId, ids[1]);
  });

  it('expires to the second, a slice at a time', () => {
    const devices = makeDevices();
    for (let n = 0; n < 5000; n++) devices.upsert(makeRow({ signedAt: NOW + (n % 100) }), NOW);
    assert.equal(devices.expire(NOW - 1), 0);
    assert.equal(devices.expire(NOW), 50);
    let total = 0;
    for (let count = 1; count > 0; total += count) {
      count = devices.expire(NOW + 98);
      assert.ok(count <= 2000);
    }
    assert.equal(total, 4900);
    assert.deepEqual([devices.size, devices.accounts], [50, 50]);
    assert.equal(devices.expire(NOW + 99), 50);
    assert.deepEqual(devices.countByService(), new Map());
  });

  it('removes 500 at a time, or some more of one account, and looks at 10,000 accounts', () => {
    const devices = makeDevices();
    for (let n = 0; n < 502; n++) devices.upsert(makeRow({ signedAt: NOW }), NOW);
    assert.equal(devices.countExpired(NOW - 1, 1_000), 0);
    assert.equal(devices.countExpired(NOW, 1_000), 502);
    assert.equal(devices.countExpired(NOW, 502), 502);
    assert.equal(devices.countExpired(NOW, 500), 501, 'counting stops at one more');
    assert.deepEqual([devices.expire(NOW), devices.expire(NOW), devices.expire(NOW)], [500, 2, 0]);

    const all = () => true;
    const fill = (accounts: number) => {
      for (let n = 0; n < accounts; n++) devices.upsert(makeRow(), NOW);
    };
    fill(502);
    assert.equal(devices.removeAccounts(all, 0), 500);
    assert.equal(devices.size, 2);
    assert.equal(devices.removeAccounts(all, 500), undefined);
    assert.deepEqual([devices.size, devices.accounts], [0, 0]);
    fill(502);
    devices.beginComparison();
    assert.equal(devices.removeUnseen(all, 0), 500);
    assert.equal(devices.removeUnseen(all, 500), undefined);
    assert.equal(devices.size, 0);

    const account = Buffer.alloc(33, 3);
    for (let n = 0; n < 600; n++) devices.upsert(makeRow({ account }), NOW);
    fill(1);
    const first = devices.accountId(account);
    assert.equal(devices.removeAccounts(all, first), first + 1);
    assert.equal(devices.size, 1);

    fill(10_001);
    const none = () => false;
    assert.equal(devices.removeAccounts(none, 0), 10_000);
    assert.equal(devices.removeAccounts(none, 10_000), undefined);
    assert.equal(devices.removeUnseen(none, 0), 10_000);
    assert.equal(devices.removeUnseen(none, 10_000), undefined);
    assert.equal(devices.size, 10_002);
  });

  it('takes a device from 2,000 accounts at a time', () => {
    const devices = makeDevices();
    const serviceId = 'd'.repeat(64);
    for (let n = 0; n < 2_001; n++) devices.upsert(makeRow({ serviceId }), NOW);
    assert.equal(devices.removeDevice('firebase', serviceId, NOW).length, 2_000);
    assert.equal(devices.removeDevice('firebase', serviceId, NOW).length, 1);
    assert.equal(devices.size, 0);
  });

  it('removes what was not put here since a comparison began, of the accounts that were compared', () => {
    const [kept, unseen, elsewhere] = [makeRow(), makeRow(), makeRow({ account: GROUP })];
    const devices = makeDevices([kept, unseen, elsewhere]);
    // A round has one of 256 numbers; those of the last rounds are still told apart.
    for (let round = 0; round < 600; round++) {
      devices.beginComparison();
      devices.replace(kept, NOW);
      devices.replace(unseen, NOW);
      assert.equal(
        devices.removeUnseen((bytes, offset) => bytes[offset] !== 3, 0),
        undefined,
      );
      assert.equal(devices.size, 3);
    }
    devices.beginComparison();
    devices.replace(kept, NOW);
    assert.equal(
      devices.removeUnseen((bytes, offset) => bytes[offset] !== 3, 0),
      undefined,
    );
    assert.deepEqual(
      [kept, unseen, elsewhere].map(({ account }) => devices.accountId(account) >= 0),
      [true, false, true],
    );
  });

  it('announces accounts that come and go, and changes that concern the storage servers alone', () => {
    const devices = makeDevices();
    const events: string[] = [];
    const name = (id: number) => {
      const { bytes, offset } = devices.account(id);
      return bytes[offset] === 3 ? 'group' : 'other';
    };
    devices.onAccountAdded = (id) => events.push(`+${name(id)} ${devices.isLive(id)}`);
    devices.onAccountRemoved = (id) => events.push(`-${name(id)} ${devices.isLive(id)}`);
    devices.onUpstreamChanged = (id) => events.push(`~${name(id)}`);
    const after = (work: () => void) => {
      work();
      return events.splice(0);
    };
    const row = makeRow({ account: GROUP, namespaces: [0, 1] });
    const { service, serviceId } = row;
    assert.deepEqual(
      after(() => devices.upsert(row, NOW)),
      ['+group true'],
    );
    assert.deepEqual(
      after(() => devices.upsert({ ...row, encKey: Buffer.alloc(32) }, NOW)),
      [],
    );
    assert.deepEqual(
      after(() => devices.upsert({ ...row, signature: Buffer.alloc(64), signedAt: NOW + 1 }, NOW)),
      ['~group'],
    );
    const covered = makeRow({ account: GROUP, namespaces: [1] });
    assert.deepEqual(
      after(() => devices.upsert(covered, NOW)),
      [],
    );
    const wider = makeRow({ account: GROUP, namespaces: [1, 2] });
    assert.deepEqual(
      after(() => devices.upsert(wider, NOW)),
      ['~group'],
    );
    assert.deepEqual(
      after(() => devices.remove(GROUP, 'firebase', covered.serviceId)),
      [],
    );
    assert.deepEqual(
      after(() => devices.remove(GROUP, service, serviceId)),
      ['~group'],
    );
    assert.deepEqual(
      after(() => devices.remove(GROUP, 'firebase', wider.serviceId)),
      ['-group false'],
    );
    assert.deepEqual(
      after(() => devices.remove(GROUP, 'firebase', wider.serviceId)),
      [],
    );
    assert.equal(devices.accountId(GROUP), -1);
  });

  it('gives the numbers of removed accounts to new ones', () => {
    const devices = makeDevices();
    const rows = Array.from({ length: 100 }, () => makeRow());
    for (const row of rows) devices.upsert(row, NOW);
    for (const row of rows.slice(20)) devices.remove(row.account, row.service, row.serviceId);
    for (let n = 0; n < 80; n++) devices.upsert(makeRow(), NOW);
    assert.equal(devices.capacity, 100);
    assert.equal(devices.accounts, 100);
  });

  it('reads an account from the middle of a message, and no further than it goes', () => {
    const row = makeRow();
    const devices = makeDevices([row]);
    const message = Buffer.concat([Buffer.from('d1:@33:'), row.account, Buffer.from('e')]);
    assert.equal(devices.accountId(message, 7), devices.accountId(row.account));
    assert.equal(devices.accountId(message, 8), -1);
    assert.equal(devices.accountId(message, 30), -1);
  });
});
