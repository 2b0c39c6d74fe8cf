import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Clock } from '../clock.ts';
import { messageHash } from '../session/message-hash.ts';
import { x25519Public } from '../session/sodium.ts';
import type { Account, Random } from './account.ts';
import { startDaemons } from './daemons.ts';
import { makeOwnFolder } from './folder.ts';
import { type Network, startNetwork } from './network.ts';
import { makePeople, namespaceOf, type Person, subscribe, unsubscribe, untilWatched } from './people.ts';
import type { FrontEnd, Phone, Woken } from './phone.ts';
import { startPostgres } from './postgres.ts';
import { startProviders } from './providers.ts';
import { openPort } from './reach.ts';
import { formatIni, keyFile } from './settings.ts';

/** A whole world on one machine: the network, the daemons as real processes, providers, and subscribed phones. */
export interface World {
  readonly phones: readonly Phone[];
  readonly people: readonly Person[];
  readonly network: Network;
  /** The URL of the first hivemind's status page. */
  readonly statusPage: string;
  readonly frontEnd: FrontEnd;
  /** Stores a message for an account in the network. */
  write(account: Account, text: string): WrittenMessage;
  /** Kills the next of several hiveminds, which comes back later. Returns its name; undefined while one is away. */
  killHivemind(): string | undefined;
}

/** A message on its way. */
export interface WrittenMessage {
  readonly hash: string;
  /** How many notifications storage servers sent for it. */
  readonly copies: number;
}

/** What happens in the world. */
export interface Watcher {
  /** A part has come up; `ms` is how long it took. */
  step(part: string, what: string, ms: number): void;
  /** A phone was pushed to. */
  woke(phone: Phone, message: Woken): void;
  /** Something went wrong, but the world goes on. */
  trouble(what: string): void;
  /** A daemon is gone: which, how, and the end of its log. */
  died(what: string): void;
}

/** Collects how to stop what has been started; to be called in reverse order. */
export interface Stops {
  push(stop: () => Promise<unknown>): void;
}

const SERVERS = 10;
const SWARMS = 2;

/** How long a killed hivemind stays away, ms. */
const AWAY = 4000;

/** How long phones may take to unsubscribe at the end, ms. */
const UNSUBSCRIBING = 2000;

/** How long the storage servers keep a message, ms. */
const MESSAGE_LIFETIME = 14 * 86_400_000;

/**
 * Starts everything. Each part is added to `stops` as soon as it runs, so that a start that fails halfway leaves
 * nothing behind.
 *
 * @param modules.hiveminds how many; several are named a, b, …
 * @param modules.folder where data, keys, settings and logs are kept
 * @param modules.onDaemons called with a function that kills all daemons at once
 * @param modules.signal aborts the waiting for parts to come up
 * @throws Error with a sentence for the user
 */
