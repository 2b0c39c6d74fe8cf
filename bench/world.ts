import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import fs from 'node:fs/promises';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '../src/clock.ts';
import { withMemorySettings } from '../src/daemon/daemon-process.ts';
import { type Account, sessionAccount } from '../src/devnet/account.ts';
import { type Network, startNetwork } from '../src/devnet/network.ts';
import type { Oxend } from '../src/devnet/oxend.ts';
import { type Postgres, startPostgres } from '../src/devnet/postgres.ts';
import { parseAddress } from '../src/oxenmq/address.ts';
import { type Connection, Peers } from '../src/oxenmq/peers.ts';
import {
  decodeSealedPushes,
  decodeServiceInfos,
  encodePushReport,
  encodeRegistration,
  encodeVerdicts,
} from '../src/session/notifier-protocol.ts';
import { subscribe } from '../test/support/requests.ts';
import { cpuSeconds, postgresSeconds, residentMegabytes } from './cpu.ts';

/** What a hivemind needs of a network: an oxend that lists storage servers. */
export interface BenchNetwork {
  readonly oxend: Oxend;
  stop(): Promise<void>;
}

/**
 * A hivemind as a process of its own; around it, in this process, the network, a notifier that takes everything, and a
 * client.
 */
export interface BenchWorld<N extends BenchNetwork = Network> {
  readonly network: N;
  readonly postgres: Postgres;
  readonly database: string;
  client: Connection;
  /** For the front-end, which a benchmark starts itself: spns.ini, where it listens, and its X25519 key, 32 bytes. */
  readonly config: string;
  readonly webSocket: string;
  readonly onionKey: Buffer;
  hivemind: ChildProcess;
  /** Called with the number of pushes of each message to the notifier. */
  onPushes: (expiries: readonly number[]) => void;
  /**
   * Starts the hivemind (again), and resolves when it takes subscriptions.
   *
   * @param options.watched whether {@link longestHold} is to tell something
   * @returns when its program had been compiled, unix ms
   */
  startHivemind(options?: { watched?: boolean }): Promise<number>;
  /**
   * For how many ms its main thread held the event loop at most, in CPU time, between those times (unix ms): in the
   * seconds that began after the first, and before the second.
   */
  longestHold(from: number, to: number): Promise<number>;
  stopHivemind(): Promise<void>;
  stats(): Promise<Record<string, never>>;
  /** The hivemind's own figures, as it shows them to Prometheus: those without labels, by name. */
  metrics(): Promise<ReadonlyMap<string, number>>;
  stop(): Promise<void>;
}

/** CPU seconds since the last reading, by process. */
export interface CpuReading {
  hivemind: number;
  hivemindMainThread: number;
  postgres: number;
  bench: number;
}

const SERVICE = 'bench';
/** Storage servers in this process, in `swarms` swarms; they take every signature for good. */
export function startBenchNetwork(servers: number, swarms: number): Promise<Network> {
  return startNetwork({ clock: systemClock, random: randomBytes, servers, swarms, verify: false });
}

