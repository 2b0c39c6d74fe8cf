import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { pino } from 'pino';
import { systemClock } from '../src/clock.ts';
import { type Postgres, startPostgres } from '../src/devnet/postgres.ts';
import type { DeviceRow } from '../src/hivemind/devices/device.ts';
import { Store } from '../src/hivemind/store/store.ts';
import { memberOptions } from '../test/support/members.ts';
import { makeRow } from '../test/support/rows.ts';
import { cpuSeconds, postgresSeconds } from './cpu.ts';
import { round } from './world.ts';

const COUNT = Number(process.env.BENCH_SUBSCRIPTIONS ?? 20_000);
const IN_FLIGHT = 256;
const ROUNDS = 3;

interface Figures {
  perSecond: number;
  postgresUs: number;
  readerUs: number;
}

/**
 * What it costs that other hiveminds hear of every change: subscriptions stored and renewed by the store alone, without
 * a name and then as one of two members, of which the other one, a process of its own, brings them into its memory.
 */
export async function feed(): Promise<object> {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), 'spns-bench-'));
  const postgres = await startPostgres({ dataDir: path.join(folder, 'postgres') });
  try {
    const alone: Figures[] = [];
    const watched: Figures[] = [];
    // In turns, since others may use the machine.
    for (let n = 0; n < ROUNDS; n++) {
      alone.push(await write(postgres, `alone_${n}`, false));
      watched.push(await write(postgres, `watched_${n}`, true));
    }
    const sorted = (list: readonly Figures[], read: (figures: Figures) => number) =>
      list.map(read).sort((a, b) => a - b);
    const middle = (list: readonly Figures[], read: (figures: Figures) => number) =>
      sorted(list, read)[ROUNDS >> 1] ?? Number.NaN;
    const rates = [alone, watched].map((list) => middle(list, ({ perSecond }) => perSecond)) as [number, number];
    return {
      row: 'feed',
      per_second: { alone: Math.round(rates[0]), watched: Math.round(rates[1]) },
      share: round(rates[1] / rates[0]),
      postgres_us_per_row: {
        alone: round(middle(alone, ({ postgresUs }) => postgresUs)),
        watched: round(middle(watched, ({ postgresUs }) => postgresUs)),
      },
      reader_us_per_row: round(middle(watched, ({ readerUs }) => readerUs)),
    };
  } finally {
    await postgres.stop();
    await fs.rm(folder, { recursive: true, force: true });
  }
}

async function write(postgres: Postgres, database: string, isWatched: boolean): Promise<Figures> {
  await postgres.createDatabase(database);
  const url = postgres.url(database);
  const log = pino({ level: 'silent' });
  const store = await Store.open({
    url,
    clock: systemClock,
    log,
    ...(isWatched && { cluster: memberOptions('writer') }),
  });
  const reader = isWatched ? await startReader(url) : undefined;
  try {
    const rows = Array.from({ length: COUNT }, () => makeRow({ namespaces: [0, 1, 2, 3, 4] }));
    const postgresBefore = postgresSeconds(postgres.pid);
    const readerBefore = reader ? cpuSeconds(reader.pid as number) : 0;
    const started = performance.now();
    await writeAll(store, rows);
    await writeAll(
      store,
      rows.map((row) => ({ ...row, signature: randomBytes(64), signedAt: row.signedAt + 1 })),
    );
    const seconds = (performance.now() - started) / 1000;
    // Until it has all of them.
    if (reader) await ask(reader, COUNT);
    const written = 2 * COUNT;
    return {
      perSecond: written / seconds,
      postgresUs: ((postgresSeconds(postgres.pid) - postgresBefore) / written) * 1e6,
      readerUs: reader ? ((cpuSeconds(reader.pid as number) - readerBefore) / written) * 1e6 : 0,
    };
  } finally {
    reader?.kill('SIGTERM');
    await store.close();
  }
}

async function writeAll(store: Store, rows: readonly DeviceRow[]): Promise<void> {
  let next = 0;
  const work = async () => {
    for (let row = rows[next++]; row !== undefined; row = rows[next++]) await store.upsert(row);
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, work));
}

async function startReader(url: string): Promise<ChildProcess> {
  const child = spawn(process.execPath, [path.join(import.meta.dirname, 'feed-reader.ts')], {
    env: { ...process.env, SPNS_DATABASE_URL: url },
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  await once(child, 'message');
  return child;
}

/** Resolves when it has so many subscriptions in memory. */
async function ask(reader: ChildProcess, count: number): Promise<void> {
  reader.send(count);
  await once(reader, 'message');
}
