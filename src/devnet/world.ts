import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Clock } from '../clock.ts';
import { messageHash } from '../session/message-hash.ts';
import { x25519Public } from '../session/sodium.ts';
import type { Account, Random } from './account.ts';
import { startCarriers } from './carriers.ts';
import { type Child, createChildren } from './children.ts';
import { makeOwnFolder } from './folder.ts';
import { type Network, startNetwork } from './network.ts';
import { makePeople, namespaceOf, type Person, subscribe, unsubscribe, untilWatched } from './people.ts';
import type { FrontEnd, Phone, Woken } from './phone.ts';
import { startPostgres } from './postgres.ts';
import { health, openPort } from './reach.ts';
import { formatIni, keyFile } from './settings.ts';

/**
 * A whole world on one machine: the network, the suite as real processes, providers, and phones that have subscribed.
 */
export interface World {
  readonly phones: readonly Phone[];
  readonly people: readonly Person[];
  readonly network: Network;
  /** Web page of the hivemind. */
  readonly statusPage: string;
  readonly frontEnd: FrontEnd;
  /** Stores a message for an account in the network. */
  write(account: Account, text: string): WrittenMessage;
  /** Of several hiveminds kills the next one, and starts it again after a while; its name. */
  killHivemind(): string;
}

/** A message on its way. */
export interface WrittenMessage {
  readonly hash: string;
  /** How many storage servers told the hivemind. */
  readonly copies: number;
}

/** What happens in the world. */
export interface Watcher {
  /** A part has come up; `ms` is how long it took. */
  step(part: string, what: string, ms: number): void;
  /** A phone was pushed to. */
  woke(phone: Phone, message: Woken): void;
  /** Something went wrong that nobody asked for. */
  trouble(what: string): void;
  /** A daemon is gone. */
  died(daemon: Child, how: string): void;
}

/** What has been started, in the order in which it is to be stopped. */
export interface Stops {
  push(stop: () => Promise<unknown>): void;
}

const SERVERS = 10;
const SWARMS = 2;

/** How long a part may take to come up, ms: generous, for machines that do other things too. */
const PATIENCE = 45_000;

/** How long a killed hivemind stays away, ms. */
const AWAY = 4000;

/** How long the phones may take to unsubscribe at the end, ms. */
const UNSUBSCRIBING = 2000;

/** How long the storage servers keep a message, ms. */
const MESSAGE_LIFETIME = 14 * 86_400_000;

/**
 * Starts it all. What has been started is put on `stops` at once, so that a start that fails half-way leaves nothing
 * either.
 *
 * @param modules.hiveminds how many; several are named a, b, …
 * @param modules.folder where data, keys, settings and logs are kept
 * @param modules.source the folder `src` of this repository
 * @param modules.onChildren given the way to end all daemons at once, for those in a hurry
 * @param modules.signal ends the waiting for things to come up
 * @throws Error with a sentence for the user
 */
