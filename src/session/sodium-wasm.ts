/** libsodium as WebAssembly, which runs wherever Node does. */

import { createPrivateKey, createPublicKey, diffieHellman, type KeyObject } from 'node:crypto';
import sodium from 'libsodium-wrappers';

await sodium.ready;

/**
 * The part of libsodium that is used, whichever build of it runs. The caller (session/sodium.ts) has checked the sizes
 * of keys, nonces and signatures.
 */
export interface Libsodium {
  verify(signature: Uint8Array, message: Uint8Array, publicKey: Uint8Array): boolean;
  keyPair(seed: Uint8Array): { readonly publicKey: Buffer; readonly secretKey: Buffer };
  sign(message: Uint8Array, secretKey: Uint8Array): Buffer;
  /** Undefined if the key is not a point of the curve, or one of small order. */
  toX25519(ed25519: Uint8Array): Buffer | undefined;
  x25519Public(secretKey: Uint8Array): Buffer;
  /** Undefined if the public key is of low order, so that the result would be all zeros. */
  x25519(secretKey: Uint8Array, publicKey: Uint8Array): Buffer | undefined;
  blake2b(size: number, data: Uint8Array, key: Uint8Array | undefined): Buffer;
  encrypt(plaintext: Uint8Array, nonce: Uint8Array, key: Uint8Array): Buffer;
  /** Undefined if the tag does not match. */
  decrypt(ciphertext: Uint8Array, nonce: Uint8Array, key: Uint8Array): Buffer | undefined;
}

/** X25519 is node:crypto's here, which takes less than half of wasm's time and agrees with it on all keys. */
export const wasm: Libsodium = {
  verify: (signature, message, publicKey) => sodium.crypto_sign_verify_detached(signature, message, publicKey),
  keyPair: (seed) => {
    const { publicKey, privateKey } = sodium.crypto_sign_seed_keypair(seed);
    return { publicKey: asBuffer(publicKey), secretKey: asBuffer(privateKey) };
  },
  sign: (message, secretKey) => asBuffer(sodium.crypto_sign_detached(message, secretKey)),
  toX25519: (ed25519) => unlessRefused(() => sodium.crypto_sign_ed25519_pk_to_curve25519(ed25519)),
  x25519Public: (secretKey) => asBuffer(sodium.crypto_scalarmult_base(secretKey)),
  x25519: (secretKey, publicKey) => {
    const privateKey = privateKeyObject(secretKey);
    return unlessRefused(() => diffieHellman({ privateKey, publicKey: publicKeyObject(publicKey) }));
  },
  blake2b: (size, data, key) => asBuffer(sodium.crypto_generichash(size, data, key ?? null)),
  encrypt: (plaintext, nonce, key) =>
    asBuffer(sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, null, null, nonce, key)),
  decrypt: (ciphertext, nonce, key) =>
    unlessRefused(() => sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(null, ciphertext, null, nonce, key)),
};

/** Undefined where a library throws, which is the only way it reports a refusal. */
function unlessRefused(compute: () => Uint8Array): Buffer | undefined {
  try {
    return asBuffer(compute());
  } catch {
    return undefined;
  }
}

// The DER that precedes the 32 bytes of a raw key: the structure, and X25519 as the algorithm.
const PKCS8_X25519 = Buffer.from('302e020100300506032b656e04220420', 'hex');
const SPKI_X25519 = Buffer.from('302a300506032b656e032100', 'hex');

// Making a key object from a secret key costs a multiplication, as much as using it, so the objects are kept: the
// server's key is used for every request.
const privateKeys = new WeakMap<Uint8Array, { bytes: Buffer; object: KeyObject }>();

function privateKeyObject(secretKey: Uint8Array): KeyObject {
  const known = privateKeys.get(secretKey);
  if (known?.bytes.equals(secretKey)) return known.object;
  const object = createPrivateKey({ key: Buffer.concat([PKCS8_X25519, secretKey]), format: 'der', type: 'pkcs8' });
  privateKeys.set(secretKey, { bytes: Buffer.from(secretKey), object });
  return object;
}

function publicKeyObject(publicKey: Uint8Array): KeyObject {
  return createPublicKey({ key: Buffer.concat([SPKI_X25519, publicKey]), format: 'der', type: 'spki' });
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
