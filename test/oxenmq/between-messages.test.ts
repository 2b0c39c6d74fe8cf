import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { BetweenMessages } from '../../src/oxenmq/between-messages.ts';

test('the reader has caught up once it has waited for a message for some turns of the event loop', async () => {
  const between = new BetweenMessages();
  const take = () => {
    between.begin();
    between.end();
  };
  let isCaughtUp = false;
  const caughtUp = between.caughtUp().then(() => {
    isCaughtUp = true;
  });
  // zeromq.js may let the loop turn between asking for a message and reading it.
  for (let message = 0; message < 20; message++) {
    take();
    await nextTurn();
    await nextTurn();
    assert.ok(!isCaughtUp, `after message ${message}`);
  }
  await caughtUp;
  await between.caughtUp();
});