/** Starts everything around a network, which it stops at the end. */
export async function startBench<N extends BenchNetwork>(network: N): Promise<BenchWorld<N>> {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), 'spns-bench-'));
  const postgres = await startPostgres({ dataDir: path.join(folder, 'postgres') });
  await postgres.createDatabase('spns');
  const socket = path.join(folder, 'hivemind.sock');
  const holds = path.join(folder, 'holds');
  const health = path.join(folder, 'health.sock');
  const config = path.join(folder, 'spns.ini');
  const webSocket = path.join(folder, 'web.sock');
  const onionKey = randomBytes(32);
  await fs.writeFile(path.join(folder, 'key'), randomBytes(32), { mode: 0o600 });
  await fs.writeFile(path.join(folder, 'onion-key'), onionKey, { mode: 0o600 });
  await fs.writeFile(
    config,
    [
      `[db]\nurl = ${postgres.url('spns')}`,
      `[keys]\nhivemind = ${folder}/key\nonionreq = ${folder}/onion-key`,
      `[log]\nlevel = warning`,
      `[web]\nlisten = unix:${webSocket}`,
      `[hivemind]\nlisten = ipc://${socket}\noxend_rpc = ${network.oxend.address}\nallow_private_nodes = yes\nmetrics_listen = unix:${health}`,
      `notifiers_expected = ${SERVICE}\nstartup_wait = 60`,
    ].join('\n'),
  );

  const peers = new Peers({
    clock: systemClock,
    commands: {
      notifier: {
        access: 'none',
        commands: {
          validate: {
            kind: 'request',
            handler: (message) => {
              const { token } = JSON.parse(message.parts[1]?.toString() ?? '') as { token: string };
              message.reply('0', token);
            },
          },
          validate_many: {
            kind: 'request',
            handler: (message) => {
              const tokens = decodeServiceInfos(message.parts[1] as Buffer).map(
                (info) => JSON.parse(info.toString()) as { token: string },
              );
              message.reply(encodeVerdicts(tokens.map(({ token }) => ['0', token])));
            },
          },
          sealed: {
            kind: 'command',
            handler: ({ remote, parts }) => {
              const pushes = decodeSealedPushes(parts[0] as Buffer);
              const accepted = pushes.map(({ id }) => id);
              const report = { service: SERVICE, accepted, refused: [], handedBack: [], answers: [] };
              remote.send('admin.push_report', encodePushReport(report));
              world.onPushes(pushes.map(({ expiry }) => Number(expiry)));
            },
          },
        },
      },
    },
    on: {
      handshake: (connection) => register(connection),
      // Filling a database takes longer than a broken connection is kept; the next hivemind waits for this notifier.
      failure: () => {
        notifier = peers.connect(address);
      },
    },
  });
  const instance = randomBytes(8);
  const register = (connection: Connection) => {
    const registration = encodeRegistration({
      service: SERVICE,
      instance,
      window: 20_000,
      validatesMany: true,
    });
    connection.request('admin.register_notifier', [registration]).catch(() => {});
  };
  const address = parseAddress(`ipc://${socket}`);
  let notifier = peers.connect(address);
  const pings = setInterval(() => register(notifier), 5_000);
  const clients = new Peers({ clock: systemClock, commands: {} });

  const world: BenchWorld<N> = {
    network,
    postgres,
    database: postgres.url('spns'),
    config,
    webSocket,
    onionKey,
    client: clients.connect(address),
    hivemind: undefined as unknown as ChildProcess,
    onPushes: () => {},
    async startHivemind({ watched = false } = {}) {
      const program = path.join(import.meta.dirname, '../src/hivemind/main.ts');
      const flags = [...nodeFlags(), `--import=${import.meta.dirname}/holds.ts`];
      world.hivemind = spawn(process.execPath, [...flags, program], {
        env: { ...daemonEnvironment('hivemind', config), ...(watched && { BENCH_HOLDS: holds }) },
        stdio: ['ignore', 'inherit', 'inherit'],
      });
      while (!(await answers(health, '/live'))) await sleep(10);
      const lived = Date.now();
      // Else the notifier would be there when libzmq tries again, which may be seconds later.
      notifier.close();
      notifier = peers.connect(address);
      // Where the start has taken long, the client has given up by now.
      world.client.close();
      world.client = clients.connect(address);
      while (!(await answers(health, '/ready'))) await sleep(10);
      return lived;
    },
    async stopHivemind() {
      world.hivemind.kill('SIGTERM');
      await once(world.hivemind, 'exit');
    },
    async stats() {
      const [body] = await world.client.request('admin.get_stats', []);
      return JSON.parse(body?.toString() ?? '{}') as Record<string, never>;
    },
    async longestHold(from, to) {
      // The line of the last second comes after it.
      await sleep(1100);
      const lines = (await fs.readFile(holds, 'utf8')).trim().split('\n');
      const seconds = lines.map((line) => line.split(' ').map(Number) as [number, number]);
      return Math.max(...seconds.filter(([at]) => at > from + 1000 && at <= to + 1000).map(([, longest]) => longest));
    },
    async metrics() {
      const { body } = await get(health, '/metrics');
      const lines = body.matchAll(/^([a-z_]+) ([-+.\de]+)$/gm);
      return new Map([...lines].map(([, name, value]) => [name ?? '', Number(value)]));
    },
    async stop() {
      clearInterval(pings);
      if (world.hivemind.exitCode === null) await world.stopHivemind();
      await peers.close();
      await clients.close();
      await network.stop();
      await postgres.stop();
      await fs.rm(folder, { recursive: true, force: true });
    },
  };
  return world;
}

