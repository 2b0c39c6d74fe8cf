import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startTestHivemind } from '../../support/hivemind.ts';
import { createDatabase } from '../../support/postgres.ts';

test('one of several hiveminds stops in order even when its database is gone', async (t) => {
  let drop = async () => {};
  const database = await createDatabase({
    after: (work) => {
      drop = work;
    },
  });
  const hivemind = await startTestHivemind(t, { database, settings: { instance: 'a' } });
  await drop();
  await hivemind.stop();
  const said = hivemind.log.map((line) => (JSON.parse(line) as { msg: string }).msg);
  assert.ok(said.some((text) => text.startsWith('the database does not answer: the other hiveminds will notice')));
  assert.ok(
    said.some((text) => text.startsWith('of 0 pushes')),
    'the account of all pushes is the last that it does',
  );
});
