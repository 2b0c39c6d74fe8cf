import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { pino } from 'pino';
import { systemClock } from '../src/clock.ts';
import type { DeviceRow } from '../src/hivemind/devices/device.ts';
import { Connection } from '../src/hivemind/store/connection.ts';
import { migrate } from '../src/hivemind/store/migrate.ts';
import { upsertStatement } from '../src/hivemind/store/statements.ts';
import { parseAddress } from '../src/oxenmq/address.ts';
import { Peers } from '../src/oxenmq/peers.ts';
import { makeRow } from '../test/support/rows.ts';
import { commits, msEach, runClients, startAnswerer } from './clients.ts';
import { cpuSeconds, mainThreadSeconds, postgresSeconds } from './cpu.ts';
import { type BenchWorld, makeAccounts, measureCpu, round, subscribeRequest } from './world.ts';

const COUNT = 8_000;
/** A database of its own for what PostgreSQL does without a hivemind. */
const ALONE = 'alone';

/**
 * New subscriptions, then renewals of the same; after each what PostgreSQL alone makes of as many rows in groups of the
 * same size, and at the end what the clients alone can send.
 */
export async function* subscriptions(world: BenchWorld): AsyncGenerator<object> {
  const accounts = makeAccounts(COUNT);
  const tokens = accounts.map(() => randomBytes(32).toString('hex'));
  const now = Math.floor(Date.now() / 1000);
  const database = await openDatabase(world);
  try {
    for (const [row, signedAt, word] of [
      ['new subscriptions', now - 10, '"added":true'],
      ['renewals', now, '"updated":true'],
    ] as const) {
      // Signed beforehand: that is the phones' work.
      const requests = accounts.map((account, index) => subscribeRequest(account, tokens[index] ?? '', signedAt));
      const upstream = () => world.network.servers.reduce((sum, { server }) => sum + server.counters.accepted, 0);
      const upstreamBefore = upstream();
      const commitsBefore = await commits(world);
      const cpu = measureCpu(world);
      const mainThread = measureMainThread(world);
      const rates = await runClients(COUNT, async (index) => {
        const [reply] = await world.client.request('push.subscribe', [requests[index] ?? '']);
        if (!reply?.includes(word)) throw new Error(`unexpected reply: ${reply}`);
      });
      const used = cpu();
      const main_thread = mainThread();
      const group = COUNT / ((await commits(world)) - commitsBefore);
      // What is asked of storage servers is gathered, and may come a moment later.
      await sleep(2_000);
      yield {
        row,
        ...rates,
        rows_a_commit: round(group),
        monitors_asked_for: upstream() - upstreamBefore,
        cpu_ms_each: msEach(used, COUNT),
        main_thread,
        cores_busy: round(((used.hivemind + used.postgres + used.bench) * rates.per_second) / COUNT),
      };
      yield { row: `${row}, PostgreSQL alone`, ...(await writeGroups(world, database, signedAt, Math.round(group))) };
    }
  } finally {
    await database.close();
  }
  yield await clientsAlone(subscribeRequest(makeAccounts(1)[0]!, tokens[0]!, now));
}

/**
 * The shares of the time in which the hivemind's main thread runs, waits for a core, and has nothing to do but wait for
 * PostgreSQL or the clients. Only what has to do with the last could be faster without less work, or more cores.
 */
function measureMainThread(world: BenchWorld): () => { running: number; waiting_for_a_core: number; idle: number } {
  const pid = world.hivemind.pid as number;
  const before = { ...mainThreadSeconds(pid), at: performance.now() };
  return () => {
    const after = mainThreadSeconds(pid);
    const seconds = (performance.now() - before.at) / 1000;
    const running = (after.running - before.running) / seconds;
    const waiting = (after.waiting - before.waiting) / seconds;
    return { running: round(running), waiting_for_a_core: round(waiting), idle: round(1 - running - waiting) };
  };
}

async function openDatabase(world: BenchWorld): Promise<Connection> {
  await world.postgres.createDatabase(ALONE);
  const connection = new Connection({
    url: world.postgres.url(ALONE),
    clock: systemClock,
    log: pino({ level: 'silent' }),
    random: randomBytes,
    timeout: 60_000,
    onTaken: () => {},
  });
  await connection.open(async (client) => void (await migrate(client)));
  return connection;
}

/** Rows of the first call are written anew by the next. */
const rows: DeviceRow[] = [];

/** The hivemind's own statement, one group after the other, as it writes them. */
async function writeGroups(world: BenchWorld, database: Connection, signedAt: number, size: number): Promise<object> {
  while (rows.length < COUNT) rows.push(makeRow());
  const renewed = rows.map((row) => ({ ...row, signature: randomBytes(64), signedAt }));
  const before = postgresSeconds(world.postgres.pid);
  const own = cpuSeconds(process.pid);
  const start = performance.now();
  for (let at = 0; at < COUNT; at += size) await database.query(upsertStatement(renewed.slice(at, at + size)));
  const per_second = Math.round((COUNT * 1000) / (performance.now() - start));
  const used = { postgres: postgresSeconds(world.postgres.pid) - before, load: cpuSeconds(process.pid) - own };
  return { per_second, rows_a_commit: size, cpu_ms_each: msEach(used, COUNT) };
}

/** The same requests to a process that answers at once. */
async function clientsAlone(request: string): Promise<object> {
  const answerer = await startAnswerer();
  const peers = new Peers({ clock: systemClock, commands: {} });
  try {
    const client = peers.connect(parseAddress(answerer.address));
    const before = [cpuSeconds(answerer.pid), cpuSeconds(process.pid)] as const;
    const rates = await runClients(COUNT, async () => void (await client.request('push.subscribe', [request])));
    const used = {
      answerer: cpuSeconds(answerer.pid) - before[0],
      load: cpuSeconds(process.pid) - before[1],
    };
    return { row: 'subscriptions, clients alone', ...rates, cpu_ms_each: msEach(used, COUNT) };
  } finally {
    await peers.close();
    await answerer.stop();
  }
}
