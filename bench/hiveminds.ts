import { setTimeout as sleep } from 'node:timers/promises';
import { holdersOf, slotOf } from '../src/session/slots.ts';
import { type HivemindsWorld, startHiveminds } from '../test/faults/hiveminds-world.ts';
import { cpuSeconds } from './cpu.ts';
import { round } from './world.ts';

const PHONES = 60;
const MESSAGES = 5_000;
/** To each hivemind, for the compilers of all processes, before anything is measured. */
const WARM_UP = 3_000;
const RATE = 2_000;
/** Of each message, from the servers of a swarm. */
const COPIES = 5;

/** CPU seconds while one hivemind had the messages: its own, of its main thread alone, of the others together. */
interface Turn {
  /** How long it took, by the clock. */
  readonly seconds: number;
  readonly own: number;
  readonly mainThread: number;
  readonly others: number;
}

/**
 * What notifications cost the hiveminds of a cluster, as processes with sockets, a notifier and a provider, in CPU time
 * of whole processes: wall clocks tell nothing on a shared machine. One alone, then the slots divided among two and
 * four (`copies = 1`), and two that both hold everything.
 *
 * Each is first in turn for all messages, as many a second whoever else is there. All at once would share the machine,
 * and a process that is given less a second spends more on each: it wakes for fewer, and is compiled later.
 */
export async function* hiveminds(): AsyncGenerator<object> {
  let alone = Number.NaN;
  for (const names of [['a'], ['a', 'b'], ['a', 'b', 'c', 'd']]) {
    const turns = await inWorld(names, 1, names);
    const own = turns.reduce((sum, turn) => sum + turn.own, 0) / turns.length;
    if (names.length === 1) alone = own;
    yield {
      row: `hiveminds: ${names.length}, copies = 1`,
      cpu_seconds_a_million_raw: perMillion(own),
      main_thread: perMillion(turns.reduce((sum, turn) => sum + turn.mainThread, 0) / turns.length),
      of_one_alone: round(own / alone),
      cores_of_each_idle: round(
        Math.max(...turns.map(({ others, seconds }) => others / seconds)) / (names.length - 1 || 1),
      ),
    };
  }
  for (const turn of await inWorld(['a', 'b'], 2, ['a'])) {
    yield {
      row: 'hiveminds: 2, copies = 2',
      first_cpu_seconds_a_million_raw: perMillion(turn.own),
      second_cpu_seconds_a_million_raw: perMillion(turn.others),
      second_of_first: round(turn.others / turn.own),
    };
  }
}

/** Starts these, and gives each of `firsts` a turn. */
async function inWorld(names: readonly string[], copies: number, firsts: readonly string[]): Promise<Turn[]> {
  const atEnd: (() => unknown)[] = [];
  try {
    const world = await startHiveminds({ after: (work) => atEnd.push(work) }, names, { copies });
    if (copies > 1) await world.divided(...names);
    for (let n = 0; n < PHONES; n++) await world.join();
    await world.covered(...names);
    const turns: Turn[] = [];
    for (const first of firsts) {
      const phones = world.phones.filter(({ accounts: [account] }) => {
        return account && holdersOf(slotOf(account.id), names, copies)[0] === first;
      });
      await send(world, WARM_UP, phones);
      const before = new Map(names.map((name) => [name, cpuSeconds(world.pid(name))]));
      const start = performance.now();
      const mainThread = -cpuSeconds(world.pid(first), true);
      await send(world, MESSAGES, phones);
      let [own, others] = [0, 0];
      for (const [name, seconds] of before) {
        const spent = cpuSeconds(world.pid(name)) - seconds;
        if (name === first) own = spent;
        else others += spent;
      }
      const seconds = (performance.now() - start) / 1000;
      turns.push({ seconds, own, others, mainThread: mainThread + cpuSeconds(world.pid(first), true) });
    }
    return turns;
  } finally {
    for (const work of atEnd.reverse()) await work();
  }
}

/** Writes messages, and waits until the provider has them all. */
async function send(world: HivemindsWorld, count: number, phones: HivemindsWorld['phones']): Promise<void> {
  const fates = world.ledger.of('apns');
  const end = fates.told + count;
  const writing = world.write(RATE, phones);
  while (fates.told < end) await sleep(5);
  await writing.stop();
  await world.settled(10_000);
  if (fates.taken !== fates.told || fates.twice > 0) throw new Error(`not sent once each: ${JSON.stringify(fates)}`);
}

function perMillion(seconds: number): number {
  return round((seconds * 1e6) / (MESSAGES * COPIES));
}
