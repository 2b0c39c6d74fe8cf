import { type DeviceKey, type DeviceRow, rowFault } from '../devices/device.ts';
import type { Membership } from './cluster-start.ts';
import type { Connection } from './connection.ts';
import { FeedPosition } from './feed-position.ts';
import { asStoreError, StoreError } from './store-error.ts';
import { COLUMNS, deviceRow, type SubscriptionRow } from './subscription-rows.ts';

/** What the database has of a member of the cluster. */
export interface MemberRow {
  readonly name: string;
  /** Part of its routing ids. */
  readonly generation: bigint;
  /** Tells one run of its process from the next. */
  readonly run: bigint;
  readonly state: 'starting' | 'ready' | 'leaving' | 'stopped';
  /** Where members and notifiers, and where web front-ends reach it: OxenMQ addresses. */
  readonly address: string;
  readonly pushAddress: string;
  readonly version: string;
  /** By the database's clock, unix ms. */
  readonly started: number;
  readonly seen: number;
  /** 32 bytes, a bit for each slot of which it covers every account. */
  readonly covers: Buffer;
}

/** What a member tells of itself with its sign of life. */
export type Sign = Pick<MemberRow, 'state' | 'covers'>;

/** A subscription that was changed, with what it is now; without a row it is gone. */
export interface Change extends DeviceKey {
  readonly row: DeviceRow | undefined;
}

/** What was read of the changes. */
export interface Changes {
  readonly changes: readonly Change[];
  /** Whether there is more to be read at once. */
  readonly more: boolean;
}

/** Rows of changes that are read at once. A transaction that has more makes us load anew. */
const PAGE = 4_000;
/** Tells whether the server is still the one whose transactions we have counted, and the table the same. */
export const SERVER = `pg_postmaster_start_time()::text || ' ' || 'subscriptions'::regclass::oid`;

const BEAT = `
WITH own AS (
  UPDATE spns_members SET state = $3, covers = $4, seen = clock_timestamp(),
    position = CASE WHEN position IS NOT NULL THEN coalesce($5::pg_snapshot, position) END
  WHERE name = $1 AND run = $2 RETURNING *
)
SELECT extract(epoch FROM clock_timestamp()) * 1000 AS now, name, generation, run, state, address, push_address, version,
  extract(epoch FROM started) * 1000 AS started, extract(epoch FROM seen) * 1000 AS seen, covers
FROM (SELECT * FROM own UNION ALL SELECT * FROM spns_members WHERE name <> $1) m
WHERE seen > clock_timestamp() - INTERVAL '1 hour' ORDER BY name`;

const LEAVE = `UPDATE spns_members SET state = 'stopped', covers = $3, position = NULL WHERE name = $1 AND run = $2`;

const HOLD = `
UPDATE spns_members SET position = '1:1:' WHERE name = $1 AND run = $2`;

/**
 * The changes of transactions that had not ended at a position, with what the subscriptions are now. The two ways to
 * a change are apart so that each goes by the index, whatever the server thinks of their numbers.
 */
const CHANGES = `
SELECT f.*, c.xid, c.slot, c.account AS gone_account, c.service AS gone_service, c.svcid AS gone_svcid, s.*
FROM (
  SELECT pg_current_snapshot() AS snapshot, ${SERVER} AS server,
    NOT EXISTS (SELECT FROM spns_members WHERE name = $1 AND run = $2 AND position IS NOT NULL) AS lost
) f
LEFT JOIN LATERAL (
  (
    SELECT xid, slot, id, account, service, svcid FROM (
      SELECT * FROM spns_changes WHERE xid = ANY ($4::xid8[]) UNION ALL SELECT * FROM spns_changes WHERE xid >= $3::xid8
    ) news
    WHERE (slot IS NULL OR slot = ANY ($5::smallint[]))
      AND ($6 OR origin IS DISTINCT FROM current_setting('spns.origin')::bigint)
    ORDER BY xid LIMIT ${PAGE}
  )
  UNION ALL
  SELECT NULL, 0, NULL, * FROM unnest($7::bytea[], $8::varchar[], $9::varchar[])
) c ON true
LEFT JOIN LATERAL (
  SELECT ${COLUMNS} FROM subscriptions s WHERE s.id = c.id
  UNION ALL
  SELECT ${COLUMNS} FROM subscriptions s
  WHERE c.id IS NULL AND s.account = c.account AND s.service = c.service AND s.svcid = c.svcid
) s ON true`;

