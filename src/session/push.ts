/** notifier.push: what an original notifier gets for each device and message (docs/spec/hivemind.md, section 2). */

import { encode } from '../codec/bencode.ts';
import { Fields } from './fields.ts';
import type { Notification } from './notification.ts';

/** A notification on its way to one device. */
export interface Push extends Notification {
  /** Name of the notifier. */
  readonly service: string;
  /** What the provider knows the device by. */
  readonly serviceId: string;
  /** What else the notifier wanted remembered about the device. */
  readonly serviceData: Buffer | null;
  /** 32 bytes: the key that the device decrypts with. */
  readonly encKey: Buffer;
}

/** Writes a push as the original does (test/vectors/notifier-push.json). */
export function encodePush(push: Push): Buffer {
  return encode({
    '': push.service,
    '!': push.serviceData ?? undefined,
    '#': push.hash,
    '&': push.serviceId,
    '@': push.account,
    '^': push.encKey,
    n: push.namespace,
    t: push.timestamp,
    z: push.expiry,
    '~': push.data ?? undefined,
  });
}

/**
 * Reads what {@link encodePush} or the original wrote. Its byte strings are views of `data`.
 *
 * @throws BencodeError if it is no such push
 */
export function decodePush(data: Uint8Array): Push {
  const fields = Fields.decode('push', data);
  return {
    service: fields.text(''),
    serviceData: fields.optionalBytes('!'),
    hash: fields.bytes('#'),
    serviceId: fields.text('&'),
    account: fields.bytes('@'),
    encKey: fields.bytes('^'),
    namespace: fields.integer('n'),
    timestamp: fields.wideInteger('t'),
    expiry: fields.wideInteger('z'),
    data: fields.optionalBytes('~'),
  };
}
