import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '../src/clock.ts';
import type { Account } from '../src/devnet/account.ts';
import { parseAddress } from '../src/oxenmq/address.ts';
import { Peers } from '../src/oxenmq/peers.ts';
import { messageHash } from '../src/session/message-hash.ts';
import { startAnswerer } from './clients.ts';
import { residentMegabytes } from './cpu.ts';
import { type BenchWorld, measureCpu, percentile, round } from './world.ts';

const BODY_SIZE = 500;
const DAY = 86_400_000;

/**
 * Messages of 500 bytes to random accounts. The expiry tells which message a push is of: it is the one thing that a
 * notifier is told in clear.
 */
export class Writer {
  readonly #world: BenchWorld;
  readonly #accounts: readonly Account[];
  readonly #base = Date.now() + 10 * DAY;
  readonly sentAt: number[] = [];
  readonly latencies: number[] = [];
  raw = 0;
  pushed = 0;
  twice = 0;

  constructor(world: BenchWorld, accounts: readonly Account[]) {
    this.#world = world;
    this.#accounts = accounts;
    world.onPushes = (expiries) => {
      const now = performance.now();
      for (const expiry of expiries) {
        const index = expiry - this.#base;
        const sent = this.sentAt[index];
        if (sent === undefined) continue;
        if (Number.isNaN(sent)) {
          this.twice++;
          continue;
        }
        this.latencies.push(now - sent);
        this.sentAt[index] = Number.NaN;
        this.pushed++;
      }
      this.onPush();
    };
  }

  onPush: () => void = () => {};

  write(): void {
    const index = this.sentAt.length;
    const account = this.#accounts[index % this.#accounts.length] as Account;
    const data = randomBytes(BODY_SIZE);
    this.sentAt.push(performance.now());
    this.raw += this.#world.network.deliver({
      account: account.id,
      hash: messageHash(account.id, 0, data),
      namespace: 0,
      timestamp: Date.now(),
      expiry: this.#base + index,
      data,
    });
  }

  get inFlight(): number {
    return this.sentAt.length - this.pushed;
  }
}

/** Messages in flight at full speed. */
const WINDOW = 500;

/** Writes so many messages as fast as they go through, and waits until all are pushed. */
export function writeAll(writer: Writer, count: number): Promise<void> {
  return new Promise((resolve) => {
    const fill = () => {
      while (writer.sentAt.length < count && writer.inFlight < WINDOW) writer.write();
      if (writer.pushed >= count) resolve();
    };
    writer.onPush = fill;
    fill();
  });
}

type FlatOut = Awaited<ReturnType<typeof flatOut>>;

/** As many messages as go through with {@link WINDOW} in flight. */
export async function flatOut(world: BenchWorld, accounts: readonly Account[]) {
  const count = 30_000;
  const writer = new Writer(world, accounts);
  const cpu = measureCpu(world);
  const start = performance.now();
  await writeAll(writer, count);
  const seconds = (performance.now() - start) / 1000;
  const used = cpu();
  return {
    row: 'notifications flat out',
    unique_per_second: Math.round(count / seconds),
    raw_per_second: Math.round(writer.raw / seconds),
    main_thread_us_a_raw: round((used.hivemindMainThread * 1e6) / writer.raw),
    p50_ms: percentile(writer.latencies, 0.5),
    p99_ms: percentile(writer.latencies, 0.99),
    copies: round(writer.raw / count),
    pushed_twice: writer.twice,
    in_flight: WINDOW,
    seconds: round(seconds),
    cpu_seconds: used,
  };
}

/**
 * What a copy takes that is dropped since the message has been passed on: what a message takes the main thread with ten
 * copies, less what it takes with five, over the five.
 */
export function droppedCopy(five: FlatOut, ten: FlatOut): object {
  const each = ({ main_thread_us_a_raw, copies }: FlatOut) => main_thread_us_a_raw * copies;
  return {
    row: 'a copy that is dropped',
    main_thread_us: round((each(ten) - each(five)) / (ten.copies - five.copies)),
    main_thread_us_a_message: { five_copies: round(each(five)), ten_copies: round(each(ten)) },
  };
}

/** How fast a burst comes: 10,000 messages in 1.5 s, to every server of their swarm. */
const BURST_STEP = 100;
const BURST_STEP_MS = 15;

