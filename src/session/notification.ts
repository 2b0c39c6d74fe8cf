/** notify.message: what a storage server sends us for each message it has stored (docs/spec/network.md, section 4). */

import { BencodeError, BencodeReader, encode } from '../codec/bencode.ts';
import { ACCOUNT_SIZE } from './account.ts';

/** A storage server's word that it has stored a message. */
export interface Notification {
  /** 33 bytes. */
  readonly account: Buffer;
  /** 32 to 99 bytes; today's servers send 43 characters of base64. */
  readonly hash: Buffer;
  /** int16. */
  readonly namespace: number;
  /** When it was stored: unix milliseconds, int64. */
  readonly timestamp: number | bigint;
  /** When it will be deleted: unix milliseconds, int64. */
  readonly expiry: number | bigint;
  /** The message, or null if it was not asked for. */
  readonly data: Buffer | null;
}

/** Why a notification was dropped. */
export type Malformation = 'malformed' | 'missing-key' | 'bad-account' | 'bad-hash' | 'bad-namespace' | 'bad-time';

const MIN_HASH = 32;
const MAX_HASH = 99;
const MAX_INT64 = 2n ** 63n - 1n;

/**
 * Reads a notification. Unknown keys are skipped, keys out of order count as missing, and anything after the last key
 * that we know is ignored (test/vectors/bencode.json, `notify_message_parse`). Never throws.
 *
 * @returns the notification, with `account`, `hash` and `data` as views of `body`; or why it is to be dropped
 */
export function parseNotification(body: Buffer): Notification | Malformation {
  try {
    const reader = new BencodeReader(body);
    reader.enterDict();
    if (!reader.find('@')) return 'missing-key';
    const account = reader.string();
    if (!reader.find('h')) return 'missing-key';
    const hash = reader.string();
    if (!reader.find('n')) return 'missing-key';
    const namespace = reader.integer();
    if (!reader.find('t')) return 'missing-key';
    const timestamp = reader.integer();
    if (!reader.find('z')) return 'missing-key';
    const expiry = reader.integer();
    const data = reader.find('~') ? reader.string() : null;
    if (account.length !== ACCOUNT_SIZE) return 'bad-account';
    if (hash.length < MIN_HASH || hash.length > MAX_HASH) return 'bad-hash';
    if (typeof namespace === 'bigint' || namespace < -32768 || namespace > 32767) return 'bad-namespace';
    if (timestamp > MAX_INT64 || expiry > MAX_INT64) return 'bad-time';
    return { account, hash, namespace, timestamp, expiry, data };
  } catch (error) {
    if (!(error instanceof BencodeError)) throw error;
    return 'malformed';
  }
}

/** Writes a notification as a storage server does. */
export function encodeNotification(notification: Notification): Buffer {
  const { account, hash, namespace, timestamp, expiry, data } = notification;
  return encode({ '@': account, h: hash, n: namespace, t: timestamp, z: expiry, '~': data ?? undefined });
}
