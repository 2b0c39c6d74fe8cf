import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Devices } from '../../../src/hivemind/devices/devices.ts';
import { CopyRows, copyRows } from '../../../src/hivemind/store/copy-rows.ts';
import { makeRow } from '../../support/rows.ts';

type Row = ReturnType<typeof makeRow>;

/** What PostgreSQL sends for such rows, one after the other (its documentation of COPY, binary format). */
function copied(rows: readonly Row[]): Buffer {
  return Buffer.concat(messages(rows));
}

/** The same as it comes: the header with the first row, each other row, the end. */
function messages(rows: readonly Row[]): Buffer[] {
  const field = (value: Buffer | string | null) => {
    const bytes = typeof value === 'string' ? Buffer.from(value) : value;
    const size = Buffer.alloc(4);
    size.writeInt32BE(bytes === null ? -1 : bytes.length);
    return bytes === null ? size : Buffer.concat([size, bytes]);
  };
  const header = Buffer.concat([Buffer.from('PGCOPY\n\xff\r\n\0', 'latin1'), Buffer.alloc(8)]);
  const sent = rows.map((row) => {
    const time = Buffer.alloc(8);
    time.writeBigInt64BE(BigInt(row.signedAt));
    const namespaces = Buffer.alloc(2 * row.namespaces.length);
    for (const [index, namespace] of row.namespaces.entries()) namespaces.writeInt16BE(namespace, 2 * index);
    const { tag = null, signature = null } = row.subaccount ?? {};
    const texts = [row.service, row.serviceId, row.serviceData];
    const fields = [row.account, row.sessionEd25519, tag, signature, row.signature, time];
    const rest = [Buffer.of(row.wantData ? 1 : 0), row.encKey, ...texts, namespaces];
    return Buffer.concat([Buffer.of(0, 12), ...[...fields, ...rest].map(field)]);
  });
  const [first = Buffer.alloc(0), ...others] = [...sent, Buffer.of(0xff, 0xff)];
  return [Buffer.concat([header, first]), ...others];
}

const rows: readonly Row[] = [
  makeRow({ service: 'apns', namespaces: [0] }),
  makeRow({ service: 'apns', namespaces: [256] }),
  makeRow({ service: 'firebase', namespaces: [-10, 0, 3], wantData: false, serviceData: Buffer.from('{"a":1}') }),
  makeRow({ service: 'huawei', namespaces: [-10, 0, 3], serviceId: `Gerät ${'ü'.repeat(40)}` }),
  makeRow({ service: 'huaway', namespaces: Array.from({ length: 300 }, (_, n) => n - 150) }),
  makeRow({ service: 'apns', namespaces: [0], signedAt: 2 ** 32 - 1, serviceData: Buffer.alloc(0) }),
  makeRow({ service: '', serviceId: '', signedAt: 2 ** 33 + 7 }),
  makeRow({ service: 'apns', namespaces: [2], serviceData: Buffer.alloc(10_000, 9) }),
  makeRow({ service: 'webpush', namespaces: [], serviceId: `${'x'.repeat(50)}\0` }),
  makeRow({ service: 'a'.repeat(200), namespaces: [0], encKey: Buffer.alloc(31, 7), signature: Buffer.alloc(65, 8) }),
  makeRow({
    account: Buffer.alloc(33, 3),
    subaccount: { tag: Buffer.alloc(36, 1), signature: Buffer.alloc(64, 2) },
    serviceData: Buffer.alloc(1, 4),
  }),
  makeRow({ service: 'apns', namespaces: [0] }),
];

