/**
 * The address of a database as libpq reads it (PostgreSQL's documentation, "Connection Strings" and "Parameter Key
 * Words"). The original hands `[db] url` to libpq, so each part means the same here or is refused by name: silently
 * ignoring one might mean another database, or no encryption where it was asked for.
 */

/** Where a server may be. Of several, the first that accepts us is used. */
export interface Host {
  /**
   * A host name, an IP address, or the folder of a Unix socket, which starts with `/` (or `@`). Empty: the default
   * folder.
   */
  readonly host: string;
  /** The IP address to connect to, if given in addition to the name. */
  readonly hostaddr: string | undefined;
  readonly port: number;
}

const SSL_MODES = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full'] as const;
export type SslMode = (typeof SSL_MODES)[number];

/** A parsed address, with libpq's defaults filled in; paths as written. */
export interface Conninfo {
  readonly hosts: readonly Host[];
  readonly user: string;
  readonly database: string;
  readonly password: string | undefined;
  readonly passfile: string;
  readonly sslmode: SslMode;
  /** `system` stands for the system's certificate authorities. */
  readonly sslrootcert: string;
  readonly sslcert: string;
  readonly sslkey: string;
  readonly sslpassword: string | undefined;
  readonly sslMinProtocol: string;
  readonly sslMaxProtocol: string | undefined;
  readonly applicationName: string | undefined;
  readonly options: string | undefined;
  /** Whether to skip servers that accept no changes (`target_session_attrs`). */
  readonly mustWrite: boolean;
  /** In seconds; undefined if not given. */
  readonly connectTimeout: number | undefined;
}

/** Part of an address is wrong or not supported. The message names the part, but never repeats a value. */
export class ConninfoError extends Error {
  override readonly name = 'ConninfoError';
}

/** The supported keywords, each with its environment variable. */
const KEYWORDS: Readonly<Record<string, string | undefined>> = {
  host: 'PGHOST',
  hostaddr: 'PGHOSTADDR',
  port: 'PGPORT',
  dbname: 'PGDATABASE',
  user: 'PGUSER',
  password: 'PGPASSWORD',
  passfile: 'PGPASSFILE',
  options: 'PGOPTIONS',
  application_name: 'PGAPPNAME',
  fallback_application_name: undefined,
  connect_timeout: 'PGCONNECT_TIMEOUT',
  target_session_attrs: 'PGTARGETSESSIONATTRS',
  sslmode: 'PGSSLMODE',
  requiressl: 'PGREQUIRESSL',
  sslrootcert: 'PGSSLROOTCERT',
  sslcert: 'PGSSLCERT',
  sslkey: 'PGSSLKEY',
  sslpassword: undefined,
  ssl_min_protocol_version: 'PGSSLMINPROTOCOLVERSION',
  ssl_max_protocol_version: 'PGSSLMAXPROTOCOLVERSION',
};

/** Keywords of which only the values that ask for what we do anyway are accepted. */
const HARMLESS: Readonly<Record<string, { readonly env?: string; readonly values: RegExp }>> = {
  client_encoding: { env: 'PGCLIENTENCODING', values: /^(auto|utf-?8|unicode)$/i },
  load_balance_hosts: { env: 'PGLOADBALANCEHOSTS', values: /^disable$/ },
  gssencmode: { env: 'PGGSSENCMODE', values: /^(disable|prefer)$/ },
  channel_binding: { env: 'PGCHANNELBINDING', values: /^(disable|prefer)$/ },
  sslnegotiation: { env: 'PGSSLNEGOTIATION', values: /^postgres$/ },
  sslcertmode: { env: 'PGSSLCERTMODE', values: /^allow$/ },
  sslsni: { env: 'PGSSLSNI', values: /^1$/ },
  sslcompression: { env: 'PGSSLCOMPRESSION', values: /^[01]$/ },
  // The hivemind sets its own, which notice a lost server within seconds.
  keepalives: { values: /^[01]$/ },
  keepalives_idle: { values: /^\d+$/ },
  keepalives_interval: { values: /^\d+$/ },
  keepalives_count: { values: /^\d+$/ },
  tcp_user_timeout: { values: /^\d+$/ },
  krbsrvname: { env: 'PGKRBSRVNAME', values: /^/ },
  gsslib: { env: 'PGGSSLIB', values: /^/ },
  gssdelegation: { env: 'PGGSSDELEGATION', values: /^0$/ },
};

