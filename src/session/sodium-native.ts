/** libsodium as machine code, from the optional package sodium-native: where it loads, twice as fast as WebAssembly. */

import { createRequire } from 'node:module';
import { type Libsodium, wasm } from './sodium-wasm.ts';

/** The part of the package that is used. It is CommonJS, has no types, and writes its results into given buffers. */
interface SodiumNative {
  crypto_sign_verify_detached(signature: Uint8Array, message: Uint8Array, publicKey: Uint8Array): boolean;
  crypto_sign_seed_keypair(publicKey: Uint8Array, secretKey: Uint8Array, seed: Uint8Array): void;
  crypto_sign_detached(signature: Uint8Array, message: Uint8Array, secretKey: Uint8Array): void;
  crypto_sign_ed25519_pk_to_curve25519(x25519: Uint8Array, ed25519: Uint8Array): void;
  crypto_scalarmult_base(publicKey: Uint8Array, secretKey: Uint8Array): void;
  crypto_scalarmult(shared: Uint8Array, secretKey: Uint8Array, publicKey: Uint8Array): void;
  crypto_generichash(hash: Uint8Array, data: Uint8Array, key?: Uint8Array): void;
  crypto_aead_xchacha20poly1305_ietf_encrypt(
    ciphertext: Uint8Array,
    plaintext: Uint8Array,
    additional: null,
    secretNonce: null,
    nonce: Uint8Array,
    key: Uint8Array,
  ): void;
  crypto_aead_xchacha20poly1305_ietf_decrypt(
    plaintext: Uint8Array,
    secretNonce: null,
    ciphertext: Uint8Array,
    additional: null,
    nonce: Uint8Array,
    key: Uint8Array,
  ): void;
}

/** The package demands the key size that libsodium only recommends for BLAKE2b; some of our keys are shorter. */
const MIN_BLAKE2B_KEY = 16;
const TAG = 16;

/** Undefined where the package was not installed, or its machine code does not run. */
export const native: Libsodium | undefined = load();

function load(): Libsodium | undefined {
  let sodium: SodiumNative;
  try {
    sodium = createRequire(import.meta.url)('sodium-native') as SodiumNative;
  } catch {
    return undefined;
  }
  return {
    verify: (signature, message, publicKey) => sodium.crypto_sign_verify_detached(signature, message, publicKey),
    keyPair: (seed) => {
      const [publicKey, secretKey] = [Buffer.alloc(32), Buffer.alloc(64)];
      sodium.crypto_sign_seed_keypair(publicKey, secretKey, seed);
      return { publicKey, secretKey };
    },
    sign: (message, secretKey) => filled(64, (signature) => sodium.crypto_sign_detached(signature, message, secretKey)),
    toX25519: (ed25519) => unlessRefused(32, (key) => sodium.crypto_sign_ed25519_pk_to_curve25519(key, ed25519)),
    x25519Public: (secretKey) => filled(32, (publicKey) => sodium.crypto_scalarmult_base(publicKey, secretKey)),
    x25519: (secretKey, publicKey) =>
      unlessRefused(32, (shared) => sodium.crypto_scalarmult(shared, secretKey, publicKey)),
    blake2b: (size, data, key) => {
      if (key && key.length < MIN_BLAKE2B_KEY) return wasm.blake2b(size, data, key);
      return filled(size, (hash) => sodium.crypto_generichash(hash, data, key));
    },
    encrypt: (plaintext, nonce, key) =>
      filled(plaintext.length + TAG, (ciphertext) =>
        sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(ciphertext, plaintext, null, null, nonce, key),
      ),
    decrypt: (ciphertext, nonce, key) =>
      unlessRefused(ciphertext.length - TAG, (plaintext) =>
        sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(plaintext, null, ciphertext, null, nonce, key),
      ),
  };
}

/** Not from Node's pool, where a small result that is kept would keep its neighbours in memory. */
function filled(size: number, fill: (result: Buffer) => void): Buffer {
  const result = Buffer.alloc(size);
  fill(result);
  return result;
}

/** Undefined where the package throws, which is the only way it reports a refusal. */
function unlessRefused(size: number, fill: (result: Buffer) => void): Buffer | undefined {
  try {
    return filled(size, fill);
  } catch {
    return undefined;
  }
}
