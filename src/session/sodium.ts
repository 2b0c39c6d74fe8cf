/**
 * The cryptographic functions that Session's protocols are made of, with their sizes checked.
 *
 * Ed25519 is libsodium's, because everyone else in the network verifies with its strictness (no small-order or
 * non-canonical keys); X25519 is node:crypto's, which is three times as fast.
 */

import { createPrivateKey, createPublicKey, diffieHellman, type KeyObject } from 'node:crypto';
import sodium from 'libsodium-wrappers';

await sodium.ready;

/** An Ed25519 pair: a public key of 32 bytes and libsodium's secret key of 64 (seed and public key). */
export interface Ed25519KeyPair {
  readonly publicKey: Buffer;
  readonly secretKey: Buffer;
}

/**
 * Whether `signature` (64 bytes) is the holder of `publicKey`'s (32 bytes) over `message`. False too for other sizes,
 * for S >= L, and for keys of small order.
 */
export function ed25519Verify(signature: Uint8Array, message: Uint8Array, publicKey: Uint8Array): boolean {
  if (signature.length !== 64 || publicKey.length !== 32) return false;
  return sodium.crypto_sign_verify_detached(signature, message, publicKey);
}

/** The Ed25519 pair of a seed of 32 bytes. */
export function ed25519KeyPair(seed: Uint8Array): Ed25519KeyPair {
  checkSize('Ed25519 seed', seed, 32);
  const { publicKey, privateKey } = sodium.crypto_sign_seed_keypair(seed);
  return { publicKey: asBuffer(publicKey), secretKey: asBuffer(privateKey) };
}

/** The signature (64 bytes) of `message` by a secret key of 64 bytes. */
export function ed25519Sign(message: Uint8Array, secretKey: Uint8Array): Buffer {
  checkSize('Ed25519 secret key', secretKey, 64);
  return asBuffer(sodium.crypto_sign_detached(message, secretKey));
}

/**
 * The X25519 public key (32 bytes) that an Ed25519 public key converts to.
 *
 * @returns undefined if it is not 32 bytes, not a point of the curve, or one of small order
 */
export function edToX25519Public(publicKey: Uint8Array): Buffer | undefined {
  if (publicKey.length !== 32) return undefined;
  try {
    return asBuffer(sodium.crypto_sign_ed25519_pk_to_curve25519(publicKey));
  } catch {
    return undefined; // the wrapper's only way to say no
  }
}

/** The X25519 public key (32 bytes) of a secret key of 32 bytes. */
export function x25519Public(secretKey: Uint8Array): Buffer {
  checkSize('X25519 secret key', secretKey, 32);
  return asBuffer(sodium.crypto_scalarmult_base(secretKey));
}

/**
 * What the holders of two X25519 pairs share (32 bytes), from the secret key of one and the public key of the other.
 *
 * @returns undefined if the public key is not 32 bytes or of low order, so that the result would be all zeros
 */
export function x25519(secretKey: Uint8Array, publicKey: Uint8Array): Buffer | undefined {
  const privateKey = privateKeyObject(secretKey);
  if (publicKey.length !== 32) return undefined;
  try {
    return diffieHellman({ privateKey, publicKey: publicKeyObject(publicKey) });
  } catch {
    return undefined; // OpenSSL refuses to derive zeros
  }
}

/**
 * BLAKE2b.
 *
 * @param size of the result, 16 to 64 bytes
 * @param data what to hash
 * @param key of up to 64 bytes, if it is to be keyed
 */
export function blake2b(size: number, data: Uint8Array, key?: Uint8Array): Buffer {
  return asBuffer(sodium.crypto_generichash(size, data, key ?? null));
}

/**
 * XChaCha20-Poly1305-IETF without additional data: nonce 24 bytes, key 32 bytes; the result ends with the 16-byte tag.
 */
export function xchachaEncrypt(plaintext: Uint8Array, nonce: Uint8Array, key: Uint8Array): Buffer {
  checkSize('XChaCha20 nonce', nonce, 24);
  checkSize('XChaCha20 key', key, 32);
  return asBuffer(sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, null, null, nonce, key));
}

/**
 * The reverse of {@link xchachaEncrypt}.
 *
 * @returns undefined if the bytes were not made with this key and nonce
 */
export function xchachaDecrypt(ciphertext: Uint8Array, nonce: Uint8Array, key: Uint8Array): Buffer | undefined {
  checkSize('XChaCha20 nonce', nonce, 24);
  checkSize('XChaCha20 key', key, 32);
  if (ciphertext.length < 16) return undefined;
  try {
    return asBuffer(sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(null, ciphertext, null, nonce, key));
  } catch {
    return undefined; // the wrapper's only way to say no
  }
}

// What stands in front of the 32 bytes of a raw key in DER: the structure and the algorithm, X25519.
const PKCS8_X25519 = Buffer.from('302e020100300506032b656e04220420', 'hex');
const SPKI_X25519 = Buffer.from('302a300506032b656e032100', 'hex');

// Making a key object of a secret key costs a multiplication, as much as using it: the server's is used again and
// again.
const privateKeys = new WeakMap<Uint8Array, { bytes: Buffer; object: KeyObject }>();

function privateKeyObject(secretKey: Uint8Array): KeyObject {
  checkSize('X25519 secret key', secretKey, 32);
  const known = privateKeys.get(secretKey);
  if (known?.bytes.equals(secretKey)) return known.object;
  const object = createPrivateKey({ key: Buffer.concat([PKCS8_X25519, secretKey]), format: 'der', type: 'pkcs8' });
  privateKeys.set(secretKey, { bytes: Buffer.from(secretKey), object });
  return object;
}

function publicKeyObject(publicKey: Uint8Array): KeyObject {
  return createPublicKey({ key: Buffer.concat([SPKI_X25519, publicKey]), format: 'der', type: 'spki' });
}

function checkSize(what: string, bytes: Uint8Array, size: number): void {
  if (bytes.length !== size) throw new RangeError(`${what} of ${bytes.length} bytes: expected ${size}`);
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
