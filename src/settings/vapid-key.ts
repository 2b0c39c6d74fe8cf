import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { writeNewSecret } from './key-file.ts';

const CURVE = 'prime256v1';

/**
 * Makes a key on the curve P-256 for VAPID (RFC 8292) and writes it to `path` as PEM, readable only by its owner.
 *
 * @returns the public key, as {@link vapidPublicKey} writes it
 * @throws Error if the file exists: push services accept pushes for an app only from the key that it registered with
 */
export function generateVapidKeyFile(path: string): string {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: CURVE });
  writeNewSecret(path, privateKey.export({ type: 'pkcs8', format: 'pem' }).toString());
  return vapidPublicKey(privateKey);
}

/** The public half as apps need it to register at their push service: 65 bytes in base64url. */
export function vapidPublicKey(key: KeyObject): string {
  const { x = '', y = '' } = createPublicKey(key).export({ format: 'jwk' });
  return Buffer.concat([Buffer.of(0x04), Buffer.from(x, 'base64url'), Buffer.from(y, 'base64url')]).toString(
    'base64url',
  );
}

/** Reads a VAPID key: PEM, as "spns keygen --vapid" writes it. @throws Error with a sentence that follows the path */
export function readVapidKey(path: string): KeyObject {
  let pem: Buffer;
  try {
    pem = readFileSync(path);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT') throw new Error('does not exist: create it with "spns keygen --vapid"', { cause: error });
    if (code === 'EACCES') throw new Error('may not be read by this user: give it the right owner', { cause: error });
    throw new Error(`cannot be read (${code})`, { cause: error });
  }
  let key: KeyObject;
  try {
    key = createPrivateKey(pem);
  } catch (error) {
    throw new Error('holds no private key: it must be a PEM file, as "spns keygen --vapid" makes it', { cause: error });
  }
  if (key.asymmetricKeyType !== 'ec' || key.asymmetricKeyDetails?.namedCurve !== CURVE) {
    throw new Error('holds the wrong kind of key: it must be on the curve P-256');
  }
  return key;
}
