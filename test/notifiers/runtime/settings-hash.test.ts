import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { settingsHash } from '../../../src/notifiers/runtime/settings-hash.ts';
import type { Config } from '../../../src/settings/config.ts';
import { parseIni } from '../../../src/settings/ini.ts';
import { Section } from '../../../src/settings/section.ts';
import { folder } from '../support.ts';

function of(text: string): string {
  const ini = parseIni(text);
  const section = (name: string) => new Section(name, ini.sections.get(name) ?? new Map(), ini.defaults);
  return settingsHash({ ini, section } as unknown as Config, 'x');
}

test('settings are the same if what they say is, and the contents of the files they name', async (t) => {
  const path = await folder(t);
  const [key, code] = [join(path, 'key.p8'), join(path, 'code.ts')];
  writeFileSync(key, 'one');
  writeFileSync(code, 'one');
  const text = `[notify-x]\nkey = ${key}\nmodule = ${code}\nid = 7\nmetrics_listen = a\n[notify-y]\nid = 8\n`;
  const before = of(text);
  assert.equal(of(`# a comment\n${text.replace('id = 8', 'id = 9').replace('= a', '= b')}`), before);
  assert.equal(of(text.replace(`key = ${key}\nmodule = ${code}`, `module = ${code}\nkey = ${key}`)), before);
  for (const other of [
    text.replace('id = 7', 'id = 8'),
    text.replace('id = 7', 'name = 7'),
    text.replace('id = 7\n', ''),
    text.replace('key.p8', 'key2.p8'),
    `[DEFAULT]\nretries = 9\n${text}`,
  ])
    assert.notEqual(of(other), before, other);
  writeFileSync(code, 'two');
  assert.equal(of(text), before, 'code is not loaded again');
  writeFileSync(key, 'two');
  assert.notEqual(of(text), before);
  writeFileSync(key, 'one');
  assert.equal(of(text), before);
});
