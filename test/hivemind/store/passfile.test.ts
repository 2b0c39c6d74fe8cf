import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Conninfo, Host } from '../../../src/hivemind/store/conninfo.ts';
import { passwordFor } from '../../../src/hivemind/store/passfile.ts';

test('the password is that of the first line that matches, and comments do not count', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'spns-passfile-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const passfile = join(folder, 'pgpass');
  const found = (text: string, host: Partial<Host> = {}, mode = 0o600) => {
    writeFileSync(passfile, text);
    chmodSync(passfile, mode);
    const info = { passfile, database: 'spns', user: 'me' } as Conninfo;
    return passwordFor(info, { host: 'db', port: 5432, ...host } as Host);
  };
  assert.equal(found('db:5432:spns:me:one\ndb:5432:spns:me:two\n'), 'one');
  assert.equal(found('db:5432:spns:me\n*:*:*:*\n*:*:*:*:two\n'), 'two', 'a line without a password is none');
  assert.equal(found('*:*:*:*:one:two\n'), 'one');
  assert.equal(found('#db:5432:spns:me:one\r\n\r\nshort:line\r\n*:*:*:*:two\r\n'), 'two');
  assert.equal(found('#:*:*:*:one\n', { host: '#' }), undefined);
  for (const other of ['dc:5432:spns:me', 'db:5433:spns:me', 'db:5432:spmt:me', 'db:5432:spns:you'])
    assert.equal(found(`${other}:one\n`), undefined, other);
  assert.equal(found('db:5432:spns:me:o\\:n\\\\e\n'), 'o:n\\e');
  assert.equal(found('d\\b:5432:spns:me:one'), 'one');
  assert.equal(found('localhost:5432:spns:me:one\n', { host: '/run/postgresql' }), 'one');
  assert.equal(found('10.0.0.1:5432:spns:me:one\n', { host: '', hostaddr: '10.0.0.1' }), 'one');
  for (const mode of [0o640, 0o604, 0o610, 0o601]) assert.equal(found('*:*:*:*:one\n', {}, mode), undefined);
  rmSync(passfile);
  assert.equal(passwordFor({ passfile } as Conninfo, { host: 'db', port: 1 } as Host), undefined);
});
