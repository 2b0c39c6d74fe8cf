import { randomBytes } from 'node:crypto';
import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import type { FastifyInstance } from 'fastify';
import { Registry } from 'prom-client';
import { type Clock, systemClock } from '../../src/clock.ts';
import { parseAddress } from '../../src/oxenmq/address.ts';
import { Listener } from '../../src/oxenmq/listener.ts';
import type { Incoming } from '../../src/oxenmq/remote.ts';
import { onionKeys } from '../../src/session/onion.ts';
import { connectHivemind, type Hivemind } from '../../src/web/hivemind.ts';
import { webMetrics } from '../../src/web/metrics.ts';
import { buildServer, listen, type ServerOptions } from '../../src/web/server.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { inTime } from '../support/until.ts';

/** What the tests clean up with: node:test's context has it. */
export interface Scope {
  after(work: () => Promise<void>): void;
}

const cleanups = new WeakMap<Scope, (() => Promise<void>)[]>();

/** Cleans up in the reverse order of the making, so that nobody waits for a peer that is gone. */
function cleanUp(scope: Scope, work: () => Promise<void>): void {
  const known = cleanups.get(scope);
  if (known) {
    known.push(work);
    return;
  }
  const list = [work];
  cleanups.set(scope, list);
  scope.after(async () => {
    for (const one of list.reverse()) await one();
  });
}

/**
 * A listener in the hivemind's place that answers push.* by `answer`, and keeps what it was asked.
 *
 * @param list its answer to push.hiveminds, which only one of several has; the others do not know the question. Null is
 *   an answer without a part, as of one that is alone; undefined is none
 */
export async function fakeHivemind(
  scope: Scope,
  answer: (command: string, request: Incoming) => void,
  list?: () => Uint8Array | null | undefined,
) {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), 'spns-web-'));
  const address = `ipc://${folder}/hivemind.sock`;
  const asked: { command: string; body: Buffer }[] = [];
  let listener: Listener | undefined;

  const start = async (): Promise<void> => {
    const handle = (command: string) => ({
      kind: 'request' as const,
      handler: (request: Incoming) => {
        asked.push({ command, body: request.parts[0]! });
        answer(command, request);
      },
    });
    const tell = (request: Incoming) => {
      const part = list?.();
      if (part !== undefined) request.reply(...(part === null ? [] : [part]));
    };
    listener = new Listener({
      clock: systemClock,
      address,
      access: 'admin',
      commands: {
        push: {
          access: 'none',
          commands: {
            subscribe: handle('push.subscribe'),
            unsubscribe: handle('push.unsubscribe'),
            ...(list && { hiveminds: { kind: 'request', handler: tell } }),
          },
        },
      },
    });
    await listener.bind();
  };
  const stop = async (): Promise<void> => {
    await listener?.close();
    listener = undefined;
  };
  cleanUp(scope, async () => {
    await stop();
    await fs.rm(folder, { recursive: true, force: true });
  });
  /** How many connections it knows of. */
  const clients = () => listener?.size ?? 0;
  return { address, asked, clients, start, stop, folder };
}

/**
 * A connection to the hivemind, and the way to wait for its ups and downs.
 *
 * @param options.clock one that stands still unless given, so that nothing is over before its time on a busy machine
 */
export function connect(
  scope: Scope,
  address: string | readonly string[],
  { clock = new FakeClock() as Clock, limit = 500 } = {},
) {
  const waiting: { connected: boolean; resolve: () => void }[] = [];
  /** What was told of the connection, and of members of a cluster, in order. */
  const told: string[] = [];
  const hivemind = connectHivemind({
    clock,
    random: randomBytes,
    addresses: [address].flat().map((one) => parseAddress(one)),
    inFlightLimit: () => limit,
    onMember: (name, problem) => told.push(`${name}: ${problem ?? 'connected'}`),
    onChange(connected, reason) {
      told.push(`${connected}: ${reason}`);
      for (const one of waiting.splice(0)) {
        if (one.connected === connected) one.resolve();
        else waiting.push(one);
      }
    },
  });
  cleanUp(scope, () => hivemind.close());
  const untilConnected = (connected: boolean): Promise<void> =>
    inTime(
      new Promise((resolve) => {
        if (hivemind.connected === connected) resolve();
        else waiting.push({ connected, resolve });
      }),
      () => (connected ? 'connected to the hivemind' : 'the hivemind gone'),
    );
  return { hivemind, told, untilConnected };
}

/** A server on a port of the system's choice. */
export async function serve(
  scope: Scope,
  hivemind: Hivemind,
  onionKey: Uint8Array,
  options: Partial<ServerOptions> = {},
  clock: Clock = systemClock,
): Promise<{ url: string; server: FastifyInstance; registry: Registry; faults: unknown[] }> {
  const registry = new Registry();
  const faults: unknown[] = [];
  const all: ServerOptions = {
    listen: { host: '127.0.0.1', port: 0 },
    bodyLimit: 100_000,
    trustProxy: false,
    rateLimit: () => 0,
    maxConnections: 1000,
    ...options,
  };
  const server = await buildServer({
    options: all,
    hivemind,
    onionKeys: onionKeys(onionKey),
    clock,
    metrics: webMetrics(registry, hivemind),
    onFault: (what, error) => faults.push(what, error),
  });
  cleanUp(scope, () => server.close());
  return { url: await listen(server, all.listen), server, registry, faults };
}
