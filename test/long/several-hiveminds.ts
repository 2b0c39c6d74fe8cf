import assert from 'node:assert/strict';
import fs from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { account, during, SHORT_TRIALS, startCovered } from '../faults/hiveminds-world.ts';

/** SEVERAL_SECONDS=10 tries it out, SEVERAL_RATE=100 on a small machine. */
const WRITING = {
  seconds: Number(process.env.SEVERAL_SECONDS ?? 60),
  rate: Number(process.env.SEVERAL_RATE ?? 500),
};
const limits = { timeout: 120_000 + WRITING.seconds * 3_000 };
/** Runs in the process before its program, which then lives two hours ago. */
const OLD_CLOCK = `data:text/javascript,${encodeURIComponent('const now = Date.now; Date.now = () => now() - 7_200_000;')}`;

for (const [name, trial] of Object.entries(SHORT_TRIALS)) test(name, limits, (t) => trial(t, WRITING));

test(
  'one of two is stopped in order and started again: nothing is lost, nothing comes twice, and phones subscribe meanwhile',
  limits,
  async (t) => {
    const world = await startCovered(t);
    await during(world, WRITING, async () => {
      assert.equal(await world.signal('b', 'SIGTERM'), 'exit code 0');
      await world.join();
      await world.start('b');
    });
    await world.covered('a', 'b');
    account(t, world, WRITING);
  },
);

test('one of two is frozen for a while and wakes up again', limits, async (t) => {
  const world = await startCovered(t);
  await during(world, WRITING, async () => {
    void world.signal('a', 'SIGSTOP');
    await sleep(Math.max(WRITING.seconds * 250, 5_000));
    void world.signal('a', 'SIGCONT');
  });
  await world.covered('a', 'b');
  account(t, world, WRITING);
});

test('one of two loses half of the storage servers', limits, async (t) => {
  const world = await startCovered(t);
  const lines = world.proxies.get('a')!.filter((_, index) => index % 2 === 0);
  await during(world, WRITING, async () => {
    for (const line of lines) line.way = 'hole';
    await sleep(WRITING.seconds * 500);
    for (const line of lines) {
      line.way = 'pass';
      line.reset();
    }
  });
  account(t, world, WRITING);
});

test('PostgreSQL is stopped at once and comes back: pushes go on, and both members stay', limits, async (t) => {
  const world = await startCovered(t);
  await during(world, WRITING, async () => {
    await world.stopDatabase();
    await sleep(WRITING.seconds * 500);
    await world.startDatabase();
  });
  await world.join();
  await world.covered('a', 'b');
  account(t, world, WRITING);
});

test(
  'PostgreSQL crashes and its synchronous replica takes over: nothing that was confirmed is lost',
  limits,
  async (t) => {
    const world = await startCovered(t, ['a', 'b'], true);
    await during(world, WRITING, async () => {
      await world.join();
      await world.failOver();
      await world.join();
    });
    await world.covered('a', 'b');
    assert.deepEqual(await world.query('SELECT count(*)::int AS stored FROM subscriptions'), [
      { stored: world.phones.length },
    ]);
    account(t, world, WRITING);
  },
);

test('a member comes back with a clock that is two hours behind', limits, async (t) => {
  const world = await startCovered(t);
  await during(world, WRITING, async () => {
    await world.signal('b', 'SIGKILL');
    await world.start('b', { NODE_OPTIONS: `--import=${OLD_CLOCK}` });
  });
  await world.covered('a', 'b');
  account(t, world, WRITING);
});

test('one of three is stopped in order and comes back, and another is killed', limits, async (t) => {
  const world = await startCovered(t, ['a', 'b', 'c']);
  await during(world, WRITING, async () => {
    await world.signal('a', 'SIGTERM');
    await world.start('a');
    await world.covered('a', 'b', 'c');
    await world.signal('c', 'SIGKILL');
  });
  await world.covered('a', 'b');
  account(t, world, WRITING);
});

test(
  'while one is frozen another process takes its name, and none of its connections; the first ends when it wakes',
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
