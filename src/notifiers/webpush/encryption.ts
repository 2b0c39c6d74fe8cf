import { createCipheriv, createECDH, hkdfSync } from 'node:crypto';

/** The curve of all keys in Web Push. */
export const CURVE = 'prime256v1';
/** Bytes of an uncompressed public key. */
export const PUBLIC_KEY = 65;
/** Bytes of a private key. */
const PRIVATE_KEY = 32;
/** Bytes of the secret that comes with a subscription. */
export const AUTH_SECRET = 16;

/** The largest body that every push service must accept, in bytes (RFC 8030, section 7.2). */
export const MAX_BODY = 4096;
const SALT = 16;
const TAG = 16;
const RECORD_SIZE = 4096;
/** Salt, record size, length of the key's id, and the key itself as its id (RFC 8188, section 2.1). */
const HEADER = SALT + 4 + 1 + PUBLIC_KEY;
/** Ends the last record, before any padding. */
const LAST_RECORD = 0x02;
/** The longest plaintext that fits into {@link MAX_BODY}, in bytes: one record. */
export const MAX_PLAINTEXT = MAX_BODY - HEADER - TAG - 1;

/** For whom a subscription's pushes are encrypted. */
export interface Recipient {
  /** The app's public key, 65 bytes: a point of P-256, uncompressed. */
  readonly p256dh: Buffer;
  /** 16 bytes that only the app and we know: without them a push service could pass off its own messages as ours. */
  readonly auth: Buffer;
}

/**
 * The body of a push (RFC 8291, with the single record of RFC 8188's aes128gcm that it allows). The plaintext is not
 * padded here, since sealed payloads are.
 *
 * @param plaintext at most {@link MAX_PLAINTEXT} bytes
 * @param random makes a key pair for this message alone, and a salt
 * @throws Error if p256dh is not a point of the curve
 */
export function encrypt(plaintext: Uint8Array, { p256dh, auth }: Recipient, random: (bytes: number) => Buffer): Buffer {
  const own = createECDH(CURVE);
  // One random number in 2^32 is not a valid key and throws: the push is retried.
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
