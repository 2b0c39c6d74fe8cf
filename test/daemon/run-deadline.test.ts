import assert from 'node:assert/strict';
import { test } from 'node:test';
import { start } from './child.ts';

test('a stop that hangs is cut short after ten seconds with exit code 1', async (t) => {
  const child = start(t, { what: 'stop-hangs' });
  await child.line(/up$/);
  child.process.kill('SIGTERM');
  assert.equal(await child.ended, 1);
  const at = async (line: RegExp) => Date.parse((await child.line(line)).split(' ', 1).join());
  const took = (await at(/critical .*did not stop in time.* seconds=10/)) - (await at(/stopping signal=SIGTERM/));
  // By its own log, which has half a second to be written before the ten are over.
  assert.ok(took >= 9_400, `cut short after ${took} ms`);
});
