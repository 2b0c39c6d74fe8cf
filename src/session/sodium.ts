/**
 * The cryptographic functions that Session's protocols are made of, with the sizes of their arguments checked.
 *
 * They are libsodium's, because everyone else in the network verifies as strictly as it does (no small-order or
 * non-canonical keys): its machine code where that loads, or else its WebAssembly (docs/decisions/23). The choice is
 * made here and nowhere else.
 */

import { native } from './sodium-native.ts';
import { wasm } from './sodium-wasm.ts';

const sodium = native ?? wasm;

/** Which build of libsodium runs. */
export const build: 'native' | 'wasm' = sodium === wasm ? 'wasm' : 'native';

/** An Ed25519 pair: a public key of 32 bytes and libsodium's secret key of 64 (seed and public key). */
export interface Ed25519KeyPair {
  readonly publicKey: Buffer;
  readonly secretKey: Buffer;
}

/**
 * Whether `signature` (64 bytes) over `message` was made by the holder of `publicKey` (32 bytes). False for other
 * sizes, for S >= L, and for keys of small order.
 */
export function ed25519Verify(signature: Uint8Array, message: Uint8Array, publicKey: Uint8Array): boolean {
  if (signature.length !== 64 || publicKey.length !== 32) return false;
  return sodium.verify(signature, message, publicKey);
}

/** The Ed25519 pair of a seed of 32 bytes. */
export function ed25519KeyPair(seed: Uint8Array): Ed25519KeyPair {
  checkSize('Ed25519 seed', seed, 32);
  return sodium.keyPair(seed);
}

/** The signature (64 bytes) of `message` by a secret key of 64 bytes. */
export function ed25519Sign(message: Uint8Array, secretKey: Uint8Array): Buffer {
  checkSize('Ed25519 secret key', secretKey, 64);
  return sodium.sign(message, secretKey);
}

/**
 * The X25519 public key (32 bytes) that an Ed25519 public key converts to.
 *
 * @returns undefined if it is not 32 bytes, not a point of the curve, or one of small order
 */
export function edToX25519Public(publicKey: Uint8Array): Buffer | undefined {
  return publicKey.length === 32 ? sodium.toX25519(publicKey) : undefined;
}

/** The X25519 public key (32 bytes) of a secret key of 32 bytes. */
export function x25519Public(secretKey: Uint8Array): Buffer {
  checkSize('X25519 secret key', secretKey, 32);
  return sodium.x25519Public(secretKey);
}

/**
 * The secret (32 bytes) that two X25519 key pairs share, from the secret key of one and the public key of the other.
 *
 * @returns undefined if the public key is not 32 bytes or of low order, so that the result would be all zeros
 */
export function x25519(secretKey: Uint8Array, publicKey: Uint8Array): Buffer | undefined {
  checkSize('X25519 secret key', secretKey, 32);
  return publicKey.length === 32 ? sodium.x25519(secretKey, publicKey) : undefined;
}

/**
 * BLAKE2b.
 *
 * @param size of the result, 16 to 64 bytes
 * @param key up to 64 bytes, for a keyed hash
 */
export function blake2b(size: number, data: Uint8Array, key?: Uint8Array): Buffer {
  return sodium.blake2b(size, data, key);
}

/**
 * XChaCha20-Poly1305-IETF without additional data: nonce 24 bytes, key 32 bytes; the result ends with the 16-byte tag.
 */
export function xchachaEncrypt(plaintext: Uint8Array, nonce: Uint8Array, key: Uint8Array): Buffer {
  checkSize('XChaCha20 nonce', nonce, 24);
  checkSize('XChaCha20 key', key, 32);
  return sodium.encrypt(plaintext, nonce, key);
}

/**
 * The reverse of {@link xchachaEncrypt}.
 *
 * @returns undefined if the bytes were not made with this key and nonce
 */
export function xchachaDecrypt(ciphertext: Uint8Array, nonce: Uint8Array, key: Uint8Array): Buffer | undefined {
  checkSize('XChaCha20 nonce', nonce, 24);
  checkSize('XChaCha20 key', key, 32);
  return ciphertext.length < 16 ? undefined : sodium.decrypt(ciphertext, nonce, key);
}

function checkSize(what: string, bytes: Uint8Array, size: number): void {
  if (bytes.length !== size) throw new RangeError(`${what} of ${bytes.length} bytes: expected ${size}`);
}