/**
 * Messages that come faster than they can be dealt with. From five servers 10,000 are the burst in which the original
 * drops most; from ten servers 20,000 are 200,000 raw notifications. What a server could not even send, its own queue
 * being full, is told apart. The memory is what the hivemind had at most, above what it had before.
 */
export async function burst(world: BenchWorld, accounts: readonly Account[], count: number): Promise<object> {
  const { servers } = world.network;
  const unreported = () => servers.reduce((sum, { server }) => sum + server.counters.unreported, 0);
  const pid = world.hivemind.pid as number;
  const [unreportedBefore, memoryBefore] = [unreported(), residentMegabytes(pid)];
  const writer = new Writer(world, accounts);
  const cpu = measureCpu(world);
  let memory = memoryBefore;
  const sampling = setInterval(() => {
    memory = Math.max(memory, residentMegabytes(pid));
  }, 50);
  const start = performance.now();
  for (let step = 0; step < count / BURST_STEP; step++) {
    for (let index = 0; index < BURST_STEP; index++) writer.write();
    const next = start + (step + 1) * BURST_STEP_MS;
    await sleep(Math.max(0, next - performance.now()));
  }
  const offered = (performance.now() - start) / 1000;
  const end = performance.now() + 60_000;
  while (writer.pushed < count && performance.now() < end) await sleep(10);
  clearInterval(sampling);
  return {
    row: `burst from ${servers.length} servers`,
    messages: count,
    raw: writer.raw,
    not_sent: unreported() - unreportedBefore,
    offered_in_seconds: round(offered),
    delivered: writer.pushed,
    pushed_twice: writer.twice,
    memory_mb: { before: memoryBefore, most: memory },
    seconds: round((performance.now() - start) / 1000),
    cpu_seconds: cpu(),
  };
}

/**
 * 200 messages a second for twenty seconds: how long a phone waits on a quiet day. The first five seconds are told
 * apart: the compilers of both processes are at work then.
 */
export async function steady(world: BenchWorld, accounts: readonly Account[]): Promise<object> {
  const writer = new Writer(world, accounts);
  const cpu = measureCpu(world);
  await paced(() => writer.write());
  while (writer.pushed < STEADY_COUNT) await sleep(5);
  return {
    row: `notifications at ${STEADY_RATE} a second`,
    ...latencies(writer.latencies),
    messages: STEADY_COUNT,
    cpu_seconds: cpu(),
    echoed_by_nobody_else: await echoed(world.network.servers.length),
  };
}

const STEADY_RATE = 200;
const STEADY_COUNT = STEADY_RATE * 20;

/**
 * The same messages at the same rate to a process that looks at none of them and answers the first copy of each at
 * once: what the machine, libzmq and the load itself take, though without CURVE.
 */
async function echoed(servers: number): Promise<object> {
  const answerer = await startAnswerer();
  const all = Array.from({ length: servers }, () => new Peers({ clock: systemClock, commands: {} }));
  try {
    const [first, ...others] = all.map((peers) => peers.connect(parseAddress(answerer.address)));
    if (!first) throw new Error('there are no storage servers');
    const taken: number[] = [];
    const body = randomBytes(1_000);
    for (const client of [first, ...others]) await client.request('push.subscribe', [body]);
    const answers: Promise<void>[] = [];
    await paced(() => {
      const sent = performance.now();
      answers.push(first.request('push.subscribe', [body]).then(() => void taken.push(performance.now() - sent)));
      for (const client of others) client.send('push.copy', body);
    });
    await Promise.all(answers);
    return latencies(taken);
  } finally {
    for (const peers of all) await peers.close();
    await answerer.stop();
  }
}

/** Calls `write` for each message, at the rate of {@link steady}. */
async function paced(write: () => void): Promise<void> {
  const start = performance.now();
  for (let index = 0; index < STEADY_COUNT; index++) {
    const wait = start + (index * 1000) / STEADY_RATE - performance.now();
    if (wait > 0) await sleep(wait);
    write();
  }
}

function latencies(all: readonly number[]) {
  const [first, later] = [all.slice(0, STEADY_RATE * 5), all.slice(STEADY_RATE * 5)];
  return {
    p50_ms: percentile(later, 0.5),
    p99_ms: percentile(later, 0.99),
    at_first: { p50_ms: percentile(first, 0.5), p99_ms: percentile(first, 0.99) },
  };
}
