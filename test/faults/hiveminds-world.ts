import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '../../src/clock.ts';
import { sessionAccount } from '../../src/devnet/account.ts';
import { listed, type Network, startNetwork } from '../../src/devnet/network.ts';
import { startOxend } from '../../src/devnet/oxend.ts';
import { createPhone, type Phone } from '../../src/devnet/phone.ts';
import { type Postgres, startPostgres } from '../../src/devnet/postgres.ts';
import { type FakeApns, startFakeApns } from '../../src/devnet/providers/apns.ts';
import { formatIni, keyFile } from '../../src/devnet/settings.ts';
import { envelope } from '../../src/devnet/storage-server.ts';
import { openClient } from '../../src/hivemind/store/client.ts';
import { parseAddress } from '../../src/oxenmq/address.ts';
import { Peers } from '../../src/oxenmq/peers.ts';
import { messageHash } from '../../src/session/message-hash.ts';
import { x25519Public } from '../../src/session/sodium.ts';
import { Deliveries } from '../long/deliveries.ts';
import { createDaemons } from '../support/daemons.ts';
import type { Cleaner } from '../support/hivemind.ts';
import { type FaultyProxy, startProxy } from '../support/proxy.ts';
import { startReplicatedPostgres } from '../support/replicated-postgres.ts';
import { until } from '../support/until.ts';

const SOURCE = path.join(import.meta.dirname, '../../src');
const SWARMS = 2;
const BODY_SIZE = 300;
const DAY = 86_400_000;
const SERVICE = 'apns';
/** How long a hivemind may take to answer, ms; generous, since the machine may be busy. */
const ANSWER = 50_000;

/** What a hivemind tells of the cluster. */
interface ClusterFigures {
  accounts_monitored: number;
  since_start: { raw: number };
  services: { service: string; handed: number }[];
  cluster: {
    copies: number;
    coverage: { full: number; fewer: number; none: number };
    /** Slots of which it asks fewer storage servers. */
    spared: number;
    members: { name: string; state: string; first: number; covers: number }[];
  };
}

/** What a hivemind tells of a storage server. */
interface NodeFigures {
  address: string;
  state: string;
  unconfirmed: number;
  spared: number;
}

/** Several hiveminds and a notifier as real processes, on one database; the network and Apple are in this one. */
export interface HivemindsWorld {
  readonly network: Network;
  readonly deliveries: Deliveries;
  readonly apns: FakeApns;
  readonly ini: string;
  /** Asks the database. */
  query(text: string): Promise<unknown[]>;
  /** Of each hivemind, what stands between it and the storage servers. */
  readonly proxies: ReadonlyMap<string, readonly FaultyProxy[]>;
  readonly phones: readonly Phone[];
  /** @param env more for that process */
  start(name: string, env?: Record<string, string>): Promise<void>;
  pid(name: string): number;
  /** Resolves when the process has ended, with how. */
  signal(name: string, signal: NodeJS.Signals): Promise<string>;
  /** Resolves when every slot is covered by as many as are to, and no account is unknown, as these say. */
  covered(...names: string[]): Promise<void>;
  /**
   * Resolves when of each slot all holders but the first ask fewer storage servers. What these have been asked for goes
   * on for an hour, so what is to show the difference subscribes afterwards.
   */
  divided(...names: string[]): Promise<void>;
  figures(name: string): Promise<ClusterFigures>;
  nodes(name: string): Promise<NodeFigures[]>;
  /** Subscribes a new phone; returns how often it was told to retry. */
  join(): Promise<number>;
  /** Resolves when two hiveminds hear what is written to any phone. */
  heard(): Promise<void>;
  /**
   * Writes so many messages a second to each of these in turn, until told to stop; unless given, to all that two
   * hiveminds hear: what only one has heard may be lost with it.
   */
  write(rate: number, to?: readonly Phone[]): { stop(): Promise<void> };
  /** Resolves when every message has come, or when none has come for so long, ms. */
  settled(patience: number): Promise<void>;
  /** `spns roll`, with processes in place of units; its exit code. */
  roll(): Promise<number>;
  stopDatabase(): Promise<void>;
  startDatabase(): Promise<void>;
  /** Of a replicated database: the first crashes, and the replica takes its place. */
  failOver(): Promise<void>;
  /** The last lines of that process. */
  log(name: string): Promise<string>;
  /** Ended without having been asked to. */
  readonly deaths: readonly string[];
  /** How that process, which was started before the one of the same name that runs now, ended. */
  former(name: string): Promise<string>;
}

