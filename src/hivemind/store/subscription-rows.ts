import type { DeviceRow } from '../devices/device.ts';

/**
 * The columns of a row `s` of `subscriptions` for {@link deviceRow}. The namespaces, of which there may be 65,536, come
 * as two bytes each.
 */
export const COLUMNS = `s.account, s.session_ed25519, s.subaccount_tag, s.subaccount_sig, s.signature, s.signature_ts,
  s.want_data, s.enc_key, s.service, s.svcid, s.svcdata,
  (SELECT string_agg(int2send(namespace), '' ORDER BY namespace) FROM sub_namespaces WHERE subscription = s.id) AS namespaces`;

/** A row of {@link COLUMNS}. */
export interface SubscriptionRow {
  readonly account: Buffer;
  readonly session_ed25519: Buffer | null;
  readonly subaccount_tag: Buffer | null;
  readonly subaccount_sig: Buffer | null;
  readonly signature: Buffer;
  readonly signature_ts: string;
  readonly want_data: boolean;
  readonly enc_key: Buffer;
  readonly service: string;
  readonly svcid: string;
  readonly svcdata: Buffer | null;
  readonly namespaces: Buffer | null;
}

const EMPTY = Buffer.of();

/** Converts a row. The result may be invalid: see {@link rowFault}. */
export function deviceRow(row: SubscriptionRow): DeviceRow {
  const { subaccount_tag: tag, subaccount_sig: signature } = row;
  return {
    account: row.account,
    sessionEd25519: row.session_ed25519,
    subaccount: tag || signature ? { tag: tag ?? EMPTY, signature: signature ?? EMPTY } : null,
    signature: row.signature,
    signedAt: Number(row.signature_ts),
    wantData: row.want_data,
    encKey: row.enc_key,
    service: row.service,
    serviceId: row.svcid,
    serviceData: row.svcdata,
    namespaces: readNamespaces(row.namespaces ?? EMPTY),
  };
}

function readNamespaces(bytes: Buffer): number[] {
  return Array.from({ length: bytes.length / 2 }, (_, n) => bytes.readInt16BE(2 * n));
}