export async function startWorld(modules: {
  clock: Clock;
  random: Random;
  hiveminds: number;
  folder: string;
  source: string;
  watcher: Watcher;
  stops: Stops;
  signal: AbortSignal;
  onChildren: (killAll: () => void) => void;
}): Promise<World> {
  const { clock, random, hiveminds, folder, source, watcher, stops, onChildren } = modules;
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
  const carriers = await timed('providers', async () => {
    const started = await startCarriers({
      folder: path.join(folder, 'providers'),
      onPush(service, token, payload) {
        const phone = devices.get(`${service} ${token}`);
        if (!phone) return watcher.trouble(`a push through ${service} for a device that there is not`);
        try {
          watcher.woke(phone, phone.open(payload));
        } catch (error) {
          watcher.trouble(`${phone.name} cannot read what it was pushed: ${(error as Error).message}`);
        }
      },
    });
    stops.push(() => Promise.all(started.map((carrier) => carrier.stop())));
    return [`fakes of ${started.map(({ service }) => service).join(', ')}`, started] as const;
  });

  const sockets = await socketFolder(folder, stops);
  const socket = (name: string) => path.join(sockets, `${name}.sock`);
  const onionKey = await keyFile(path.join(folder, 'keys', 'onionreq'));
  await keyFile(path.join(folder, 'keys', 'hivemind'));
  // Opened before the front-end is there, for the canary is told of it at its start.
  const way = await openPort(socket('web'));
  stops.push(() => way.close());
  const frontEnd: FrontEnd = { url: way.url, publicKey: x25519Public(onionKey) };
  const ini = path.join(folder, 'spns.ini');
  const sections: Record<string, Record<string, string | number>> = {
    db: { url: database },
    keys: { hivemind: path.join(folder, 'keys', 'hivemind'), onionreq: path.join(folder, 'keys', 'onionreq') },
    hivemind: {
      oxend_rpc: network.oxend.address,
      allow_private_nodes: 'yes',
      notifiers_expected: carriers.map(({ service }) => service).join(', '),
    },
    web: { listen: `unix:${socket('web')}`, metrics_listen: `unix:${socket('web-metrics')}` },
    canary: {
      front_end: frontEnd.url,
      front_end_key: Buffer.from(frontEnd.publicKey).toString('hex'),
      metrics_listen: `unix:${socket('canary-metrics')}`,
    },
  };
  const instances = Array.from({ length: hiveminds }, (_, n) => String.fromCharCode('a'.charCodeAt(0) + n));
  const named = hiveminds > 1 ? instances.map((instance) => `hivemind-${instance}`) : ['hivemind'];
  for (const name of named) {
    sections[name] = {
      ...sections[name],
      listen: `ipc://${socket(name)}`,
      metrics_listen: `unix:${socket(`${name}-metrics`)}`,
    };
  }
  for (const { service, settings } of carriers) {
    sections[`notify-${service}`] = { ...settings, metrics_listen: `unix:${socket(`${service}-metrics`)}` };
  }
  await fs.writeFile(ini, formatIni(sections), { mode: 0o600 });

  const children = await createChildren(path.join(folder, 'log'));
  onChildren(() => children.killAll());
  const daemons: Child[] = [];
  stops.push(async () => {
    // The hivemind last: the notifiers still have something to tell it.
    const last = daemons.filter(({ name }) => named.includes(name));
    await Promise.all(daemons.filter((child) => !last.includes(child)).map((child) => child.stop()));
    await Promise.all(last.map((child) => child.stop()));
    children.close();
  });
  const env = { SPNS_CONFIG: ini, NODE_COMPILE_CACHE: path.join(folder, 'compiled') };
  const daemon = (name: string, script: string, metrics: string, args: readonly string[] = [], more = {}) =>
    timed(name, async () => {
      const child = await children.start({
        name,
        script: path.join(source, script),
        args,
        env: { ...env, ...more },
        onDeath: watcher.died,
      });
      daemons.push(child);
      await untilReady(child, socket(metrics), signal).catch((error) => {
        failed.abort();
        throw error;
      });
      return [`process ${child.pid}, ready`, child] as const;
    });
  // Together, as systemd would start them: the hivemind waits for its notifiers, and they for it.
  const startHivemind = (name: string) => {
    const instance = /^hivemind-(.+)$/.exec(name)?.[1];
    return daemon(name, 'hivemind/main.ts', `${name}-metrics`, [], instance && { SPNS_INSTANCE: instance });
  };
  const starts = [
    ...named.map(startHivemind),
    ...carriers.map(({ service }) => daemon(`notify-${service}`, 'notifiers/main.ts', `${service}-metrics`, [service])),
    daemon('web', 'web/main.ts', 'web-metrics'),
  ];
  // It is ready when the first message of its own has come back, and waits for nobody but the front-end.
  const canary = daemon('canary', 'notifiers/canary/main.ts', 'canary-metrics');
  canary.catch(() => undefined);
  await allOrFirstError(starts);

  const page = await openPort(socket(`${named[0]}-metrics`));
  stops.push(() => page.close());

  // So that the database, which is kept, does not fill with phones of earlier runs.
  stops.push(() =>
    Promise.race([unsubscribe([...devices.values()], frontEnd), sleep(UNSUBSCRIBING, undefined, { ref: false })]),
  );
  const people = await timed('phones', async () => {
    const made = makePeople({ carriers, devices, random, now: () => clock.now() });
    for (const phone of new Set(made.flatMap(({ phones }) => phones))) await subscribe(phone, frontEnd, signal);
    for (const { name, account } of made) await untilWatched(network, name, account, signal);
    return [`${devices.size} phones have subscribed, every member of their swarms watches`, made] as const;
  });
  await canary;

  let kills = 0;
  let away: Promise<unknown> = Promise.resolve();
  stops.push(() => away);
  return {
    phones: [...devices.values()],
    people,
    network,
    statusPage: page.url,
    frontEnd,
    write(account, text) {
      const timestamp = clock.now();
      // Real messages are encrypted, so that no two are alike.
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
      const name = named[kills++ % named.length] ?? '';
      const child = daemons.findLast((one) => one.name === name);
      away = away
        .then(() => child?.kill())
        .then(() => sleep(AWAY, undefined, { signal }))
        .then(() => startHivemind(name))
        .catch((error: Error) => {
          if (!signal.aborted) watcher.trouble(`${name} has not come back: ${error.message}`);
        });
      return name;
    },
  };
}

async function untilReady(child: Child, socketPath: string, signal: AbortSignal): Promise<void> {
  const deadline = performance.now() + PATIENCE;
  for (;;) {
    const answer = await health(socketPath, '/ready');
    if (answer?.status === 200) return;
    if (!child.running) throw new Error(`${child.name}: ${await child.ended}\n${await child.lastWords()}`);
    if (performance.now() > deadline) {
      throw new Error(`${child.name} is not ready after ${PATIENCE / 1000} s: ${answer?.text ?? 'no answer'}`);
    }
    await sleep(50, undefined, { signal });
  }
}

/**
 * Waits for all to settle, so that nothing is still starting when we stop; then the error counts that is not an echo of
 * another.
 */
async function allOrFirstError(starts: readonly Promise<unknown>[]): Promise<void> {
  const results = await Promise.allSettled(starts);
  const errors = results.filter((result) => result.status === 'rejected').map(({ reason }) => reason as Error);
  const [first] = errors;
  if (first) throw errors.find(({ name }) => name !== 'AbortError') ?? first;
}

/** A Unix socket's path has room for 107 bytes: from a deep folder they move to the temporary one. */
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
