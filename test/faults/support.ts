import assert from 'node:assert/strict';
import { listed, type Network } from '../../src/devnet/network.ts';
import type { NodeReport } from '../../src/hivemind/network/node.ts';
import type { ServiceReport } from '../../src/hivemind/operators/report.ts';
import type { Connection } from '../../src/oxenmq/peers.ts';
import type { Notification } from '../../src/session/notification.ts';
import { openPayload } from '../../src/session/payload.ts';
import type { Cleaner } from '../support/hivemind.ts';
import { type FaultyProxy, startProxy } from '../support/proxy.ts';
import type { TestNotifier } from '../support/session-world.ts';

/** Puts a proxy before every storage server, and has oxend list those; in the order of `network.servers`. */
export async function startProxies(t: Cleaner, network: Network): Promise<FaultyProxy[]> {
  const proxies: FaultyProxy[] = [];
  for (const { server } of network.servers) {
    proxies.push(await startProxy(t, { host: server.host, port: server.port }));
  }
  network.oxend.nodes = network.servers.map((member, index) => ({ ...listed(member), port: proxies[index]!.port }));
  return proxies;
}

/** The parts of admin.get_stats that {@link checkFigures} adds up, and more. */
export interface Figures {
  connections: number;
  pending_connections: number;
  snodes: number;
  swarms: number;
  block_height: number;
  freshness: {
    fresh_nodes: number;
    silent_nodes: number;
    oldest_seconds: number;
    unconfirmed: number;
    uncovered: number;
  };
  since_start: {
    raw: number;
    duplicates: number;
    unique: number;
    pushes: number;
    unwanted: number;
    unasked: number;
    expired: number;
    limited: number;
    contradicted: number;
    unheld: number;
    held: number;
    malformed: Record<string, number>;
  };
  services: ServiceReport[];
}

/** An admin's request whose answer is JSON. */
async function ask<T>(client: Connection, name: string): Promise<T> {
  const [body] = await client.request(`admin.${name}`, []);
  return JSON.parse(body?.toString() ?? '') as T;
}

export const readFigures = (client: Connection) => ask<Figures>(client, 'get_stats');

/** What the hivemind reports of the storage servers. */
export const readNodes = (client: Connection) => ask<NodeReport[]>(client, 'get_nodes');

/** What the hivemind reports of the storage server behind that port. */
export async function nodeAt(client: Connection, port: number): Promise<NodeReport> {
  const report = (await readNodes(client)).find(({ address }) => address.endsWith(`:${port}`));
  assert.ok(report, `a node at port ${port}`);
  return report;
}

export const sum = (counts: Record<string, number>) => Object.values(counts).reduce((total, count) => total + count, 0);

/**
 * What must add up after every fault: each notification that came in is a duplicate, or was passed on, or was
 * dropped under its reason; each push was accepted or refused, or given up under its reason, or is still held.
 */
export function checkFigures({ since_start: intake, services }: Figures): void {
  const { raw, pushes, malformed, ...rest } = intake;
  assert.equal(raw, sum(rest) + sum(malformed), `notifications: ${JSON.stringify(intake)}`);
  let accounted = 0;
  for (const { accepted, refused, passed, unreported, dropped, queued, in_flight } of services) {
    accounted += accepted + refused + passed + unreported + sum(dropped) + queued + in_flight;
  }
  assert.equal(pushes, accounted, `pushes: ${JSON.stringify({ intake, services })}`);
}

/** The hashes of the messages that notifiers were pushed, each as often as it came. */
export function pushedHashes(notifiers: readonly TestNotifier[], key: Uint8Array = Buffer.alloc(32, 9)): string[] {
  return notifiers.flatMap(({ sealed }) =>
    sealed.map(({ payload }) => String(openPayload(payload, key).metadata.hash)),
  );
}

/** Every one of these messages came once, and no other. */
export function assertOnceEach(notifiers: readonly TestNotifier[], messages: readonly Notification[]): void {
  assert.deepEqual(pushedHashes(notifiers).sort(), messages.map(({ hash }) => hash.toString()).sort());
}
