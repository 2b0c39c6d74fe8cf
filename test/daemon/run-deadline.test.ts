import assert from 'node:assert/strict';
import { test } from 'node:test';
import { start } from './child.ts';

test('a stop that hangs is ended after ten seconds with 1', async (t) => {
  const child = start(t, { what: 'stop-hangs' });
  await child.line(/up$/);
  const before = performance.now();
  child.process.kill('SIGTERM');
  assert.equal(await child.ended, 1);
  const took = performance.now() - before;
  assert(took > 8000, `${took} ms`);
  await child.line(/critical .*did not stop in time.* seconds=10/);
});
