import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { loadConfig } from '../../src/settings/config.ts';
import { parseIni } from '../../src/settings/ini.ts';
import { ConfigError, type Section, Section as SectionClass } from '../../src/settings/section.ts';

function section(body: string, credentials?: string): Section {
  const { sections, defaults } = parseIni(`[DEFAULT]\nretries = 9\n[notify-x]\n${body}`);
  return new SectionClass('notify-x', sections.get('notify-x')!, defaults, credentials);
}

test('typed accessors return the value, the default, or undefined', () => {
  const s = section('a = text\ni = 42\nn = 0.25\nyes = On\nno = FALSE\nl = x, y\n  z\nempty =');
  assert.equal(s.string('a'), 'text');
  assert.equal(s.integer('i'), 42);
  assert.equal(s.number('n'), 0.25);
  assert.equal(s.boolean('yes'), true);
  assert.equal(s.boolean('no'), false);
  assert.deepEqual(s.list('l'), ['x', 'y', 'z']);
  assert.equal(s.path('a'), join(process.cwd(), 'text'));
  assert.equal(
    s.parsed('i', (text) => BigInt(text)),
    42n,
  );
  assert.equal(s.string('none'), undefined);
  assert.equal(s.string('empty', { default: 'd' }), 'd');
  assert.equal(s.integer('none', { default: 3 }), 3);
  assert.deepEqual(s.list('none'), []);
  assert.equal(s.integer('retries'), 9, 'from [DEFAULT]');
  assert.equal(s.has('a'), true);
  assert.equal(s.has('empty'), false);
  s.check();
  assert.deepEqual(s.warnings(), []);
});

test('wrong values are collected, and check throws them all; secrets are not repeated', () => {
  const s = section(
    'i = 1.5\nbig = 99999999999999999999\nn = NaN\nb = maybe\np = abc\napp_secret = hunter2\npin = 12345',
  );
  s.integer('i');
  s.integer('big');
  s.number('n', { default: 1 });
  s.boolean('b');
  s.string('p', { pattern: /^\d+$/, what: 'digits' });
  s.string('app_secret', { pattern: /^\d+$/, what: 'digits' });
  s.string('pin', { pattern: /^x$/, what: 'x', secret: true });
  s.string('identifier', { required: true });
  assert.deepEqual(s.problems, [
    '[notify-x].i = 1.5: must be a whole number',
    '[notify-x].big = 99999999999999999999: must be a whole number',
    '[notify-x].n = NaN: must be a number',
    '[notify-x].b = maybe: must be yes or no',
    '[notify-x].p = abc: must be digits',
    '[notify-x].app_secret = (not shown): must be digits',
    '[notify-x].pin = (not shown): must be x',
    '[notify-x].identifier: is required and not set: add it',
  ]);
  assert.throws(() => s.check(), ConfigError);
});

test('keys that nobody read are warned about', () => {
  const s = section('cert_fil = x\nlevel-a = 1\nlevel-b = 2');
  s.string('cert_file');
  assert.deepEqual(s.startingWith('level-'), [
    ['a', '1'],
    ['b', '2'],
  ]);
  assert.deepEqual(s.warnings(), [
    '[notify-x].cert_fil (line 4) is not a known key and is ignored: did you mean cert_file?',
  ]);
});

test("a key of the original's that has no meaning for us is named as such, without breaking the way back", () => {
  const s = section('retries = 3\n');
  s.obsolete('retries', 'all try again by one rule');
  s.obsolete('interval', 'nobody waits');
  assert.deepEqual(s.warnings(), [
    '[notify-x].retries (line 4) has no meaning for this server: all try again by one rule. Keep it if you may go back to the original',
  ]);
});

test("a path is taken from the credentials directory if it is there, from the daemon's folder if not, and stays if absolute", (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'spns-section-'));
  t.after(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, 'apns.pem'), '');
  const s = section('a = apns.pem\nb = other.pem\nc = /etc/apns.pem', folder);
  assert.equal(s.path('a'), join(folder, 'apns.pem'));
  assert.equal(s.path('b'), join(process.cwd(), 'other.pem'));
  assert.equal(s.path('c'), '/etc/apns.pem');
});

test("a notifier's section is reported together with the rest when its reader is handed over", (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'spns-section-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'spns.ini');
  writeFileSync(file, '[db]\nurl = x\n[notify-x]\nretries = many\nretry = 1\nmetrics_listen = 127.0.0.1:0\n');
  const read = (open: (name: string) => Section) => open('notify-x').integer('retries');
  assert.throws(
    () => loadConfig({ SPNS_CONFIG: file }, { role: 'web', read }),
    (error: ConfigError) =>
      error.problems.length === 3 && error.problems[2] === `${file}: [notify-x].retries = many: must be a whole number`,
  );
});

test('metrics_listen of a notifier is not an unknown key to the notifier', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'spns-section-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'spns.ini');
  writeFileSync(join(folder, 'k'), Buffer.alloc(32), { mode: 0o600 });
  writeFileSync(file, `[keys]\nhivemind = ${folder}/k\n[notify-x]\nmetrics_listen = unix:/run/x\n`);
  const config = loadConfig({ SPNS_CONFIG: file }, { role: 'notifier' });
  const opened = config.section('notify-x');
  opened.check();
  assert.deepEqual(opened.warnings(), []);
  assert.equal(config.metricsListen('notify-x'), 'unix:/run/x');
  assert.equal(config.metricsListen('notify-y'), undefined);
});
