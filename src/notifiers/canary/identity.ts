import { accountFromEd25519 } from '../../session/account.ts';
import { blake2b, ed25519KeyPair, ed25519Sign } from '../../session/sodium.ts';

/** Who the canary is: an account of Session, and the one device of it. */
export interface Identity {
  /** 33 bytes */
  readonly account: Buffer;
  /** 32 bytes */
  readonly sessionEd25519: Buffer;
  /** What pushes are sealed with, 32 bytes. */
  readonly encKey: Buffer;
  /** What the canary's device is known by, 64 hex digits. Nobody else can know it, and so nobody else can subscribe. */
  readonly device: string;
  sign(message: Uint8Array): Buffer;
}

/**
 * The canary's identity is derived from the hivemind's key: a canary that was killed leaves a subscription behind, and
 * its successor takes that over.
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
