import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type HivemindsWorld, startHiveminds } from './hiveminds-world.ts';

/**
 * How long each is tried (s), and how many messages are written a second: SEVERAL_SECONDS=60 SEVERAL_RATE=500 does what
 * docs/several.md tells of.
 */
const SECONDS = Number(process.env.SEVERAL_SECONDS ?? 4);
const RATE = Number(process.env.SEVERAL_RATE ?? 100);
const PHONES = 40;
/** Runs in the process before its program, which then lives an hour ago. */
const OLD_CLOCK = `data:text/javascript,${encodeURIComponent('const now = Date.now; Date.now = () => now() - 3_600_000;')}`;
const limits = { timeout: 120_000 + SECONDS * 3_000 };

async function startPair(t: TestContext, names = ['a', 'b']): Promise<HivemindsWorld> {
  const world = await startHiveminds(t, names);
  for (let n = 0; n < PHONES; n++) await world.join();
  await world.covered(...names);
  return world;
}

/** Messages are written all the while; in the middle something happens. */
async function during(world: HivemindsWorld, happens: () => Promise<unknown>): Promise<void> {
  const writing = world.write(RATE);
  await sleep((SECONDS * 1000) / 4);
  await happens();
  await sleep((SECONDS * 1000) / 2);
  await writing.stop();
  await world.settled(20_000);
}

function account(t: TestContext, world: HivemindsWorld): void {
  const { told, taken, twice } = world.ledger.of('apns');
  t.diagnostic(JSON.stringify({ told, taken, lost: told - taken, twice }));
  assert.ok(told > SECONDS * RATE * 0.4, `${told} messages were written`);
  assert.deepEqual({ lost: told - taken, twice, wrong: world.ledger.wrong }, { lost: 0, twice: 0, wrong: [] });
  assert.deepEqual(world.deaths, []);
}

test('one of two is killed and comes back: no push is lost, and none comes twice', limits, async (t) => {
  const world = await startPair(t);
  await during(world, async () => {
    await world.signal('a', 'SIGKILL');
    await sleep((SECONDS * 1000) / 4);
    await world.start('a');
  });
  await world.covered('a', 'b');
  account(t, world);
});

test(
  'one of two is stopped in order and started again: nothing is lost, nothing comes twice, and phones subscribe meanwhile',
  limits,
  async (t) => {
    const world = await startPair(t);
    await during(world, async () => {
      assert.equal(await world.signal('b', 'SIGTERM'), 'exit code 0');
      await world.join();
      await world.start('b');
    });
    await world.covered('a', 'b');
    account(t, world);
  },
);

test('one of two stands still for a while and wakes up again', limits, async (t) => {
  const world = await startPair(t);
  await during(world, async () => {
    void world.signal('a', 'SIGSTOP');
    await sleep(Math.max(SECONDS * 250, 5_000));
    void world.signal('a', 'SIGCONT');
  });
  await world.covered('a', 'b');
  account(t, world);
});

test('one of two loses half of the storage servers', limits, async (t) => {
  const world = await startPair(t);
  const lines = world.proxies.get('a')!.filter((_, index) => index % 2 === 0);
  await during(world, async () => {
    for (const line of lines) line.way = 'hole';
    await sleep(SECONDS * 500);
    for (const line of lines) {
      line.way = 'pass';
      line.reset();
    }
  });
  account(t, world);
});

test('PostgreSQL is stopped at once and comes back: pushes go on, and both members with them', limits, async (t) => {
  const world = await startPair(t);
  await during(world, async () => {
    await world.stopDatabase();
    await sleep(SECONDS * 500);
    await world.startDatabase();
  });
  await world.join();
  await world.covered('a', 'b');
  account(t, world);
});

test('a member comes back with a clock that is an hour behind', limits, async (t) => {
  const world = await startPair(t);
  await during(world, async () => {
    await world.signal('b', 'SIGKILL');
    await world.start('b', { NODE_OPTIONS: `--import=${OLD_CLOCK}` });
  });
  await world.covered('a', 'b');
  account(t, world);
});

test('of three one is stopped in order, comes back, and another is killed', limits, async (t) => {
  const world = await startPair(t, ['a', 'b', 'c']);
  await during(world, async () => {
    await world.signal('a', 'SIGTERM');
    await world.start('a');
    await world.covered('a', 'b', 'c');
    await world.signal('c', 'SIGKILL');
  });
  await world.covered('a', 'b');
  account(t, world);
});

test(
  'spns roll restarts one after the other: nothing is lost or comes twice, and phones subscribe meanwhile',
  limits,
  async (t) => {
    const world = await startPair(t);
    await during(world, async () => {
      const joining = world.join();
      assert.equal(await world.roll(), 0);
      await joining;
    });
    await world.covered('a', 'b');
    account(t, world);
  },
);
