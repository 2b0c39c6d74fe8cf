import { randomBytes } from 'node:crypto';
import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { type Clock, systemClock } from '../../src/clock.ts';
import type { Daemon } from '../../src/daemon/run.ts';
import { openSystemd } from '../../src/daemon/systemd.ts';
import { startHivemind } from '../../src/hivemind/hivemind.ts';
import { parseAddress } from '../../src/oxenmq/address.ts';
import { type Connection, Peers } from '../../src/oxenmq/peers.ts';
import type { Commands } from '../../src/oxenmq/remote.ts';
import { loadConfig } from '../../src/settings/config.ts';
import { createDatabase } from './postgres.ts';

/** The part of a test's context by which the harness cleans up. */
export interface Cleaner {
  after(fn: () => Promise<void>): void;
}

/** A hivemind that runs inside the test's process, on a database of its own. */
export interface TestHivemind {
  readonly daemon: Daemon;
  /** Where it listens, as `[hivemind] listen` has it. */
  readonly address: string;
  readonly database: string;
  readonly registry: Registry;
  /** What it logged, a line each. */
  readonly log: string[];
  /** The reasons for which it gave up. */
  readonly gaveUp: readonly Error[];
  /** Connects a new client to the plain listener, as a notifier or the front-end connects. */
  connect(commands?: Commands, address?: string): Connection;
  /** Sends a request as a client, and resolves with the parts of the reply. All use one connection. */
  ask(command: string, ...parts: readonly string[]): Promise<Buffer[]>;
  stop(): Promise<void>;
}

/** What a test wants different from the usual. */
export interface TestHivemindOptions {
  clock?: Clock;
  database?: string;
  /** Keys of `[hivemind]`, over the usual ones. */
  settings?: Record<string, string | number>;
  /** The hivemind's secret key, 32 bytes. */
  secret?: Buffer;
}

/** Starts a hivemind; it is stopped after the test. Without `oxend_rpc` it waits for an oxend that never comes. */
export async function startTestHivemind(t: Cleaner, options: TestHivemindOptions = {}): Promise<TestHivemind> {
  const clock = options.clock ?? systemClock;
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), 'spns-hm-'));
  const database = options.database ?? (await createDatabase(t));
  const address = `ipc://${folder}/hivemind.sock`;
  await fs.writeFile(path.join(folder, 'key'), options.secret ?? randomBytes(32), { mode: 0o600 });
  const settings = {
    listen: address,
    oxend_rpc: `ipc://${folder}/no-oxend.sock`,
    startup_wait: 0,
    ...options.settings,
  };
  const lines = Object.entries(settings).map(([key, value]) => `${key} = ${value}`);
  const ini = `[db]\nurl = ${database}\n[keys]\nhivemind = ${folder}/key\n[hivemind]\n${lines.join('\n')}\n`;
  await fs.writeFile(path.join(folder, 'spns.ini'), ini);
  const config = loadConfig({ SPNS_CONFIG: path.join(folder, 'spns.ini') }, { role: 'hivemind' });

  const log: string[] = [];
  const registry = new Registry();
  const gaveUp: Error[] = [];
  const stopping = new AbortController();
  const daemon = await startHivemind({
    name: 'hivemind',
    config,
    clock,
    registry,
    log: pino({ level: 'debug' }, { write: (line: string) => log.push(line) }),
    random: randomBytes,
    systemd: openSystemd({}),
    stopping: stopping.signal,
    giveUp: (error) => void gaveUp.push(error),
  });
  const peers: Peers[] = [];
  let stopped: Promise<void> | undefined;
  const stop = () => {
    stopped ??= (async () => {
      stopping.abort();
      await Promise.all(peers.map((one) => one.close()));
      await daemon.stop(10_000);
      await fs.rm(folder, { recursive: true, force: true });
    })();
    return stopped;
  };
  t.after(stop);
  const connect: TestHivemind['connect'] = (commands = {}, to = address) => {
    const one = new Peers({ clock: systemClock, commands, helloTimeout: 60_000 });
    peers.push(one);
    return one.connect(parseAddress(to));
  };
  let asking: Connection | undefined;
  return {
    daemon,
    address,
    database,
    registry,
    log,
    gaveUp,
    connect,
    ask(command, ...parts) {
      asking ??= connect();
      return asking.request(command, parts);
    },
    stop,
  };
}
