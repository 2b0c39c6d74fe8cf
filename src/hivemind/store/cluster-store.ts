import type { QueryConfig } from 'pg';
import { type DeviceKey, type DeviceRow, rowFault } from '../devices/device.ts';
import type { Membership } from './cluster-start.ts';
import {
  beatStatement,
  type ChangeRow,
  type CurrentRow,
  changesStatement,
  currentStatement,
  holdStatement,
  leaveStatement,
  PAGE,
  SERVER,
} from './cluster-statements.ts';
import type { Connection } from './connection.ts';
import { FeedPosition } from './feed-position.ts';
import { asStoreError, StoreError } from './store-error.ts';
import { deviceRow } from './subscription-rows.ts';

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

/** What a member reports about itself with its sign of life. */
export type Sign = Pick<MemberRow, 'state' | 'covers'>;

/** A subscription that was changed: by its number, or, if it is gone, by its key. */
export type Changed = { readonly id: string } | DeviceKey;

/** What was read of the changes. */
export interface Changes {
  readonly changes: readonly Changed[];
  /** Whether there is more to be read at once. */
  readonly more: boolean;
}

/** What a changed subscription is now; without a row there is none. */
export interface Current extends DeviceKey {
  readonly row: DeviceRow | undefined;
}

/** Covers no slot. */
const NOTHING = Buffer.alloc(32);
const NO_KEY = { account: undefined, service: undefined, serviceId: undefined };

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
   * @throws StoreError; `locked` if we no longer are one
   */
  async beat({ state, covers }: Sign): Promise<{ now: number; members: MemberRow[] }> {
    const { name, run } = this.membership;
    const rows = await this.#query<Record<string, string> & { covers: Buffer }>(
      beatStatement(this.membership, state, covers, this.#kept()),
    );
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
        `The database no longer knows this hivemind (${name}): while it could not be reached, one without a name or another ` +
          'one of this name was at work on it, or a backup was played back',
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
    await this.#query(leaveStatement(this.membership, NOTHING));
  }

  /**
   * Reads which subscriptions have changed since the last time, but for what was written over this very connection:
   * that its writers know.
   *
   * @param slots 32 bytes, a bit for each of those to report
   * @returns 'reload' when that cannot be determined (we were away for long, the server is another one, all were taken
   *   away, or nothing was loaded yet): everything is to be loaded anew, and until then there is nothing to read
   * @throws StoreError
   */
  async readChanges(slots: Uint8Array): Promise<Changes | 'reload'> {
    const from = this.#position;
    if (from === undefined) return 'reload';
    const rewinds = this.#rewinds;
    const rows = await this.#query<ChangeRow>(changesStatement(this.membership, from, slots, this.#readsOwn));
    const first = rows[0];
    if (first === undefined) throw new StoreError('unavailable', 'The database sent no answer');
    const now = FeedPosition.parse(first.snapshot);
    const isTruncated = rows.some(({ xid, slot }) => xid !== null && slot === null);
    if (first.lost || first.server !== this.#server || now.xmax < from.xmax || isTruncated) return this.#lose();
    const found = rows.flatMap((row) => (row.xid === null ? [] : [{ xid: BigInt(row.xid), change: changedOf(row) }]));
    const more = found.length >= PAGE;
    // Of the last transaction of a page there may be more.
    const end = more ? found.reduce((last, { xid }) => (xid > last ? xid : last), 0n) : now.xmax;
    if (more && found.every(({ xid }) => xid === end)) return this.#lose();
    if (rewinds === this.#rewinds) {
      this.#position = now.upTo(end);
      if (!more) this.#readsOwn = false;
    }
    return { changes: found.filter(({ xid }) => xid < end).map(({ change }) => change), more };
  }

  /**
   * Reads what subscriptions are now.
   *
   * @param changes a few hundred at most: each may take 200,000 bytes
   * @returns of each what there is; nothing of those of which nothing but their number was known, and which are gone:
   *   of that another change tells
   * @throws StoreError
   */
  async readCurrent(changes: readonly Changed[]): Promise<Current[]> {
    const which = changes.map((change) =>
      'id' in change ? { ...NO_KEY, id: change.id } : { ...change, id: undefined },
    );
    const rows = await this.#query<CurrentRow>(currentStatement(which));
    const found = new Map(rows.map((row) => [Number(row.n) - 1, deviceRow(row)]));
    return changes.flatMap((change, n) => {
      const row = found.get(n);
      const key = row ?? ('id' in change ? undefined : change);
      if (key === undefined) return [];
      const { account, service, serviceId } = key;
      return [{ account, service, serviceId, row: row && rowFault(row) === undefined ? row : undefined }];
    });
  }

  /** Gives up what has not been read yet: everything is to be loaded anew, which costs less than very many changes. */
  skip(): void {
    this.#position = undefined;
  }

  /**
   * Takes away changes that every member has read, some thousand at once.
   *
   * @returns whether there may be more
   * @throws StoreError
   */
  async trim(): Promise<boolean> {
    const [row] = await this.#query<{ more: boolean }>({ text: 'SELECT spns_trim(clock_timestamp()) AS more' });
    return row?.more === true;
  }

  /**
   * To be done around each load: what changes from its beginning on is read, or read once more, after its end, however
   * it ends.
   *
   * @param load gets what tells the server whose subscriptions are to be read (see {@link SERVER})
   * @throws StoreError, and what `load` throws
   */
  async whileLoading<T>(load: (server: string) => Promise<T>): Promise<T> {
    if (this.#position === undefined) await this.#query(holdStatement(this.membership));
    const [row] = await this.#query<{ snapshot: string; server: string }>({
      text: `SELECT pg_current_snapshot() AS snapshot, ${SERVER} AS server`,
    });
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
    this.skip();
    return 'reload';
  }

  async #query<Row extends object>(query: QueryConfig): Promise<Row[]> {
    try {
      return (await this.#connection.query<Row>(query)).rows;
    } catch (error) {
      throw asStoreError(error);
    }
  }
}

function changedOf({ id, account, service, svcid }: ChangeRow): Changed {
  if (id !== null) return { id };
  return { account: account ?? Buffer.alloc(0), service: service ?? '', serviceId: svcid ?? '' };
}
