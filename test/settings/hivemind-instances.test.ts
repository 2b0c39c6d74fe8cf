import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { needRestart } from '../../src/settings/changes.ts';
import { loadConfig } from '../../src/settings/config.ts';
import { hivemindListens } from '../../src/settings/hivemind-instances.ts';
import { parseIni } from '../../src/settings/ini.ts';
import { ConfigError } from '../../src/settings/section.ts';

const folder = mkdtempSync(join(tmpdir(), 'spns-instances-'));
after(() => rmSync(folder, { recursive: true }));
const keyFile = join(folder, 'hivemind.key');
writeFileSync(keyFile, '11'.repeat(32), { mode: 0o600 });

function load(text: string, instance?: string) {
  const file = join(folder, 'spns.ini');
  writeFileSync(file, `${text}\n[keys]\nhivemind = ${keyFile}\n`);
  return loadConfig(
    { SPNS_CONFIG: file, ...(instance !== undefined && { SPNS_INSTANCE: instance }) },
    { role: 'hivemind' },
  );
}

const TWO = `
[hivemind]
oxend_rpc = ipc:///oxend.sock
copies = 2
listen = ipc:///run/spns/hivemind.sock
[hivemind-a]
listen = ipc:///run/spns/a.sock
metrics_listen = 127.0.0.1:9180
[hivemind-b]
listen = ipc:///run/spns/b.sock
max_connects = 7
`;

test('the section of an instance takes precedence over the common one, which has the rest', () => {
  const { hivemind, warnings } = load(TWO, 'b');
  assert.equal(hivemind.instance, 'b');
  assert.equal(hivemind.listen, 'ipc:///run/spns/b.sock');
  assert.equal(hivemind.maxConnects, 7);
  assert.equal(hivemind.oxendRpc, 'ipc:///oxend.sock');
  assert.equal(hivemind.metricsListen, undefined);
  assert.deepEqual(warnings, []);
});

test('the name comes from the environment, or else from the file', () => {
  const named = '[hivemind]\noxend_rpc = ipc:///oxend.sock\ninstance = x\n[hivemind-x]\nmax_connects = 3';
  assert.equal(load(named).hivemind.instance, 'x');
  assert.equal(load(named).hivemind.maxConnects, 3);
  assert.equal(load(named, 'y').hivemind.instance, 'y');
  assert.equal(load(named, 'y').hivemind.maxConnects, 500);
  assert.equal(load(TWO).hivemind.instance, undefined);
});

test('a hivemind without a name is warned of sections with names, by which all others go', () => {
  const [warning, ...more] = load(TWO).warnings;
  assert.match(warning!, /^this hivemind has no name, but the file has \[hivemind-a\], \[hivemind-b\]: /);
  assert.deepEqual(more, []);
  assert.deepEqual(load('[hivemind]\noxend_rpc = ipc:///oxend.sock').warnings, []);
});

test('what is wrong in the section of any instance is reported with its name', () => {
  const problems = (text: string, instance?: string) => {
    try {
      load(text, instance);
    } catch (error) {
      assert.ok(error instanceof ConfigError);
      return error.problems.map((problem) => problem.replace(/^.*?\.ini: /, ''));
    }
    return [];
  };
  assert.deepEqual(problems(`${TWO}copies = none`, 'a'), ['[hivemind-b].copies = none: must be a whole number']);
  assert.match(problems(TWO, 'A B').join(), /1 to 32 of a-z, 0-9, - and _, and "A B" is not/);
  assert.match(problems(`${TWO}advertise = tcp://*:22`, 'b').join(), /that can be listened on, but not connected to/);
});

test('an unknown key of an instance is warned about', () => {
  assert.match(
    load(`${TWO}max_conects = 5`, 'a').warnings.join(),
    /\[hivemind-b\]\.max_conects .* did you mean max_connects/,
  );
});

test('a change in the section of an instance needs the restart that the common key needs', () => {
  assert.deepEqual(needRestart('hivemind', ['[hivemind-a].listen', '[hivemind-a].filter_lifetime']), [
    '[hivemind-a].listen',
  ]);
});

test('others find every hivemind of the file, or the only one', () => {
  assert.deepEqual(
    hivemindListens(parseIni(TWO)).map(({ instance, listen }) => [instance, listen]),
    [
      ['a', 'ipc:///run/spns/a.sock'],
      ['b', 'ipc:///run/spns/b.sock'],
    ],
  );
  assert.deepEqual(hivemindListens(parseIni('[hivemind]\nlisten = tcp://127.0.0.1:5\nlisten_push = ipc://p')), [
    { instance: undefined, listen: 'tcp://127.0.0.1:5', listenPush: 'ipc://p' },
  ]);
  assert.deepEqual(hivemindListens(parseIni(`${TWO}listen = nonsense`)).length, 1);
});