export interface WorldOptions {
  /** Of all hiveminds. */
  readonly settings?: Record<string, string | number>;
  /** Whether the database has a synchronous replica. */
  readonly isReplicated?: boolean;
  /** In each swarm. */
  readonly servers?: number;
}

export async function startHiveminds(
  t: Cleaner,
  names: readonly string[],
  { settings = {}, isReplicated = false, servers = 5 }: WorldOptions = {},
): Promise<HivemindsWorld> {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), 'spns-several-'));
  t.after(() => fs.rm(folder, { recursive: true, force: true }));
  const database = await startDatabase(t, folder, isReplicated);
  const network = await startNetwork({
    clock: systemClock,
    random: randomBytes,
    servers: SWARMS * servers,
    swarms: SWARMS,
  });
  t.after(() => network.stop());

  const deliveries = new Deliveries();
  const byToken = new Map<string, Phone>();
  const apns = await startFakeApns({ keep: 10, delay: 20 });
  t.after(() => apns.close());
  apns.taken.onPush = ({ token, payload }) => deliveries.taken(byToken.get(token), SERVICE, payload);

  const socket = (name: string) => path.join(folder, `${name}.sock`);
  await keyFile(path.join(folder, 'key'));
  const onionKey = await keyFile(path.join(folder, 'onion-key'));
  const frontEnd = { url: `unix:${socket('front-end')}`, publicKey: x25519Public(onionKey) };
  const ini = path.join(folder, 'spns.ini');
  const proxies = new Map<string, FaultyProxy[]>();
  const sections: Record<string, Record<string, string | number>> = {
    db: { url: database.url },
    keys: { hivemind: path.join(folder, 'key'), onionreq: path.join(folder, 'onion-key') },
    web: { listen: `unix:${socket('front-end')}`, metrics_listen: `unix:${socket('web')}` },
    // There is one notifier: a member that starts beside others has no more to wait for.
    hivemind: { allow_private_nodes: 'yes', notifiers_expected: SERVICE, startup_wait: 1, ...settings },
    // A busy machine may answer late, and what is sent to Apple again because of that would be counted as given twice.
    [`notify-${SERVICE}`]: {
      ...(await apns.settings(folder)),
      timeout: 55,
      metrics_listen: `unix:${socket(SERVICE)}`,
    },
  };
  for (const name of names) {
    // Each sees the storage servers over lines of its own.
    const lines: FaultyProxy[] = [];
    for (const { server } of network.servers) lines.push(await startProxy(t, { host: server.host, port: server.port }));
    proxies.set(name, lines);
    const nodes = network.servers.map((member, index) => ({ ...listed(member), port: lines[index]!.port }));
    const oxend = await startOxend({ clock: systemClock, random: randomBytes, nodes });
    t.after(() => oxend.stop());
    sections[`hivemind-${name}`] = {
      listen: `ipc://${socket(`omq-${name}`)}`,
      oxend_rpc: oxend.address,
      metrics_listen: `unix:${socket(name)}`,
    };
  }
  await fs.writeFile(ini, formatIni(sections), { mode: 0o600 });

  const hivemind = (name: string) => `hivemind-${name}`;
  const daemons = await createDaemons(t, {
    folder: path.join(folder, 'log'),
    ini,
    socket: (name) => socket(name.replace(/^(hivemind|notify)-/, '')),
  });

  const peers = new Peers({ clock: systemClock, commands: {}, helloTimeout: ANSWER });
  t.after(() => peers.close());
  const ask = async (name: string, command: string, ...parts: string[]) => {
    // The hivemind may still have the last connection, and would leave one of the same name unheard.
    const routingId = Buffer.concat([Buffer.from('L'), randomBytes(16)]);
    const connection = peers.connect(parseAddress(`ipc://${socket(`omq-${name}`)}`), { routingId });
    try {
      const [body] = await connection.request(command, parts, ANSWER);
      return JSON.parse(String(body)) as unknown;
    } finally {
      connection.close();
    }
  };

  const phones: Phone[] = [];
  const world: HivemindsWorld = {
    network,
    deliveries,
    apns,
    ini,
    proxies,
    phones,
    deaths: daemons.deaths,
    start: (name, env) => daemons.start(hivemind(name), env),
    pid: (name) => daemons.pid(hivemind(name)),
    signal: (name, signal) => daemons.signal(hivemind(name), signal),
    figures: async (name) => (await ask(name, 'admin.get_stats')) as ClusterFigures,
    async covered(...of) {
      let last: unknown;
      await until(
        async () => {
          const all = await Promise.all(of.map((name) => world.figures(name)));
          last = all.map(({ accounts_monitored: accounts, cluster }) => ({ accounts, ...cluster.coverage }));
          return all.every(({ cluster }) => cluster.coverage.full === 256);
        },
        50,
        () => `covered, but ${JSON.stringify(last)}`,
      );
    },
    async divided(...of) {
      await until(
        async () => {
          const all = await Promise.all(of.map((name) => world.figures(name)));
          // The one that is ready before the others is first everywhere, for a moment.
          if (!all.every(({ cluster }) => cluster.coverage.full === 256)) return false;
          const spared = all.reduce((sum, { cluster }) => sum + cluster.spared, 0);
          if (!all.every(({ cluster }) => spared === 256 * (cluster.copies - 1))) return false;
          // With too few connected all of them are asked.
          const nodes = (await Promise.all(of.map((name) => world.nodes(name)))).flat();
          return nodes.length === of.length * network.servers.length && nodes.every(({ state }) => state === 'up');
        },
        50,
        () => 'each asks fewer servers where another is first',
      );
    },
    nodes: async (name) => (await ask(name, 'admin.get_nodes')) as NodeFigures[],
    async join() {
      const token = randomBytes(32).toString('hex');
      const phone = createPhone({
        name: `phone ${phones.length}`,
        platform: 'ios',
        service: SERVICE,
        serviceInfo: { token },
        accounts: [sessionAccount(randomBytes)],
        random: randomBytes,
        now: Date.now,
      });
      byToken.set(token, phone);
      let again = -1;
      await until(async () => {
        again++;
        const { code, body } = await phone.subscribe(frontEnd);
        const success = code === 200 && (body as { success?: boolean }).success === true;
        if (!success && code !== 503) throw new Error(`a phone was answered ${code} ${JSON.stringify(body)}`);
        return success;
      }, 100);
      phones.push(phone);
      return again;
    },
    heard: () =>
      until(
        () => phones.every(isHeardByTwo),
        20,
        () => `two hear of each phone, but of ${phones.filter((phone) => !isHeardByTwo(phone)).length} only one does`,
      ),
    write(rate, to) {
      const over = new AbortController();
      const work = (async () => {
        const from = performance.now();
        for (let written = 0; !over.signal.aborted; written++) {
          const wait = from + (written * 1000) / rate - performance.now();
          if (wait > 0) await sleep(wait);
          else if (written % 20 === 0) await sleep(0);
          const all = to ?? phones;
          const phone = all[written % all.length]!;
          if (to || isHeardByTwo(phone)) writeTo(phone);
        }
      })();
      return {
        async stop() {
          over.abort();
          await work;
        },
      };
    },
    async settled(patience) {
      const { sent } = deliveries.of(SERVICE);
      let [taken, since] = [-1, performance.now()];
      for (;;) {
        const now = deliveries.of(SERVICE).taken;
        if (now >= sent) return;
        if (now !== taken) [taken, since] = [now, performance.now()];
        if (performance.now() - since > patience) return;
        await sleep(50);
      }
    },
    async roll() {
      // The command asks for a restart by a file, and waits until it is done.
      const asked = path.join(folder, 'restart');
      const command = `echo {} > ${asked}.new && mv ${asked}.new ${asked} && while [ -e ${asked} ]; do sleep 0.1; done`;
      const words = [path.join(SOURCE, 'cli/main.ts'), 'roll', '--config', ini, '--with', command];
      const child = spawn(process.execPath, words, { stdio: 'inherit' });
      let code: number | undefined;
      child.once('exit', (exit) => (code = exit ?? -1));
      for (;;) {
        // Each in its own time: all together take long on a busy machine.
        let name = '';
        await until(
          async () => {
            name = (await fs.readFile(asked, 'utf8').catch(() => '')).trim();
            return name !== '' || code !== undefined;
          },
          50,
          () => 'the next restart, or the end of the roll',
        );
        if (name === '') return code ?? -1;
        await world.signal(name, 'SIGTERM');
        await world.start(name);
        await fs.rm(asked);
      }
    },
    async query(text) {
      const { client } = await openClient(database.url, 10_000);
      try {
        return (await client.query(text)).rows as unknown[];
      } finally {
        await client.end();
      }
    },
    former: (name) => daemons.former(hivemind(name)),
    stopDatabase: () => database.stop(),
    startDatabase: () => database.start(),
    failOver: () => database.failOver(),
    log: (name) => daemons.lastLines(hivemind(name)),
  };
  function isHeardByTwo({ accounts: [account] }: Phone): boolean {
    return network.membersFor(account!.id).some((server) => server.monitorsOf(account!.id, 0) > 1);
  }
  function writeTo({ accounts }: Phone): void {
    const account = accounts[0]!.id;
    const data = randomBytes(BODY_SIZE);
    const now = Date.now();
    const hash = messageHash(account, 0, data);
    const message = envelope({ account, hash, namespace: 0, timestamp: now, expiry: now + DAY, data });
    let copies = 0;
    for (const server of network.membersFor(account)) copies += server.store(message);
    deliveries.sent(hash, SERVICE, copies);
  }
  await Promise.all([
    daemons.start(`notify-${SERVICE}`),
    daemons.start('web'),
    ...names.map((name) => world.start(name)),
  ]);
  return world;
}

