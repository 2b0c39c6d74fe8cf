import { createCipheriv, createECDH, hkdfSync } from 'node:crypto';

/** The curve of all keys in Web Push. */
export const CURVE = 'prime256v1';
/**
 * Lengths in bytes: of a public key, uncompressed, of a private one, and of the secret that goes with a subscription.
 */
export const PUBLIC_KEY = 65;
const PRIVATE_KEY = 32;
export const AUTH_SECRET = 16;

/** Every push service takes a body of this size, in bytes, and need not take a larger one (RFC 8030, section 7.2). */
export const MAX_BODY = 4096;
const SALT = 16;
const TAG = 16;
const RECORD_SIZE = 4096;
/** Salt, record size, length of the key's name, and the key itself in the place of a name (RFC 8188, section 2.1). */
const HEADER = SALT + 4 + 1 + PUBLIC_KEY;
/** Ends the last record, before any padding. */
const LAST_RECORD = 0x02;
/** The longest plaintext that fits into {@link MAX_BODY}, in bytes: one record. */
export const MAX_PLAINTEXT = MAX_BODY - HEADER - TAG - 1;

/** Where a subscription's pushes are encrypted to. */
export interface Recipient {
  /** The app's public key, 65 bytes: a point of P-256, uncompressed. */
  readonly p256dh: Buffer;
  /** 16 bytes that only the app and we know: without them a push service could pass off its own message as ours. */
  readonly auth: Buffer;
}

/**
 * The body of a push (RFC 8291, with the one record of RFC 8188's aes128gcm that it allows). The plaintext is not
 * padded here: what it holds is of few lengths already.
 * @param plaintext at most {@link MAX_PLAINTEXT} bytes
 * @param random of a key pair for this message alone, and of a salt
 * @throws Error if p256dh is no point of the curve
 */
export function encrypt(plaintext: Uint8Array, { p256dh, auth }: Recipient, random: (bytes: number) => Buffer): Buffer {
  const own = createECDH(CURVE);
  // One in 2^32 numbers is not a valid key, and throws: the push is retried.
  own.setPrivateKey(random(PRIVATE_KEY));
  const salt = random(SALT);
  const ownPublic = own.getPublicKey();

  const info = Buffer.concat([Buffer.from('WebPush: info\0'), p256dh, ownPublic]);
  const keying = hkdfSync('sha256', own.computeSecret(p256dh), auth, info, 32);
  const derive = (what: string, length: number) =>
    Buffer.from(hkdfSync('sha256', new Uint8Array(keying), salt, `Content-Encoding: ${what}\0`, length));
  const cipher = createCipheriv('aes-128-gcm', derive('aes128gcm', 16), derive('nonce', 12));

  const size = Buffer.alloc(5);
  size.writeUInt32BE(RECORD_SIZE);
  size.writeUInt8(PUBLIC_KEY, 4);
  return Buffer.concat([
    salt,
    size,
    ownPublic,
    cipher.update(plaintext),
    cipher.update(Buffer.of(LAST_RECORD)),
    cipher.final(),
    cipher.getAuthTag(),
  ]);
}