/** Begins a reading of CPU time; the function that it gives ends it. */
export function measureCpu(world: BenchWorld<BenchNetwork>): () => CpuReading {
  const read = (): CpuReading => ({
    hivemind: cpuSeconds(world.hivemind.pid as number),
    hivemindMainThread: cpuSeconds(world.hivemind.pid as number, true),
    postgres: postgresSeconds(world.postgres.pid),
    bench: cpuSeconds(process.pid),
  });
  const before = read();
  return () => {
    const after = read();
    return {
      hivemind: round(after.hivemind - before.hivemind),
      hivemindMainThread: round(after.hivemindMainThread - before.hivemindMainThread),
      postgres: round(after.postgres - before.postgres),
      bench: round(after.bench - before.bench),
    };
  };
}

/** The hivemind's resident memory, now and at most, and what of it is V8's and its buffers', in MB. */
export async function memoryOf(world: BenchWorld<BenchNetwork>) {
  const pid = world.hivemind.pid as number;
  const metrics = await world.metrics();
  const megabytes = (name: string) => Math.round((metrics.get(name) ?? Number.NaN) / 1024 ** 2);
  return {
    resident: residentMegabytes(pid),
    most: residentMegabytes(pid, 'most'),
    heap: megabytes('nodejs_heap_size_total_bytes'),
    external: megabytes('nodejs_external_memory_bytes'),
  };
}

/** A signed subscribe request, as JSON. */
export function subscribeRequest(account: Account, token: string, signedAt: number): string {
  return JSON.stringify({ ...subscribe(account, token, { at: signedAt }), service: SERVICE });
}

/** What the device of an account is called, of which there is one. */
export function tokenOf({ id }: Account): string {
  return id.toString('hex');
}

export function makeAccounts(count: number): Account[] {
  return Array.from({ length: count }, () => sessionAccount(randomBytes));
}

/** The value below which `share` of the values lie, rounded to hundredths. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN);
}

export function round(value: number): number {
  return Math.round(value * 100) / 100;
}

/** Whether there is somebody, and all is well. */
function answers(socketPath: string, path: string): Promise<boolean> {
  return get(socketPath, path).then(
    ({ status }) => status === 200,
    () => false,
  );
}

function get(socketPath: string, path: string): Promise<{ status: number | undefined; body: string }> {
  return new Promise((resolve, reject) => {
    http
      .get({ socketPath, path }, (response) => {
        let body = '';
        response.setEncoding('utf8').on('data', (text) => (body += text));
        response.on('end', () => resolve({ status: response.statusCode, body }));
      })
      .on('error', reject);
  });
}

/** What stands in BENCH_NODE_FLAGS, e.g. `--cpu-prof --cpu-prof-dir=/tmp/profile`. */
export function nodeFlags(): string[] {
  return process.env.BENCH_NODE_FLAGS?.split(' ') ?? [];
}

/**
 * A daemon's environment: its configuration, its unit's memory settings, and like the unit a folder for what has been
 * compiled, beside the configuration.
 *
 * @param name `hivemind`, `web` or `notify-SERVICE`
 */
export function daemonEnvironment(name: string, config: string): NodeJS.ProcessEnv {
  return withMemorySettings(name, {
    NODE_COMPILE_CACHE: path.join(path.dirname(config), 'compiled'),
    ...process.env,
    SPNS_CONFIG: config,
  });
}