/** What is asked of the database, beside statements. */
interface Database {
  readonly url: string;
  stop(): Promise<void>;
  start(): Promise<void>;
  failOver(): Promise<void>;
}

async function startDatabase(t: Cleaner, folder: string, isReplicated: boolean): Promise<Database> {
  const not = () => Promise.reject(new Error(`the database is ${isReplicated ? '' : 'not '}replicated`));
  if (isReplicated) {
    const both = await startReplicatedPostgres(t, folder, 'spns');
    return { url: both.url('spns'), stop: not, start: not, failOver: () => both.failOver() };
  }
  const dataDir = path.join(folder, 'postgres');
  let postgres: Postgres = await startPostgres({ dataDir });
  t.after(() => postgres.stop());
  await postgres.createDatabase('spns');
  return {
    url: postgres.url('spns'),
    stop: () => postgres.stop('immediate'),
    async start() {
      postgres = await startPostgres({ dataDir });
    },
    failOver: not,
  };
}

/** So many that a swarm without a phone for which a given one of two hiveminds sends first comes once in 6 million. */
const PHONES = 60;

/** Two hiveminds, or as many as are named, that cover everything, and phones that have subscribed. */
export async function startCovered(
  t: Cleaner,
  names: readonly string[] = ['a', 'b'],
  isReplicated = false,
): Promise<HivemindsWorld> {
  const world = await startHiveminds(t, names, { isReplicated });
  await world.divided(...names);
  for (let n = 0; n < PHONES; n++) await world.join();
  // What they say of coverage may be some seconds old.
  await world.heard();
  await world.covered(...names);
  return world;
}

