import type pg from 'pg';
import type { DeviceKey, DeviceRow } from '../../../src/hivemind/devices/device.ts';
import type { Devices } from '../../../src/hivemind/devices/devices.ts';
import { slotOf } from '../../../src/session/slots.ts';

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
export async function differences(devices: Devices, client: pg.Client, holds = (_: number) => true): Promise<string[]> {
  const held = [...(await stored(client)).values()].filter(({ key }) => holds(slotOf(key.account)));
  const found = held
    .filter(({ key, row }) => plain(devices.get(key.account, key.service, key.serviceId)) !== row)
    .map(({ key }) => keyOf(key));
  if (devices.size !== held.length) found.push(`${devices.size} in memory, ${held.length} stored`);
  return found;
}
