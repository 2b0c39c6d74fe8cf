import { keyPairFromSecret } from '../oxenmq/keys.ts';
import { generateKeyFile, readKeyFile } from '../settings/key-file.ts';
import { generateVapidKeyFile, readVapidKey, vapidPublicKey } from '../settings/vapid-key.ts';
import { CliError, type Command, print } from './command.ts';

export const command: Command = {
  summary: 'Creates an X25519 key, which the hivemind and the web front-end each need, or a key for Web Push',
  words: ['FILE'],
  help: [
    'Writes the secret key to FILE, readable only by its owner, and prints the public key. Clients encrypt their onion',
    'requests to the public key of the web front-end; apps register at their push service with that for Web Push.',
    'A file that exists is never overwritten.',
  ].join('\n'),
  options: {
    vapid: { type: 'boolean', help: 'make a key for the notifier webpush (VAPID, RFC 8292)' },
    show: { type: 'boolean', help: 'print the public key of the key in FILE; nothing is written' },
  },
  async run({ words: [file = ''], is }) {
    const make = is('vapid') ? generateVapidKeyFile : generateKeyFile;
    const show = is('vapid') ? showVapid : showX25519;
    try {
      print((is('show') ? show : make)(file));
    } catch (error) {
      throw new CliError((error as Error).message);
    }
    return 0;
  },
};

function showVapid(file: string): string {
  try {
    return vapidPublicKey(readVapidKey(file));
  } catch (error) {
    throw new Error(`${file} ${(error as Error).message}`, { cause: error });
  }
}

function showX25519(file: string): string {
  return keyPairFromSecret(readKeyFile(file).key).publicKey.toString('hex');
}
