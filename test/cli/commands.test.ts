import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, statSync, symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { keyPairFromSecret } from '../../src/oxenmq/keys.ts';
import { readVapidKey, vapidPublicKey } from '../../src/settings/vapid-key.ts';
import { folder, spns } from './spns.ts';

test('without a command it lists them, with --help it explains each', async (t) => {
  const dir = await folder(t);
  const { code, out } = await spns([], dir);
  assert.equal(code, 2);
  const names = [...out.matchAll(/^ {2}([a-z-]+) {2}/gm)].map((match) => match[1]);
  assert.deepEqual(names, [
    'keygen',
    'check-config',
    'migrate',
    'run',
    'stats',
    'services',
    'nodes',
    'members',
    'roll',
    'expire',
    'test-push',
    'man',
    'completion',
  ]);
  assert.equal((await spns(['--help'], dir)).code, 0);
  const helps = await Promise.all(names.map((name) => spns([name, '--help'], dir)));
  for (const [index, help] of helps.entries()) {
    assert.equal(help.code, 0);
    assert.ok(help.out.startsWith(`spns ${names[index]}`), help.out);
    assert.match(help.out, /--help/);
  }
});

test('--version prints the version of the package', async (t) => {
  const { version } = JSON.parse(readFileSync(join(import.meta.dirname, '../../package.json'), 'utf8'));
  assert.equal((await spns(['--version'], await folder(t))).out.trim(), version);
});

test('an invalid command line is explained in a sentence, with exit code 2', async (t) => {
  const dir = await folder(t);
  const cases: [string[], RegExp][] = [
    [['stat'], /no command "stat": did you mean stats\?/],
    [['constructor'], /no command "constructor"/],
    [['stats', '--wach'], /Unknown option '--wach'\nusage: spns stats/],
    [['stats', 'now'], /does not know what to do with "now"/],
    [['keygen'], /keygen needs FILE/],
    [['test-push', 'apns'], /needs a TOKEN or --info/],
    [['test-push', 'apns', '--info', '{'], /--info is not JSON/],
  ];
  const results = await Promise.all(cases.map(([args]) => spns(args, dir)));
  for (const [index, { code, err }] of results.entries()) {
    assert.equal(code, 2, err);
    assert.match(err, cases[index]![1]);
    assert.doesNotMatch(err, /\n {4}at /, 'a stack');
  }
});

test('keygen writes a key that only its owner can read, prints the public one, and never overwrites', async (t) => {
  const dir = await folder(t);
  const first = await spns(['keygen', 'hive.key'], dir);
  assert.equal(first.code, 0, first.err);
  const file = join(dir, 'hive.key');
  assert.equal(statSync(file).mode & 0o777, 0o600);
  const text = readFileSync(file, 'utf8');
  assert.match(text, /^[0-9a-f]{64}\n$/);
  assert.equal(first.out.trim(), keyPairFromSecret(Buffer.from(text.trim(), 'hex')).publicKey.toString('hex'));

  const again = await spns(['keygen', 'hive.key'], dir);
  assert.equal(again.code, 1);
  assert.match(again.err, /is already there and is not overwritten/);
  assert.equal(readFileSync(file, 'utf8'), text);
  assert.deepEqual(await spns(['keygen', 'hive.key', '--show'], dir), first);
  const missing = await spns(['keygen', 'none.key', '--show'], dir);
  assert.equal(missing.code, 1);
  assert.match(missing.err, /none\.key does not exist/);
  assert.match((await spns(['keygen', 'no/such/folder.key'], dir)).err, /no such file or directory/);
});

test('keygen --vapid writes a key for the notifier webpush, and prints what apps register with', async (t) => {
  const dir = await folder(t);
  const { code, out, err } = await spns(['keygen', '--vapid', 'vapid.pem'], dir);
  assert.equal(code, 0, err);
  const file = join(dir, 'vapid.pem');
  assert.equal(statSync(file).mode & 0o777, 0o600);
  assert.equal(out.trim(), vapidPublicKey(readVapidKey(file)));
  assert.equal(Buffer.from(out.trim(), 'base64url').length, 65);
  assert.equal((await spns(['keygen', '--vapid', '--show', 'vapid.pem'], dir)).out, out);
  const again = await spns(['keygen', 'vapid.pem', '--vapid'], dir);
  assert.equal(again.code, 1);
  assert.match(again.err, /is already there and is not overwritten/);
  assert.equal(vapidPublicKey(readVapidKey(file)), out.trim());
});

test('the wrapper uses the Node of the checkout, or the one in the path, from anywhere and through a link', async (t) => {
  const dir = await folder(t);
  const link = join(dir, 'spns');
  symlinkSync(join(import.meta.dirname, '../../src/cli/spns'), link);
  // Ours comes last: where npm brought none, it is what the wrapper finds.
  const env = { PATH: `/usr/bin:/bin:${dirname(process.execPath)}` };
  assert.match(execFileSync(link, ['--version'], { cwd: dir, env, encoding: 'utf8' }), /^\d+\.\d+\.\d+/);
});

test('without a configuration it says where it looked', async (t) => {
  const dir = await folder(t);
  const { code, err } = await spns(['stats', '--config', 'mine.ini'], dir);
  assert.equal(code, 1);
  assert.match(err, /mine\.ini does not exist/);
});