/** Keywords that libpq knows and we do not support. */
const UNSUPPORTED: Readonly<Record<string, string | undefined>> = {
  service: 'PGSERVICE',
  servicefile: undefined,
  replication: undefined,
  requirepeer: 'PGREQUIREPEER',
  require_auth: 'PGREQUIREAUTH',
  sslcrl: 'PGSSLCRL',
  sslcrldir: 'PGSSLCRLDIR',
  min_protocol_version: 'PGMINPROTOCOLVERSION',
  max_protocol_version: 'PGMAXPROTOCOLVERSION',
  oauth_issuer: undefined,
  oauth_client_id: undefined,
  oauth_client_secret: undefined,
  oauth_scope: undefined,
  scram_client_key: undefined,
  scram_server_key: undefined,
  sslkeylogfile: undefined,
};

/** What libpq takes from the process. */
export interface Surroundings {
  readonly env: NodeJS.ProcessEnv;
  /** The user that the process runs as. */
  readonly user: string;
  /** The home folder. */
  readonly home: string;
}

/**
 * Reads the address of a database.
 *
 * @param url `postgresql://…` or `postgres://…`
 * @throws ConninfoError
 */
export function parseConninfo(url: string, { env, user, home }: Surroundings): Conninfo {
  const given = parseUri(url);
  const values = (keyword: string, variable: string | undefined) =>
    given.get(keyword) ?? (variable === undefined ? undefined : env[variable] || undefined);
  refuseUnsupported(given, values);
  // An empty value counts as none, as in libpq.
  const get = (keyword: string) => values(keyword, KEYWORDS[keyword]) || undefined;

  const name = get('user') ?? user;
  const sslrootcert = get('sslrootcert');
  const fixed = get('requiressl') === '1' ? 'require' : 'prefer';
  const sslmode = get('sslmode') ?? (sslrootcert === 'system' ? 'verify-full' : fixed);
  if (!isSslMode(sslmode)) throw new ConninfoError(`sslmode must be one of ${SSL_MODES.join(', ')}`);
  if (sslrootcert === 'system' && sslmode !== 'verify-full')
    throw new ConninfoError('sslrootcert=system goes with sslmode=verify-full alone');
  const sslMinProtocol = get('ssl_min_protocol_version') ?? 'TLSv1.2';
  const sslMaxProtocol = get('ssl_max_protocol_version');
  for (const version of [sslMinProtocol, sslMaxProtocol ?? 'TLSv1.3']) {
    if (!/^TLSv1(\.[123])?$/.test(version))
      throw new ConninfoError('a TLS version must be TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3');
  }
  const attributes = get('target_session_attrs') ?? 'any';
  // A server that accepts no changes is of no use here.
  if (!/^(any|read-write|primary)$/.test(attributes))
    throw new ConninfoError(
      `${place('target_session_attrs', KEYWORDS.target_session_attrs, given)} has a value that is not supported`,
    );
  const timeout = get('connect_timeout');
  if (timeout !== undefined && !/^\s*-?\d{1,9}\s*$/.test(timeout))
    throw new ConninfoError('connect_timeout must be a whole number of seconds');
  const seconds = Number(timeout ?? 0);
  return {
    hosts: hostsOf(get('host'), get('hostaddr'), get('port')),
    user: name,
    database: get('dbname') ?? name,
    password: get('password'),
    passfile: get('passfile') ?? `${home}/.pgpass`,
    sslmode,
    sslrootcert: sslrootcert ?? `${home}/.postgresql/root.crt`,
    sslcert: get('sslcert') ?? `${home}/.postgresql/postgresql.crt`,
    sslkey: get('sslkey') ?? `${home}/.postgresql/postgresql.key`,
    sslpassword: get('sslpassword'),
    sslMinProtocol,
    sslMaxProtocol,
    applicationName: get('application_name') ?? get('fallback_application_name'),
    options: get('options'),
    mustWrite: attributes !== 'any',
    // As in libpq: for ever at 0 and below, and 1 is rounded up to 2.
    connectTimeout: seconds > 0 ? Math.max(seconds, 2) : undefined,
  };
}

/** @throws ConninfoError for keywords and values that we do not support, and keywords that libpq does not know */
function refuseUnsupported(
  given: ReadonlyMap<string, string>,
  values: (keyword: string, variable: string | undefined) => string | undefined,
): void {
  for (const [keyword, variable] of Object.entries(UNSUPPORTED)) {
    const value = values(keyword, variable);
    if (value) throw new ConninfoError(`${place(keyword, variable, given)} is not supported`);
  }
  for (const [keyword, { env: variable, values: pattern }] of Object.entries(HARMLESS)) {
    const value = values(keyword, variable);
    if (value && !pattern.test(value))
      throw new ConninfoError(`${place(keyword, variable, given)} has a value that is not supported`);
  }
  for (const keyword of given.keys()) {
    if (!(keyword in KEYWORDS) && !(keyword in HARMLESS) && !(keyword in UNSUPPORTED))
      throw new ConninfoError(`${keyword} is not a parameter that PostgreSQL knows`);
  }
}

