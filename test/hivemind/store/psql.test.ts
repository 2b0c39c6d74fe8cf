import assert from 'node:assert/strict';
import { execFile, execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it, type TestContext } from 'node:test';
import { rootCertificates } from 'node:tls';
import pg from 'pg';
import { type Postgres, startPostgres } from '../../../src/devnet/postgres.ts';
import { CA_FILE } from '../../../src/devnet/providers/certificates.ts';
import { openClient } from '../../../src/hivemind/store/client.ts';
import { startProxy } from '../../support/proxy.ts';

/** Both programs ask this of the server that they have reached: who, where, and whether encrypted. */
const QUERY = `SELECT current_user || ' ' || current_database() || ' ' || current_setting('cluster_name') || ' '
  || coalesce(host(inet_server_addr()), 'socket') || ' ' || (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid())`;
const PASSWORD = `p#a?s:s/w@o%r d'"\\`;
const folder = mkdtempSync(join(tmpdir(), 'spns-psql-'));
// The server's own user must be able to reach it.
chmodSync(folder, 0o755);
const PSQL = findPsql();
const skip = PSQL === undefined && 'psql, which says what is right, is not installed';

/** The program itself: Debian's `psql` is a script in Perl that looks for it, which takes longer than the program. */
function findPsql(): string | undefined {
  const versions = '/usr/lib/postgresql';
  const installed = existsSync(versions) ? readdirSync(versions).map((name) => join(versions, name, 'bin/psql')) : [];
  return [...installed, 'psql'].find((program) => spawnSync(program, ['--version']).status === 0);
}

