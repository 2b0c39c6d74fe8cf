import { setTimeout as sleep } from 'node:timers/promises';
import { holdersOf, slotOf } from '../src/session/slots.ts';
import { type HivemindsWorld, startHiveminds } from '../test/faults/hiveminds-world.ts';
import { cpuSeconds } from './cpu.ts';
import { round } from './world.ts';

/** So many that none has more than a phone may have at a time, even of one hivemind of four. */
const PHONES = 240;
const MESSAGES = 10_000;
/** To each hivemind, for the compilers of all processes, before anything is measured. */
const WARM_UP = 3_000;
/** Raw notifications a second at the first. */
const RATE = 10_000;
/** So often each hivemind is first. */
const TURNS = 3;
/** Servers of a swarm, each of which tells of a message. */
const SERVERS = 5;

/** CPU seconds while one hivemind had the messages: its own, of its main thread alone, of the others together. */
interface Turn {
  readonly first: string;
  /** How long it took, by the clock. */
  readonly seconds: number;
  readonly own: number;
  readonly mainThread: number;
  readonly others: number;
  /** Raw notifications that the others had, of those that it had; pushes that they sent, of the messages. */
  readonly heard: number;
  readonly sent: number;
}

/**
 * What notifications cost the hiveminds of a cluster, as processes with sockets, a notifier and a provider, in CPU time
 * of whole processes: wall clocks tell nothing on a shared machine. One alone, then the slots divided among two and
 * four (`copies = 1`), and two that both hold everything.
 *
 * Each is first in turn for all messages, as many a second whoever else is there. All at once would share the machine,
 * and a process that is given less a second spends more on each: it wakes for fewer, and is compiled later. Of the
 * turns of a process the least counts: what else runs on the machine only adds to them. The rate is what a core gives
 * that does nothing but the work of the main thread.
 */
export async function* hiveminds(): AsyncGenerator<object> {
  let alone = Number.NaN;
  for (const names of [['a'], ['a', 'b'], ['a', 'b', 'c', 'd']]) {
    const turns = await inWorld(names, 1, SERVERS);
    const own = leastOfEach(turns, 'own');
    const mainThread = leastOfEach(turns, 'mainThread');
    if (names.length === 1) alone = own;
    yield {
      row: `hiveminds: ${names.length}, copies = 1`,
      cpu_seconds_a_million_raw: perMillion(own, SERVERS),
      by_turn: turns.map((turn) => perMillion(turn.own, SERVERS)),
      main_thread: perMillion(mainThread, SERVERS),
      raw_per_second_of_each: Math.round((MESSAGES * SERVERS) / mainThread),
      growth_each: round(alone / own),
      cores_of_each_idle: round(
        Math.max(...turns.map(({ others, seconds }) => others / seconds)) / (names.length - 1 || 1),
      ),
    };
  }
  for (const servers of [5, 7, 10]) {
    const turns = await inWorld(['a', 'b'], 2, servers);
    // On a machine that is too busy the first is a second late, and the second sends as well: such a turn says nothing.
    const calm = turns.filter(({ sent }) => sent < 0.02);
    const [own, others] = [leastOfEach(calm, 'own'), leastOfEach(calm, 'others')];
    yield {
      row: `hiveminds: 2, copies = 2, swarms of ${servers}`,
      first_cpu_seconds_a_million_raw: perMillion(own, servers),
      second_cpu_seconds_a_million_raw: perMillion(others, servers),
      second_of_first: round(others / own),
      by_turn: turns.map((turn) => round(turn.others / turn.own)),
      second_hears: turns.map(({ heard }) => round(heard)),
      second_sends: turns.map(({ sent }) => round(sent)),
    };
  }
}

/** The mean of the least that was measured with each of them as the first. */
function leastOfEach(turns: readonly Turn[], what: 'own' | 'mainThread' | 'others'): number {
  const firsts = [...new Set(turns.map(({ first }) => first))];
  const least = firsts.map((name) =>
    Math.min(...turns.filter(({ first }) => first === name).map((turn) => turn[what])),
  );
  return least.reduce((sum, one) => sum + one, 0) / least.length;
}

/** Starts these, and gives each of them its turns. */
async function inWorld(names: readonly string[], copies: number, servers: number): Promise<Turn[]> {
  const atEnd: (() => unknown)[] = [];
  try {
    const world = await startHiveminds({ after: (work) => atEnd.push(work) }, names, { settings: { copies }, servers });
    if (copies > 1) await world.divided(...names);
    for (let n = 0; n < PHONES; n++) await world.join();
    await world.covered(...names);
    const turns: Turn[] = [];
    for (const first of Array<readonly string[]>(TURNS).fill(names).flat()) {
      const phones = world.phones.filter(({ accounts: [account] }) => {
        return account && holdersOf(slotOf(account.id), names, copies)[0] === first;
      });
      const rate = RATE / servers;
      await send(world, WARM_UP, phones, rate);
      const before = await countsOf(world, names);
      const spentBefore = new Map(names.map((name) => [name, cpuSeconds(world.pid(name))]));
      const start = performance.now();
      const mainThreadBefore = cpuSeconds(world.pid(first), true);
      await send(world, MESSAGES, phones, rate);
      let [own, others] = [0, 0];
      for (const [name, seconds] of spentBefore) {
        const spent = cpuSeconds(world.pid(name)) - seconds;
        if (name === first) own = spent;
        else others += spent;
      }
      const mainThread = cpuSeconds(world.pid(first), true) - mainThreadBefore;
      const seconds = (performance.now() - start) / 1000;
      const counts = await countsOf(world, names);
      const had = (name: string, what: 'raw' | 'handed') =>
        (counts.get(name)?.[what] ?? 0) - (before.get(name)?.[what] ?? 0);
      const rest = names.filter((name) => name !== first);
      const heard = rest.reduce((sum, name) => sum + had(name, 'raw'), 0) / had(first, 'raw');
      const sent = rest.reduce((sum, name) => sum + had(name, 'handed'), 0) / MESSAGES;
      turns.push({ first, seconds, own, others, heard, sent, mainThread });
    }
    return turns;
  } finally {
    for (const work of atEnd.reverse()) await work();
  }
}

/** What each has had and sent since its start. */
async function countsOf(world: HivemindsWorld, names: readonly string[]) {
  const all = await Promise.all(names.map((name) => world.figures(name)));
  return new Map(
    all.map(({ since_start: { raw }, services }, n) => {
      const handed = services.reduce((sum, service) => sum + service.handed, 0);
      return [names[n] ?? '', { raw, handed }] as const;
    }),
  );
}

/** Writes messages, and waits until the provider has them all. */
async function send(
  world: HivemindsWorld,
  count: number,
  phones: HivemindsWorld['phones'],
  rate: number,
): Promise<void> {
  const counts = world.deliveries.of('apns');
  const end = counts.sent + count;
  const writing = world.write(rate, phones);
  while (counts.sent < end) await sleep(5);
  await writing.stop();
  await world.settled(10_000);
  if (counts.taken !== counts.sent || counts.twice > 0)
    throw new Error(`not sent once each: ${JSON.stringify(counts)}`);
}

/** Of a million raw notifications from swarms of so many servers. */
function perMillion(seconds: number, servers: number): number {
  return round((seconds * 1e6) / (MESSAGES * servers));
}
