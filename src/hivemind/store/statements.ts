import type { QueryConfig } from 'pg';
import { STALE_BEFORE } from '../../session/subscription.ts';
import type { DeviceKey, DeviceRow } from '../devices/device.ts';
import { COLUMNS } from './subscription-rows.ts';

/** How many expired rows one statement deletes: that takes some tens of milliseconds, then others have their turn. */
export const EXPIRED_PER_STATEMENT = 250;

/**
 * How many unsubscriptions are remembered for one account: the latest of devices that were subscribed, and of devices
 * that never were. Of the latter anybody can make up any number, and they matter only if the subscription arrives after
 * the unsubscription that was signed later.
 */
const REMEMBERED = 1_000;
const REMEMBERED_NEVER_SUBSCRIBED = 64;
/** The same for all accounts together, since accounts cost nothing: some 20 MB. */
const ALL_NEVER_SUBSCRIBED = 100_000;

/** How far the devices of one account are counted: further than it may have. */
const COUNTED = 1_100;

/** `isStale` of session/subscription.ts as SQL, for two columns. */
const isStale = (request: string, stored: string) => `${request} < ${stored} - ${STALE_BEFORE}`;

/**
 * Writes many subscriptions, no two with the same key. Returns a row for each that was written: its index `n` in the
 * list, and whether it is new. The others are stale: the stored one, or an unsubscription, was signed later
 * (docs/decisions/15).
 *
 * Lookups are LATERAL joins, here and below, so that a plan made while a table was small does not scan it when it is
 * large.
 */
const UPSERT = `
WITH input AS (
  SELECT * FROM unnest($1::int[], $2::bytea[], $3::bytea[], $4::bytea[], $5::bytea[], $6::bytea[], $7::bigint[], $8::boolean[], $9::bytea[], $10::varchar[],
    $11::varchar[], $12::bytea[], $13::text[])
  AS t(n, account, session_ed25519, subaccount_tag, subaccount_sig, signature, signature_ts, want_data, enc_key, service, svcid, svcdata, namespaces)
), fresh AS (
  SELECT i.* FROM input i
  LEFT JOIN LATERAL (
    SELECT signature_ts FROM spns_unsubscribed WHERE account = i.account AND service = i.service AND svcid = i.svcid LIMIT 1
  ) u ON true
  WHERE u.signature_ts IS NULL OR NOT (${isStale('i.signature_ts', 'u.signature_ts')})
), written AS (
  INSERT INTO subscriptions AS s
    (account, session_ed25519, subaccount_tag, subaccount_sig, signature, signature_ts, want_data, enc_key, service, svcid, svcdata)
  SELECT account, session_ed25519, subaccount_tag, subaccount_sig, signature, signature_ts, want_data, enc_key, service, svcid, svcdata FROM fresh
  ON CONFLICT (account, service, svcid) DO UPDATE SET
    session_ed25519 = excluded.session_ed25519, subaccount_tag = excluded.subaccount_tag, subaccount_sig = excluded.subaccount_sig,
    signature = excluded.signature, signature_ts = excluded.signature_ts, want_data = excluded.want_data, enc_key = excluded.enc_key,
    svcdata = excluded.svcdata
  WHERE NOT (${isStale('excluded.signature_ts', 's.signature_ts')})
  RETURNING id, account, service, svcid, xmax = 0 AS added
), result AS (
  SELECT w.id, i.n, w.added, i.namespaces::smallint[] AS namespaces
  FROM written w JOIN input i ON i.account = w.account AND i.service = w.service AND i.svcid = w.svcid
), changed AS (
  SELECT id, added, namespaces FROM result
  WHERE added OR namespaces <> ARRAY (SELECT namespace FROM sub_namespaces WHERE subscription = id ORDER BY namespace)
), dropped AS (
  DELETE FROM sub_namespaces d USING changed c WHERE d.subscription = c.id AND NOT c.added AND d.namespace <> ALL (c.namespaces)
), put AS (
  INSERT INTO sub_namespaces (subscription, namespace) SELECT id, unnest(namespaces) FROM changed ON CONFLICT DO NOTHING
)
SELECT n, added FROM result`;

