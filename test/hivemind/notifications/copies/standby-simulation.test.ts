import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Doubt } from '../../../../src/hivemind/notifications/doubt.ts';
import { seededRandom } from '../../../support/random.ts';
import { MAX_AGE, type Member, microtasks, ORIGINALS, OURS, PushWorld, type Sent } from './push-world.ts';

/** SIMULATION_SEEDS=5000 looks longer, SIMULATION_SEED=17 at one alone. */
const seeds = process.env.SIMULATION_SEED
  ? [Number(process.env.SIMULATION_SEED)]
  : Array.from({ length: Number(process.env.SIMULATION_SEEDS ?? 12) }, (_, i) => i + 1);

const SECOND = 1_000;
const LENGTH = 30 * SECOND;

type Faults = 'none' | 'planned' | 'ours' | 'all';

/** What may go wrong: with `ours`, anything at the hiveminds; with `all`, notifiers die too. */
for (const [faults, what] of [
  ['none', 'without faults each push is sent once, and by the first'],
  ['planned', 'while members leave and come as they should, each push is sent once'],
  ['ours', 'whatever happens to members, no push is lost that a living one received, and none is sent twice'],
  ['all', 'nor is one lost when notifiers die as well'],
] as const) {
  test(what, async (t) => {
    let pushes = 0;
    let twice = 0;
    for (const seed of seeds) {
      try {
        const figures = await simulate(seed, faults);
        pushes += figures.pushes;
        twice += figures.twice;
      } catch (error) {
        throw new Error(`seed ${seed}: ${error instanceof Error ? error.message : error}`, { cause: error });
      }
    }
    t.diagnostic(`${seeds.length} seeds, ${pushes} pushes, ${twice} of them sent twice`);
  });
}

async function simulate(seed: number, faults: Faults): Promise<{ pushes: number; twice: number }> {
  const random = seededRandom(seed);
  const { int, pick } = random;
  const names = pick([
    ['a', 'b'],
    ['a', 'b'],
    ['a', 'b', 'c'],
  ]);
  const isHard = faults === 'ours' || faults === 'all';
  const world = new PushWorld(random, { names, window: pick([5, 50, 1_000]) });
  const { clock } = world;
  const runs: Member[] = [...world.members.values()];
  const devices: string[] = [];

  // Until each knows of the others.
  await clock.advance(2 * SECOND, microtasks);
  const message = () => {
    const device = `device-${devices.length}`;
    devices.push(device);
    const service = int(4) === 0 ? ORIGINALS : OURS;
    const doubt = int(10) === 0 ? pick([Doubt.unproven, Doubt.untimely]) : Doubt.none;
    for (const member of world.members.values()) {
      if (isHard && int(20) === 0) continue;
      const late = isHard && int(50) === 0 ? 5 * SECOND : 60;
      const its = isHard && doubt !== Doubt.none && int(3) === 0 ? Doubt.none : doubt;
      world.later(0, late, () => member.receive(device, service, its));
    }
  };
  const start = (name: string) => {
    if (!world.members.has(name)) runs.push(world.start(name));
  };
  const others = () => world.names.filter((name) => world.members.get(name)?.stands === false);
  const trouble: (() => void)[] = [];
  if (faults === 'planned' || isHard)
    trouble.push(() => {
      const name = pick(world.names);
      if (world.members.size < world.names.length) return;
      void world.leave(name).then(() => world.later(500, 3 * SECOND, () => start(name)));
    });
  if (isHard)
    trouble.push(
      () => {
        const name = pick(world.names);
        if (world.members.size < world.names.length || others().length < 2) return;
        world.kill(name);
        world.later(500, 8 * SECOND, () => start(name));
      },
      () => {
        if (others().length >= 2) world.members.get(pick(world.names))?.pause(100 + int(8 * SECOND));
      },
      () => {
        const way = `${pick(world.names)}>${pick(world.names)}`;
        world.broken.set(way, pick(['turned away', 'lost']));
        world.later(100, 5 * SECOND, () => world.broken.delete(way));
      },
      () => {
        world.slowest = pick([50, 50, 300, 2 * SECOND]);
      },
      () => {
        world.silentUntil = clock.monotonic() + int(8 * SECOND);
      },
      () => {
        if (world.cut.size === 0) world.cutOff(pick(world.names), pick([2, 10, 1_000]) * SECOND);
      },
    );
  if (faults === 'all') trouble.push(() => world.replaceNotifier());

  for (let at = 0; at < LENGTH; at += 5 + int(100)) clock.setTimeout(message, at);
  if (trouble.length > 0) {
    for (let at = SECOND; at < LENGTH; at += int(isHard ? 2 * SECOND : 5 * SECOND)) {
      clock.setTimeout(() => pick(trouble)(), at);
    }
  }
  await clock.advance(LENGTH + 20 * SECOND, microtasks);

  let twice = 0;
  for (const device of devices) {
    const sent = world.provider.get(device) ?? [];
    // Who has no notifier can send it to nobody.
    const isReceived = runs.some(
      ({ isDead, name, received }) => !isDead && !world.cut.has(name) && received.has(device),
    );
    if (isReceived) assert.ok(sent.length > 0, `${device} is lost`);
    const copies = sent.filter((one, n) => sent.slice(0, n).some((before) => isCopy(one, before)));
    if (copies.length > 0) twice++;
    // Notifiers of the original's kind tell no copies apart, and members hear of each other a second late.
    const isOurs = sent[0]?.notifier.startsWith('notifier');
    if (faults === 'none' || (isOurs && faults !== 'all')) {
      assert.equal(copies.length, 0, `${device} is sent twice: ${JSON.stringify(sent)}`);
    }
  }

  await clock.advance(MAX_AGE + 10 * SECOND, microtasks);
  for (const { outbox, received, name } of world.members.values()) {
    const { standby } = outbox;
    assert.ok(standby);
    const { released, ended, repeated, tooOld, left } = standby.counters;
    if (faults === 'none') assert.deepEqual(released, { silence: 0, none: 0, gone: 0, duty: 0, room: 0 });
    assert.deepEqual([standby.size, standby.bytes, outbox.outstanding], [0, 0, 0], `${name} holds nothing any more`);
    await outbox.stop(0);
    const { queued, accepted, refused, passed, unreported, elsewhere, dropped } = outbox.close();
    assert.equal(queued, accepted + refused + passed + unreported + elsewhere + dropped);
    assert.equal(received.size, queued + ended + repeated + tooOld + left, `${name} knows what became of each push`);
  }
  return { pushes: devices.length, twice };
}

/** With less doubt it is another push; and the hiveminds alone know that a doubtful one is a proven one's copy. */
function isCopy(one: Sent, before: Sent): boolean {
  return before.doubt <= one.doubt && (before.doubt === Doubt.none) === (one.doubt === Doubt.none);
}
