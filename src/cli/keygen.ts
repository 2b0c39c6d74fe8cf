import { generateKeyFile } from '../settings/key-file.ts';
import { generateVapidKeyFile } from '../settings/vapid-key.ts';
import { CliError, type Command, print } from './command.ts';

export const command: Command = {
  summary: 'Makes an X25519 key, as the hivemind and the web front-end need one each, or one for Web Push',
  words: ['FILE'],
  help: [
    'Writes the secret key to FILE, readable by its owner alone, and prints the public key: of the web',
    "front-end's key, that is what clients encrypt their onion requests for, and of the one for Web Push what apps",
    'register with at their push service. A file that is there is kept.',
  ].join('\n'),
  options: { vapid: { type: 'boolean', help: 'a key for the notifier webpush (VAPID, RFC 8292)' } },
  async run({ words: [file = ''], is }) {
    try {
      print(is('vapid') ? generateVapidKeyFile(file) : generateKeyFile(file));
    } catch (error) {
      throw new CliError((error as Error).message);
    }
    return 0;
  },
};