interface ChangeRow extends Omit<SubscriptionRow, 'account'> {
  readonly snapshot: string;
  readonly server: string;
  readonly lost: boolean;
  /** Null if nothing has changed, or for a key that was asked for. */
  readonly xid: string | null;
  readonly slot: number | null;
  readonly gone_account: Buffer | null;
  readonly gone_service: string;
  readonly gone_svcid: string;
  readonly account: Buffer | null;
}

/**
 * What a member of a cluster does in the database: gives its signs of life, and reads which subscriptions others have
 * changed.
 *
 * The changes are read from a position on, which is a snapshot of PostgreSQL's: those of all transactions that had not
 * ended by then. So none is missed however long one is under way, and nobody waits for it.
 */
export class ClusterStore {
  readonly membership: Membership;
  readonly #connection: Pick<Connection, 'query'>;
  readonly #onGone: (error: StoreError) => void;
  /** Up to where the changes were read; undefined when nothing was loaded yet, or everything must be loaded anew. */
  #position: FeedPosition | undefined;
  /** The server whose transactions the positions are about. */
  #server: string | undefined;
  /** Positions from which all is to be read once more, since a load that began there is under way. */
  readonly #holds = new Set<FeedPosition>();
  /** Counts the times that the position was put back. */
  #rewinds = 0;
  /** Whether our own changes are read as well: a load may have put what was before them in their place. */
  #readsOwn = false;

  /** @param onGone called when others have ended our membership while the database was away: this process must end */
  constructor(connection: Pick<Connection, 'query'>, membership: Membership, onGone: (error: StoreError) => void) {
    this.#connection = connection;
    this.membership = membership;
    this.#onGone = onGone;
  }

