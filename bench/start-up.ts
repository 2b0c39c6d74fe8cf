import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { withMemorySettings } from '../src/daemon/daemon-process.ts';
import { type Account, groupAccount } from '../src/devnet/account.ts';
import { monitorMessage } from '../src/session/subscription.ts';
import { cpuSeconds, percentOfACore, postgresSeconds } from './cpu.ts';
import { replay } from './replay.ts';
import { digestOf, SAMPLED, type StorageServers, SWARM_SIZE, startServers } from './storage-servers.ts';
import { type BenchWorld, memoryOf, nodeFlags, round, startBench } from './world.ts';

const SUBSCRIPTIONS = Number(process.env.BENCH_SUBSCRIPTIONS ?? 100_000);
const SERVERS = Number(process.env.BENCH_SERVERS ?? 10);
const FILLED_AT_ONCE = 10_000;
/** How long a hivemind with nothing to do is watched, in seconds, once the last answers are dealt with. */
const IDLE = 60;
const IDLE_OF_EACH = 20;
const SETTLE = 5;
/** A confirmation is renewed after so many seconds, in the mean. */
const RENEWED_AFTER = 50 * 60;

/**
 * Start with many subscriptions stored (BENCH_SUBSCRIPTIONS), on a network of BENCH_SERVERS: until it is loaded, and
 * until every storage server has all of its own. Then the same rows are read, and the same servers are asked the same,
 * by processes that do nothing else: what the row has beyond that is the hivemind's.
 */
export async function startUp(): Promise<object> {
  return inWorld(SUBSCRIPTIONS, SERVERS, async (world, digest) => {
    const started = await start(world, digest, SUBSCRIPTIONS);
    await world.stopHivemind();
    await world.network.reset();
    return {
      row: `start with ${SUBSCRIPTIONS} subscriptions on ${SERVERS} storage servers`,
      ...started,
      read_by_nobody_else: await drain(world),
      asked_by_nobody_else: await replay(world.network, SUBSCRIPTIONS),
    };
  });
}

/** A process that starts, reads all rows and ends (bench/drain.ts), with the hivemind's memory settings. */
async function drain(world: World): Promise<object> {
  const program = path.join(import.meta.dirname, 'drain.ts');
  const before = postgresSeconds(world.postgres.pid);
  const begun = performance.now();
  const child = spawn(process.execPath, [...nodeFlags(), program, world.database], {
    env: withMemorySettings('hivemind', process.env),
    stdio: 'inherit',
  });
  const [code] = await once(child, 'exit');
  if (code !== 0) throw new Error(`the process that reads all rows ended with ${code}`);
  const seconds = round((performance.now() - begun) / 1000);
  return { seconds, cpu_seconds: { postgres: round(postgresSeconds(world.postgres.pid) - before) } };
}

/** A hivemind with nothing to do, that has everything confirmed; then a process that only has the same connections. */
export async function idle(): Promise<object> {
  return inWorld(SUBSCRIPTIONS, SERVERS, async (world, digest) => {
    const { cpu_seconds } = await start(world, digest, SUBSCRIPTIONS);
    const rested = await rest(world, IDLE, cpu_seconds.to_ask);
    await world.stopHivemind();
    await world.network.reset();
    return {
      row: `idle with ${SUBSCRIPTIONS} subscriptions on ${SERVERS} storage servers`,
      ...rested,
      connected_by_nobody_else: await replay(world.network, SUBSCRIPTIONS, IDLE),
    };
  });
}

/** What grows with the subscriptions, and what with the storage servers. */
export async function* growth(): AsyncGenerator<object> {
  for (const subscriptions of [10_000, 100_000, 1_000_000]) {
    for (const servers of [50, 500, 2000]) {
      yield await inWorld(subscriptions, servers, async (world, digest) => {
        const started = await start(world, digest, subscriptions);
        const { seconds: _, ...rested } = await rest(world, IDLE_OF_EACH, started.cpu_seconds.to_ask);
        return { row: 'growth', subscriptions, servers, ...started, idle: rested };
      });
    }
  }
}

type World = BenchWorld<StorageServers>;

/** @param work also gets the digest of all accounts */
async function inWorld<T>(
  subscriptions: number,
  servers: number,
  work: (world: World, digest: number) => Promise<T>,
): Promise<T> {
  const world = await startBench(await startServers(servers));
  try {
    // Once for the tables, which are the hivemind's to make.
    await world.startHivemind();
    await world.stopHivemind();
    return await work(world, await fill(world.database, subscriptions));
  } finally {
    await world.stop();
  }
}

