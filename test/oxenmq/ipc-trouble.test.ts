import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { findUser, mayRead } from '../../src/cli/child.ts';
import { parseAddress } from '../../src/oxenmq/address.ts';
import { ipcConnectTrouble, ipcTrouble } from '../../src/oxenmq/ipc-trouble.ts';
import { openPeers, reasonFor } from './support.ts';

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'spns-ipc-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  chmodSync(path, 0o755);
  return path;
}

async function listening(t: TestContext, path: string): Promise<void> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(path, resolve));
  t.after(() => server.close());
}

/** A socket file whose process is gone. */
function abandoned(path: string): void {
  const code = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
  spawnSync(process.execPath, ['-e', code]);
}

test('a socket with a listener is no problem, nor is an abstract one', async (t) => {
  const path = join(folder(t), 's');
  await listening(t, path);
  assert.equal(await ipcConnectTrouble(path), undefined);
  const abstract = `@spns-trouble-${process.pid}`;
  await listening(t, abstract.replace('@', '\0'));
  assert.equal(await ipcConnectTrouble(abstract), undefined);
  assert.match((await ipcConnectTrouble(`${abstract}-not`))!.text, /^nobody listens at the socket @spns-trouble/);
});

test('what does not exist, is something else or is abandoned is named as such', async (t) => {
  const dir = folder(t);
  writeFileSync(join(dir, 'file'), '');
  mkdirSync(join(dir, 'folder'));
  abandoned(join(dir, 'left'));
  for (const [path, text, lasting] of [
    ['absent', /^there is no socket \/\S+\/absent$/, false],
    ['no/absent', /^there is no socket \S+\/no\/absent: the folder \S+\/no is not there$/, false],
    ['file', /\/file is not a socket but something else$/, true],
    ['folder', /\/folder is not a socket but a folder$/, true],
    ['file/s', /\/file is not a folder, so there is no socket \S+\/file\/s$/, true],
    ['l'.repeat(107), /has more than 107 bytes/, true],
    ['left', /^nobody listens at the socket \S+\/left$/, false],
  ] as const) {
    const trouble = await ipcConnectTrouble(join(dir, path));
    assert.match(trouble?.text ?? '', text);
    assert.equal(trouble?.lasting, lasting, path);
  }
});

test('a socket may have a path of 107 bytes', (t) => {
  const dir = folder(t);
  assert.match(ipcTrouble(join(dir, 'l'.repeat(107 - dir.length - 1)))!.text, /^there is no socket/);
  assert.match(ipcTrouble(join(dir, 'l'.repeat(107 - dir.length)))!.text, /has more than 107 bytes/);
});

test("a listener that is too busy to take a connection is told with the system's word for it, and may recover", async (t) => {
  const path = join(folder(t), 's');
  const server = createServer();
  await new Promise<void>((resolve) => server.listen({ path, backlog: 1 }, resolve));
  t.after(() => server.close());
  // Its queue has room for two, and it accepts none before the event loop turns.
  const earlier = [connect(path), connect(path)];
  t.after(() => {
    for (const socket of earlier) socket.destroy();
  });
  const trouble = await ipcConnectTrouble(path);
  assert.deepEqual(trouble, { text: `the socket ${path} cannot be connected to (EAGAIN)`, lasting: false });
});

test('a relative path is shown with the folder that it starts from', () => {
  assert.equal(ipcTrouble('./nobody.sock')!.text, `there is no socket ${join(process.cwd(), 'nobody.sock')}`);
});

const MODULE = join(import.meta.dirname, '../../src/oxenmq/ipc-trouble.ts');
const nobody = findUser('nobody');
const skip =
  (process.getuid?.() !== 0 || !nobody || !mayRead(MODULE, nobody)) &&
  'only root can look with the eyes of another user, who must be able to read this checkout';

test('a user who may not connect is told whose socket it is, which group may use it and what to do', {
  skip,
}, async (t) => {
  const dir = folder(t);
  const path = join(dir, 's');
  await listening(t, path);
  const child = (script: string) =>
    spawnSync(
      'setpriv',
      [`--reuid=${nobody!.uid}`, `--regid=${nobody!.gid}`, '--clear-groups', process.execPath, '-e', script],
      {
        encoding: 'utf8',
      },
    ).stdout;
  const look = () =>
    child(
      `import(${JSON.stringify(MODULE)}).then((m) => console.log(m.ipcTrouble(${JSON.stringify(path)})?.text ?? 'none'))`,
    ).trim();
  chownSync(path, 1, 1);
  chmodSync(path, 0o660);
  assert.equal(
    look(),
    `the user nobody may not connect to ${path}, which belongs to daemon, group daemon, mode 0660: make this user a member of that group (adduser nobody daemon) and restart`,
  );
  chmodSync(path, 0o600);
  assert.match(look(), /mode 0600: chmod g\+w it, and make this user a member of that group \(adduser nobody daemon\)/);
  chownSync(path, 0, 0);
  assert.match(look(), /group root, mode 0600: give it a group of its own/);
  chmodSync(path, 0o666);
  assert.equal(look(), 'none');
  chownSync(dir, 1, 1);
  chmodSync(dir, 0o750);
  assert.match(
    look(),
    /^the user nobody may not enter \/\S+, where the socket \S+\/s should be, which belongs to daemon, group daemon, mode 0750: make this user a member/,
  );
});

test('a connection reports at once what does not pass by itself, and in the end why nobody answered', async (t) => {
  const dir = folder(t);
  writeFileSync(join(dir, 'file'), '');
  abandoned(join(dir, 'left'));
  const opened = openPeers(t, { helloTimeout: 1500 });
  const address = (name: string) => parseAddress(`ipc://${dir}/${name}`);
  const reasons = ['file', 'left', 'absent'].map((label) => reasonFor(opened, address(label), { label }));
  await Promise.resolve();
  await Promise.resolve();
  assert.deepEqual(
    opened.events.all.map(({ id }) => id),
    ['file#1'],
  );
  const [file, left, absent] = await Promise.all(reasons);
  assert.match(file!, /^\S+\/file is not a socket but something else$/);
  assert.match(left!, /^no HELLO within 1500 ms: nobody listens at the socket \S+\/left$/);
  assert.match(absent!, /^no HELLO within 1500 ms: there is no socket \S+\/absent$/);
});
