import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { openClient } from '../../../src/hivemind/store/client.ts';

test('a certificate that is there and cannot be read is named, rather than done without', async (t) => {
  const home = mkdtempSync(join(tmpdir(), 'spns-client-'));
  t.after(() => rmSync(home, { recursive: true }));
  const before = process.env.HOME;
  process.env.HOME = home;
  t.after(() => {
    process.env.HOME = before;
  });
  const open = () => openClient('postgresql://u@127.0.0.1:1/d?sslmode=require', 5_000);
  await assert.rejects(open, /ECONNREFUSED/);
  const folder = join(home, '.postgresql', 'root.crt');
  mkdirSync(folder, { recursive: true });
  await assert.rejects(open, { message: `${folder} cannot be read (EISDIR)` });
});
