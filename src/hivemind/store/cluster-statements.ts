import type { QueryConfig } from 'pg';
import type { Membership } from './cluster-start.ts';
import type { FeedPosition } from './feed-position.ts';
import { COLUMNS, type SubscriptionRow } from './subscription-rows.ts';

/** The most changes that are read at once. After a transaction with more, everything is loaded again. */
export const PAGE = 4_000;
/** Identifies the server process and the table whose transactions our positions are about. */
export const SERVER = `pg_postmaster_start_time()::text || ' ' || 'subscriptions'::regclass::oid`;

/** Our row, as long as our run is the latest of this name. */
const OWN = 'name = $1 AND run = $2';

const BEAT = `
WITH own AS (
  UPDATE spns_members SET state = $3, covers = $4, seen = clock_timestamp(),
    position = CASE WHEN position IS NOT NULL THEN coalesce($5::pg_snapshot, position) END
  WHERE ${OWN} RETURNING *
)
SELECT extract(epoch FROM clock_timestamp()) * 1000 AS now, name, generation, run, state, address, push_address, version,
  extract(epoch FROM started) * 1000 AS started, extract(epoch FROM seen) * 1000 AS seen, covers
FROM (SELECT * FROM own UNION ALL SELECT * FROM spns_members WHERE name <> $1) m
WHERE seen > clock_timestamp() - INTERVAL '1 hour' ORDER BY name`;

/** Limits changes to those of our slots and by others, earliest first. */
const OURS = `(slot IS NULL OR get_bit($5::bytea, slot) = 1)
        AND ($6 OR origin IS DISTINCT FROM current_setting('spns.origin')::bigint)
      ORDER BY xid LIMIT ${PAGE}`;

/**
 * The changes of transactions that had not ended at a position. Its unfinished transactions and those after it are two
 * queries with a limit each, so that both use the index and read no more than they must.
 */
const CHANGES = `
SELECT f.*, c.*
FROM (
  SELECT pg_current_snapshot() AS snapshot, ${SERVER} AS server,
    NOT EXISTS (SELECT FROM spns_members WHERE ${OWN} AND position IS NOT NULL) AS lost
) f
LEFT JOIN LATERAL (
  SELECT xid, slot, id, account, service, svcid FROM (
    (SELECT * FROM spns_changes WHERE xid = ANY ($4::xid8[]) AND ${OURS})
    UNION ALL
    (SELECT * FROM spns_changes WHERE xid >= $3::xid8 AND ${OURS})
  ) news
  ORDER BY xid LIMIT ${PAGE}
) c ON true`;

/** The current rows of subscriptions: for each that exists, its place in the list and its columns. */
const CURRENT = `
SELECT c.n, s.*
FROM unnest($1::bigint[], $2::bytea[], $3::varchar[], $4::varchar[]) WITH ORDINALITY AS c(id, account, service, svcid, n)
CROSS JOIN LATERAL (
  SELECT ${COLUMNS} FROM subscriptions s WHERE s.id = c.id
  UNION ALL
  SELECT ${COLUMNS} FROM subscriptions s
  WHERE c.id IS NULL AND s.account = c.account AND s.service = c.service AND s.svcid = c.svcid
) s`;

/** A row of {@link beatStatement}: of a member, ourselves included if our run is the latest of our name. */
export interface BeatRow {
  /** The database's time when the others were read, as well as when this one started and was last seen; unix ms. */
  readonly now: string;
  readonly started: string;
  readonly seen: string;
  readonly name: string;
  readonly generation: string;
  readonly run: string;
  readonly state: 'starting' | 'ready' | 'leaving' | 'stopped';
  readonly address: string;
  readonly push_address: string;
  readonly version: string;
  readonly covers: Buffer;
}

/** A row of {@link changesStatement}. If there are no changes, there is one row without one. */
export interface ChangeRow {
  readonly snapshot: string;
  readonly server: string;
  /** Whether changes that we have not read were deleted. */
  readonly lost: boolean;
  readonly xid: string | null;
  /** Null in a change means that the table was truncated. */
  readonly slot: number | null;
  readonly id: string | null;
  readonly account: Buffer | null;
  readonly service: string | null;
  readonly svcid: string | null;
}

/** A row of {@link currentStatement}. */
export interface CurrentRow extends SubscriptionRow {
  /** From 1 on. */
  readonly n: string;
}

type Own = Pick<Membership, 'name' | 'run'>;

/** @param position changes before it need not be kept for us; undefined leaves it as it is */
export function beatStatement(
  { name, run }: Own,
  state: string,
  covers: Uint8Array,
  position: FeedPosition | undefined,
): QueryConfig {
  return { name: 'beat', text: BEAT, values: [name, run, state, covers, position?.toString() ?? null] };
}

export function leaveStatement({ name, run }: Own, covers: Uint8Array): QueryConfig {
  return {
    text: `UPDATE spns_members SET state = 'stopped', covers = $3, position = NULL WHERE ${OWN}`,
    values: [name, run, covers],
  };
}

/** Has all changes kept for us from now on. */
export function holdStatement({ name, run }: Own): QueryConfig {
  return { text: `UPDATE spns_members SET position = '1:1:' WHERE ${OWN}`, values: [name, run] };
}

/**
 * @param slots 32 bytes, a bit for each slot to read
 * @param own whether changes by this very connection are read as well
 */
export function changesStatement(
  { name, run }: Own,
  from: Pick<FeedPosition, 'xmax' | 'xip'>,
  slots: Uint8Array,
  own: boolean,
): QueryConfig {
  return {
    name: 'changes',
    text: CHANGES,
    values: [name, run, String(from.xmax), from.xip.map(String), slots, own],
  };
}

/** @param which subscriptions, each by its id or by the other three */
export function currentStatement(
  which: readonly {
    readonly id: string | undefined;
    readonly account: Uint8Array | undefined;
    readonly service: string | undefined;
    readonly serviceId: string | undefined;
  }[],
): QueryConfig {
  return {
    name: 'current',
    text: CURRENT,
    values: [
      which.map(({ id }) => id ?? null),
      which.map(({ account }) => account ?? null),
      which.map(({ service }) => service ?? null),
      which.map(({ serviceId }) => serviceId ?? null),
    ],
  };
}
