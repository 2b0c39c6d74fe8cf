import type { Clock, Timer } from '../clock.ts';
import type { Random } from './account.ts';
import type { Person } from './people.ts';
import type { Phone, Woken } from './phone.ts';
import { startWorld, type World, type WrittenMessage } from './world.ts';

/** How often somebody writes, ms; with `--once` often enough that all are written to while a hivemind is away. */
const PACE = 2500;
const ONCE_PACE = 750;

/** When a phone should have woken, ms after the message; and when any duplicate push would have come, after it woke. */
const SETTLED = 1500;

/** npm forwards the Ctrl-C that we also get from the terminal: a signal within so many ms of another is the same. */
const SAME_SIGNAL = 1000;

/** How many messages are remembered. */
const REMEMBERED = 100;

/** How long `--once` may take when all is up, ms. */
const ONCE_LIMIT = 60_000;

const TEXTS = [
  'are you there?',
  'the train leaves at ten past nine',
  'bring the blue tent, please',
  'look at the moon tonight',
  'dinner is ready',
  'who has the map?',
  'that was a good day',
  'see you at the bridge',
];

/** A message that was sent to somebody. */
interface Sent {
  readonly written: WrittenMessage;
  readonly person: Person;
  /** How often it woke each phone. */
  readonly wakes: Map<Phone, number>;
}

/**
 * Runs a world as a demonstration: starts it, has somebody write every few seconds, prints a line for each phone that
 * wakes, and stops everything on SIGINT, SIGTERM and SIGHUP.
 *
 * @returns the exit code: 1 if something went wrong
 */
