import assert from 'node:assert/strict';
import fs, { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import tls from 'node:tls';
import type pg from 'pg';
import { APNS_CLIENT_FILE, serverCertificate } from '../../../src/devnet/providers/certificates.ts';
import { openClient, requireSession } from '../../../src/hivemind/store/client.ts';
import { once } from '../../support/once.ts';
import { createDatabase } from '../../support/postgres.ts';
import { inTime, until } from '../../support/until.ts';

/** An empty home, for as long as the test lasts. */
function emptyHome(t: TestContext): string {
  const home = mkdtempSync(join(tmpdir(), 'spns-client-'));
  const before = process.env.HOME;
  process.env.HOME = home;
  t.after(() => {
    process.env.HOME = before;
    rmSync(home, { recursive: true });
  });
  return home;
}

test('a certificate that is there and cannot be read is named, rather than done without', async (t) => {
  const home = emptyHome(t);
  const open = () => openClient('postgresql://u@127.0.0.1:1/d?sslmode=require', 5_000);
  await assert.rejects(open, /ECONNREFUSED/);
  const folder = join(home, '.postgresql', 'root.crt');
  mkdirSync(folder, { recursive: true });
  await assert.rejects(open, { message: `${folder} cannot be read (EISDIR)` });
});

test('a certificate of our own needs its key, and without one nothing is said of a key', async (t) => {
  const home = emptyHome(t);
  const [cert, key] = [join(home, 'cert.pem'), join(home, 'key.pem')];
  const open = () => openClient(`postgresql://u@127.0.0.1:1/d?sslmode=require&sslcert=${cert}&sslkey=${key}`, 5_000);
  await assert.rejects(open, /ECONNREFUSED/);
  const { cert: pem } = serverCertificate();
  writeFileSync(cert, pem);
  await assert.rejects(open, { message: `the certificate ${cert} has no key: ${key} is not there` });
  writeFileSync(key, pem);
  await assert.rejects(open, /ECONNREFUSED/);
});

test('a mode that verifies needs the certificates of authorities, any other does without', async (t) => {
  const home = emptyHome(t);
  for (const mode of ['verify-ca', 'verify-full'])
    await assert.rejects(openClient(`postgresql://u@127.0.0.1:1/d?sslmode=${mode}`, 5_000), {
      message: `sslmode=${mode} needs the certificates of the authorities, and ${join(home, '.postgresql', 'root.crt')} is not there: name them by sslrootcert`,
    });
  for (const mode of ['disable', 'allow', 'prefer', 'require'])
    await assert.rejects(openClient(`postgresql://u@127.0.0.1:1/d?sslmode=${mode}`, 5_000), /ECONNREFUSED/);
});

/** A message of PostgreSQL's protocol. */
function message(type: string, body: Buffer | string): Buffer {
  const head = Buffer.alloc(5, type);
  head.writeUInt32BE(4 + Buffer.byteLength(body), 1);
  return Buffer.concat([head, Buffer.from(body)]);
}

const READY = Buffer.concat([message('R', Buffer.alloc(4)), message('Z', 'I')]);
const refusal = (code: string) => message('E', `SFATAL\0VFATAL\0C${code}\0Mits words\0\0`);

/**
 * Answers the start of a connection, and nothing after it.
 *
 * @param answer what it says to it; nothing if undefined
 * @param secure serves TLS with these options; without them it is refused
 */
async function startServer(
  t: TestContext,
  answer: (socket: net.Socket) => Buffer | undefined,
  { secure, path }: { secure?: tls.TlsOptions; path?: string } = {},
) {
  const sockets = new Set<net.Socket>();
  let accepted = 0;
  const serve = (socket: net.Socket) => {
    socket.on('error', () => {});
    socket.once('data', () => {
      const bytes = answer(socket);
      if (bytes) socket.write(bytes);
    });
  };
  const server = net.createServer((socket) => {
    accepted++;
    sockets.add(socket);
    socket.on('error', () => {}).on('close', () => sockets.delete(socket));
    socket.once('data', (first) => {
      const wantsTls = first.length === 8 && first.readUInt32BE(4) === 80877103;
      if (!wantsTls) {
        const bytes = answer(socket);
        if (bytes) socket.write(bytes);
      } else if (!secure) {
        socket.end('N');
      } else {
        socket.write('S');
        serve(new tls.TLSSocket(socket, { ...secure, isServer: true }));
      }
    });
  });
  server.listen(path ?? { host: '127.0.0.1', port: 0 });
  await once(server, 'listening');
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const address = server.address();
  return {
    port: typeof address === 'object' ? address!.port : 0,
    get accepted() {
      return accepted;
    },
    get open() {
      return sockets.size;
    },
  };
}

test('another server is tried where one cannot be reached, is not up or does not know the user, and after no other refusal', async (t) => {
  for (const [code, attempts] of [
    ['28000', 2],
    ['57P03', 2],
    ['28P01', 1],
    ['3D000', 1],
  ] as const) {
    const server = await startServer(t, () => refusal(code));
    const hosts = `127.0.0.1:${server.port},127.0.0.1:${server.port}`;
    await assert.rejects(openClient(`postgresql://u@127.0.0.1:1,${hosts}/d?sslmode=disable`, 5_000), { code });
    assert.equal(server.accepted, attempts, code);
  }
});

test('a server that says nothing is waited for as long as the address says, else as long as was given', async (t) => {
  const server = await startServer(t, () => undefined);
  t.mock.timers.enable({ apis: ['setTimeout'] });
  for (const [query, ms] of [
    ['', 700],
    ['&connect_timeout=3', 3_000],
  ] as const) {
    const before = server.accepted;
    const failures: Error[] = [];
    const opening = openClient(`postgresql://u@127.0.0.1:${server.port}/d?sslmode=disable${query}`, 700);
    const end = opening.catch((error: Error) => failures.push(error));
    await until(() => server.accepted > before, 0);
    t.mock.timers.tick(ms - 1);
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(failures, []);
    t.mock.timers.tick(1);
    await end;
    assert.match(String(failures), /timeout expired/);
  }
});

test('who has been aborted waits for no server, and one that was connected before stays so', async (t) => {
  const silent = await startServer(t, () => undefined);
  const stopping = new AbortController();
  const url = (port: number) => `postgresql://u@127.0.0.1:${port}/d?sslmode=disable`;
  const waiting = assert.rejects(openClient(url(silent.port), 60_000, { stopping: stopping.signal }));
  await until(() => silent.open === 1);
  stopping.abort();
  await waiting;
  await until(() => silent.open === 0);
  await assert.rejects(openClient(url(silent.port), 60_000, { stopping: stopping.signal }), { name: 'AbortError' });
  assert.equal(silent.accepted, 1);

  const later = new AbortController();
  const good = await startServer(t, () => READY);
  const { socket } = await openClient(url(good.port), 5_000, { stopping: later.signal });
  later.abort();
  assert.equal(socket.destroyed, false);
  socket.destroy();
});

test('a connection that is not used is closed: to a server that accepts no changes, or does not say whether it does', async (t) => {
  const url = await createDatabase(t);
  const { client: admin } = await openClient(url, 5_000);
  t.after(() => admin.end());
  const readOnly = encodeURIComponent('-c default_transaction_read_only=on');
  const clients = async () =>
    (await admin.query("SELECT FROM pg_stat_activity WHERE application_name = 'of test'")).rowCount;
  const more = `&application_name=of%20test&options=${readOnly}`;
  const { client } = await openClient(`${url}${more}`, 5_000);
  assert.equal(await clients(), 1);
  await client.end();
  await assert.rejects(openClient(`${url}${more}`, 5_000, { mustWrite: true }), /accepts no changes/);
  await until(async () => (await clients()) === 0);

  const silent = await startServer(t, () => READY);
  // For the connection itself there is time.
  const query = 'sslmode=disable&connect_timeout=60&target_session_attrs=read-write';
  const address = `postgresql://u@127.0.0.1:${silent.port}/d?${query}`;
  await assert.rejects(openClient(address, 50), /Query read timeout/);
  await until(() => silent.open === 0);
});

test('a connection is probed while it is idle, and its loss without anybody listening harms nobody', async (t) => {
  const keepAlive = t.mock.method(net.Socket.prototype, 'setKeepAlive');
  const server = await startServer(t, (socket) => {
    setImmediate(() => socket.end(refusal('57P01')));
    return READY;
  });
  const { client } = await openClient(`postgresql://u@127.0.0.1:${server.port}/d?sslmode=disable`, 5_000);
  await inTime(new Promise<void>((resolve) => client.on('end', resolve)), () => 'the end of the connection');
  assert.deepEqual(
    keepAlive.mock.calls.map((call) => call.arguments),
    [[true, 10_000]],
  );
});

test('a client that is served by the process it was told of needs no second connection to show that', async (t) => {
  const client = { processID: 7 } as unknown as pg.Client;
  await requireSession(client, 7, 'postgresql://u@127.0.0.1:1/d', 5_000);
  await assert.rejects(requireSession(client, 8, 'postgresql://u@127.0.0.1:1/d', 5_000), /ECONNREFUSED/);
  const url = await createDatabase(t);
  const { client: admin } = await openClient(url, 5_000);
  await requireSession(client, 8, `${url}&application_name=second`, 5_000);
  const second = "SELECT FROM pg_stat_activity WHERE application_name = 'second' AND datname = current_database()";
  await until(async () => (await admin.query(second)).rowCount === 0);
  await admin.end();
});

test('our certificate is shown to a server that wants it, and TLS is of the versions that the address names', async (t) => {
  emptyHome(t);
  const { cert, key } = serverCertificate();
  const seen: unknown[] = [];
  const server = await startServer(
    t,
    (socket) => {
      const secure = socket as tls.TLSSocket;
      seen.push([secure.getProtocol(), secure.getPeerX509Certificate() !== undefined]);
      return refusal('28P01');
    },
    { secure: { cert, key, requestCert: true, rejectUnauthorized: false } },
  );
  const ask = (query: string) =>
    assert.rejects(openClient(`postgresql://u@127.0.0.1:${server.port}/d?sslmode=require${query}`, 5_000), {
      code: '28P01',
    });
  await ask('');
  const file = encodeURIComponent(APNS_CLIENT_FILE);
  await ask(`&sslcert=${file}&sslkey=${file}`);
  await ask('&ssl_max_protocol_version=TLSv1.2');
  assert.deepEqual(seen, [
    ['TLSv1.3', false],
    ['TLSv1.3', true],
    ['TLSv1.2', false],
  ]);
});

test('what cannot be there counts as missing, and so does what a home does not let us see', async (t) => {
  const home = emptyHome(t);
  writeFileSync(join(home, 'file'), '');
  const open = (root: string) => () =>
    openClient(`postgresql://u@127.0.0.1:1/d?sslmode=require&sslrootcert=${root}`, 5_000);
  await assert.rejects(open(join(home, 'file', 'root.crt')), /ECONNREFUSED/);
  // Root may read everything.
  t.mock.method(fs, 'readFileSync', () => {
    throw Object.assign(new Error('no'), { code: 'EACCES' });
  });
  await assert.rejects(open(join(home, 'root.crt')), /ECONNREFUSED/);
  await assert.rejects(open('/elsewhere/root.crt'), { message: '/elsewhere/root.crt cannot be read (EACCES)' });
});

test('without a host the server is looked for where its Unix socket is, and said to be missing in the first place', async (t) => {
  await assert.rejects(openClient('postgresql:///d?port=1', 5_000), /ENOENT \/var\/run\/postgresql\/\.s\.PGSQL\.1$/);
  const port = 10_000 + (process.pid % 50_000);
  const server = await startServer(t, () => refusal('28P01'), { path: `/tmp/.s.PGSQL.${port}` });
  await assert.rejects(openClient(`postgresql://u@:${port}/d`, 5_000), { code: '28P01' });
  assert.equal(server.accepted, 1);
});
