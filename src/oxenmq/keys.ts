/** X25519 key pairs, as CURVE uses them on every OxenMQ connection. */

import { createPrivateKey, createPublicKey, randomBytes } from 'node:crypto';

/** An X25519 pair, 32 bytes each. */
export interface KeyPair {
  readonly publicKey: Buffer;
  readonly secretKey: Buffer;
}

/** What precedes the 32 secret bytes in a PKCS #8 document of an X25519 key (RFC 8410). */
const PKCS8_X25519 = Buffer.from('302e020100300506032b656e04220420', 'hex');

const Z85 = '0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#';

/**
 * Completes a pair from its secret half.
 *
 * @param secretKey 32 bytes
 * @throws RangeError if it has another length
 */
export function keyPairFromSecret(secretKey: Uint8Array): KeyPair {
  if (secretKey.length !== 32) throw new RangeError(`an X25519 secret key has 32 bytes, not ${secretKey.length}`);
  const key = createPrivateKey({ key: Buffer.concat([PKCS8_X25519, secretKey]), format: 'der', type: 'pkcs8' });
  // The last 32 bytes of the document are the key itself.
  const publicKey = Buffer.from(createPublicKey(key).export({ format: 'der', type: 'spki' }).subarray(-32));
  return { publicKey, secretKey: Buffer.from(secretKey) };
}

/** Makes a new pair from the machine's secure randomness. */
export function randomKeyPair(): KeyPair {
  return keyPairFromSecret(randomBytes(32));
}

/**
 * Writes bytes in Z85, the form in which ZeroMQ takes keys (ZeroMQ RFC 32): 32 bytes become 40 characters.
 *
 * @throws RangeError if the length is not a multiple of 4
 */
export function toZ85(bytes: Uint8Array): string {
  if (bytes.length % 4 !== 0) throw new RangeError(`Z85 needs a multiple of 4 bytes, not ${bytes.length}`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let text = '';
  for (let offset = 0; offset < bytes.length; offset += 4) {
    let value = view.getUint32(offset);
    let group = '';
    for (let i = 0; i < 5; i++) {
      group = Z85[value % 85] + group;
      value = Math.floor(value / 85);
    }
    text += group;
  }
  return text;
}
