import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { serverCertificate } from '../../../src/devnet/providers/certificates.ts';
import { openClient } from '../../../src/hivemind/store/client.ts';

/** An empty home, for as long as the test lasts. */
function emptyHome(t: TestContext): string {
  const home = mkdtempSync(join(tmpdir(), 'spns-client-'));
  const before = process.env.HOME;
  process.env.HOME = home;
  t.after(() => {
    process.env.HOME = before;
    rmSync(home, { recursive: true });
  });
  return home;
}

test('a certificate that is there and cannot be read is named, rather than done without', async (t) => {
  const home = emptyHome(t);
  const open = () => openClient('postgresql://u@127.0.0.1:1/d?sslmode=require', 5_000);
  await assert.rejects(open, /ECONNREFUSED/);
  const folder = join(home, '.postgresql', 'root.crt');
  mkdirSync(folder, { recursive: true });
  await assert.rejects(open, { message: `${folder} cannot be read (EISDIR)` });
});

test('a certificate of our own needs its key, and without one nothing is said of a key', async (t) => {
  const home = emptyHome(t);
  const [cert, key] = [join(home, 'cert.pem'), join(home, 'key.pem')];
  const open = () => openClient(`postgresql://u@127.0.0.1:1/d?sslmode=require&sslcert=${cert}&sslkey=${key}`, 5_000);
  await assert.rejects(open, /ECONNREFUSED/);
  const { cert: pem } = serverCertificate();
  writeFileSync(cert, pem);
  await assert.rejects(open, { message: `the certificate ${cert} has no key: ${key} is not there` });
  writeFileSync(key, pem);
  await assert.rejects(open, /ECONNREFUSED/);
});

test('a mode that verifies needs the certificates of authorities, any other does without', async (t) => {
  const home = emptyHome(t);
  for (const mode of ['verify-ca', 'verify-full'])
    await assert.rejects(openClient(`postgresql://u@127.0.0.1:1/d?sslmode=${mode}`, 5_000), {
      message: `sslmode=${mode} needs the certificates of the authorities, and ${join(home, '.postgresql', 'root.crt')} is not there: name them by sslrootcert`,
    });
  for (const mode of ['disable', 'allow', 'prefer', 'require'])
    await assert.rejects(openClient(`postgresql://u@127.0.0.1:1/d?sslmode=${mode}`, 5_000), /ECONNREFUSED/);
});
