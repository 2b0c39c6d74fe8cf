import assert from 'node:assert/strict';
import { chmodSync, chownSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { findUser } from '../../src/cli/child.ts';
import { secretsIn, webHasTooMuch } from '../../src/cli/separation.ts';
import { parseIni } from '../../src/settings/ini.ts';

const user = (name: string, uid: number) => ({ name, uid, gid: uid });
const nobody = findUser('nobody');

test('a front-end that would connect as an administrator is reported where the units run, and nowhere else', () => {
  const same = { hivemind: undefined, notifier: undefined, web: undefined };
  const apart = { ...same, hivemind: user('spns', 71_001), web: user('spns-web', 71_002) };
  const [without, withPush] = [parseIni('[hivemind]\n'), parseIni('[hivemind]\nlisten_push = ipc:///p\n')];
  assert.match(webHasTooMuch('/etc/spns/spns.ini', without, same)[0]!, /listen_push is not set.*push\.sock/);
  assert.match(webHasTooMuch('/srv/spns.ini', without, apart)[0]!, /listen_push is not set/);
  assert.deepEqual(webHasTooMuch('/srv/spns.ini', without, same), []);
  assert.deepEqual(webHasTooMuch('/etc/spns/spns.ini', withPush, apart), []);
});

test('passwords in addresses count as secrets, and addresses without one do not', () => {
  const ini = [
    '[db]\nurl = postgresql://spns:hush@db/spns\n',
    '[notify-apns]\nproxy = http://spns:hush@proxy:3128\n',
    '[notify-huawei]\nproxy = http://proxy:3128\napp_secret = hush\n',
  ];
  assert.deepEqual(secretsIn(parseIni(ini.join(''))), [
    '[db].url',
    '[notify-apns].proxy',
    '[notify-huawei].app_secret',
  ]);
});

const skip = (process.getuid?.() !== 0 || !nobody) && 'only root can look with the eyes of another user';
test('a front-end that may read the secrets of others is reported, also where a group it belongs to makes that possible', {
  skip,
}, (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'spns-separation-'));
  t.after(() => rmSync(folder, { recursive: true }));
  chmodSync(folder, 0o755);
  const file = join(folder, 'spns.ini');
  const text = '[hivemind]\nlisten_push = ipc:///p\n[notify-huawei]\napp_secret = hush\n';
  writeFileSync(file, text, { mode: 0o640 });
  const users = { hivemind: user('spns', 71_001), notifier: undefined, web: nobody };
  assert.deepEqual(webHasTooMuch(file, parseIni(text), users), []);
  chownSync(file, 0, nobody!.gid);
  const [found] = webHasTooMuch(file, parseIni(text), users);
  assert.match(found!, /the user nobody may read this file, which holds \[notify-huawei\]\.app_secret: give/);
  assert.doesNotMatch(found!, /hush/);
});
