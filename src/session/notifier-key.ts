import { blake2b } from './sodium.ts';

/**
 * The X25519 secret key (32 bytes) of a notifier, derived from the hivemind's key and the notifier's name, so that
 * nobody has to configure one (docs/spec/notifiers.md, section 1; test/vectors/notifier-key.json).
 *
 * @param hivemindSecret 32 bytes
 * @param name of the notifier
 */
export function deriveNotifierKey(hivemindSecret: Uint8Array, name: string): Buffer {
  return blake2b(32, Buffer.concat([hivemindSecret, Buffer.from(name)]), Buffer.from('notifier'));
}

/**
 * The X25519 secret key (32 bytes) with which the hiveminds and notifiers of one cluster connect to its `listen_curve`
 * addresses: whoever has the hivemind's key may. The original has no such key, since it has no clusters.
 *
 * @param hivemindSecret 32 bytes
 */
export function deriveClusterKey(hivemindSecret: Uint8Array): Buffer {
  return blake2b(32, Buffer.from('spns cluster key'), hivemindSecret);
}
