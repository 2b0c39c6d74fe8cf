import { Buffer } from 'node:buffer';
import { ACCOUNT_SIZE } from '../../session/account.ts';
import type { Subscription } from '../../session/subscription.ts';

/** UTF-8 text within a buffer. */
export interface Utf8 {
  readonly bytes: Buffer;
  readonly at: number;
  readonly size: number;
}

/** One device's subscription to one account, as it is stored: a row of `subscriptions` with its namespaces. */
export interface DeviceRow extends Subscription {
  /** the notifier's name, 1 to 32 bytes of UTF-8 */
  readonly service: string;
  /** identifies the device at its provider, 32 to 999 bytes of UTF-8 without NUL */
  readonly serviceId: string;
  /** the same as bytes, where loading has them at hand: ASCII without NUL. It saves encoding a million strings */
  readonly serviceIdBytes?: Utf8 | undefined;
  /** what the notifier wants back with each push, up to 99,999 bytes; null if it gave none */
  readonly serviceData: Buffer | null;
  /** 32 bytes: the key that pushes are sealed with */
  readonly encKey: Buffer;
}

/** What makes one subscription: a device has one for each of its accounts. */
export interface DeviceKey {
  /** 33 bytes */
  readonly account: Buffer;
  readonly service: string;
  readonly serviceId: string;
}

/** The most bytes of a service's name. */
export const MAX_SERVICE = 32;
/** The fewest and the most bytes of a service id. */
export const MIN_SERVICE_ID = 32;
export const MAX_SERVICE_ID = 999;
/** The most bytes that a notifier may store with a device. */
export const MAX_SERVICE_DATA = 99_999;
/** Times are kept as unsigned 32-bit numbers: good until 2106. */
const MAX_TIME = 2 ** 32 - 1;

/**
 * What is wrong with a row, in a word or two that a counter can be named after; undefined if nothing is. The limits are
 * those of docs/spec/network.md, section 7. Only we should be writing these rows, but a database lives long and passes
 * through many hands.
 */
export function rowFault(row: DeviceRow): string | undefined {
  if (row.account.length !== ACCOUNT_SIZE) return 'account';
  if ((row.account[0] === 0x05) !== (row.sessionEd25519 !== null)) return 'session key';
  if (row.sessionEd25519 !== null && row.sessionEd25519.length !== 32) return 'session key';
  if (row.subaccount !== null && (row.subaccount.tag.length !== 36 || row.subaccount.signature.length !== 64)) {
    return 'subaccount';
  }
  if (row.signature.length !== 64) return 'signature';
  if (!Number.isInteger(row.signedAt) || row.signedAt <= 0 || row.signedAt > MAX_TIME) return 'time';
  if (row.encKey.length !== 32) return 'encryption key';
  if (!isText(row.service, 1, MAX_SERVICE)) return 'service';
  if (!isServiceId(row)) return 'service id';
  if (row.serviceData !== null && row.serviceData.length > MAX_SERVICE_DATA) return 'service data';
  return namespacesFault(row.namespaces);
}

function namespacesFault(namespaces: readonly number[]): string | undefined {
  if (namespaces.length === 0) return 'no namespaces';
  let last = -32_769;
  for (const namespace of namespaces) {
    if (!Number.isInteger(namespace) || namespace <= last || namespace > 32_767) return 'namespaces';
    last = namespace;
  }
  return undefined;
}

function isServiceId(row: DeviceRow): boolean {
  const size = row.serviceIdBytes?.size;
  if (size === undefined) return isText(row.serviceId, MIN_SERVICE_ID, MAX_SERVICE_ID);
  return size >= MIN_SERVICE_ID && size <= MAX_SERVICE_ID;
}

/** PostgreSQL refuses NUL in text, and a lone surrogate cannot be encoded in UTF-8. */
function isText(text: string, min: number, max: number): boolean {
  const size = Buffer.byteLength(text);
  return size >= min && size <= max && !text.includes('\0') && text.isWellFormed();
}