/** How much is written while something happens. */
export interface Writing {
  readonly seconds: number;
  /** Messages a second. */
  readonly rate: number;
}

/** Messages are written all the while; after a quarter of the time something happens. */
export async function during(world: HivemindsWorld, { seconds, rate }: Writing, happens: () => Promise<unknown>) {
  const writing = world.write(rate);
  try {
    await sleep(seconds * 250);
    await happens();
    await sleep(seconds * 500);
  } finally {
    await writing.stop();
  }
  await world.settled(40_000);
}

/** One of two is killed, and comes back. */
async function tryKill(t: TestContext, writing: Writing): Promise<void> {
  const world = await startCovered(t);
  await during(world, writing, async () => {
    await world.signal('a', 'SIGKILL');
    await sleep(writing.seconds * 250);
    await world.start('a');
  });
  await world.covered('a', 'b');
  account(t, world, writing);
}

/** One of two is cut off from the storage servers that it asks of everything, and soon after the other is killed. */
async function tryKillOfTheLast(t: TestContext, writing: Writing): Promise<void> {
  const world = await startCovered(t);
  let asked: NodeFigures[] = [];
  await until(
    async () => {
      asked = (await world.nodes('b')).filter(({ spared }) => spared === 0);
      return asked.length === 6;
    },
    50,
    () => `three of five servers are asked of everything in each of two swarms, but ${asked.length} in all`,
  );
  await during(world, writing, async () => {
    for (const { address } of asked) {
      const line = world.proxies.get('b')!.find(({ port }) => address.endsWith(`:${port}`))!;
      line.way = 'refuse';
      line.reset();
    }
    await until(
      async () => {
        const up = (await world.nodes('b')).filter(({ state }) => state === 'up');
        return up.length === 4 && up.every(({ spared, unconfirmed }) => spared + unconfirmed === 0);
      },
      50,
      () => 'the other servers are asked',
    );
    // Only `a` has heard of what was written meanwhile.
    await until(world.deliveries.allTaken(), 20, () => 'what only one has heard of is pushed');
    await world.signal('a', 'SIGKILL');
  });
  account(t, world, writing);
}

