import { keyPairFromSecret } from '../oxenmq/keys.ts';
import { generateKeyFile, readKeyFile } from '../settings/key-file.ts';
import { generateVapidKeyFile, readVapidKey, vapidPublicKey } from '../settings/vapid-key.ts';
import { CliError, type Command, print } from './command.ts';

export const command: Command = {
  summary: 'Creates an X25519 key, which the hivemind and the web front-end each need, or a key for Web Push',
  words: ['FILE'],
  help: [
    'Writes the secret key to FILE, readable by its owner alone, and prints the public key: of the web',
    "front-end's key, that is what clients encrypt their onion requests for, and of the one for Web Push what apps",
    'register with at their push service. A file that is there is kept.',
  ].join('\n'),
  options: {
    vapid: { type: 'boolean', help: 'a key for the notifier webpush (VAPID, RFC 8292)' },
    show: { type: 'boolean', help: 'the public key of one that is there; nothing is made' },
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
