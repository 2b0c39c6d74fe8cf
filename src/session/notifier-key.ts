import { blake2b } from './sodium.ts';

/**
 * The X25519 secret key (32 bytes) of a notifier: it needs none of its own, only the hivemind's and its name
 * (docs/spec/notifiers.md, section 1; test/vectors/notifier-key.json).
 *
 * @param hivemindSecret 32 bytes
 * @param name of the notifier
 */
export function deriveNotifierKey(hivemindSecret: Uint8Array, name: string): Buffer {
  return blake2b(32, Buffer.concat([hivemindSecret, Buffer.from(name)]), Buffer.from('notifier'));
}

/**
 * The X25519 secret key (32 bytes) with which hiveminds and notifiers of one cluster connect to a `listen_curve` of it:
 * whoever has the hivemind's key may. Ours alone: the original knows no clusters.
 *
 * @param hivemindSecret 32 bytes
 */
export function deriveClusterKey(hivemindSecret: Uint8Array): Buffer {
  return blake2b(32, Buffer.from('spns cluster key'), hivemindSecret);
}