export async function play(modules: {
  clock: Clock;
  random: Random;
  folder: string;
  once: boolean;
  hiveminds: number;
  write: (text: string) => void;
}): Promise<number> {
  const { clock, random, folder, once, hiveminds, write } = modules;
  const begin = clock.monotonic();
  const say = (text = '') => write(`${text}\n`);
  const now = () => new Date(clock.now()).toLocaleTimeString('en-GB');

  const stops: (() => Promise<unknown>)[] = [];
  const timers = new Set<Timer>();
  const sent = new Map<string, Sent>();
  const woken = new Set<Phone>();
  let world: World | undefined;
  let failure: string | undefined;
  const over = new AbortController();

  function later(work: () => void, ms: number): void {
    const timer = clock.setTimeout(() => {
      timers.delete(timer);
      work();
    }, ms);
    timers.add(timer);
  }

  function end(why?: string): void {
    if (over.signal.aborted) return;
    failure = why;
    over.abort();
  }

  let lastSignal = Number.NEGATIVE_INFINITY;
  function onSignal(signal: NodeJS.Signals): void {
    const again = clock.monotonic() - lastSignal > SAME_SIGNAL;
    lastSignal = clock.monotonic();
    if (over.signal.aborted) {
      if (!again) return;
      say(`\n${signal} again: ending everything at once`);
      killAll();
      process.exit(1);
    }
    say(`\n${signal}: stopping`);
    end(once ? `stopped by ${signal}` : undefined);
  }
  let killAll = (): void => undefined;
  const onBrokenPipe = (): void => end('nobody reads the output any more');
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, onSignal);
  process.stdout.on('error', onBrokenPipe);

  function kill(): void {
    if (!world || over.signal.aborted) return;
    const name = world.killHivemind();
    if (name === undefined) {
      say(`${now()}  the hivemind that was killed last is not back yet`);
      return;
    }
    say(`${now()}  ${name} was killed: the others go on, and it is started again`);
    // With --once each phone must wake while one is away.
    woken.clear();
    isKilled = true;
  }
  let isKilled = hiveminds === 1;
  const onKey = (key: Buffer): void => {
    if (String(key) === 'k') kill();
    else if (String(key) === '\u0003') onSignal('SIGINT');
  };
  const keys = hiveminds > 1 && !once && process.stdin.isTTY ? process.stdin : undefined;
  keys?.setRawMode(true).on('data', onKey);

  function woke(phone: Phone, message: Woken): void {
    const took = clock.now() - message.timestamp;
    const known = sent.get(message.hash);
    const text = message.data?.toString().replace(/\0.*/s, '') ?? '(no data)';
    say(`${now()}    ${phone.name} wakes after ${took} ms through ${phone.service}: “${text}”`);
    if (!known) return;
    const { wakes, person } = known;
    const isLast = !wakes.has(phone) && wakes.size === person.phones.length - 1;
    wakes.set(phone, (wakes.get(phone) ?? 0) + 1);
    if (isLast) later(() => settle(known), SETTLED);
    woken.add(phone);
    if (once && isKilled && world && woken.size === world.phones.length) later(() => end(), SETTLED);
  }

  /** Says which phones should have woken by now. */
  function remind({ person, wakes }: Sent): void {
    for (const phone of person.phones) {
      if (!wakes.has(phone)) say(`${now()}    ${phone.name} has not been woken within ${SETTLED / 1000} s`);
    }
  }

  /** Says what became of a message that has woken all its phones, once all copies of it must have come. */
  function settle({ written, wakes }: Sent): void {
    for (const [phone, times] of wakes) {
      if (times > 1) say(`${now()}    ${phone.name} was woken ${times} times by one message`);
    }
    const passed = Math.max(...wakes.values());
    say(`${now()}    ${written.copies} copies came from the swarm, ${written.copies - passed} were dropped`);
    if (once && !isKilled) kill();
  }

  function writeTo(there: World, person: Person, text: string): void {
    const written = there.write(person.account, text);
    const message: Sent = { written, person, wakes: new Map() };
    sent.set(written.hash, message);
    for (const oldest of sent.keys()) {
      if (sent.size <= REMEMBERED) break;
      sent.delete(oldest);
    }
    say();
    say(`${now()}  somebody writes to ${person.name} (${person.account.id.toString('hex').slice(0, 8)}…): “${text}”`);
    later(() => remind(message), SETTLED);
  }

  try {
    say('Everything runs on this machine. Stored messages wake phones; times are from storing to the provider.');
    say();
    const started = await startWorld({
      clock,
      random,
      hiveminds,
      folder,
      signal: over.signal,
      stops: { push: (stop) => stops.push(stop) },
      watcher: {
        step: (part, what, ms) => say(`  ${part.padEnd(18)} ${what.padEnd(62)} ${(ms / 1000).toFixed(1)} s`),
        woke,
        trouble: (what) => say(`${now()}    ! ${what}`),
        died: end,
      },
      onDaemons: (kill) => {
        killAll = kill;
      },
    });
    world = started;
    say();
    say(`  status page: ${started.statusPage}    front-end: ${started.frontEnd.url}    logs: ${folder}/log`);
    if (keys) say('  press k to kill a hivemind, each in turn');
    if (once) later(() => end(overdue(started, woken)), ONCE_LIMIT);
    let turn = 0;
    const next = (): void => {
      const person = started.people[turn % started.people.length];
      const text = TEXTS[turn % TEXTS.length];
      if (person && text !== undefined) writeTo(started, person, text);
      turn++;
    };
    next();
    timers.add(clock.setInterval(next, once ? ONCE_PACE : PACE));
    await new Promise<void>((resolve) => over.signal.addEventListener('abort', () => resolve(), { once: true }));
  } catch (error) {
    if (!over.signal.aborted) failure = (error as Error).message;
  }
  over.abort();
  for (const timer of timers) timer.cancel();
  keys?.setRawMode(false).off('data', onKey).pause();
  for (const stop of stops.reverse()) {
    await stop().catch((error: unknown) => {
      failure ??= `could not be stopped: ${(error as Error).message}`;
    });
  }
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.off(signal, onSignal);
  say();
  if (failure !== undefined) say(`Failed: ${failure}`);
  else if (once)
    say(`Each of ${woken.size} phones has woken, ${((clock.monotonic() - begin) / 1000).toFixed(1)} s in all`);
  else say('Everything has been stopped');
  return failure === undefined ? 0 : 1;
}

function overdue(world: World, woken: ReadonlySet<Phone>): string {
  const asleep = world.phones.filter((phone) => !woken.has(phone)).map(({ name }) => name);
  return `not woken within ${ONCE_LIMIT / 1000} s: ${asleep.join(', ')}`;
}
