import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import tls from 'node:tls';
import pg from 'pg';
import { type Conninfo, ConninfoError, type Host, parseConninfo } from './conninfo.ts';
import { passwordFor } from './passfile.ts';
import { sqlState } from './store-error.ts';

/**
 * A client that is connected, and the socket below it: only destroying that ends a connection whose other end is
 * silent.
 */
export interface OpenClient {
  readonly client: pg.Client;
  readonly socket: net.Socket;
}

/** Where Unix sockets are sought: Debian's folder, and PostgreSQL's own. */
const SOCKET_FOLDERS = ['/var/run/postgresql', '/tmp'] as const;
const APPLICATION = 'spns hivemind';

/**
 * Reads an address of the database for this process.
 *
 * @throws ConninfoError
 */
export function conninfo(url: string): Conninfo {
  return parseConninfo(url, { env: process.env, user: os.userInfo().username, home: os.homedir() });
}

/** Options of {@link openClient}. */
export interface OpenOptions {
  /** Ends the attempts. */
  readonly stopping?: AbortSignal | undefined;
  /** Servers that accept no changes are skipped, whether the address says so (`target_session_attrs`) or not. */
  readonly mustWrite?: boolean;
}

/**
 * Connects as libpq would, trying one server after the other, with and without TLS as `sslmode` says.
 *
 * @param url as {@link parseConninfo} takes it
 * @param timeout milliseconds that one attempt may take, unless the address has a `connect_timeout`
 * @throws ConninfoError, or the last attempt's error
 */
export async function openClient(
  url: string,
  timeout: number,
  { stopping, mustWrite = false }: OpenOptions = {},
): Promise<OpenClient> {
  const info = conninfo(url);
  let failure: unknown;
  for (const host of info.hosts.map(withSocketFolder)) {
    for (const secure of tlsAttempts(info, host)) {
      stopping?.throwIfAborted();
      const attempt = makeClient(info, host, secure, timeout);
      attempt.client.on('error', () => undefined);
      const stop = () => attempt.socket.destroy();
      stopping?.addEventListener('abort', stop);
      try {
        await attempt.client.connect();
        const refusal = mustWrite || info.mustWrite ? await refusalToWrite(attempt.client, timeout) : undefined;
        if (refusal === undefined) return attempt;
        attempt.socket.destroy();
        failure = refusal;
        // Without TLS it would be the same server.
        break;
      } catch (error) {
        attempt.socket.destroy();
        failure = readable(error as Error, info);
        // The password is not tried again where it was refused, least of all in the clear.
        if (!isWorthAnother(failure)) throw failure;
      } finally {
        stopping?.removeEventListener('abort', stop);
      }
    }
  }
  throw failure;
}

/**
 * Makes sure that a client keeps the server's process that it has: our lock and settings belong to that. Behind a
 * pooler in transaction mode each statement may go to another, and somebody else gets ours.
 *
 * @param pid what pg_backend_pid() said on it
 * @param timeout as of {@link openClient}
 * @throws Error with a sentence
 */
export async function requireSession(client: pg.Client, pid: number, url: string, timeout: number): Promise<void> {
  // A pooler tells clients a number of its own. PostgreSQL tells its process's.
  if ((client as unknown as { processID?: number }).processID === pid) return;
  const { client: other } = await openClient(url, timeout);
  try {
    // A pooler gives out what was used last.
    const { rows } = await other.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
    if (rows[0]?.pid !== pid) return;
  } finally {
    await other.end().catch(() => undefined);
  }
  throw new Error(
    'the pooler in front of it gives the same connection to several clients: set pool_mode = session, or connect directly',
  );
}

/** Why a server takes no changes; undefined if it does. */
async function refusalToWrite(client: pg.Client, timeout: number): Promise<Error | undefined> {
  const query = { text: 'SHOW transaction_read_only', query_timeout: timeout };
  const { rows } = await client.query<{ transaction_read_only: string }>(query);
  if (rows[0]?.transaction_read_only === 'off') return undefined;
  return new Error('it accepts no changes: it is a standby, or default_transaction_read_only is on');
}

/** Whether TLS is used, in the order of the attempts. */
function tlsAttempts({ sslmode }: Conninfo, { host }: Host): boolean[] {
  if (host.startsWith('/') || sslmode === 'disable') return [false];
  if (sslmode === 'allow') return [false, true];
  return sslmode === 'prefer' ? [true, false] : [true];
}