describe('the database is found as psql finds it', { skip }, () => {
  let encrypted: Postgres;
  let plain: Postgres;
  const addresses = new Map<Postgres, string>();

  before(async () => {
    const tls = ['ssl=on', 'ssl_cert_file=server.pem', 'ssl_key_file=server.pem'];
    await prepare('tls');
    execFileSync('cp', ['-a', join(folder, 'tls'), join(folder, 'plain')]);
    [encrypted, plain] = await Promise.all([start('tls', 1, tls), start('plain', 2, [])]);
  });
  after(async () => {
    await encrypted?.remove();
    await plain?.remove();
    rmSync(folder, { recursive: true });
  });

  /** Makes the databases and users of a server that is then stopped. */
  async function prepare(name: string): Promise<void> {
    const dataDir = join(folder, name);
    await mkdir(dataDir);
    const first = await startPostgres({ dataDir, fsync: false });
    for (const database of ['spns', 'spns2', 'my db', 'only_tls', 'only_plain', 'root', 'app'])
      await first.createDatabase(database);
    await sql(first, `CREATE USER app PASSWORD '${PASSWORD.replaceAll("'", "''")}'; CREATE USER root SUPERUSER`);
    await first.stop();
    const cluster = join(dataDir, 'cluster');
    const key = join(cluster, 'server.pem');
    copyFileSync(new URL('../../../src/devnet/providers/certificates/server.pem', import.meta.url), key);
    execFileSync('chmod', ['600', key]);
    const { uid, gid } = statSync(cluster);
    chownSync(key, uid, gid);
    writeFileSync(
      join(cluster, 'pg_hba.conf'),
      [
        'local all all trust',
        'hostnossl only_tls all 0.0.0.0/0 reject',
        'hostssl only_plain all 0.0.0.0/0 reject',
        'host all app 0.0.0.0/0 scram-sha-256',
        'host all all 0.0.0.0/0 trust',
      ].join('\n'),
    );
  }

  /** A server with a loopback address of its own: its port cannot be chosen without changing its socket's name. */
  async function start(name: string, number: number, settings: string[]): Promise<Postgres> {
    const dataDir = join(folder, name);
    const address = `127.${100 + (process.pid % 100)}.${Math.floor(process.pid / 100) % 256}.${number}`;
    const server = await startPostgres({
      dataDir,
      fsync: false,
      settings: [`listen_addresses=${address}`, `cluster_name=${name}`, ...settings],
    });
    addresses.set(server, address);
    return server;
  }

  interface Outcome {
    readonly row: string | undefined;
    readonly error: string;
  }

  async function compare(t: TestContext, url: string, env: Record<string, string> = {}): Promise<Outcome> {
    // Side by side: psql is given its environment before ours is changed.
    const [theirs, ours] = await Promise.all([psql(url, env), mine(url, env)]);
    assert.equal(
      ours.row ?? 'no connection',
      theirs.row ?? 'no connection',
      `${url} ${JSON.stringify(env)}\n  psql: ${theirs.error}\n  ours: ${ours.error}`,
    );
    if (ours.row === undefined) t.diagnostic(`${url}: ${ours.error}`);
    assert.ok(!ours.error.includes(PASSWORD));
    return ours;
  }

  async function mine(url: string, env: Record<string, string>): Promise<Outcome> {
    const kept = { ...process.env };
    Object.assign(process.env, { HOME: folder, ...env });
    try {
      const { client } = await openClient(url, 10_000);
      const { rows } = await client.query({ text: QUERY, rowMode: 'array' });
      await client.end();
      return { row: rows[0]![0], error: '' };
    } catch (error) {
      return { row: undefined, error: String((error as AggregateError).errors ?? error) };
    } finally {
      for (const name of Object.keys(process.env)) if (!(name in kept)) delete process.env[name];
      Object.assign(process.env, kept);
    }
  }

  it('in each form of the address', async (t) => {
    const at = addresses.get(plain);
    const { port } = await startProxy(t, { host: at, port: 5432 });
    const dead = await startProxy(t, { host: at, port: 5432 });
    await dead.close();
    const secret = encodeURIComponent(PASSWORD);
    const socket = encodeURIComponent(plain.socketDir);
    for (const url of [
      `postgresql://app:${secret}@127.0.0.1:${port}/spns`,
      `postgresql://app:${secret}@localhost:${port}/spns`,
      `postgres://app:${secret}@127.0.0.1:${port}?dbname=spns2`,
      `postgresql://app:${secret}@127.0.0.1:${port}/spns?dbname=spns2`,
      `postgresql://app:${secret}@127.0.0.1:${port}`,
      `postgresql://app:${secret}@127.0.0.1:${port}/my%20db`,
      `postgresql://127.0.0.1:${port}/spns?user=app&password=${secret}`,
      `postgresql://app@127.0.0.1:${port}/spns`,
      `postgresql://app:wrong@127.0.0.1:${port}/spns`,
      `postgresql://nobodyhere@127.0.0.1:${port}/spns`,
      `postgresql://app:${secret}@127.0.0.1:${port}/nosuch`,
      `postgresql://app:${secret}@127.0.0.1:${port}/spns?nosuch=1`,
      `postgresql://app:${secret}@127.0.0.1:${port}/spns?application_name=x&`,
      `postgresql://app:${secret}@127.0.0.1:${dead.port}/spns`,
      `postgresql://app:${secret}@127.0.0.1:${dead.port},127.0.0.1:${port}/spns`,
      `postgresql://app:${secret}@127.0.0.1,127.0.0.1/spns?port=${dead.port},${port}`,
      `postgresql://app:${secret}@name.invalid:${port}/spns?hostaddr=127.0.0.1`,
      `postgresql:///spns?hostaddr=127.0.0.1&port=${port}&user=app&password=${secret}`,
      `postgresql:///spns?host=${socket}`,
      `postgresql:///spns?host=${socket}&user=app`,
      `postgresql://app@${socket}/spns`,
      `postgresql://${socket}`,
      `postgresql:///?host=${socket}`,
      `postgresql:///spns?host=${socket}&port=5433`,
      `postgresql:///spns?host=${encodeURIComponent('/no/such/folder')},${socket}`,
      `postgresql://app:${secret}@127.0.0.1:${port}/spns?sslmode=nosuch`,
      `postgresql://app:${secret}@127.0.0.1:${port}/spns?options=-c%20geqo%3Doff`,
      'postgresql://nosuch.invalid/spns',
      'postgresql://127.0.0.1:0/spns',
    ]) {
      await compare(t, url);
    }
    const env = { PGHOST: '127.0.0.1', PGPORT: String(port), PGUSER: 'app', PGPASSWORD: PASSWORD, PGDATABASE: 'spns2' };
    await compare(t, 'postgresql://', env);
    await compare(t, 'postgresql:///spns', env);
    await compare(t, `postgresql:///spns?host=${socket}&port=5432`, env);
    await compare(t, `postgresql://root@/spns`, { PGHOST: plain.socketDir });
  });

  it('skipping servers that accept no changes where only others are wanted', async (t) => {
    await sql(plain, 'ALTER DATABASE spns2 SET default_transaction_read_only = on');
    const host = encodeURIComponent([plain, encrypted].map(({ socketDir }) => socketDir).join());
    const rows: (string | undefined)[] = [];
    for (const rest of ['', '&target_session_attrs=any', '&target_session_attrs=read-write'])
      rows.push((await compare(t, `postgresql:///spns2?host=${host}${rest}`)).row);
    const { row } = await compare(t, `postgresql:///spns2?host=${host}`, { PGTARGETSESSIONATTRS: 'read-write' });
    assert.deepEqual(
      [...rows, row].map((text) => text?.split(' ')[2]),
      ['plain', 'plain', 'tls', 'tls'],
    );
    const alone = encodeURIComponent(plain.socketDir);
    await compare(t, `postgresql:///spns2?host=${alone}&target_session_attrs=read-write`);
    await sql(plain, 'ALTER DATABASE spns2 RESET default_transaction_read_only');
  });

  it('with passwords from a file, and not from one that others may read', async (t) => {
    const at = addresses.get(plain);
    const escaped = PASSWORD.replace(/[\\:]/g, '\\$&');
    const passfile = join(folder, 'passwords');
    const write = (text: string, mode: string) => {
      writeFileSync(passfile, text);
      execFileSync('chmod', [mode, passfile]);
    };
    const url = `postgresql://app@${at}/spns?passfile=${encodeURIComponent(passfile)}`;
    const rows: (string | undefined)[] = [];
    for (const [text, mode] of [
      [`# comment\nother:*:*:*:x\n${at}:5432:spns:app:${escaped}\n`, '600'],
      [`*:*:*:app:${escaped}`, '600'],
      [`*:*:*:*:wrong\n*:*:*:app:${escaped}`, '600'],
      [`*:*:spns2:app:${escaped}`, '600'],
      [`*:5433:*:app:${escaped}`, '600'],
      [`*:*:*:app:${escaped}`, '644'],
      ['', '600'],
    ] as const) {
      write(text, mode);
      rows.push((await compare(t, url)).row);
    }
    assert.deepEqual(
      rows.map((row) => row !== undefined),
      [true, true, false, false, false, false, false],
    );
    write(`*:*:*:app:${escaped}`, '600');
    await compare(t, `postgresql://app@${at}/spns`, { PGPASSFILE: passfile });
    copyFileSync(passfile, join(folder, '.pgpass'));
    execFileSync('chmod', ['600', join(folder, '.pgpass')]);
    const { row } = await compare(t, `postgresql://app@${at}/spns`);
    assert.ok(row);
    // Where another file is named, the one at home does not count.
    write(`*:*:spns2:app:${escaped}`, '600');
    assert.equal((await compare(t, url)).row, undefined);
    rmSync(join(folder, '.pgpass'));
    const { error } = await compare(t, `postgresql://app@${at}/spns`);
    assert.match(error, /asks for a password, and there is none/);
  });

  for (const [name, least] of [
    ['tls', 20],
    ['plain', 10],
  ] as const) {
    it(`for each sslmode, authority and name, at a server ${name === 'tls' ? 'with' : 'without'} TLS`, async (t) => {
      const server = name === 'tls' ? encrypted : plain;
      const wrong = join(folder, 'wrong.pem');
      writeFileSync(wrong, rootCertificates[0]!);
      const roots = [
        '',
        `&sslrootcert=${encodeURIComponent(CA_FILE)}`,
        `&sslrootcert=${encodeURIComponent(wrong)}`,
        '&sslrootcert=/no/such',
      ];
      let connected = 0;
      const at = addresses.get(server);
      const secret = encodeURIComponent(PASSWORD);
      for (const mode of ['', 'disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full']) {
        const sslmode = mode === '' ? '' : `&sslmode=${mode}`;
        for (const root of roots) {
          for (const host of ['localhost', 'another.example']) {
            const url = `postgresql://app:${secret}@${host}/spns?hostaddr=${at}${sslmode}${root}`;
            if ((await compare(t, url)).row) connected++;
          }
        }
        for (const database of ['only_tls', 'only_plain'])
          await compare(t, `postgresql://app:${secret}@${at}/${database}?application_name=x${sslmode}`);
        await compare(
          t,
          `postgresql:///spns?host=${encodeURIComponent(server.socketDir)}${sslmode}${mode.startsWith('verify') ? roots[1] : ''}`,
        );
        if (mode)
          await compare(t, `postgresql://app:${secret}@${at}/spns`, { PGSSLMODE: mode, PGSSLROOTCERT: CA_FILE });
      }
      await compare(t, `postgresql://app:${secret}@${at}/spns?ssl=true`);
      await compare(t, `postgresql://app:${secret}@${at}/spns?requiressl=1`);
      assert.ok(connected >= least && connected < 50, `${connected} connected`);
    });
  }
});

async function psql(url: string, env: Record<string, string>): Promise<{ row: string | undefined; error: string }> {
  const clean = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('PG')));
  return new Promise((resolve) => {
    execFile(
      PSQL!,
      ['-XAtqw', '-d', url, '-c', QUERY],
      { env: { ...clean, HOME: folder, PGCONNECT_TIMEOUT: '10', ...env } },
      (error, stdout, stderr) => resolve({ row: error ? undefined : stdout.trim(), error: stderr.trim() }),
    );
  });
}

async function sql(server: Postgres, text: string): Promise<void> {
  const client = new pg.Client({ connectionString: server.url('postgres') });
  await client.connect();
  await client.query(text);
  await client.end();
}