/** Starts the hivemind, and waits until each server was asked for all of its own. */
async function start(world: World, digest: number, subscriptions: number) {
  const { network } = world;
  const wanted = subscriptions * SWARM_SIZE;
  const begun = performance.now();
  const postgresBefore = postgresSeconds(world.postgres.pid);
  const serversBefore = network.cpuSeconds();
  const lived = await world.startHivemind({ watched: true });
  const loaded = performance.now() - begun;
  const pid = world.hivemind.pid as number;
  const toLoad = cpuSeconds(pid);
  await network.reached(wanted);
  const asked = performance.now() - begun;
  const all = cpuSeconds(pid);
  const askedAt = Date.now();
  const { tally } = network;
  if (tally.monitors !== wanted || tally.digest !== (digest * SWARM_SIZE) % 2 ** 32)
    throw new Error(`asked for ${tally.monitors} monitors of ${wanted}, or not for each once`);
  return {
    loaded_seconds: round(loaded / 1000),
    all_monitored_seconds: round(asked / 1000),
    longest_hold_ms: await world.longestHold(lived, askedAt),
    memory_mb: await memoryOf(world),
    signatures_checked: tally.verified,
    cpu_seconds: {
      to_load: round(toLoad),
      to_ask: round(all - toLoad),
      main_thread: round(cpuSeconds(pid, true)),
      postgres: round(postgresSeconds(world.postgres.pid) - postgresBefore),
      storage_servers: round(network.cpuSeconds() - serversBefore),
    },
  };
}

/**
 * Watches a hivemind that has nothing to do.
 *
 * @param toAsk CPU seconds that asking for everything took, which is what renewals take in the mean of 50 minutes
 */
async function rest(world: World, seconds: number, toAsk: number) {
  world.hivemind.kill('SIGUSR2');
  await sleep(SETTLE * 1000);
  const pid = world.hivemind.pid as number;
  const { all, mainThread } = await percentOfACore(pid, seconds);
  return {
    seconds,
    percent_of_a_core: round(all),
    main_thread_percent: round(mainThread),
    with_renewals_percent: round(all + (toAsk * 100) / RENEWED_AFTER),
    memory_mb: await memoryOf(world),
  };
}

/**
 * Rows of groups, for which a storage server need not turn an Ed25519 key into an account: that would measure the
 * servers, not the hivemind. Keys and signatures are random but in one row of {@link SAMPLED}, which is signed.
 *
 * @returns the digest of all accounts
 */
async function fill(url: string, subscriptions: number): Promise<number> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  const backend = (await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')).rows[0]!.pid;
  const even = Math.floor(Date.now() / 2000) * 2;
  let digest = 0;
  for (let from = 0; from < subscriptions; from += FILLED_AT_ONCE) {
    const rows: [Buffer[], Buffer[], number[], Buffer[], string[]] = [[], [], [], [], []];
    for (let index = from; index < Math.min(from + FILLED_AT_ONCE, subscriptions); index++) {
      const random = randomBytes(32 + 64 + 32 + 32);
      const isSampled = index % SAMPLED === 0;
      const signedAt = isSampled ? even - 1 : even;
      const group = isSampled ? groupAccount(randomBytes) : undefined;
      const account = group?.id ?? Buffer.concat([Buffer.of(3), random.subarray(0, 32)]);
      const signature = group ? sign(group, signedAt) : random.subarray(32, 96);
      digest = (digest + digestOf(account)) % 2 ** 32;
      const values = [account, signature, signedAt, random.subarray(96, 128), random.toString('hex', 128)];
      for (const [column, value] of values.entries()) (rows[column] as unknown[]).push(value);
    }
    await client.query(
      `INSERT INTO subscriptions (account, signature, signature_ts, want_data, enc_key, service, svcid)
       SELECT account, signature, signed, true, key, 'bench', token
       FROM unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::bytea[], $5::text[]) r (account, signature, signed, key, token)`,
      rows,
    );
  }
  await client.query('INSERT INTO sub_namespaces (subscription, namespace) SELECT id, 0 FROM subscriptions');
  await client.query('ANALYZE');
  await client.end();
  // What it used is counted with the server's as soon as it is gone, and must not be counted with the start.
  while (fs.existsSync(`/proc/${backend}`)) await sleep(10);
  return digest;
}

/** What its owner signs to have namespace 0 monitored with bodies. */
function sign(account: Account, signedAt: number): Buffer {
  const subscription = { ...account, account: account.id, namespaces: [0], wantData: true, signedAt };
  return account.sign(monitorMessage({ ...subscription, signature: Buffer.alloc(0) }));
}
