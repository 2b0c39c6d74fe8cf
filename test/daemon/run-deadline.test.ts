import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { start } from './child.ts';

test('a stop that hangs is cut short after ten seconds with exit code 1', async (t) => {
  const child = start(t, { what: 'stop-hangs' });
  await child.line(/up$/);
  child.process.kill('SIGTERM');
  assert.equal(await Promise.race([child.ended, sleep(8_000, 'still stopping')]), 'still stopping');
  assert.equal(await child.ended, 1);
  await child.line(/critical .*did not stop in time.* seconds=10/);
});
