import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { chmodSync, chownSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import pg from 'pg';
import { findUser, mayRead } from '../../src/cli/child.ts';
import { createDatabase } from '../support/postgres.ts';
import * as cli from './spns.ts';

const { MAIN, spns } = cli;

const KEY = `${'07'.repeat(32)}\n`;
const GOOD =
  '[hivemind]\noxend_rpc = ipc://./oxend.sock\n[keys]\nhivemind = hive.key\nonionreq = web.key\n[notify-dummy]\n';

/** A folder in which an oxend seems to run. */
async function folder(t: TestContext, files: Record<string, string>): Promise<string> {
  const dir = await cli.folder(t, files);
  const oxend = createServer();
  await new Promise<void>((resolve) => oxend.listen(join(dir, 'oxend.sock'), resolve));
  chmodSync(join(dir, 'oxend.sock'), 0o777);
  t.after(() => oxend.close());
  return dir;
}

/** A machine may have a user spns, who may not look into these tests' folders. */
const asMe = process.getuid?.() === 0 ? ['--user', 'root'] : [];
const nobody = findUser('nobody');
const notRoot =
  (process.getuid?.() !== 0 || !nobody || !mayRead(MAIN, nobody)) &&
  'only root can look with the eyes of another user, who must be able to read this checkout';
const CERTIFICATE = readFileSync(new URL('../../src/devnet/providers/certificates/apns.pem', import.meta.url), 'utf8');
const escaped = (url: string) => url.replaceAll('%', '%%');

test('a valid configuration passes, and the database is checked', async (t) => {
  const url = await createDatabase(t);
  const dir = await folder(t, { 'hive.key': KEY, 'web.key': KEY, 'spns.ini': `[db]\nurl = ${escaped(url)}\n${GOOD}` });
  const { code, out, err } = await spns(['check-config', ...asMe], dir);
  assert.equal(code, 0, out + err);
  assert.match(out, /good {5}settings and keys of the hivemind and the web front-end/);
  assert.match(out, /good {5}settings and credential of dummy/);
  assert.match(out, /good {5}PostgreSQL \d+.* answers; 0 subscriptions/);
  assert.match(out, /All is well\.$/m);
});

test('an empty database is no problem, and migrate creates the tables', async (t) => {
  const url = await createDatabase(t, { empty: true });
  const dir = await folder(t, { 'hive.key': KEY, 'web.key': KEY, 'spns.ini': `[db]\nurl = ${escaped(url)}\n${GOOD}` });
  assert.match(
    (await spns(['check-config', ...asMe], dir)).out,
    /the tables will be created at the hivemind's first start/,
  );
  const made = await spns(['migrate', ...asMe], dir);
  assert.equal(made.code, 0, made.err);
  assert.match(made.out, /^done: 001_original\.sql/);
  assert.match((await spns(['migrate', ...asMe], dir)).out, /up to date/);
  assert.match((await spns(['check-config', ...asMe], dir)).out, /0 subscriptions/);
});

test("the original's tables, which this user may use but not upgrade, are a problem that comes with its remedy", async (t) => {
  const url = await createDatabase(t, { empty: true });
  const dir = await folder(t, { 'hive.key': KEY, 'web.key': KEY });
  const configure = (as: string, good = GOOD) =>
    writeFileSync(join(dir, 'spns.ini'), `[db]\nurl = ${escaped(as)}\n${good}`, { mode: 0o600 });
  const check = () => spns(['check-config', ...asMe], dir);
  const client = new pg.Client(url);
  await client.connect();
  const user = `spns_check_${randomUUID().replaceAll('-', '')}`;
  try {
    const original = new URL('../../src/hivemind/store/migrations/001_original.sql', import.meta.url);
    await client.query(readFileSync(original, 'utf8'));
    await client.query(`CREATE ROLE ${user} LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO ${user}`);

    configure(url.replace('user=postgres', `user=${user}`));
    const { code, out } = await check();
    assert.equal(code, 1);
    assert.match(out, /tables must be upgraded, which only their owner may do.*: GRANT postgres TO spns_check_/);
    configure(url);
    assert.match((await check()).out, /its tables will be upgraded at the hivemind's first start.*; 0 subscriptions/);

    assert.equal((await spns(['migrate', ...asMe], dir)).code, 0);
    await client.query(`GRANT ALL ON ALL TABLES IN SCHEMA public TO ${user}`);
    configure(url.replace('user=postgres', `user=${user}`));
    assert.match((await check()).out, /answers; 0 subscriptions/);
    configure(url.replace('user=postgres', `user=${user}`), GOOD.replace('\n', '\ninstance = a\n'));
    assert.match(
      (await check()).out,
      /the first of several hiveminds .* only the owner of the tables may do.*: GRANT postgres/,
    );
  } finally {
    await client.query(`DROP OWNED BY ${user} CASCADE; DROP ROLE ${user}`);
    await client.end();
  }
});

test('everything wrong is reported at once: settings, keys, notifiers, database', async (t) => {
  const dir = await folder(t, {
    'hive.key': KEY,
    'short.key': 'abc',
    'spns.ini': [
      '[db]\nurl = postgresql://nobody@127.0.0.1:1/none',
      '[hivemind]\noxend_rcp = ipc:///oxend.sock\nmax_connects = many',
      'notifiers_expected = apns huawei',
      '[keys]\nhivemind = short.key\nonionreq = web.key',
      '[notify-apns]\nidentifier = x\ncert_file = apns.pem',
      '[notify-nobody]',
    ].join('\n'),
  });
  const { code, out } = await spns(['check-config', ...asMe], dir);
  assert.equal(code, 1);
  assert.match(out, /wrong {4}\[hivemind\]\.max_connects = many: must be a whole number/);
  assert.match(out, /wrong {4}\[hivemind\]\.oxend_rpc: is required/);
  assert.match(out, /careful {2}\[hivemind\]\.oxend_rcp .*did you mean oxend_rpc\?/);
  assert.match(out, /wrong {4}\[keys\]\.hivemind .*not a key/);
  assert.match(out, /wrong {4}\[keys\]\.onionreq .*web\.key does not exist: create it with "spns keygen/);
  assert.match(out, /wrong {4}\[notify-apns\].*apns\.pem/);
  assert.match(out, /careful {2}\[notify-nobody\] is left to a program of your own/);
  assert.match(out, /\d things must be put right\.$/m);
});

test('a database that cannot be used is reported with the reason, and the check can be skipped', async (t) => {
  const dir = await folder(t, {
    'hive.key': KEY,
    'web.key': KEY,
    'spns.ini': `[db]\nurl = postgresql://nobody:secretword@127.0.0.1:1/none\n${GOOD}`,
  });
  const { code, out, err } = await spns(['check-config', ...asMe], dir);
  assert.equal(code, 1);
  assert.match(out, /wrong {4}\[db\]\.url: the database cannot be used: .*ECONNREFUSED/);
  assert.doesNotMatch(out + err, /secretword/);
  assert.equal((await spns(['check-config', '--no-database', ...asMe], dir)).code, 0);

  writeFileSync(join(dir, 'spns.ini'), `[db]\nurl = postgresql://u:secretword@h/d?service=x\n${GOOD}`);
  for (const options of [[], ['--no-database']]) {
    const found = await spns(['check-config', ...options, ...asMe], dir);
    assert.match(found.out, /wrong {4}\[db\]\.url: the database cannot be used: service is not supported$/m);
    assert.doesNotMatch(found.out, /secretword/);
  }
});

test('key files that anybody may read are warned about, and so is a suite without a notifier', async (t) => {
  const dir = await folder(t, { 'hive.key': KEY, 'web.key': KEY, 'spns.ini': GOOD.replace('[notify-dummy]\n', '') });
  chmodSync(join(dir, 'hive.key'), 0o644);
  const { code, out } = await spns(['check-config', '--no-database', ...asMe], dir);
  assert.equal(code, 0);
  assert.match(
    out,
    /careful {2}\[keys\]\.hivemind: every user of this machine may read or change .*hive\.key: chmod 600 it/,
  );
  assert.match(out, /careful {2}there is no \[notify-…\] section/);
  assert.match(out, /This will run\.$/m);
});

test('--config changes to the folder of the file, as the units do', async (t) => {
  const dir = await folder(t, { 'hive.key': KEY, 'web.key': KEY, 'spns.ini': GOOD });
  const { code, out } = await spns(['check-config', '--no-database', ...asMe, '--config', join(dir, 'spns.ini')], '/');
  assert.equal(code, 0, out);
});

test('root, who can read everything, is told what the daemons could not read', { skip: notRoot }, async (t) => {
  const ini = `${GOOD.replace('dummy', 'apns')}identifier = x\ncert_file = apns.pem\n`;
  const dir = await folder(t, { 'hive.key': KEY, 'web.key': KEY, 'apns.pem': CERTIFICATE, 'spns.ini': ini });
  const check = () => spns(['check-config', '--no-database', '--user', 'nobody'], dir);
  const closed = await check();
  assert.equal(closed.code, 1);
  assert.match(closed.out, /wrong {4}the user nobody may not read this file: chgrp nobody and chmod 640 it/);

  for (const [file, mode] of [
    ['.', 0o755],
    ['spns.ini', 0o644],
  ] as const)
    chmodSync(join(dir, file), mode);
  const opened = await check();
  assert.equal(opened.code, 0, opened.out);
  assert.match(
    opened.out,
    /careful {2}\[notify-apns\]\.cert_file .*may not be read.*\(root may, the user nobody may not/,
  );

  chmodSync(join(dir, 'apns.pem'), 0o644);
  assert.match((await check()).out, /All is well\.$/m);
});

test('the sockets of oxend and the hivemind are checked as the users who connect to them', {
  skip: notRoot,
}, async (t) => {
  const dir = await folder(t, { 'hive.key': KEY, 'web.key': KEY, 'spns.ini': GOOD });
  for (const [file, mode] of [
    ['.', 0o755],
    ['spns.ini', 0o644],
  ] as const)
    chmodSync(join(dir, file), mode);
  const check = () => spns(['check-config', '--no-database', '--user', 'nobody'], dir);
  assert.match((await check()).out, /good {5}oxend's socket$/m);
  chownSync(join(dir, 'oxend.sock'), 1, 1);
  chmodSync(join(dir, 'oxend.sock'), 0o660);
  const closed = await check();
  assert.equal(closed.code, 1);
  assert.match(
    closed.out,
    /wrong {4}\[hivemind\]\.oxend_rpc = \S+: the user nobody may not connect to \S+\/oxend\.sock, which belongs to daemon, group daemon, mode 0660: .*\(adduser nobody daemon\)/,
  );

  chmodSync(join(dir, 'oxend.sock'), 0o777);
  const hivemind = createServer();
  await new Promise<void>((resolve) => hivemind.listen(join(dir, 'hivemind.sock'), resolve));
  t.after(() => hivemind.close());
  assert.match(
    (await check()).out,
    /wrong {4}\[hivemind\]\.listen = \S+: notifiers cannot connect: the user nobody may not/,
  );
  rmSync(join(dir, 'oxend.sock'));
  assert.match((await check()).out, /careful {2}\[hivemind\]\.oxend_rpc = \S+: there is no socket .*is oxend running/);
});

test('addresses that this machine does not have are warned about, and what only the units change is mentioned or checked', async (t) => {
  const dir = await folder(t, { 'hive.key': KEY, 'web.key': KEY });
  const check = (settings: string, ...options: string[]) => {
    writeFileSync(join(dir, 'spns.ini'), GOOD.replace('[keys]', `${settings}\n[keys]`));
    return spns(['check-config', '--no-database', ...asMe, ...options], dir);
  };
  const odd = await check('listen = tcp://192.0.2.77:22028\nlisten_curve_public = tcp://no-such-name.invalid:22031');
  assert.match(odd.out, /careful {2}\[hivemind\]\.listen = \S+: this machine has no address 192\.0\.2\.77 now/);
  assert.match(odd.out, /careful {2}\[hivemind\]\.listen_curve_public .*known by the name no-such-name\.invalid/);
  assert.match(odd.out, /^This was checked from the folder \/\S+\. .*: spns check-config --unit$/m);
  const unit = await check('', '--unit');
  assert.equal(unit.code, 1);
  assert.match(
    unit.out,
    /wrong {4}\[hivemind\]\.listen is not set, and spns-hivemind would create its socket at \/etc\/spns\//,
  );
  assert.doesNotMatch(unit.out, /This was looked at/);
});

test('a world-readable configuration with a password in it is warned about', async (t) => {
  const ini = `[db]\nurl = postgresql://spns:secretword@db/spns\n${GOOD}[notify-huawei]\napp_id = 1\napp_secret = secretword\n`;
  const dir = await folder(t, { 'hive.key': KEY, 'web.key': KEY, 'spns.ini': ini });
  const check = () => spns(['check-config', '--no-database', ...asMe], dir);
  assert.match((await check()).out, /All is well\.$/m);
  chmodSync(join(dir, 'spns.ini'), 0o644);
  const { out } = await check();
  assert.match(out, /careful {2}every user .* holds \[db\]\.url and \[notify-huawei\]\.app_secret: chmod 640 it/);
  assert.doesNotMatch(out, /secretword/);
});
