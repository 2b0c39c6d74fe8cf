import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { account, during, startCovered } from './hiveminds-world.ts';

/** Few and for a short while: test/long/several-hiveminds.ts does more, and more of it. */
const WRITING = { seconds: 3, rate: 100 };
const limits = { timeout: 120_000 };

test('one of two is killed and comes back: no push is lost, and none comes twice', limits, async (t) => {
  const world = await startCovered(t);
  await during(world, WRITING, async () => {
    await world.signal('a', 'SIGKILL');
    await sleep((WRITING.seconds * 1000) / 4);
    await world.start('a');
  });
  await world.covered('a', 'b');
  account(t, world, WRITING);
});

test(
  'spns roll restarts one after the other: nothing is lost or comes twice, and phones subscribe meanwhile',
  limits,
  async (t) => {
    const world = await startCovered(t);
    await during(world, WRITING, async () => {
      const joining = world.join();
      assert.equal(await world.roll(), 0);
      await joining;
    });
    await world.covered('a', 'b');
    account(t, world, WRITING);
  },
);
