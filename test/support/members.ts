import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { pino } from 'pino';
import { systemClock } from '../../src/clock.ts';
import { Feed } from '../../src/hivemind/cluster/feed.ts';
import type { DeviceRow } from '../../src/hivemind/devices/device.ts';
import { Devices } from '../../src/hivemind/devices/devices.ts';
import type { MembershipOptions } from '../../src/hivemind/store/cluster-start.ts';
import type { ClusterStore } from '../../src/hivemind/store/cluster-store.ts';
import { Store, type StoreOptions } from '../../src/hivemind/store/store.ts';
import { SLOTS, slotOf } from '../../src/session/slots.ts';
import { isStale } from '../../src/session/subscription.ts';

export { ALL_SLOTS } from '../../src/session/slots.ts';

import type { Cleaner } from './hivemind.ts';

export const silent = pino({ level: process.env.SPNS_TEST_LOG ?? 'silent' });
export const EVERY_SLOT = Buffer.alloc(SLOTS / 8, 0xff);
/** What a member reports that covers nothing. */
export const NO_SLOTS = Buffer.alloc(SLOTS / 8);

/** The store of a hivemind that has a name. */
export type MemberStore = Store & { readonly cluster: ClusterStore };

/** What a named hivemind joins the cluster with. */
export function memberOptions(name: string, given: Partial<MembershipOptions> = {}): MembershipOptions {
  return {
    name,
    copies: 2,
    keyFingerprint: Buffer.alloc(8, 1),
    version: '2.0.0',
    address: `tcp://10.0.0.1:22030/${name}`,
    pushAddress: `tcp://10.0.0.1:22031/${name}`,
    ...given,
  };
}

export async function openMember(
  t: Cleaner,
  url: string,
  name: string,
  options: Partial<StoreOptions> = {},
): Promise<MemberStore> {
  const cluster = memberOptions(name);
  const store = await Store.open({ url, clock: systemClock, log: silent, timeout: 30_000, cluster, ...options });
  t.after(() => store.close());
  assert.ok(store.cluster);
  return store as MemberStore;
}

/** A member whose memory is kept up to date by its feed. */
export interface FedMember {
  readonly store: MemberStore;
  readonly devices: Devices;
  readonly feed: Feed;
  /** Stores and removes a subscription as the hivemind does, in the database and then in memory. */
  upsert(row: DeviceRow): Promise<void>;
  remove(row: DeviceRow, signedAt: number): Promise<void>;
}

/** @param options.holds the slots that it holds; all unless given */
export async function startMember(
  t: Cleaner,
  url: string,
  name: string,
  { holds = () => true, ...options }: Partial<StoreOptions> & { holds?: (slot: number) => boolean } = {},
): Promise<FedMember> {
  const store = await openMember(t, url, name, options);
  const { cluster } = store;
  const devices = new Devices({ random: randomBytes });
  const feed = new Feed({
    clock: systemClock,
    store,
    cluster,
    devices,
    holds,
    inWork: () => false,
    log: silent,
  });
  t.after(() => feed.stop());
  await store.load((row) => {
    if (holds(slotOf(row.account))) devices.upsert(row, row.signedAt);
  });
  feed.start();
  const beats = setInterval(() => void cluster.beat({ state: 'ready', covers: NO_SLOTS }).catch(() => {}), 200);
  t.after(async () => clearInterval(beats));
  return {
    store,
    devices,
    feed,
    async upsert(row) {
      const result = await store.upsert(row);
      if (result !== 'stale' && holds(slotOf(row.account))) devices.replace(row, row.signedAt);
    },
    async remove({ account, service, serviceId }, signedAt) {
      const deleted = await store.remove(account, service, serviceId, signedAt);
      const known = devices.get(account, service, serviceId);
      if (deleted || (known !== undefined && !isStale(signedAt, known.signedAt)))
        devices.remove(account, service, serviceId);
    },
  };
}

/** Another client's connection to the database. */
export async function connectTo(t: Cleaner, url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  t.after(() => client.end().catch(() => undefined));
  return client;
}

/** Ends connections of hiveminds to this database: all of them, or one at random. */
export async function cutConnections(client: pg.Client, which: 'all' | 'one'): Promise<void> {
  await client.query(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE datname = current_database() AND application_name = 'spns hivemind'
     ORDER BY random() LIMIT ${which === 'all' ? 'ALL' : 1}`,
  );
}

/**
 * Adds or renews a subscription as the original does, in a transaction of its own unless one is open
 * (docs/spec/hivemind.md, section 4).
 */
export async function writeAsOriginal(client: pg.Client, row: DeviceRow): Promise<void> {
  const key = [row.account, row.service, row.serviceId];
  const values = [row.sessionEd25519, row.signature, row.signedAt, row.wantData, row.encKey, row.serviceData];
  const { rows } = await client.query<{ id: string }>(
    'SELECT id FROM subscriptions WHERE account = $1 AND service = $2 AND svcid = $3',
    key,
  );
  let id = rows[0]?.id;
  if (id === undefined) {
    const made = await client.query<{ id: string }>(
      `INSERT INTO subscriptions (account, service, svcid, session_ed25519, signature, signature_ts, want_data, enc_key, svcdata)
       VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id`,
      [...key, ...values],
    );
    id = made.rows[0]?.id;
  } else {
    await client.query(
      `UPDATE subscriptions SET session_ed25519 = $2, signature = $3, signature_ts = $4, want_data = $5, enc_key = $6,
         svcdata = $7 WHERE id = $1`,
      [id, ...values],
    );
    await client.query('DELETE FROM sub_namespaces WHERE subscription = $1', [id]);
  }
  for (const namespace of row.namespaces) {
    await client.query('INSERT INTO sub_namespaces VALUES ($1, $2)', [id, namespace]);
  }
}

/** Removes a subscription as the original does. */
export async function removeAsOriginal(client: pg.Client, row: DeviceRow): Promise<void> {
  await client.query('DELETE FROM subscriptions WHERE account = $1 AND service = $2 AND svcid = $3', [
    row.account,
    row.service,
    row.serviceId,
  ]);
}
