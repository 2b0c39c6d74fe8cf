import type { DeviceRow } from '../../src/hivemind/devices/device.ts';
import { type Random, seededRandom } from './random.ts';

const random = seededRandom();

/** A valid row, random except for what is given. Its signature is none: nothing here checks it. */
export function makeRow(given: Partial<DeviceRow> = {}, from: Random = random): DeviceRow {
  const account = given.account ?? Buffer.concat([Buffer.of(0x05), from.bytes(32)]);
  return {
    account,
    sessionEd25519: account[0] === 0x05 ? from.bytes(32) : null,
    subaccount: null,
    signature: from.bytes(64),
    signedAt: 1_700_000_000,
    wantData: true,
    encKey: from.bytes(32),
    service: 'firebase',
    serviceId: from.bytes(40).toString('hex'),
    serviceData: null,
    namespaces: [0],
    ...given,
  };
}