/** No connection, TLS not to be had or not good, this way in not open (28000), or the server not up yet (57P03). */
function isWorthAnother(error: unknown): boolean {
  const state = sqlState(error);
  return state === undefined || state === '28000' || state === '57P03';
}

function readable(error: Error, info: Conninfo): Error {
  if (!/password must be a (non-empty )?string/.test(error.message)) return error;
  return Object.assign(
    new Error(`the server asks for a password, and there is none in the address, in PGPASSWORD or in ${info.passfile}`),
    { code: '28P01' },
  );
}

function makeClient(info: Conninfo, host: Host, secure: boolean, timeout: number): OpenClient {
  const socket = new Socket(host.hostaddr);
  const client = new pg.Client({
    host: host.host || host.hostaddr,
    port: host.port,
    user: info.user,
    database: info.database,
    // Given by a function, or the client would look into ~/.pgpass for want of one, whatever file was named.
    password: () => info.password ?? passwordFor(info, host) ?? '',
    application_name: info.applicationName ?? APPLICATION,
    options: info.options,
    ssl: secure && tlsOptions(info),
    connectionTimeoutMillis: info.connectTimeout === undefined ? timeout : info.connectTimeout * 1000,
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
    stream: () => socket,
  });
  return { client, socket };
}

/** Connects to the address that is given beside the name; the name stays what the certificate is held against. */
class Socket extends net.Socket {
  readonly #address: string | undefined;

  constructor(address: string | undefined) {
    super();
    this.#address = address;
  }

  // biome-ignore lint/suspicious/noExplicitAny: node's own signature is a union of several
  override connect(...args: any[]): this {
    const [port, ...rest] = args;
    if (this.#address !== undefined && typeof port === 'number') return super.connect(port, this.#address);
    return super.connect(port, ...rest);
  }
}

/** What libpq makes of sslmode and the files: with certificate authorities at hand, their word counts in every mode. */
function tlsOptions(info: Conninfo): tls.ConnectionOptions {
  const { sslmode, sslrootcert } = info;
  const isSystem = sslrootcert === 'system';
  const verifies = sslmode === 'verify-ca' || sslmode === 'verify-full';
  const authorities = isSystem ? tls.getCACertificates('system').join('\n') : readFile(sslrootcert);
  if (verifies && authorities === undefined) {
    throw new ConninfoError(
      `sslmode=${sslmode} needs the certificates of the authorities, and ${sslrootcert} is not there: name them by sslrootcert`,
    );
  }
  const certificate = readFile(info.sslcert);
  const key = certificate === undefined ? undefined : readFile(info.sslkey);
  if (certificate !== undefined && key === undefined)
    throw new ConninfoError(`the certificate ${info.sslcert} has no key: ${info.sslkey} is not there`);
  return {
    rejectUnauthorized: authorities !== undefined,
    ...(authorities !== undefined && { ca: authorities }),
    ...(sslmode !== 'verify-full' && { checkServerIdentity: () => undefined }),
    ...(certificate !== undefined && { cert: certificate, key, passphrase: info.sslpassword }),
    minVersion: info.sslMinProtocol as tls.SecureVersion,
    ...(info.sslMaxProtocol && { maxVersion: info.sslMaxProtocol as tls.SecureVersion }),
  };
}

/** @throws ConninfoError if it is there and may not be read */
function readFile(path: string): string | undefined {
  try {
    return fs.readFileSync(path, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // A home that this user may not look into has nothing for it.
    if (code === 'ENOENT' || code === 'ENOTDIR' || (code === 'EACCES' && path.startsWith(`${os.homedir()}/`)))
      return undefined;
    throw new ConninfoError(`${path} cannot be read (${code})`);
  }
}

/** Without a host the server is sought at its Unix socket. */
function withSocketFolder(host: Host): Host {
  if (host.host.startsWith('@'))
    throw new ConninfoError('a host that starts with @ (an abstract socket) is not supported');
  if (host.host !== '' || host.hostaddr !== undefined) return host;
  const found = SOCKET_FOLDERS.find((folder) => fs.existsSync(`${folder}/.s.PGSQL.${host.port}`));
  return { ...host, host: found ?? SOCKET_FOLDERS[0] };
}