describe('rows that PostgreSQL sends', () => {
  for (const [how, split] of [
    ['in messages of their own', messages],
    ['in one message', (rows: readonly Row[]) => [copied(rows)]],
  ] as const) {
    test(`are read ${how}`, () => {
      const found: object[] = [];
      const reader = new CopyRows((row) => found.push(structuredClone({ ...row })));
      const parts = split([...rows, ...rows]);
      for (const message of parts.slice(0, -1)) reader.push(message);
      assert.equal(reader.ended, false, 'a connection that ends here was lost');
      reader.push(parts.at(-1)!);
      assert.ok(reader.ended);
      assert.deepEqual(
        found,
        [...rows, ...rows].map((row) => structuredClone({ ...row })),
      );
    });
  }

  test('are all put into the same buffers', () => {
    const made = new Set<Buffer | null>();
    const visit = ({ account, sessionEd25519, signature, encKey }: Omit<Row, 'serviceId'>) => {
      for (const value of [account, sessionEd25519, signature, encKey]) made.add(value);
    };
    const reader = new CopyRows(visit);
    for (const message of messages([makeRow(), makeRow(), makeRow()])) reader.push(message);
    assert.equal(made.size, 4);
  });

  test('share their list of namespaces with others that have the same, unless it is of more than 31', () => {
    const lists = (count: number) => {
      const namespaces = Array.from({ length: count }, (_, n) => n);
      const made = new Set<readonly number[]>();
      new CopyRows((row) => made.add(row.namespaces)).push(copied([makeRow({ namespaces }), makeRow({ namespaces })]));
      return made.size;
    };
    assert.deepEqual([0, 1, 31, 32, 300].map(lists), [1, 1, 1, 2, 2]);
  });

  test('have the name of their device as bytes if it is ASCII without NUL, else as a string', () => {
    const names = ['x', '\x7f', '\x01', 'ü', 'x\0', ''];
    const asBytes: boolean[] = [];
    const reader = new CopyRows((row) => asBytes.push(row.serviceIdBytes !== undefined));
    reader.push(copied(names.map((serviceId) => makeRow({ serviceId }))));
    assert.deepEqual(asBytes, [true, true, true, false, false, true]);
  });

  test('are found by their device, whether its name comes as bytes or as a string', () => {
    const devices = new Devices({ random: (bytes) => Buffer.alloc(bytes, 5) });
    const good = rows.slice(0, 4);
    new CopyRows((row) => assert.equal(devices.upsert(row, row.signedAt), 'added')).push(copied(good));
    for (const { account, service, serviceId, namespaces } of good) {
      assert.deepEqual(devices.get(account, service, serviceId)?.namespaces, namespaces);
      assert.equal(devices.remove(account, service, serviceId), true);
    }
    assert.equal(devices.size, 0);
  });

  test('are read behind a header of any length', () => {
    const [first = Buffer.alloc(0), ...others] = messages([makeRow({ namespaces: [] }), makeRow()]);
    const header = Buffer.from(first.subarray(0, 19));
    header.writeUInt32BE(5, 15);
    const found: string[] = [];
    const reader = new CopyRows((row) => found.push(row.serviceId));
    reader.push(Buffer.concat([header, Buffer.alloc(5, 0xff), first.subarray(19)]));
    for (const message of others) reader.push(message);
    assert.deepEqual([found.length, reader.ended], [2, true]);
  });

  test('are refused in another format, in parts, or with other columns', () => {
    const [first = Buffer.alloc(0)] = messages([makeRow()]);
    const longHeader = Buffer.from(first);
    longHeader.writeUInt32BE(first.length - 18, 15);
    for (const message of [Buffer.from('a\tb\tc\n'.repeat(4)), first.subarray(0, 18), longHeader])
      assert.throws(() => new CopyRows(() => {}).push(message), /did not send a binary COPY/);
    // A field of no bytes ends with its length, and what is cut off is not taken from an earlier row.
    for (let size = 20; size < first.length; size++) {
      const reader = new CopyRows(() => {});
      reader.push(first);
      assert.throws(() => reader.push(first.subarray(19, size)), /sent a part of a row/, `${size} bytes`);
    }
    const reader = new CopyRows(() => {});
    reader.push(first);
    assert.throws(() => reader.push(Buffer.of(0, 11)), /sent 11 columns instead of 12/);
  });

  test('of fewer than 64 slots have their namespaces looked up, of more they are read in one scan', () => {
    const slots = (count: number) => Array.from({ length: count }, (_, slot) => slot);
    assert.match(copyRows(slots(63)), /LEFT JOIN LATERAL .*WHERE spns_slot\(s\.account\) = ANY \('\{0,1,.*,62\}'/s);
    assert.match(copyRows(slots(64)), /LEFT JOIN \(SELECT subscription, .* GROUP BY subscription\) .*,63\}'/s);
    assert.match(copyRows(), /LEFT JOIN \(SELECT subscription, /);
    assert.doesNotMatch(copyRows(), /WHERE/);
  });
});