/** Removes subscriptions, no two with the same key, and remembers that. Returns the `n` of each that was removed. */
const REMOVE = `
WITH input AS (
  SELECT t.n, t.account, t.service, t.svcid, t.signature_ts, (s.id IS NOT NULL OR coalesce(u.was_there, false)) AS was_there
  FROM unnest($1::int[], $2::bytea[], $3::varchar[], $4::varchar[], $5::bigint[]) AS t(n, account, service, svcid, signature_ts)
  LEFT JOIN LATERAL (
    SELECT id FROM subscriptions WHERE account = t.account AND service = t.service AND svcid = t.svcid LIMIT 1
  ) s ON true
  LEFT JOIN LATERAL (
    SELECT was_there FROM spns_unsubscribed WHERE account = t.account AND service = t.service AND svcid = t.svcid LIMIT 1
  ) u ON true
), entering AS (
  SELECT *, row_number() OVER (PARTITION BY account, was_there ORDER BY signature_ts DESC) AS place,
    CASE WHEN was_there THEN ${REMEMBERED} ELSE ${REMEMBERED_NEVER_SUBSCRIBED} END AS places
  FROM input
), remembered AS (
  INSERT INTO spns_unsubscribed AS u (account, service, svcid, signature_ts, was_there)
  SELECT account, service, svcid, signature_ts, was_there FROM entering WHERE place <= places
  ON CONFLICT (account, service, svcid) DO UPDATE SET
    signature_ts = greatest(u.signature_ts, excluded.signature_ts), was_there = excluded.was_there
), forgotten AS (
  DELETE FROM spns_unsubscribed WHERE ctid = ANY (ARRAY (
    SELECT old.ctid FROM (SELECT account, was_there, greatest(max(places) - count(*), 0) AS room FROM entering GROUP BY account, was_there) e
    CROSS JOIN LATERAL (
      SELECT u.ctid, u.service, u.svcid FROM spns_unsubscribed u WHERE u.account = e.account AND u.was_there = e.was_there
      ORDER BY u.signature_ts DESC OFFSET e.room
    ) old
    WHERE NOT EXISTS (SELECT FROM input i WHERE i.account = e.account AND i.service = old.service AND i.svcid = old.svcid)
  ))
)
DELETE FROM subscriptions s USING input i
WHERE s.account = i.account AND s.service = i.service AND s.svcid = i.svcid AND NOT (${isStale('i.signature_ts', 's.signature_ts')})
RETURNING i.n`;

/** Removes subscriptions unless they were signed later than given. Returns the `n` of each that was removed. */
const DROP = `
DELETE FROM subscriptions s USING unnest($1::int[], $2::bytea[], $3::varchar[], $4::varchar[], $5::bigint[]) AS i(n, account, service, svcid, signature_ts)
WHERE s.account = i.account AND s.service = i.service AND s.svcid = i.svcid AND s.signature_ts <= i.signature_ts
RETURNING i.n`;

/** Skips rows that somebody is just renewing. */
const EXPIRE = `
DELETE FROM subscriptions WHERE id IN (
  SELECT id FROM subscriptions WHERE signature_ts <= $1 ORDER BY signature_ts LIMIT ${EXPIRED_PER_STATEMENT} FOR UPDATE SKIP LOCKED
)`;

const FORGET = `
DELETE FROM spns_unsubscribed WHERE ctid IN (
  SELECT ctid FROM spns_unsubscribed WHERE signature_ts <= $1 ORDER BY signature_ts LIMIT ${EXPIRED_PER_STATEMENT} FOR UPDATE SKIP LOCKED
)`;

/** When the latest surplus unsubscription of a device that was never subscribed was signed. */
const SURPLUS = `
SELECT signature_ts FROM spns_unsubscribed WHERE NOT was_there ORDER BY signature_ts DESC OFFSET ${ALL_NEVER_SUBSCRIBED} LIMIT 1`;

const FORGET_SURPLUS = FORGET.replace('signature_ts <= $1', 'signature_ts <= $1 AND NOT was_there');

/**
 * Adds to or sets many counters (docs/spec/hivemind.md, section 1.4). A sum beyond the range of a bigint stays at its
 * limit.
 */
const STATS = `
WITH input AS (
  SELECT service, name, adds, str,
    CASE WHEN str IS NULL THEN greatest(least(int, 9223372036854775807), -9223372036854775808)::bigint END AS int
  FROM unnest($1::varchar[], $2::varchar[], $3::boolean[], $4::varchar[], $5::numeric[]) AS t(service, name, adds, str, int)
), replaced AS (
  INSERT INTO service_stats (service, name, val_str, val_int) SELECT service, name, str, int FROM input WHERE NOT adds
  ON CONFLICT (service, name) DO UPDATE SET val_str = excluded.val_str, val_int = excluded.val_int
)
INSERT INTO service_stats AS s (service, name, val_int) SELECT service, name, int FROM input WHERE adds
ON CONFLICT (service, name) DO UPDATE SET val_str = NULL,
  val_int = greatest(least(coalesce(s.val_int, 0)::numeric + excluded.val_int, 9223372036854775807), -9223372036854775808)::bigint`;

