import { generateKeyFile } from '../settings/key-file.ts';
import { CliError, type Command, print } from './command.ts';

export const command: Command = {
  summary: 'Makes an X25519 key, as the hivemind and the web front-end need one each',
  words: ['FILE'],
  help: [
    'Writes the secret key to FILE, readable by its owner alone, and prints the public key: of the web',
    "front-end's key, that is what clients encrypt their onion requests for. A file that is there is kept.",
  ].join('\n'),
  options: {},
  async run({ words: [file] }) {
    try {
      print(generateKeyFile(file!));
    } catch (error) {
      throw new CliError((error as Error).message);
    }
    return 0;
  },
};
