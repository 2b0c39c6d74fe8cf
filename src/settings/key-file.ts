import { randomBytes } from 'node:crypto';
import { closeSync, fstatSync, openSync, readSync, writeFileSync } from 'node:fs';
import { keyPairFromSecret } from '../oxenmq/keys.ts';

/** Length of an X25519 key, secret or public, in bytes. */
const KEY_SIZE = 32;
/** More than a key file can hold: 64 hex digits and some blanks. */
const LONGEST_FILE = 1024;

/**
 * Reads an X25519 secret key: a file of 32 raw bytes, or of 64 hex digits with blanks or line ends around them
 * (docs/spec/hivemind.md, section 5).
 *
 * @returns the 32 bytes, and whether any user of the machine may read or change the file
 * @throws Error that says what is wrong with the file and what to do
 */
export function readKeyFile(path: string): { key: Buffer; exposed: boolean } {
  let content: Buffer;
  let mode: number;
  try {
    const file = openSync(path, 'r');
    try {
      mode = fstatSync(file).mode;
      const buffer = Buffer.alloc(LONGEST_FILE + 1);
      content = buffer.subarray(0, readSync(file, buffer, 0, buffer.length, 0));
    } finally {
      closeSync(file);
    }
  } catch (error) {
    throw new Error(unreadable(path, error), { cause: error });
  }
  const exposed = (mode & 0o006) !== 0;
  if (content.length === KEY_SIZE) return { key: content, exposed };
  const text = content.toString('latin1').trim();
  if (/^[0-9a-f]{64}$/i.test(text)) return { key: Buffer.from(text, 'hex'), exposed };
  const size = content.length > LONGEST_FILE ? `more than ${LONGEST_FILE}` : content.length;
  throw new Error(
    `${path} holds ${size} bytes that are not a key: it must be 32 raw bytes or 64 hex digits; check the path, or make a key with "spns keygen"`,
  );
}

/**
 * Makes a new X25519 key and writes its secret half to `path` as 64 hex digits, readable only by its owner.
 *
 * @returns the public key as 64 hex digits
 * @throws Error if the file exists: overwriting a key would lose the onion address or the notifiers' identities
 */
export function generateKeyFile(path: string, random: (bytes: number) => Buffer = randomBytes): string {
  const secret = random(KEY_SIZE);
  writeNewSecret(path, `${secret.toString('hex')}\n`);
  return keyPairFromSecret(secret).publicKey.toString('hex');
}

/** Writes a file that only its owner may read. @throws Error with a sentence if it exists */
export function writeNewSecret(path: string, text: string): void {
  try {
    writeFileSync(path, text, { flag: 'wx', mode: 0o600 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    throw new Error(`${path} is already there and is not overwritten: move it away first if you want a new key`, {
      cause: error,
    });
  }
}

function unreadable(path: string, error: unknown): string {
  const code = (error as NodeJS.ErrnoException).code;
  if (code === 'ENOENT') return `${path} does not exist: create it with "spns keygen ${path}", or correct the path`;
  if (code === 'EACCES')
    return `${path} may not be read by this user: give it the right owner, or use systemd's LoadCredential`;
  return `${path} cannot be read (${code ?? error}): check the path`;
}