/** `spns roll` restarts one after the other, while a phone subscribes. */
async function tryRoll(t: TestContext, writing: Writing): Promise<void> {
  const world = await startCovered(t);
  await during(world, writing, async () => {
    const joining = world.join();
    assert.equal(await world.roll(), 0);
    await joining;
  });
  await world.covered('a', 'b');
  account(t, world, writing);
}

/** What may happen to two hiveminds without a push being lost or given twice; short enough for a run of all tests. */
export const SHORT_TRIALS = {
  'one of two is killed and comes back: no push is lost, and none comes twice': tryKill,
  'one of two loses the storage servers that it asks, and then the other is killed: no push is lost, and none comes twice':
    tryKillOfTheLast,
  'spns roll restarts one after the other: nothing is lost or comes twice, and phones subscribe meanwhile': tryRoll,
};

/** What was written, and what Apple's double was given: nothing is lost, and nothing came twice. */
export function account(t: TestContext, world: HivemindsWorld, { seconds, rate }: Writing): void {
  const { sent, taken, twice } = world.deliveries.of(SERVICE);
  t.diagnostic(JSON.stringify({ sent, taken, lost: sent - taken, twice }));
  assert.ok(sent > seconds * rate * 0.4, `${sent} messages were written`);
  assert.deepEqual({ lost: sent - taken, twice, wrong: world.deliveries.wrong }, { lost: 0, twice: 0, wrong: [] });
  assert.deepEqual(world.deaths, []);
}
