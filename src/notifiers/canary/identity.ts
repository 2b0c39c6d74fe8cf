import { accountFromEd25519 } from '../../session/account.ts';
import { blake2b, ed25519KeyPair, ed25519Sign } from '../../session/sodium.ts';

/** The canary's Session account and its one device. */
export interface Identity {
  /** 33 bytes */
  readonly account: Buffer;
  /** 32 bytes */
  readonly sessionEd25519: Buffer;
  /** The key with which pushes are sealed, 32 bytes. */
  readonly encKey: Buffer;
  /** The device's id, 64 hex digits. Nobody else can know it, so nobody else can subscribe. */
  readonly device: string;
  sign(message: Uint8Array): Buffer;
}

/**
 * The canary's identity, derived from the hivemind's key, so that a new canary takes over the subscription that a
 * killed one has left.
 *
 * @param hivemindSecret 32 bytes
 */
export function deriveIdentity(hivemindSecret: Uint8Array): Identity {
  const derive = (what: string) => blake2b(32, Buffer.from(`spns canary ${what}`), hivemindSecret);
  const keys = ed25519KeyPair(derive('account'));
  return {
    account: accountFromEd25519(keys.publicKey),
    sessionEd25519: keys.publicKey,
    encKey: derive('encryption key'),
    device: derive('device').toString('hex'),
    sign: (message) => ed25519Sign(message, keys.secretKey),
  };
}