export function upsertStatement(rows: readonly DeviceRow[]): QueryConfig {
  const column = <T>(read: (row: DeviceRow) => T) => rows.map(read);
  return {
    name: 'upsert',
    text: UPSERT,
    values: [
      rows.map((_, n) => n),
      column((row) => row.account),
      column((row) => row.sessionEd25519),
      column((row) => row.subaccount?.tag ?? null),
      column((row) => row.subaccount?.signature ?? null),
      column((row) => row.signature),
      column((row) => row.signedAt),
      column((row) => row.wantData),
      column((row) => row.encKey),
      column((row) => row.service),
      column((row) => row.serviceId),
      column((row) => row.serviceData),
      column((row) => `{${row.namespaces.join()}}`),
    ],
  };
}

/** What to remove, and the unix seconds after which a subscription must have been signed to stay. */
export type Removal = DeviceKey & { readonly signedAt: number };

export function removeStatement(removals: readonly Removal[]): QueryConfig {
  return { name: 'remove', text: REMOVE, values: removalColumns(removals) };
}

export function dropStatement(removals: readonly Removal[]): QueryConfig {
  return { name: 'drop', text: DROP, values: removalColumns(removals) };
}

function removalColumns(removals: readonly Removal[]): unknown[] {
  return [
    removals.map((_, n) => n),
    removals.map(({ account }) => account),
    removals.map(({ service }) => service),
    removals.map(({ serviceId }) => serviceId),
    removals.map(({ signedAt }) => signedAt),
  ];
}

export function expireStatement(cutoff: number): QueryConfig {
  return { name: 'expire', text: EXPIRE, values: [cutoff] };
}

export function forgetStatement(cutoff: number): QueryConfig {
  return { name: 'forget', text: FORGET, values: [cutoff] };
}

/** Returns one row, or none if there is no surplus. */
export function surplusStatement(): QueryConfig {
  return { name: 'surplus', text: SURPLUS };
}

export function forgetSurplusStatement(latest: number): QueryConfig {
  return { name: 'forget surplus', text: FORGET_SURPLUS, values: [latest] };
}

export function findStatement(account: Uint8Array, service: string, serviceId: string): QueryConfig {
  return {
    name: 'find',
    text: `SELECT ${COLUMNS} FROM subscriptions s WHERE account = $1 AND service = $2 AND svcid = $3`,
    values: [account, service, serviceId],
  };
}

/** @param tag of the subaccount whose devices are counted as `alike` too */
export function countStatement(account: Uint8Array, tag: Uint8Array | undefined): QueryConfig {
  return {
    name: 'count',
    text: `SELECT count(*) AS "all", count(*) FILTER (WHERE subaccount_tag = $2) AS alike
      FROM (SELECT subaccount_tag FROM subscriptions WHERE account = $1 LIMIT ${COUNTED}) devices`,
    values: [account, tag ?? null],
  };
}

/** Fails if anything that clients' requests write cannot be written; undoes it. */
export const PROBE = `
DO $$
DECLARE
  made BIGINT;
BEGIN
  INSERT INTO subscriptions (account, signature, signature_ts, want_data, enc_key, service, svcid)
    VALUES ('\\x00', '', 0, FALSE, '', 'spns-probe', 'spns-probe') RETURNING id INTO made;
  INSERT INTO sub_namespaces (subscription, namespace) VALUES (made, 0);
  UPDATE subscriptions SET signature_ts = 1 WHERE id = made;
  INSERT INTO spns_unsubscribed (account, service, svcid, signature_ts) VALUES ('\\x00', 'spns-probe', 'spns-probe', 0);
  DELETE FROM spns_unsubscribed WHERE service = 'spns-probe' AND account = '\\x00' AND svcid = 'spns-probe';
  DELETE FROM subscriptions WHERE id = made;
  RAISE EXCEPTION 'undone' USING ERRCODE = 'SP001';
EXCEPTION
  WHEN SQLSTATE 'SP001' THEN NULL;
END
$$`;

/** A change to one counter: adds an integer to it (`adds`), or sets it to an integer or a string. */
export interface StatChange {
  readonly service: string;
  readonly name: string;
  readonly adds: boolean;
  readonly value: number | string;
}

export function statsStatement(changes: readonly StatChange[]): QueryConfig {
  return {
    name: 'stats',
    text: STATS,
    values: [
      changes.map(({ service }) => service),
      changes.map(({ name }) => name),
      changes.map(({ adds }) => adds),
      changes.map(({ value }) => (typeof value === 'string' ? value : null)),
      changes.map(({ value }) => (typeof value === 'string' ? null : value)),
    ],
  };
}