export async function startWorld(modules: {
  clock: Clock;
  random: Random;
  hiveminds: number;
  folder: string;
  watcher: Watcher;
  stops: Stops;
  signal: AbortSignal;
  onDaemons: (killAll: () => void) => void;
}): Promise<World> {
  const { clock, random, hiveminds, folder, watcher, stops, onDaemons } = modules;
  const failed = new AbortController();
  const signal = AbortSignal.any([modules.signal, failed.signal]);
  await makeOwnFolder(folder);
  const timed = async <T>(part: string, work: () => Promise<readonly [string, T]>): Promise<T> => {
    const start = clock.monotonic();
    const [what, value] = await work();
    watcher.step(part, what, clock.monotonic() - start);
    return value;
  };

  const database = await timed('database', async () => {
    const postgres = await startPostgres({ dataDir: path.join(folder, 'postgres') });
    stops.push(() => postgres.stop());
    await postgres.createDatabase('spns');
    return [`PostgreSQL in ${here(path.join(folder, 'postgres'))}`, postgres.url('spns')] as const;
  });

  const network = await timed('network', async () => {
    const started = await startNetwork({ clock, random, servers: SERVERS, swarms: SWARMS });
    stops.push(() => started.stop());
    return [`${SERVERS} storage servers in ${SWARMS} swarms, and an oxend`, started] as const;
  });

  const devices = new Map<string, Phone>();
  const providers = await timed('providers', async () => {
    const started = await startProviders({
      folder: path.join(folder, 'providers'),
      onPush(service, token, payload) {
        const phone = devices.get(`${service} ${token}`);
        if (!phone) return watcher.trouble(`a push came through ${service} for a device that does not exist`);
        try {
          watcher.woke(phone, phone.open(payload));
        } catch (error) {
          watcher.trouble(`${phone.name} cannot read a push: ${(error as Error).message}`);
        }
      },
    });
    stops.push(() => Promise.all(started.map((provider) => provider.stop())));
    return [`fakes of ${started.map(({ service }) => service).join(', ')}`, started] as const;
  });

  const sockets = await socketFolder(folder, stops);
  const socket = (name: string) => path.join(sockets, `${name}.sock`);
  const metrics = (name: string) => socket(`${name}-metrics`);
  const onionKey = await keyFile(path.join(folder, 'keys', 'onionreq'));
  await keyFile(path.join(folder, 'keys', 'hivemind'));
  // Opened before the front-end starts, because the canary needs its address when it starts itself.
  const frontEndPort = await openPort(socket('web'));
  stops.push(() => frontEndPort.close());
  const frontEnd: FrontEnd = { url: frontEndPort.url, publicKey: x25519Public(onionKey) };
  const ini = path.join(folder, 'spns.ini');
  const sections: Record<string, Record<string, string | number>> = {
    db: { url: database },
    keys: { hivemind: path.join(folder, 'keys', 'hivemind'), onionreq: path.join(folder, 'keys', 'onionreq') },
    hivemind: {
      oxend_rpc: network.oxend.address,
      allow_private_nodes: 'yes',
      notifiers_expected: providers.map(({ service }) => service).join(', '),
    },
    web: { listen: `unix:${socket('web')}`, metrics_listen: `unix:${metrics('web')}` },
    canary: {
      front_end: frontEnd.url,
      front_end_key: Buffer.from(frontEnd.publicKey).toString('hex'),
      metrics_listen: `unix:${metrics('canary')}`,
    },
  };
  const instances = Array.from({ length: hiveminds }, (_, n) => String.fromCharCode('a'.charCodeAt(0) + n));
  const named = hiveminds > 1 ? instances.map((instance) => `hivemind-${instance}`) : ['hivemind'];
  for (const name of named) {
    sections[name] = {
      ...sections[name],
      listen: `ipc://${socket(name)}`,
      metrics_listen: `unix:${metrics(name)}`,
    };
  }
  for (const { service, settings } of providers) {
    const name = `notify-${service}`;
    sections[name] = { ...settings, metrics_listen: `unix:${metrics(name)}` };
  }
  await fs.writeFile(ini, formatIni(sections), { mode: 0o600 });

  let away: string | undefined;
  const daemons = await startDaemons({
    clock,
    // All at once, as systemd would start them: the hivemind waits for its notifiers, and they for it.
    programs: [
      ...named.map((name) => ({ name, last: true })),
      ...providers.map(({ service }) => ({ name: `notify-${service}` })),
      { name: 'web' },
      { name: 'canary' },
    ],
    logs: path.join(folder, 'log'),
    env: { SPNS_CONFIG: ini, NODE_COMPILE_CACHE: path.join(folder, 'compiled') },
    socket: metrics,
    signal,
    watcher: {
      up: (name, pid, ms) => {
        if (away === name) away = undefined;
        watcher.step(name, `process ${pid}, ready`, ms);
      },
      notUp: (name, error) => {
        if (away !== name) failed.abort();
        else if (!signal.aborted) watcher.trouble(`${name} has not come back: ${error.message}`);
      },
      trouble: watcher.trouble,
      died: watcher.died,
    },
  });
  onDaemons(() => daemons.killAll());
  stops.push(() => daemons.stop());
  // The canary is ready when the first message of its own has come back, which takes the longest.
  await allOrFirstError([...daemons.starts].filter(([name]) => name !== 'canary').map(([, start]) => start));

  const page = await openPort(metrics(named[0] ?? ''));
  stops.push(() => page.close());

  // The database is kept, and would otherwise fill up with the phones of earlier runs.
  stops.push(() =>
    Promise.race([unsubscribe([...devices.values()], frontEnd), sleep(UNSUBSCRIBING, undefined, { ref: false })]),
  );
  const people = await timed('phones', async () => {
    const made = makePeople({ providers, devices, random, now: () => clock.now() });
    for (const phone of new Set(made.flatMap(({ phones }) => phones))) await subscribe(phone, frontEnd, signal);
    for (const person of made) await untilWatched(network, person, { hiveminds, signal });
    return [`${devices.size} phones have subscribed, and their swarms monitor them`, made] as const;
  });
  await daemons.starts.get('canary');

  let kills = 0;
  return {
    phones: [...devices.values()],
    people,
    network,
    statusPage: page.url,
    frontEnd,
    write(account, text) {
      const timestamp = clock.now();
      // No two real messages are alike, because they are encrypted.
      const data = Buffer.from(`${text}\0${random(8).toString('hex')}`);
      const namespace = namespaceOf(account);
      const hash = messageHash(account.id, namespace, data);
      const copies = network.deliver({
        account: account.id,
        hash,
        namespace,
        timestamp,
        expiry: timestamp + MESSAGE_LIFETIME,
        data,
      });
      return { hash: hash.toString(), copies };
    },
    killHivemind() {
      if (away !== undefined) return undefined;
      away = named[kills++ % named.length];
      if (away !== undefined) daemons.kill(away, AWAY);
      return away;
    },
  };
}

/**
 * Waits until all have settled, so that nothing is still starting when we stop.
 *
 * @throws the first error that is not merely a wait that another error aborted
 */
async function allOrFirstError(starts: readonly Promise<unknown>[]): Promise<void> {
  const results = await Promise.allSettled(starts);
  const errors = results.filter((result) => result.status === 'rejected').map(({ reason }) => reason as Error);
  const [first] = errors;
  if (first) throw errors.find(({ name }) => name !== 'AbortError') ?? first;
}

/** The folder for Unix sockets, whose paths may have 107 bytes: for a deep folder it is in the temporary one. */
async function socketFolder(folder: string, stops: Stops): Promise<string> {
  const near = path.join(folder, 'run');
  if (Buffer.byteLength(near) <= 70) {
    await fs.mkdir(near, { recursive: true, mode: 0o700 });
    return near;
  }
  const far = await fs.mkdtemp(path.join(os.tmpdir(), 'spns-'));
  stops.push(() => fs.rm(far, { recursive: true, force: true }));
  return far;
}

function here(file: string): string {
  const relative = path.relative(process.cwd(), file);
  return relative.startsWith('..') ? file : relative;
}
