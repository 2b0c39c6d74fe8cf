import { systemClock } from '../clock.ts';
import { parseJson } from '../codec/json.ts';
import { type Address, AddressError, parseAddress } from '../oxenmq/address.ts';
import { connectAddress } from '../oxenmq/bind-address.ts';
import { ipcTrouble } from '../oxenmq/ipc-trouble.ts';
import { type KeyPair, keyPairFromSecret } from '../oxenmq/keys.ts';
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
    help: 'the address of the hivemind, to do without a configuration, such as curve://HOST:PORT/PUBLICKEY',
  },
  key: {
    type: 'string',
    value: 'FILE',
    help: 'with --connect: your secret key, whose public key is in listen_curve_admin there',
  },
};

/** An open connection to a hivemind, as an admin. */
export interface Admin {
  /**
   * Sends a request and parses the JSON answer.
   *
   * @param timeout in milliseconds
   * @throws CliError with a sentence
   */
  ask(request: string, parts?: readonly Part[], timeout?: number): Promise<unknown>;
  /**
   * Asks the hivemind and all others of its cluster for their figures.
   *
   * @param request `get_stats`, `get_nodes` or `get_services`
   * @throws CliError with a sentence, if not even the one at the other end answers
   */
  askAll(request: string): Promise<Answers>;
  close(): Promise<void>;
}

/** What the hiveminds of a cluster answered. */
export interface Answers {
  /** By name; under '' the answer of a hivemind that is alone. */
  readonly answers: ReadonlyMap<string, unknown>;
  /** Sentences about those that did not answer, and why. */
  readonly troubles: readonly string[];
}

/** A hivemind on this machine answers at once, one far away within a second. */
const HELLO_MS = 5_000;

/** Connects as the options say. @throws CliError with a sentence that says what to do */
async function connectAdmin(given: Given): Promise<Admin> {
  const { addresses, advice } = destinations(given);
  const key = given.text('key');
  const keys = key === undefined ? undefined : keyPairFromSecret(readKey(key));
  const reasons: string[] = [];
  for (const address of addresses) {
    const link = await connect(address, keys);
    if (typeof link !== 'string') return adminOver(link);
    reasons.push(link);
  }
  throw new CliError(`no hivemind answers: ${[...new Set(reasons)].join('; ')}. ${advice}`);
}

interface AdminLink {
  readonly peers: Peers;
  readonly connection: Connection;
}

/** Connects to one address; returns the reason, in words, if nobody answers there. */
async function connect(address: Address, keys: KeyPair | undefined): Promise<AdminLink | string> {
  const trouble = address.path === undefined ? undefined : ipcTrouble(address.path);
  if (trouble) return trouble.lasting ? `${trouble.text}. Or run this command as root` : trouble.text;
  let heard = () => {};
  let failed = (_error: Error) => {};
  const peers = new Peers({
    clock: systemClock,
    ...(keys && { keys }),
    commands: {},
    helloTimeout: HELLO_MS,
    on: { hello: () => heard(), failure: (_connection, reason) => failed(new Error(reason)) },
  });
  try {
    const connection = await new Promise<Connection>((resolve, reject) => {
      const made = peers.connect(address);
      [heard, failed] = [() => resolve(made), reject];
    });
    return { peers, connection };
  } catch (error) {
    await peers.close();
    return (error as Error).message;
  }
}

function adminOver({ peers, connection }: AdminLink): Admin {
  const ask = async (request: string, parts: readonly Part[] = [], timeout = 15_000): Promise<unknown> => {
    try {
      const [reply] = await connection.request(request, parts, timeout);
      return parseJson(reply ?? 'null');
    } catch (error) {
      throw new CliError(failure(request, error as Error), { cause: error });
    }
  };
  return {
    ask,
    async askAll(request) {
      const said = (await ask('admin.ask_members', [request]).catch((error: CliError) => {
        // It is an older version, or the original.
        if (error.cause instanceof OxenmqError && error.cause.code === 'UNKNOWNCOMMAND') return null;
        throw error;
      })) as Record<string, { answer?: unknown; trouble?: string }> | null;
      if (said === null) return { answers: new Map([['', await ask(`admin.${request}`)]]), troubles: [] };
      const each = Object.entries(said);
      return {
        answers: new Map(each.flatMap(([name, { answer }]) => (answer === undefined ? [] : [[name, answer]]))),
        troubles: each.flatMap(([name, { trouble }]) =>
          trouble === undefined ? [] : [`the hivemind ${name} does not answer: ${trouble}`],
        ),
      };
    },
    close: () => peers.close(),
  };
}

/** Connects, calls `use`, and closes the connection. */
export async function withAdmin<T>(given: Given, use: (admin: Admin) => Promise<T>): Promise<T> {
  const admin = await connectAdmin(given);
  try {
    return await use(admin);
  } finally {
    await admin.close();
  }
}

/** Where to look for a hivemind: of several on this machine any one will do. */
function destinations(given: Given): { addresses: readonly Address[]; advice: string } {
  const named = given.text('connect');
  if (named !== undefined) {
    return {
      addresses: [parsed(named)],
      advice: 'Is the address right, and is the public key of your --key among listen_curve_admin there?',
    };
  }
  if (given.text('key') !== undefined)
    throw new CliError('--key goes with --connect: without it the local socket needs none');
  const { file, listens } = readReach(given);
  const advice =
    listens.length === 1
      ? `Is it running (systemctl status spns-hivemind), with the same listen = ${listens[0]} as in ${file}?`
      : `Is one of them running (systemctl status 'spns-hivemind@*'), with the same listen as in ${file}?`;
  return { addresses: listens.map(connectAddress), advice };
}

function parsed(text: string): Address {
  try {
    return parseAddress(text);
  } catch (error) {
    if (!(error instanceof AddressError)) throw error;
    throw new CliError(`${text} is not an address: ${error.message}`);
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
