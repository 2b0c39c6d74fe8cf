import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { packagedConfig } from '../../ops/deb/config.ts';
import { slim } from '../../ops/slim.ts';
import { underUnits } from '../../src/cli/under-units.ts';
import { readUnit } from '../../src/cli/unit.ts';
import { parseIni } from '../../src/settings/ini.ts';
import { fence, script } from '../install/script.ts';

const ROOT = join(import.meta.dirname, '../..');
const read = (file: string) => readFileSync(join(ROOT, file), 'utf8');

test("the package's configuration is the example, with what its units need", () => {
  const text = packagedConfig(read('spns.ini.example'));
  const before = read('spns.ini.example').split('\n');
  const changed = text.split('\n').filter((line, index) => line !== before[index]);
  assert.deepEqual(changed, [
    'listen = ipc:///run/spns/hivemind.sock',
    'listen_push = ipc:///run/spns/push.sock',
    'listen = unix:/run/spns-web/web.sock',
  ]);
  const deployed = (['hivemind', 'web'] as const).map((kind) => ({
    kind,
    unit: readUnit(`spns-${kind}`, [join(ROOT, 'systemd')])!,
  }));
  const own = /who does not exist on this machine|which does not exist/;
  const found = underUnits('/etc/spns/spns.ini', parseIni(text), deployed).filter((problem) => !own.test(problem));
  assert.deepEqual(found, []);
  assert.throws(() => packagedConfig('[hivemind]\n[web]\nlisten = here\n'), /has no \[hivemind\] listen/);
});

test('the scripts of the package, and the commands taken from the documentation, are valid shell', () => {
  for (const name of ['postinst', 'prerm', 'postrm']) {
    const { status, stderr } = spawnSync('sh', ['-n', join(ROOT, 'ops/deb', name)], { encoding: 'utf8' });
    assert.equal(status, 0, stderr);
  }
  const played = script(ROOT);
  const { status, stderr } = spawnSync('bash', ['-n'], { input: played, encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  assert.doesNotMatch(played, /VERSION|URL-OF|olduser|olddb/, 'a placeholder that nobody filled in');
  // The steps' own commands are in it, and those of the other pages.
  for (const command of ['sudo adduser spns oxen', 'sudo systemctl stop', 'pg_restore', 'GRANT theirs TO spns'])
    assert.ok(played.includes(command), command);
  assert.equal(fence(join(ROOT, 'docs/install.md'), 'ini').length > 0, true);
});

test('whatever the units create or run as is created by the package, and gone when it is purged', () => {
  const [made, purged] = [read('ops/deb/postinst'), read('ops/deb/postrm')];
  const units = readdirSync(join(ROOT, 'systemd')).filter((name) => name.endsWith('.service'));
  assert.ok(units.length >= 4);
  for (const unit of units) {
    const setting = (key: string) => [...read(`systemd/${unit}`).matchAll(new RegExp(`^${key}=(.*)$`, 'gm'))];
    for (const [, user] of setting('User')) {
      assert.match(made, new RegExp(`adduser .* ${user}$`, 'm'), unit);
      assert.match(purged, new RegExp(`for user in .*\\b${user}\\b`), unit);
    }
    for (const [, group] of setting('Group')) assert.match(purged, new RegExp(`for group in .*\\b${group}\\b`), unit);
    for (const [, folder] of setting('CacheDirectory'))
      assert.match(purged, new RegExp(` /var/cache/${folder}(?=\\s)`), unit);
    for (const [, folder] of setting('RuntimeDirectory'))
      assert.match(purged, new RegExp(` /run/${folder}(?=\\s)`), unit);
  }
});

test('users are created by the package as docs/install.md creates them', () => {
  const page = read('docs/install.md');
  for (const [, words] of read('ops/deb/postinst').matchAll(/^ {2}adduser --quiet (.*)$/gm))
    assert.ok(page.includes(`sudo adduser ${words}\n`), words);
});

/** Bytes of all files below. */
function sizeOf(folder: string): number {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' }).reduce((sum, name) => {
    const stat = lstatSync(join(folder, name));
    return stat.isFile() ? sum + stat.size : sum;
  }, 0);
}

const bundled = join(ROOT, `node_modules/node-linux-${process.arch}`);
const skip = !existsSync(bundled) && 'npm has brought no Node here';

test('an install without the files that no server opens takes less than 200 MB, and runs', { skip }, (t) => {
  const { packages } = JSON.parse(read('package-lock.json')) as { packages: Record<string, { dev?: boolean }> };
  // A package within another is counted with it.
  const names = Object.entries(packages)
    .filter(([name, { dev }]) => /^node_modules\/(@[^/]+\/)?[^/]+$/.test(name) && !dev && existsSync(join(ROOT, name)))
    .map(([name]) => name);
  // Links to the same files, which are hundreds of megabytes.
  const folder = mkdtempSync(join(ROOT, 'node_modules/.slim-'));
  mkdirSync(join(folder, 'node_modules'));
  t.after(() => rmSync(folder, { recursive: true }));
  for (const name of names) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    assert.equal(spawnSync('cp', ['-al', join(ROOT, name), join(folder, name)]).status, 0, name);
  }
  slim(join(folder, 'node_modules'), process.arch);
  const size = sizeOf(join(folder, 'node_modules'));
  assert.ok(size < 200e6, `${size / 1e6} MB`);
  const load =
    "for (const name of ['zeromq', 'sodium-native', 'koffi', 'pg', 'fastify']) require(name); console.log(1)";
  const node = join(folder, `node_modules/node-linux-${process.arch}/bin/node`);
  const { stdout, stderr } = spawnSync(node, ['-e', load], { cwd: folder, encoding: 'utf8' });
  assert.equal(stdout, '1\n', stderr);
});
