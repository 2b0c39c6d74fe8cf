import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Random, seededRandom } from '../../support/random.ts';
import { type Fault, NOTIFIERS, OURS, PLANNED, SERVERS } from './simulation/faults.ts';
import { ClusterWorld, MINUTE, SECOND, type WorldOptions } from './simulation/world.ts';

/**
 * SIMULATION_SEEDS=5000 looks longer, at a fifth of so many seeds, for a cluster takes a second; SIMULATION_SEED=17 at
 * one alone.
 */
const seeds = process.env.SIMULATION_SEED
  ? [Number(process.env.SIMULATION_SEED)]
  : Array.from({ length: Math.ceil(Number(process.env.SIMULATION_SEEDS ?? 10) / 5) }, (_, i) => i + 1);
/** With each of so many seeds more than an hour passes in the end: monitors would expire, and are renewed. */
const HOUR_EVERY = 100;

interface Trial {
  /** What may happen, each by its name. */
  readonly faults: Readonly<Record<string, Fault>>;
  /** Whether one thing happens at a time: then no message is lost that a storage server has stored. */
  readonly oneAtATime: boolean;
  /** How many hiveminds may hold each slot. */
  readonly copies: readonly number[];
}

const TRIALS: Readonly<Record<string, Trial>> = {
  'while members come and leave as they should, each message is pushed once': {
    faults: PLANNED,
    oneAtATime: true,
    copies: [1, 2],
  },
  'no single fault loses a message, nor pushes one twice': {
    faults: { ...PLANNED, ...OURS, ...SERVERS },
    oneAtATime: true,
    copies: [2, 2, 3],
  },
  'whatever happens at once, what a living member was told of is pushed, and the cluster becomes whole again': {
    faults: { ...PLANNED, ...OURS, ...SERVERS, ...NOTIFIERS },
    oneAtATime: false,
    copies: [1, 2, 2, 3],
  },
};

for (const [what, trial] of Object.entries(TRIALS)) {
  test(what, async (t) => {
    const total = { pushes: 0, twice: 0 };
    for (const seed of seeds) {
      const figures = await simulate(seed, trial);
      total.pushes += figures.pushes;
      total.twice += figures.twice;
    }
    t.diagnostic(`${seeds.length} seeds, ${total.pushes} pushes, ${total.twice} of them given twice to the provider`);
  });
}

async function simulate(seed: number, trial: Trial): Promise<{ pushes: number; twice: number }> {
  const random = seededRandom(seed);
  const world = new ClusterWorld(random, draw(random, trial));
  try {
    await settle(world);
    await (trial.oneAtATime ? oneAfterTheOther(world, trial) : allAtOnce(world, trial));
    await settle(world);
    if (seed % HOUR_EVERY === 0) {
      await world.clock.advance(70 * MINUTE);
      await settle(world);
    }
    await drain(world);
    return checkPushes(world, trial);
  } catch (error) {
    const events = world.events.map((event) => `\n  ${event}`).join('');
    const text = error instanceof Error ? error.message : String(error);
    throw new Error(`seed ${seed}: ${text}; what happened last:${events}`, { cause: error });
  }
}

function draw({ int, pick }: Random, { copies }: Trial): WorldOptions {
  // Where the provider takes its time, and little is given to it, pushes wait in the hiveminds.
  const isSlow = int(2) === 0;
  const names = ['a', 'b', 'c', 'd'].slice(0, 2 + int(3));
  return {
    names,
    copies: Math.min(pick(copies), names.length),
    accounts: 10 + int(60),
    limits: { maxBytes: pick([4_000_000, 4_000_000, 40_000]), maxAge: 10 * MINUTE },
    window: pick(isSlow ? [2, 5] : [5, 50, 1_000]),
    latency: isSlow ? 3 * SECOND : 200,
  };
}

/**
 * Time goes on, and with it what clients and senders do.
 * @param pace ms between two messages, on average
 */
async function live(world: ClusterWorld, ms: number, pace = 100): Promise<void> {
  const { random, clock } = world;
  const end = clock.monotonic() + ms;
  while (clock.monotonic() < end) {
    world.message();
    if (random.int(4) === 0) world.client();
    await clock.advance(Math.min(end - clock.monotonic(), random.int(2 * pace)));
    world.checkNow();
  }
}

async function allAtOnce(world: ClusterWorld, { faults }: Trial): Promise<void> {
  const { random } = world;
  world.isWhole = false;
  for (let n = 0; n < 30; n++) {
    happen(world, faults);
    await live(world, random.int(4 * SECOND));
  }
}

async function oneAfterTheOther(world: ClusterWorld, { faults }: Trial): Promise<void> {
  for (let n = 0; n < 5; n++) {
    await live(world, 3 * SECOND);
    happen(world, faults);
    await live(world, 5 * SECOND);
    await settle(world);
    // What one alone was told of meanwhile must not die with it in the next fault.
    await drain(world);
  }
}

function happen(world: ClusterWorld, faults: Trial['faults']): void {
  const name = world.random.pick(Object.keys(faults));
  world.note(`* ${name}`);
  faults[name]?.(world);
}

/** Lives until the cluster is whole. */
async function settle(world: ClusterWorld): Promise<void> {
  const end = world.clock.monotonic() + 15 * MINUTE;
  let trouble: string | undefined = 'it has only begun';
  while (trouble !== undefined) {
    assert.ok(world.clock.monotonic() < end, `the cluster does not become whole: ${trouble}`);
    await live(world, 2 * SECOND, 500);
    trouble = world.trouble();
  }
  world.isWhole = true;
}

/** Until everything is on the phones. */
async function drain(world: ClusterWorld): Promise<void> {
  const end = world.clock.monotonic() + 15 * MINUTE;
  let unfinished: string | undefined = 'it has only begun';
  while (unfinished !== undefined) {
    assert.ok(world.clock.monotonic() < end, `pushes do not come to an end: ${unfinished}`);
    await world.clock.advance(5 * SECOND);
    unfinished = world.unfinished();
  }
}

function checkPushes(world: ClusterWorld, { oneAtATime }: Trial): { pushes: number; twice: number } {
  let twice = 0;
  for (const [key, { isSettled, heardBy, sent, message }] of world.pushes) {
    const isSent = sent.some(({ arrived }) => arrived);
    const what = `the push of ${key}, stored after ${message.storedAt / SECOND} s,`;
    for (const member of heardBy) {
      const isAlive = world.members.get(member.name) === member;
      if (!world.wasFull && (isAlive || world.stopped.get(member)?.leftOver === 0))
        assert.ok(isSent, `${what} is lost, although ${member.name} was told of it`);
    }
    // What is with a provider that takes its time when a hivemind stops may be tried again by no other one.
    const isLeft = heardBy.size > 0 && [...heardBy].every((member) => world.stopped.has(member));
    if (oneAtATime && isSettled && !isLeft && !world.wasFull) assert.ok(isSent, `${what} is lost`);
    // What was sent of a doubtful message is sent again of a better copy.
    const copies = sent.filter((one, n) => sent.slice(0, n).some((before) => before.doubt <= one.doubt));
    if (copies.length === 0) continue;
    twice++;
    const by = sent.map((one) => `${one.by.name} after ${one.at / SECOND} s (doubt ${one.doubt})`).join(', ');
    assert.ok(world.notifiersChanged, `${what} is given twice, and no notifier has changed: ${by}`);
    assert.equal(
      new Set(sent.map((one) => `${one.by.name} ${one.doubt}`)).size,
      sent.length,
      `${what} is given twice by one notifier: ${by}`,
    );
  }
  return { pushes: world.pushes.size, twice };
}
