import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import pg from 'pg';
import { systemClock } from '../../src/clock.ts';
import { sessionAccount } from '../../src/devnet/account.ts';
import { parseAddress } from '../../src/oxenmq/address.ts';
import { Peers } from '../../src/oxenmq/peers.ts';
import type { Incoming } from '../../src/oxenmq/remote.ts';
import { ended } from '../support/once.ts';
import { createDatabase } from '../support/postgres.ts';
import { subscribe } from '../support/requests.ts';
import { until } from '../support/until.ts';

const MAIN = path.join(import.meta.dirname, '../../src/hivemind/main.ts');
const SLOW_TIME = path.join(import.meta.dirname, '../support/slow-time.ts');

/** A hivemind as a process of its own, and a notifier of the original's kind whose answers the test holds. */
async function startProcess(t: TestContext) {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), 'spns-process-'));
  const database = await createDatabase(t);
  const address = `ipc://${folder}/hivemind.sock`;
  await fs.writeFile(path.join(folder, 'key'), randomBytes(32), { mode: 0o600 });
  await fs.writeFile(
    path.join(folder, 'spns.ini'),
    `[db]\nurl = ${database}\n[keys]\nhivemind = ${folder}/key\n` +
      `[hivemind]\nlisten = ${address}\noxend_rpc = ipc://${folder}/no-oxend\nnotifiers_expected = test\nstartup_wait = 60\n`,
  );
  const running: ChildProcess[] = [];
  const start = (config = 'spns.ini', nodeOptions: readonly string[] = []) => {
    const child = spawn(process.execPath, [...nodeOptions, MAIN], {
      env: { ...process.env, SPNS_CONFIG: path.join(folder, config) },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    running.push(child);
    let output = '';
    child.stdout?.on('data', (data) => (output += data));
    child.stderr?.on('data', (data) => (output += data));
    return { child, output: () => output, ended: ended(child) };
  };
  const asked: Incoming[] = [];
  const peers = new Peers({
    clock: systemClock,
    // It connects before there is a hivemind, whose start may take long on a busy machine.
    helloTimeout: 60_000,
    commands: {
      notifier: {
        access: 'none',
        commands: { validate: { kind: 'request', handler: (request) => void asked.push(request) } },
      },
    },
    on: { handshake: (connection) => connection.send('admin.register_service', 'test') },
  });
  const connection = peers.connect(parseAddress(address));
  t.after(async () => {
    await peers.close();
    for (const child of running) child.kill('SIGKILL');
    await fs.rm(folder, { recursive: true, force: true });
  });
  const ask = (body: unknown) =>
    connection.request('push.subscribe', [JSON.stringify(body)], 60_000).then(([reply]) => reply?.toString());
  const answerNext = async () => {
    await until(() => asked.length > 0);
    const request = asked.shift();
    const { token } = JSON.parse(request?.parts[1]?.toString() ?? '') as { token: string };
    request?.reply('0', token.padEnd(32, '.'));
  };
  const count = async () => {
    const client = new pg.Client({ connectionString: database });
    await client.connect();
    const { rows } = await client.query<{ count: string }>('SELECT count(*) FROM subscriptions');
    await client.end();
    return Number(rows[0]?.count);
  };
  return { start, ask, answerNext, asked, count, database, folder };
}

const SUCCESS = '{"added":true,"message":"Subscription successful","success":true}';

test('SIGTERM: requests in progress are answered, nothing new is accepted, and the process ends with 0', async (t) => {
  const { start, ask, answerNext, asked, count } = await startProcess(t);
  // What follows the signal must come within the two seconds that a stop gives to notifiers.
  const hivemind = start('spns.ini', ['--import', SLOW_TIME]);
  const inWork = ask(subscribe(sessionAccount(randomBytes), 'phone'));
  await until(() => asked.length > 0, 5, hivemind.output);
  hivemind.child.kill('SIGTERM');
  await until(() => hivemind.output().includes('stopping'));
  assert.equal(
    await ask(subscribe(sessionAccount(randomBytes), 'late')),
    '{"error":5,"message":"The server is busy; try again later"}',
  );
  await answerNext();
  assert.equal(await inWork, SUCCESS);
  const code = await hivemind.ended;
  assert.equal(code, 0, hivemind.output());
  assert.equal(await count(), 1);
});

test('SIGTERM: a notifier that does not answer does not delay the end, and its clients are told to retry', async (t) => {
  const { start, ask, asked } = await startProcess(t);
  const hivemind = start();
  const inWork = ask(subscribe(sessionAccount(randomBytes), 'phone'));
  await until(() => asked.length > 0, 5, hivemind.output);
  hivemind.child.kill('SIGTERM');
  assert.equal(await inWork, '{"error":3,"message":"test notification service timed out"}');
  const code = await hivemind.ended;
  assert.equal(code, 0, hivemind.output());
});

test('SIGTERM while the subscriptions are loaded ends the start with 0, even if the database does not deliver them', async (t) => {
  const { start, database } = await startProcess(t);
  const first = start();
  await until(() => first.output().includes('loaded 0'));
  first.child.kill('SIGTERM');
  await first.ended;
  const client = new pg.Client({ connectionString: database });
  await client.connect();
  await client.query('BEGIN');
  await client.query('LOCK TABLE subscriptions');
  const second = start();
  await until(() => second.output().includes('listening at'));
  second.child.kill('SIGTERM');
  const code = await second.ended;
  await client.end();
  assert.equal(code, 0, second.output());
  assert.ok(!second.output().includes('loaded'));
});

test('a hivemind whose database was taken over by another one ends with 1, names that one, and answers requests in progress', async (t) => {
  const { start, ask, asked, database, folder } = await startProcess(t);
  const first = start();
  const inWork = ask(subscribe(sessionAccount(randomBytes), 'phone'));
  await until(() => asked.length > 0, 5, first.output);
  const ini = await fs.readFile(path.join(folder, 'spns.ini'), 'utf8');
  await fs.writeFile(path.join(folder, 'other.ini'), ini.replace('/hivemind.sock', '/other.sock'));
  const client = new pg.Client({ connectionString: database });
  await client.connect();
  // The database is dropped with it connected.
  client.on('error', () => {});
  // Other tests have hiveminds on other databases of the same server.
  const holder = `SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objid = 2
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`;
  const { rows: before } = await client.query<{ pid: number }>(holder);
  // It is as if frozen, with its machine, and its connection is taken for dead.
  first.child.kill('SIGSTOP');
  await client.query('SELECT pg_terminate_backend($1)', [before[0]?.pid]);
  const second = start('other.ini');
  await until(() => second.output().includes('listening at'));
  const { rows: now } = await client.query<{ pid: number }>(holder);
  assert.equal(now.length, 1);
  first.child.kill('SIGCONT');
  const code = await first.ended;
  assert.equal(code, 1, first.output());
  const [fatal] = first
    .output()
    .split('\n')
    .filter((line) => line.includes('cannot go on'));
  assert.match(fatal ?? '', new RegExp(`Another hivemind is at work on this database .*process ${now[0]?.pid}\\)`));
  assert.match(fatal ?? '', / critical /);
  assert.match((await inWork) ?? '', /"error":3/);
  assert.equal(second.child.exitCode, null, 'the other works on');
});

test('a second signal ends the process at once', async (t) => {
  const { start, ask, asked } = await startProcess(t);
  const hivemind = start();
  ask(subscribe(sessionAccount(randomBytes), 'phone')).catch(() => {});
  await until(() => asked.length > 0, 5, hivemind.output);
  // Two different ones, of which none is lost if the first has not been handled yet; and both before it can stop.
  hivemind.child.kill('SIGSTOP');
  hivemind.child.kill('SIGTERM');
  hivemind.child.kill('SIGINT');
  hivemind.child.kill('SIGCONT');
  const code = await hivemind.ended;
  assert.equal(code, 1, hivemind.output());
  assert.match(hivemind.output(), /told to stop a second time/);
});

test('SIGKILL: every subscription that a client was told of is there after the restart', async (t) => {
  const { start, ask, answerNext, count } = await startProcess(t);
  const first = start();
  const told = 20;
  const replies = Array.from({ length: told }, (_, index) =>
    ask(subscribe(sessionAccount(randomBytes), `phone ${index}`)),
  );
  for (let index = 0; index < told; index++) await answerNext();
  for (const reply of replies) assert.equal(await reply, SUCCESS);
  first.child.kill('SIGKILL');
  await first.ended;
  const second = start();
  await until(() => second.output().includes(`loaded ${told} subscriptions`));
  assert.equal(await count(), told);
});

test('an invalid configuration is reported completely, and ends with 1', async (t) => {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), 'spns-process-'));
  t.after(() => fs.rm(folder, { recursive: true, force: true }));
  await fs.writeFile(path.join(folder, 'spns.ini'), '[db]\nurl = mysql://x\n[hivemind]\nmax_connects = many\n');
  const child = spawn(process.execPath, [MAIN], {
    env: { ...process.env, SPNS_CONFIG: path.join(folder, 'spns.ini') },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout.on('data', (data) => (output += data));
  const code = await ended(child);
  assert.equal(code, 1);
  for (const problem of ['[db].url', '[hivemind].max_connects', '[hivemind].oxend_rpc', '[keys].hivemind']) {
    assert.ok(output.includes(problem), `${problem} is told: ${output}`);
  }
});
