import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { test } from 'node:test';

const ROOT = join(import.meta.dirname, '../..');
const UNITS = join(ROOT, 'systemd');
const SERVICES = readdirSync(UNITS).filter((file) => file.endsWith('.service'));
/** Where docs/install.md puts the checkout, and so do the units. */
const INSTALLED = '/opt/spns/';

/** A user each; the web front-end is not of the group that may use the hivemind's admin socket. */
const USERS: { readonly [file: string]: string[][] } = {
  'spns-canary.service': [['spns'], ['spns']],
  'spns-hivemind.service': [['spns'], ['spns']],
  'spns-hivemind@.service': [['spns'], ['spns']],
  'spns-notifier@.service': [['spns-notifier'], ['spns']],
  'spns-web.service': [['spns-web'], ['spns-config']],
};

/** All values of a unit file by `Section.Key`; a key that stands several times has several. */
function read(file: string): Map<string, string[]> {
  const values = new Map<string, string[]>();
  let section = '';
  for (const line of readFileSync(join(UNITS, file), 'utf8').split('\n')) {
    const header = /^\[(.+)\]$/.exec(line);
    if (header) section = header[1]!;
    const [key, ...rest] = line.split('=');
    if (line.startsWith('#') || rest.length === 0) continue;
    const name = `${section}.${key}`;
    values.set(name, [...(values.get(name) ?? []), rest.join('=')]);
  }
  return values;
}

const analyzeVersion = (() => {
  try {
    return Number(
      /^systemd (\d+)/.exec(execFileSync('systemd-analyze', ['--version'], { encoding: 'utf8' }))?.[1] ?? 0,
    );
  } catch {
    return 0;
  }
})();
// Units can be judged without a running systemd since 250.
const skip = analyzeVersion < 250 && 'systemd-analyze of systemd 250 or newer is not installed here';

test('there is a unit for each daemon, and a target that groups them', () => {
  assert.deepEqual(readdirSync(UNITS).sort(), [
    'spns-canary.service',
    'spns-hivemind.service',
    'spns-hivemind@.service',
    'spns-notifier@.service',
    'spns-web.service',
    'spns.target',
  ]);
});

for (const file of SERVICES) {
  test(`${file} is supervised: readiness, watchdog, unlimited restarts, reload`, () => {
    const unit = read(file);
    assert.deepEqual(unit.get('Service.Type'), ['notify']);
    assert.deepEqual(unit.get('Service.NotifyAccess'), ['main']);
    assert.deepEqual(unit.get('Service.WatchdogSec'), ['1min']);
    assert.deepEqual(unit.get('Service.Restart'), ['always']);
    assert.ok(Number(unit.get('Service.RestartSec')?.[0]) <= (file.includes('hivemind') ? 1 : 2));
    assert.deepEqual(unit.get('Unit.StartLimitIntervalSec'), ['0']);
    assert.match(unit.get('Service.ExecReload')?.[0] ?? '', /-HUP \$MAINPID$/);
    assert.deepEqual(unit.get('Unit.PartOf'), ['spns.target']);
    assert.deepEqual(unit.get('Install.WantedBy'), ['spns.target']);
    assert.ok(Number(unit.get('Service.LimitNOFILE')?.[0]) >= 16_384);
    assert.deepEqual(unit.get('Service.SyslogIdentifier'), [file.replace('@', '-%i').replace('.service', '')]);
  });

  test(`${file} starts what exists, as its own user, with its keys as credentials`, () => {
    const unit = read(file);
    assert.deepEqual([unit.get('Service.User'), unit.get('Service.Group')], USERS[file]);
    // What a taken front-end writes there must not be run by another.
    const cache = unit.get('Service.CacheDirectory')![0]!;
    assert.ok(unit.get('Service.Environment')?.includes(`NODE_COMPILE_CACHE=/var/cache/${cache}`));
    assert.equal(cache, unit.get('Service.User')![0]);
    assert.deepEqual(unit.get('Service.LimitCORE'), ['0'], 'a core dump would hold keys');
    for (const limit of ['MemoryHigh', 'MemoryMax', 'TasksMax']) assert.ok(unit.has(`Service.${limit}`), limit);
    assert.ok(
      unit.get('Service.LoadCredential')?.every((credential) => /^(\w+\.key):\/etc\/spns\/\1$/.test(credential)),
    );
    const [node, program, ...rest] = unit.get('Service.ExecStart')![0]!.split(' ');
    assert.equal(node, `${INSTALLED}src/cli/node`);
    assert.ok(program!.startsWith(INSTALLED));
    assert.ok(existsSync(join(ROOT, program!.slice(INSTALLED.length))), `${program} is not in the repository`);
    assert.deepEqual(rest, file === 'spns-notifier@.service' ? ['%i'] : []);
    assert.ok(!unit.has('Service.MemoryDenyWriteExecute'), 'V8 compiles at run time');
    assert.equal(unit.get('Service.SystemCallFilter')?.at(-1), 'sched_setscheduler', 'libzmq aborts without it');
  });

  test(`${file} has an exposure of 2.0 or less, by systemd-analyze security`, { skip }, () => {
    const { status, stdout, stderr } = spawnSync(
      'systemd-analyze',
      ['security', '--offline=true', '--threshold=20', '--no-pager', join(UNITS, file)],
      { encoding: 'utf8' },
    );
    assert.equal(status, 0, `${stdout.trim().split('\n').at(-1)}\n${stderr}`);
  });
}

test('systemd finds nothing wrong with the units', { skip }, (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'spns-units-'));
  t.after(() => rmSync(dir, { recursive: true }));
  // It looks whether the program is there: in this checkout, not where an operator will put his.
  for (const file of readdirSync(UNITS)) {
    const text = readFileSync(join(UNITS, file), 'utf8');
    writeFileSync(join(dir, file), text.replaceAll(`${INSTALLED}src/cli/node`, process.execPath));
  }
  const files = readdirSync(dir).map((file) => join(dir, file));
  const { status, stdout, stderr } = spawnSync('systemd-analyze', ['verify', '--man=no', ...files], {
    encoding: 'utf8',
  });
  // The machine's own units are read along; what is wrong with those is not ours.
  const ours = `${stdout}${stderr}`
    .split('\n')
    .filter((line) => SERVICES.some((file) => line.includes(basename(file, '.service'))));
  assert.deepEqual(ours, []);
  assert.equal(status, 0, stderr);
});

test('one of several hiveminds runs as a single one does, except for its name, its share of the memory, and the folder that all keep', () => {
  const [one, several] = [read('spns-hivemind.service'), read('spns-hivemind@.service')];
  const differing = [...new Set([...one.keys(), ...several.keys()])].filter(
    (key) => String(one.get(key)) !== String(several.get(key)),
  );
  assert.deepEqual(differing.sort(), [
    'Service.Environment',
    'Service.MemoryHigh',
    'Service.MemoryMax',
    'Service.RuntimeDirectoryPreserve',
    'Service.SyslogIdentifier',
    'Unit.Description',
  ]);
  assert.ok(several.get('Service.Environment')?.includes('SPNS_INSTANCE=%i'));
  assert.deepEqual(several.get('Service.RuntimeDirectoryPreserve'), ['yes']);
});
