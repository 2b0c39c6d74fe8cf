import assert from 'node:assert/strict';
import { chmodSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { createDatabase } from '../support/postgres.ts';
import { folder, spns } from './spns.ts';

const KEY = `${'07'.repeat(32)}\n`;
const GOOD =
  '[hivemind]\noxend_rpc = ipc:///oxend.sock\n[keys]\nhivemind = hive.key\nonionreq = web.key\n[notify-dummy]\n';
const escaped = (url: string) => url.replaceAll('%', '%%');

test('a configuration in order passes, and the database is looked at', async (t) => {
  const url = await createDatabase(t);
  const dir = await folder(t, { 'hive.key': KEY, 'web.key': KEY, 'spns.ini': `[db]\nurl = ${escaped(url)}\n${GOOD}` });
  const { code, out, err } = await spns(['check-config'], dir);
  assert.equal(code, 0, out + err);
  assert.match(out, /good {5}settings and keys of the hivemind and the web front-end/);
  assert.match(out, /good {5}settings and credential of dummy/);
  assert.match(out, /good {5}PostgreSQL \d+.* answers; 0 subscriptions/);
  assert.match(out, /All is well\.$/m);
});

test('an empty database is no problem, and migrate makes the tables', async (t) => {
  const url = await createDatabase(t, { empty: true });
  const dir = await folder(t, { 'hive.key': KEY, 'web.key': KEY, 'spns.ini': `[db]\nurl = ${escaped(url)}\n${GOOD}` });
  assert.match((await spns(['check-config'], dir)).out, /the tables will be made at the hivemind's first start/);
  const made = await spns(['migrate'], dir);
  assert.equal(made.code, 0, made.err);
  assert.match(made.out, /^done: 001_original\.sql/);
  assert.match((await spns(['migrate'], dir)).out, /up to date/);
  assert.match((await spns(['check-config'], dir)).out, /0 subscriptions/);
});

test('everything that is wrong is told at once: settings, keys, notifiers, database', async (t) => {
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
  const { code, out } = await spns(['check-config'], dir);
  assert.equal(code, 1);
  assert.match(out, /wrong {4}\[hivemind\]\.max_connects = many: must be a whole number/);
  assert.match(out, /wrong {4}\[hivemind\]\.oxend_rpc: is required/);
  assert.match(out, /careful {2}\[hivemind\]\.oxend_rcp .*did you mean oxend_rpc\?/);
  assert.match(out, /wrong {4}\[keys\]\.hivemind .*no key/);
  assert.match(out, /wrong {4}\[keys\]\.onionreq .*web\.key is not there: make it with "spns keygen/);
  assert.match(out, /wrong {4}\[notify-apns\].*apns\.pem/);
  assert.match(out, /wrong {4}there is no notifier named nobody/);
  assert.match(out, /\d things must be put right\.$/m);
});

test('a database that cannot be used is told with its reason; it can be left out', async (t) => {
  const dir = await folder(t, {
    'hive.key': KEY,
    'web.key': KEY,
    'spns.ini': `[db]\nurl = postgresql://nobody:secretword@127.0.0.1:1/none\n${GOOD}`,
  });
  const { code, out, err } = await spns(['check-config'], dir);
  assert.equal(code, 1);
  assert.match(out, /wrong {4}\[db\]\.url: the database cannot be used: .*ECONNREFUSED/);
  assert.doesNotMatch(out + err, /secretword/);
  assert.equal((await spns(['check-config', '--no-database'], dir)).code, 0);
});

test('key files that anybody may read are warned of, and so is a suite without a notifier', async (t) => {
  const dir = await folder(t, { 'hive.key': KEY, 'web.key': KEY, 'spns.ini': GOOD.replace('[notify-dummy]\n', '') });
  chmodSync(join(dir, 'hive.key'), 0o644);
  const { code, out } = await spns(['check-config', '--no-database'], dir);
  assert.equal(code, 0);
  assert.match(
    out,
    /careful {2}\[keys\]\.hivemind: every user of this machine may read or change .*hive\.key: chmod 600 it/,
  );
  assert.match(out, /careful {2}there is no \[notify-…\] section/);
  assert.match(out, /This will run\.$/m);
});

test('--config goes to the folder of the file, as the units do', async (t) => {
  const dir = await folder(t, { 'hive.key': KEY, 'web.key': KEY, 'spns.ini': GOOD });
  const { code, out } = await spns(['check-config', '--no-database', '--config', join(dir, 'spns.ini')], '/');
  assert.equal(code, 0, out);
});
