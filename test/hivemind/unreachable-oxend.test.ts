import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { startTestHivemind } from '../support/hivemind.ts';
import { until } from '../support/until.ts';

test("why oxend's socket cannot be used is shown at once by the log, /ready (and so the status) and admin.get_stats", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'spns-oxend-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'oxend.sock');
  writeFileSync(path, '');
  const hivemind = await startTestHivemind(t, { settings: { oxend_rpc: `ipc://${path}` } });
  const sentence = `oxend: ${path} is not a socket but something else`;
  const ready = () => hivemind.daemon.ready!();
  await until(() => ready().reasons.includes(sentence));
  // Clients are served all the same.
  assert.equal(ready().ok, true);
  assert.ok(hivemind.log.some((line) => line.includes(`${sentence}; waiting for it`)));
  const [stats] = await hivemind.ask('admin.get_stats');
  assert.deepEqual(JSON.parse(String(stats)).complaints, [sentence]);
});