/** Splits a URI by the same steps as libpq. @returns its parts by keyword, decoded */
function parseUri(url: string): Map<string, string> {
  const scheme = /^postgres(?:ql)?:\/\//.exec(url);
  if (!scheme) throw new ConninfoError('it must start with postgresql://');
  const given = new Map<string, string>();
  let rest = url.slice(scheme[0].length);

  // User and password: everything before an @ that comes before the first slash. A password may contain # and ?.
  const userinfo = /^([^@/]*)@/.exec(rest);
  if (userinfo) {
    rest = rest.slice(userinfo[0].length);
    const [user, password] = split(userinfo[1] ?? '', ':');
    if (user !== '') given.set('user', decode(user, 'the user'));
    if (password) given.set('password', decode(password, 'the password'));
  }

  const hosts: string[] = [];
  const ports: string[] = [];
  for (;;) {
    const part = /^(?:\[([^\]]*)\]|([^:/?,[]*))(?::([^/?,]*))?/.exec(rest);
    const [whole = '', bracketed, plain = '', port = ''] = part ?? [];
    rest = rest.slice(whole.length);
    if (bracketed === '') throw new ConninfoError('an IPv6 address in [] is empty');
    hosts.push(decode(bracketed ?? plain, 'the host'));
    ports.push(decode(port, 'the port'));
    if (!rest.startsWith(',')) break;
    rest = rest.slice(1);
  }
  if (rest !== '' && !/^[/?]/.test(rest)) throw new ConninfoError('the host is followed by something unexpected');
  if (hosts.some((host) => host !== '')) given.set('host', hosts.join(','));
  if (ports.some((port) => port !== '')) given.set('port', ports.join(','));

  const [path, query] = split(rest, '?');
  if (path.length > 1) given.set('dbname', decode(path.slice(1), 'the database'));
  // The last parameter may end with an & too.
  for (const word of query ? query.replace(/&$/, '').split('&') : []) {
    const [keyword = '', value, ...more] = word.split('=');
    if (value === undefined) throw new ConninfoError('a parameter after the ? has no value');
    if (more.length > 0)
      throw new ConninfoError(`the parameter ${decode(keyword, 'a parameter')} has a second =: write it %3D`);
    const name = decode(keyword, 'a parameter');
    const text = decode(value, name);
    // JDBC's spelling, which libpq accepts too.
    if (name === 'ssl' && text === 'true') given.set('sslmode', 'require');
    else given.set(name, text);
  }
  return given;
}

function hostsOf(host: string | undefined, hostaddr: string | undefined, port: string | undefined): Host[] {
  const hosts = host?.split(',') ?? [];
  const addresses = hostaddr?.split(',') ?? [];
  const count = Math.max(hosts.length, addresses.length, 1);
  if (hosts.length > 0 && addresses.length > 0 && hosts.length !== addresses.length)
    throw new ConninfoError('host and hostaddr name different numbers of servers');
  const ports = port?.split(',') ?? [''];
  if (ports.length > 1 && ports.length !== count)
    throw new ConninfoError('there must be one port, or as many as there are hosts');
  return Array.from({ length: count }, (_, n) => {
    const text = ports[ports.length > 1 ? n : 0]?.trim() || '5432';
    if (!/^\d{1,5}$/.test(text) || Number(text) < 1 || Number(text) > 65_535)
      throw new ConninfoError('a port must be a number from 1 to 65535');
    return { host: hosts[n] ?? '', hostaddr: addresses[n] || undefined, port: Number(text) };
  });
}

/** Decodes percent escapes only: a + stays a +. */
function decode(text: string, what: string): string {
  if (/%(?![0-9a-f]{2})|%00/i.test(text))
    throw new ConninfoError(`${what} has a % that is not an escape: write it %25`);
  try {
    return decodeURIComponent(text);
  } catch {
    throw new ConninfoError(`${what} has escapes that are not UTF-8`);
  }
}

function split(text: string, at: string): [string, string | undefined] {
  const index = text.indexOf(at);
  return index < 0 ? [text, undefined] : [text.slice(0, index), text.slice(index + 1)];
}

function place(keyword: string, variable: string | undefined, given: ReadonlyMap<string, string>): string {
  return given.has(keyword) ? keyword : `the environment variable ${variable}`;
}

function isSslMode(text: string): text is SslMode {
  return SSL_MODES.some((mode) => mode === text);
}
