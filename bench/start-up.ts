import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import pg from 'pg';
import { from as copyFrom } from 'pg-copy-streams';
import { cpuSeconds, postgresSeconds, residentMegabytes } from './cpu.ts';
import { round, startBench } from './world.ts';

const SUBSCRIPTIONS = Number(process.env.BENCH_SUBSCRIPTIONS ?? 100_000);

/**
 * Start with many subscriptions stored, ten storage servers in two swarms: loaded, and every server has all of its own.
 */
export async function startUp(): Promise<object> {
  const world = await startBench(10, 2);
  try {
    // Once for the tables, which are the hivemind's to make.
    await world.startHivemind();
    await world.stopHivemind();
    await fill(world.database);
    const start = performance.now();
    const postgresBefore = postgresSeconds(world.postgres.pid);
    const benchBefore = cpuSeconds(process.pid);
    await world.startHivemind();
    const loaded = performance.now() - start;
    const wanted = SUBSCRIPTIONS * 5;
    const monitors = () => world.network.servers.reduce((sum, { server }) => sum + server.counters.accepted, 0);
    while (monitors() < wanted) await new Promise((resolve) => setTimeout(resolve, 10));
    const pid = world.hivemind.pid as number;
    return {
      row: `start with ${SUBSCRIPTIONS} subscriptions`,
      loaded_seconds: round(loaded / 1000),
      all_monitored_seconds: round((performance.now() - start) / 1000),
      monitors: monitors(),
      rss_mb: residentMegabytes(pid),
      cpu_seconds: {
        hivemind: round(cpuSeconds(pid)),
        hivemindMainThread: round(cpuSeconds(pid, true)),
        postgres: round(postgresSeconds(world.postgres.pid) - postgresBefore),
        // All ten storage servers: where it is as long as the whole start, they are the limit.
        bench: round(cpuSeconds(process.pid) - benchBefore),
      },
    };
  } finally {
    await world.stop();
  }
}

/**
 * Rows with random keys and signatures: the storage servers of a benchmark take them all for good. They are of groups,
 * for which a storage server need not turn an Ed25519 key into an account: that would measure the servers, not the
 * hivemind.
 */
async function fill(url: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  const backend = (await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')).rows[0]!.pid;
  const now = Math.floor(Date.now() / 1000);
  const lines = function* () {
    for (let index = 1; index <= SUBSCRIPTIONS; index++) {
      const hex = randomBytes(32 + 64 + 32 + 32).toString('hex');
      const [account, signature, key, token] = [
        `03${hex.slice(0, 64)}`,
        hex.slice(64, 192),
        hex.slice(192, 256),
        hex.slice(256),
      ];
      yield `\\\\x${account}\t\\\\x${signature}\t${now}\tt\t\\\\x${key}\tbench\t${token}\n`;
    }
  };
  const columns = 'account, signature, signature_ts, want_data, enc_key, service, svcid';
  await pipeline(Readable.from(lines()), client.query(copyFrom(`COPY subscriptions (${columns}) FROM STDIN`)));
  await client.query('INSERT INTO sub_namespaces (subscription, namespace) SELECT id, 0 FROM subscriptions');
  await client.query('ANALYZE');
  await client.end();
  // What it used is counted with the server's as soon as it is gone, and must not be counted with the start.
  while (fs.existsSync(`/proc/${backend}`)) await new Promise((resolve) => setTimeout(resolve, 10));
}