  /**
   * Gives a sign of life.
   *
   * @returns the database's clock (unix ms), and all members that were seen within the last hour, ourselves among them
   * @throws StoreError; `locked` if we are none any more
   */
  async beat({ state, covers }: Sign): Promise<{ now: number; members: MemberRow[] }> {
    const { name, run } = this.membership;
    const values = [name, run, state, covers, this.#kept()?.toString() ?? null];
    const rows = await this.#query<Record<string, string> & { covers: Buffer }>('beat', BEAT, values);
    const members = rows.map((row) => ({
      name: row.name ?? '',
      generation: BigInt(row.generation ?? 0),
      run: BigInt(row.run ?? 0),
      state: row.state as MemberRow['state'],
      address: row.address ?? '',
      pushAddress: row.push_address ?? '',
      version: row.version ?? '',
      started: Number(row.started),
      seen: Number(row.seen),
      covers: row.covers,
    }));
    if (!members.some((member) => member.name === name && member.run === run)) {
      const error = new StoreError(
        'locked',
        `Another hivemind was at work on this database while it could not be reached, without a name or as ${name} too`,
      );
      this.#onGone(error);
      throw error;
    }
    return { now: Number(rows[0]?.now), members };
  }

  /**
   * The last sign: we are gone, and know it. Once nothing is connected under our routing ids, for the next run takes
   * them over.
   *
   * @throws StoreError
   */
  async leave(): Promise<void> {
    const { name, run } = this.membership;
    await this.#query('leave', LEAVE, [name, run, Buffer.alloc(32)]);
  }

  /**
   * Reads which subscriptions have changed since the last time, but for what was written over this very connection:
   * that its writers know.
   *
   * @param slots those to tell of
   * @param again keys to read besides, changed or not
   * @returns 'reload' when that cannot be told (we were away for long, the server is another one, all were taken away,
   *   or nothing was loaded yet): everything is to be loaded anew, and until then there is nothing to read
   * @throws StoreError
   */
  async readChanges(slots: Iterable<number>, again: readonly DeviceKey[] = []): Promise<Changes | 'reload'> {
    const { name, run } = this.membership;
    const from = this.#position;
    if (from === undefined) return 'reload';
    const rewinds = this.#rewinds;
    const rows = await this.#query<ChangeRow>('changes', CHANGES, [
      name,
      run,
      String(from.xmax),
      from.xip.map(String),
      [...slots],
      this.#readsOwn,
      again.map(({ account }) => account),
      again.map(({ service }) => service),
      again.map(({ serviceId }) => serviceId),
    ]);
    const first = rows[0];
    if (first === undefined) throw new StoreError('unavailable', 'The database sent no answer');
    const now = FeedPosition.parse(first.snapshot);
    if (first.lost || first.server !== this.#server || now.xmax < from.xmax || rows.some(isTruncation)) {
      return this.#lose();
    }
    const xids = rows.flatMap(({ xid }) => (xid === null ? [] : [BigInt(xid)]));
    const more = xids.length >= PAGE;
    // Of the last transaction of a page there may be more.
    const end = more ? xids.reduce((a, b) => (a > b ? a : b)) : now.xmax;
    if (more && xids.every((xid) => xid === end)) return this.#lose();
    if (rewinds === this.#rewinds) {
      this.#position = now.upTo(end);
      if (!more) this.#readsOwn = false;
    }
    const read = rows.filter(({ xid }) => xid === null || BigInt(xid) < end);
    return { changes: read.map(changeOf).filter((change) => change !== undefined), more };
  }

  /** Takes away the changes that every member has read. @throws StoreError */
  async trim(): Promise<void> {
    await this.#query('trim', 'SELECT spns_trim(clock_timestamp())', []);
  }

  /**
   * To be done around each load: what changes from its beginning on is read, or read once more, after its end, however
   * it ends.
   *
   * @param load gets what tells the server whose subscriptions are to be read (see {@link SERVER})
   * @throws StoreError, and what `load` throws
   */
  async whileLoading<T>(load: (server: string) => Promise<T>): Promise<T> {
    const { name, run } = this.membership;
    if (this.#position === undefined) await this.#query('hold', HOLD, [name, run]);
    const [row] = await this.#query<{ snapshot: string; server: string }>(
      'position',
      `SELECT pg_current_snapshot() AS snapshot, ${SERVER} AS server`,
      [],
    );
    if (row === undefined) throw new StoreError('unavailable', 'The database sent no answer');
    const hold = FeedPosition.parse(row.snapshot);
    if (this.#position === undefined) {
      this.#position = hold;
      this.#server = row.server;
    }
    this.#holds.add(hold);
    try {
      return await load(row.server);
    } finally {
      this.#holds.delete(hold);
      this.#position = this.#position?.meet(hold);
      this.#rewinds++;
      this.#readsOwn = true;
    }
  }

  /** The position from which on changes are to be kept for us. */
  #kept(): FeedPosition | undefined {
    let kept = this.#position;
    for (const hold of this.#holds) kept = kept?.meet(hold);
    return kept;
  }

  #lose(): 'reload' {
    this.#position = undefined;
    return 'reload';
  }

  async #query<Row extends object>(name: string, text: string, values: unknown[]): Promise<Row[]> {
    try {
      return (await this.#connection.query<Row>({ name, text, values })).rows;
    } catch (error) {
      throw asStoreError(error);
    }
  }
}

function isTruncation({ xid, slot }: ChangeRow): boolean {
  return xid !== null && slot === null;
}

/** Undefined if there is nothing to tell: a subscription that has gone meanwhile, of which another change tells. */
function changeOf(row: ChangeRow): Change | undefined {
  if (row.account !== null) {
    const found = deviceRow({ ...row, account: row.account });
    const { account, service, serviceId } = found;
    return { account, service, serviceId, row: rowFault(found) === undefined ? found : undefined };
  }
  if (row.gone_account === null) return undefined;
  return { account: row.gone_account, service: row.gone_service, serviceId: row.gone_svcid, row: undefined };
}
