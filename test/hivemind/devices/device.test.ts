import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type DeviceRow, rowFault } from '../../../src/hivemind/devices/device.ts';
import { makeRow } from '../../support/rows.ts';

const bytes = (count: number) => Buffer.alloc(count, 3);
const ascii = (size: number) => ({ bytes: Buffer.alloc(2_000, 'x'), at: 0, size });

const GOOD: readonly Partial<DeviceRow>[] = [
  {},
  { account: bytes(33), sessionEd25519: null },
  { subaccount: { tag: bytes(36), signature: bytes(64) } },
  { signedAt: 1 },
  { signedAt: 2 ** 32 - 1 },
  { service: 'x' },
  { service: 'x'.repeat(32) },
  { service: 'ü'.repeat(16) },
  { serviceId: 'x'.repeat(32) },
  { serviceId: 'x'.repeat(999) },
  { serviceId: '', serviceIdBytes: ascii(32) },
  { serviceId: '', serviceIdBytes: ascii(999) },
  { serviceData: bytes(0) },
  { serviceData: bytes(99_999) },
  { namespaces: [-32_768, 0, 32_767] },
];

const BAD: readonly (readonly [string, Partial<DeviceRow>])[] = [
  ['account', { account: bytes(32), sessionEd25519: null }],
  ['account', { account: bytes(34), sessionEd25519: null }],
  ['session key', { account: bytes(33), sessionEd25519: bytes(32) }],
  ['session key', { sessionEd25519: null }],
  ['session key', { sessionEd25519: bytes(31) }],
  ['session key', { sessionEd25519: bytes(33) }],
  ['subaccount', { subaccount: { tag: bytes(35), signature: bytes(64) } }],
  ['subaccount', { subaccount: { tag: bytes(37), signature: bytes(64) } }],
  ['subaccount', { subaccount: { tag: bytes(36), signature: bytes(63) } }],
  ['subaccount', { subaccount: { tag: bytes(36), signature: bytes(65) } }],
  ['signature', { signature: bytes(63) }],
  ['signature', { signature: bytes(65) }],
  ['time', { signedAt: 0 }],
  ['time', { signedAt: -1 }],
  ['time', { signedAt: 1.5 }],
  ['time', { signedAt: 2 ** 32 }],
  ['time', { signedAt: Number.NaN }],
  ['encryption key', { encKey: bytes(31) }],
  ['encryption key', { encKey: bytes(33) }],
  ['service', { service: '' }],
  ['service', { service: 'x'.repeat(33) }],
  ['service', { service: 'ü'.repeat(17) }],
  ['service', { service: 'x\0' }],
  ['service', { service: '\ud800' }],
  ['service id', { serviceId: 'x'.repeat(31) }],
  ['service id', { serviceId: 'x'.repeat(1_000) }],
  ['service id', { serviceId: `${'x'.repeat(40)}\0` }],
  ['service id', { serviceId: `${'x'.repeat(40)}\ud800` }],
  ['service id', { serviceIdBytes: ascii(31) }],
  ['service id', { serviceIdBytes: ascii(1_000) }],
  ['service data', { serviceData: bytes(100_000) }],
  ['no namespaces', { namespaces: [] }],
  ['namespaces', { namespaces: [-32_769] }],
  ['namespaces', { namespaces: [32_768] }],
  ['namespaces', { namespaces: [1, 1] }],
  ['namespaces', { namespaces: [2, 1] }],
  ['namespaces', { namespaces: [0.5] }],
];

test('a row that is as it must be has no fault, to the smallest and largest of each field', () => {
  for (const change of GOOD) assert.equal(rowFault(makeRow(change)), undefined, JSON.stringify(change).slice(0, 100));
});

test('what is wrong with a row is told by the name of the field', () => {
  for (const [fault, change] of BAD)
    assert.equal(rowFault({ ...makeRow(), ...change }), fault, JSON.stringify(change).slice(0, 100));
});
