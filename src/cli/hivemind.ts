import { systemClock } from '../clock.ts';
import { parseJson } from '../codec/json.ts';
import { type Address, AddressError, parseAddress } from '../oxenmq/address.ts';
import { connectAddress } from '../oxenmq/bind-address.ts';
import { ipcTrouble } from '../oxenmq/ipc-trouble.ts';
import { keyPairFromSecret } from '../oxenmq/keys.ts';
import { type Connection, Peers } from '../oxenmq/peers.ts';
import { OxenmqError, type Part } from '../oxenmq/remote.ts';
import { readKeyFile } from '../settings/key-file.ts';
import { CliError, type Given, type Option } from './command.ts';
import { CONFIG, readReach } from './locate.ts';

/** The options of every command that talks to the hivemind. */
export const TO_HIVEMIND: { readonly [name: string]: Option } = {
  config: CONFIG,
  connect: {
    type: 'string',
    value: 'ADDRESS',
    help: 'the hivemind itself, without a configuration, such as curve://HOST:PORT/PUBLICKEY',
  },
  key: { type: 'string', value: 'FILE', help: 'with --connect: our key, one of those in listen_curve_admin' },
};

/** An open connection to a hivemind, as an admin. */
export interface Admin {
  /** @param timeout in milliseconds. Throws CliError with a sentence. */
  ask(request: string, parts?: readonly Part[], timeout?: number): Promise<unknown>;
  close(): Promise<void>;
}

/** A hivemind on this machine answers at once, one far away within a second. */
const HELLO_MS = 5_000;

/** Connects as the options say. Throws CliError with a sentence that says what to do. */
async function connectAdmin(given: Given): Promise<Admin> {
  const { address, advice } = destination(given);
  const key = given.text('key');
  const keys = key === undefined ? undefined : keyPairFromSecret(readKey(key));
  let heard = () => {};
  let failed = (_error: Error) => {};
  const peers = new Peers({
    clock: systemClock,
    ...(keys && { keys }),
    commands: {},
    helloTimeout: HELLO_MS,
    on: { hello: () => heard(), failure: (_connection, reason) => failed(new Error(reason)) },
  });
  let connection: Connection;
  try {
    await new Promise<void>((resolve, reject) => {
      [heard, failed] = [resolve, reject];
      connection = peers.connect(address);
    });
  } catch (error) {
    await peers.close();
    throw new CliError(`no hivemind answers: ${(error as Error).message}. ${advice}`);
  }
  return {
    async ask(request, parts = [], timeout = 15_000) {
      try {
        const [reply] = await connection.request(request, parts, timeout);
        return parseJson(reply ?? 'null');
      } catch (error) {
        throw new CliError(failure(request, error as Error));
      }
    },
    close: () => peers.close(),
  };
}

/** Connects, does it, and closes. */
export async function withAdmin<T>(given: Given, use: (admin: Admin) => Promise<T>): Promise<T> {
  const admin = await connectAdmin(given);
  try {
    return await use(admin);
  } finally {
    await admin.close();
  }
}

function destination(given: Given): { address: Address; advice: string } {
  const named = given.text('connect');
  if (named !== undefined) {
    return {
      address: parsed(named),
      advice: 'Is the address right, and is the public key of your --key among listen_curve_admin there?',
    };
  }
  if (given.text('key') !== undefined)
    throw new CliError('--key goes with --connect: without it the local socket needs none');
  const { file, listen } = readReach(given);
  const advice = `Is it running (systemctl status spns-hivemind), with the same listen = ${listen} as in ${file}?`;
  const address = connectAddress(listen);
  const trouble = address.path === undefined ? undefined : ipcTrouble(address.path);
  if (trouble)
    throw new CliError(
      `no hivemind answers: ${trouble.text}. ${trouble.lasting ? 'Or run this command as root' : advice}`,
    );
  return { address, advice };
}

function parsed(text: string): Address {
  try {
    return parseAddress(text);
  } catch (error) {
    if (!(error instanceof AddressError)) throw error;
    throw new CliError(`${text} is no address: ${error.message}`);
  }
}

function readKey(file: string): Buffer {
  try {
    return readKeyFile(file).key;
  } catch (error) {
    throw new CliError((error as Error).message);
  }
}

function failure(request: string, error: Error): string {
  if (!(error instanceof OxenmqError)) return `the hivemind's answer to ${request} cannot be read: ${error.message}`;
  switch (error.code) {
    case 'TIMEOUT':
      return `the hivemind did not answer ${request} in time: it is overloaded, or stuck; look at its log and its status page`;
    case 'FORBIDDEN':
      return `the hivemind refuses ${request}: that socket is not an admin's`;
    case 'UNKNOWNCOMMAND':
      return `the hivemind does not know ${request}: it is of another version than this command`;
    default:
      return `the hivemind did not answer ${request}: ${error.message}`;
  }
}
