import assert from 'node:assert/strict';
import fs from 'node:fs/promises';
import path from 'node:path';
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

test(
  'while one stands still another process takes its name, and none of its connections; the first ends when it wakes',
  limits,
  async (t) => {
    const world = await startCovered(t);
    await during(world, WRITING, async () => {
      void world.signal('a', 'SIGSTOP');
      const frozen = world.pid('a');
      // PostgreSQL gives the connection of a machine that has vanished up after a while.
      await world.query(`SELECT pg_terminate_backend(pid) FROM pg_locks
      WHERE locktype = 'advisory' AND classid = ${0x53504e54} AND objid = (hashtext('a') & 2147483647)`);
      // The second is on another machine, which has sockets of its own.
      for (const socket of ['a.sock', 'omq-a.sock']) await fs.rm(path.join(path.dirname(world.ini), socket));
      await world.start('a');
      // Storage servers still hold the connections of the first: one with the same id would not be let in.
      await world.covered('a', 'b');
      process.kill(frozen, 'SIGCONT');
      assert.equal(await world.former('a'), 'exit code 1');
      // Nor has it taken the sockets of the second away.
      await world.covered('a', 'b');
      await world.join();
    });
    await world.covered('a', 'b');
    account(t, world, WRITING);
  },
);
