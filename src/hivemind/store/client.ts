import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import tls from 'node:tls';
import pg from 'pg';
import { type Conninfo, ConninfoError, type Host, parseConninfo } from './conninfo.ts';
import { passwordFor } from './passfile.ts';
import { sqlState } from './store-error.ts';

/** A connected client and its socket: only destroying the socket ends a connection whose other end is silent. */
export interface OpenClient {
  readonly client: pg.Client;
  readonly socket: net.Socket;
}

/** Where Unix sockets are looked for: Debian's folder, and PostgreSQL's own. */
const SOCKET_FOLDERS = ['/var/run/postgresql', '/tmp'] as const;
const APPLICATION = 'spns hivemind';

/**
 * Parses a database address as this process sees it: its environment, user and home.
 *
 * @throws ConninfoError
 */
export function conninfo(url: string): Conninfo {
  return parseConninfo(url, { env: process.env, user: os.userInfo().username, home: os.homedir() });
}

/** Options of {@link openClient}. */
export interface OpenOptions {
  /** Aborts the attempts. */
  readonly stopping?: AbortSignal | undefined;
  /** Whether to skip read-only servers even if the address does not say so (`target_session_attrs`). */
  readonly mustWrite?: boolean;
}

/**
 * Connects as libpq would, trying one server after the other, with and without TLS as `sslmode` says.
 *
 * @param url as {@link parseConninfo} takes it
 * @param timeout how long one attempt may take in ms, unless the address has a `connect_timeout`
 * @throws ConninfoError, or the error of the last attempt
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
        // Trying without TLS would lead to the same server.
        break;
      } catch (error) {
        attempt.socket.destroy();
        failure = readable(error as Error, info);
        // Do not try a refused password again, least of all unencrypted.
        if (!isWorthAnother(failure)) throw failure;
      } finally {
        stopping?.removeEventListener('abort', stop);
      }
    }
  }
  throw failure;
}

/**
 * Makes sure that a client keeps its server process, which our locks and settings belong to. Behind a pooler in
 * transaction mode each statement may go to another process, and somebody else may get ours.
 *
 * @param pid the client's `pg_backend_pid()`
 * @param timeout see {@link openClient}
 * @throws Error with a sentence for the operator
 */
export async function requireSession(client: pg.Client, pid: number, url: string, timeout: number): Promise<void> {
  // PostgreSQL gives clients the id of its process, a pooler a number of its own.
  if ((client as unknown as { processID?: number }).processID === pid) return;
  const { client: other } = await openClient(url, timeout);
  try {
    // A pooler hands out the connection that was used last.
    const { rows } = await other.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
    if (rows[0]?.pid !== pid) return;
  } finally {
    await other.end().catch(() => undefined);
  }
  throw new Error(
    'the pooler in front of it gives the same connection to several clients: set pool_mode = session, or connect directly',
  );
}

/** Why a server accepts no changes; undefined if it does. */
async function refusalToWrite(client: pg.Client, timeout: number): Promise<Error | undefined> {
  const query = { text: 'SHOW transaction_read_only', query_timeout: timeout };
  const { rows } = await client.query<{ transaction_read_only: string }>(query);
  if (rows[0]?.transaction_read_only === 'off') return undefined;
  return new Error('it accepts no changes: it is a standby, or default_transaction_read_only is on');
}

/** For each attempt to make, in order, whether it uses TLS. */
function tlsAttempts({ sslmode }: Conninfo, { host }: Host): boolean[] {
  if (host.startsWith('/') || sslmode === 'disable') return [false];
  if (sslmode === 'allow') return [false, true];
  return sslmode === 'prefer' ? [true, false] : [true];
}

/**
 * Whether another attempt may succeed: there was no connection, TLS failed, this way of connecting is not permitted
 * (28000), or the server is not up yet (57P03).
 */
function isWorthAnother(error: unknown): boolean {
  const state = sqlState(error);
  return state === undefined || state === '28000' || state === '57P03';
}

/** Replaces pg's error for a missing password by a sentence for the operator. */
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
    // A function, because without a password the client would look into ~/.pgpass, whatever file was named.
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

/** Connects to `hostaddr` if one is given, while the certificate is still checked against the name. */
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

/** TLS as libpq does it by `sslmode` and files: if there are certificate authorities, they are used in every mode. */
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

/** Reads a file; undefined if there is none. @throws ConninfoError if it cannot be read */
function readFile(path: string): string | undefined {
  try {
    return fs.readFileSync(path, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // In a home that this user may not enter there is nothing for it.
    if (code === 'ENOENT' || code === 'ENOTDIR' || (code === 'EACCES' && path.startsWith(`${os.homedir()}/`)))
      return undefined;
    throw new ConninfoError(`${path} cannot be read (${code})`);
  }
}

/** Without a host, the server is looked for at its Unix socket. */
function withSocketFolder(host: Host): Host {
  if (host.host.startsWith('@'))
    throw new ConninfoError('a host that starts with @ (an abstract socket) is not supported');
  if (host.host !== '' || host.hostaddr !== undefined) return host;
  const found = SOCKET_FOLDERS.find((folder) => fs.existsSync(`${folder}/.s.PGSQL.${host.port}`));
  return { ...host, host: found ?? SOCKET_FOLDERS[0] };
}
