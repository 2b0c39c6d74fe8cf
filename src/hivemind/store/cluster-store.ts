import type { QueryConfig } from 'pg';
import { type DeviceKey, type DeviceRow, rowFault } from '../devices/device.ts';
import type { Membership } from './cluster-start.ts';
import {
  type BeatRow,
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

/** A member's row in the database. */
export interface MemberRow {
  readonly name: string;
  /** Part of its routing ids. */
  readonly generation: bigint;
  /** Differs from one run of its process to the next. */
  readonly run: bigint;
  readonly state: BeatRow['state'];
  /** OxenMQ addresses: where members and notifiers reach it, and where web front-ends do. */
  readonly address: string;
  readonly pushAddress: string;
  readonly version: string;
  /** When its process started and when it last wrote a heartbeat, by the database's clock; unix ms. */
  readonly started: number;
  readonly seen: number;
  /** 32 bytes, a bit for each slot that it covers. */
  readonly covers: Buffer;
}

/** What a member reports about itself. */
export type Heartbeat = Pick<MemberRow, 'state' | 'covers'>;

/** Which subscription was changed: its number or, if it was deleted, its key. */
export type Change = { readonly id: string } | DeviceKey;

/** A page of changes. */
export interface Changes {
  readonly changes: readonly Change[];
  /** Whether there is more to be read at once. */
  readonly more: boolean;
}

/** The current row of a changed subscription; undefined if there is none. */
export interface Current extends DeviceKey {
  readonly row: DeviceRow | undefined;
}

/** The bits of no slot. */
const NO_SLOTS = Buffer.alloc(32);
const NO_KEY = { account: undefined, service: undefined, serviceId: undefined };

/**
 * What a member of a cluster does in the database: it writes heartbeats, and reads which subscriptions others have
 * changed.
 *
 * Changes are read from a position on, which is a PostgreSQL snapshot: those of all transactions that had not ended by
 * then. So none is missed, however long a transaction takes, and nobody has to wait for it.
 */
export class ClusterStore {
  readonly membership: Membership;
  readonly #connection: Pick<Connection, 'query'>;
  readonly #onGone: (error: StoreError) => void;
  /** Up to where changes have been read; undefined if everything has to be loaded, for the first time or again. */
  #position: FeedPosition | undefined;
  /** Whether a load has begun since the position was given up: the new one will be where that begins. */
  #isBeginning = false;
  /** The server whose transactions the positions are about. */
  #server: string | undefined;
  /** Where running loads began: changes from there on are read again when the load ends. */
  readonly #holds = new Set<FeedPosition>();
  /** How often the position has been set back. */
  #rewinds = 0;
  /** Whether our own changes are read as well, since a load may have overwritten them in memory with older rows. */
  #readsOwn = false;

  /** @param onGone called when our membership has been ended while the database was away: this process must end */
  constructor(connection: Pick<Connection, 'query'>, membership: Membership, onGone: (error: StoreError) => void) {
    this.#connection = connection;
    this.membership = membership;
    this.#onGone = onGone;
  }

  /**
   * Writes a heartbeat.
   *
   * @returns the database's time (unix ms), and all members seen within the last hour, ourselves included
   * @throws StoreError; `locked` if we are no longer a member
   */
  async beat({ state, covers }: Heartbeat): Promise<{ now: number; members: MemberRow[] }> {
    const { name } = this.membership;
    const rows = await this.#query<BeatRow>(beatStatement(this.membership, state, covers, this.#keptFrom()));
    const members = rows.map((row) => ({
      name: row.name,
      generation: BigInt(row.generation),
      run: BigInt(row.run),
      state: row.state,
      address: row.address,
      pushAddress: row.push_address,
      version: row.version,
      started: Number(row.started),
      seen: Number(row.seen),
      covers: row.covers,
    }));
    if (!members.some((member) => member.name === name)) {
      const error = new StoreError(
        'locked',
        `The database no longer knows this hivemind (${name}): while it could not be reached, a hivemind without a name or ` +
          'another of this name was at work on it, or a backup was restored',
      );
      this.#onGone(error);
      throw error;
    }
    return { now: Number(rows[0]?.now), members };
  }

  /**
   * Marks us as stopped in order, so that the next run takes over our routing ids. To be called once nothing is
   * connected under them.
   *
   * @throws StoreError
   */
  async leave(): Promise<void> {
    await this.#query(leaveStatement(this.membership, NO_SLOTS));
  }

  /**
   * Reads which subscriptions have changed since the last time, except by this very connection: its writers know of
   * those.
   *
   * @param slots 32 bytes, a bit for each slot to read
   * @returns 'reload' if that cannot be told, because we were away for too long, the server is another one, the table
   *   was truncated, or nothing has been loaded yet: everything has to be loaded before there is anything to read. It
   *   is said once: when a load has begun there are no changes until the server has told where
   * @throws StoreError
   */
  async readChanges(slots: Uint8Array): Promise<Changes | 'reload'> {
    const from = this.#position;
    if (from === undefined) return this.#isBeginning ? { changes: [], more: false } : 'reload';
    const rewinds = this.#rewinds;
    const rows = await this.#query<ChangeRow>(changesStatement(this.membership, from, slots, this.#readsOwn));
    const first = rows[0];
    if (first === undefined) throw new StoreError('unavailable', 'The database sent no answer');
    const now = FeedPosition.parse(first.snapshot);
    const isTruncated = rows.some(({ xid, slot }) => xid !== null && slot === null);
    if (first.lost || first.server !== this.#server || now.xmax < from.xmax || isTruncated) return this.#lose();
    const found = rows.flatMap((row) => (row.xid === null ? [] : [{ xid: BigInt(row.xid), change: changeOf(row) }]));
    const more = found.length >= PAGE;
    // The last transaction of a full page may have more changes, so it is read again.
    const end = more ? found.reduce((last, { xid }) => (xid > last ? xid : last), 0n) : now.xmax;
    if (more && found.every(({ xid }) => xid === end)) return this.#lose();
    if (rewinds === this.#rewinds) {
      this.#position = now.upTo(end);
      if (!more) this.#readsOwn = false;
    }
    return { changes: found.filter(({ xid }) => xid < end).map(({ change }) => change), more };
  }

  /**
   * Reads the current rows of changed subscriptions.
   *
   * @param changes a few hundred at most: each row may take 200,000 bytes
   * @returns an entry for each, except those given by number that no longer exist: their deletion is another change
   * @throws StoreError
   */
  async readCurrent(changes: readonly Change[]): Promise<Current[]> {
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

  /** Gives up unread changes: everything has to be loaded again, which costs less than reading very many of them. */
  skip(): void {
    this.#position = undefined;
    this.#isBeginning = false;
  }

  /**
   * Deletes some thousand changes that every member has read.
   *
   * @returns whether there may be more
   * @throws StoreError
   */
  async trim(): Promise<boolean> {
    const [row] = await this.#query<{ more: boolean }>({ text: 'SELECT spns_trim(clock_timestamp()) AS more' });
    return row?.more === true;
  }

  /**
   * To be called around each load: changes since its beginning are read, or read again, once it has ended, successfully
   * or not.
   *
   * @param load gets the {@link SERVER} to load from
   * @throws StoreError, and what `load` throws
   */
  async whileLoading<T>(load: (server: string) => Promise<T>): Promise<T> {
    const { hold, server } = await this.#beginLoad();
    try {
      return await load(server);
    } finally {
      this.#holds.delete(hold);
      this.#position = this.#position?.meet(hold);
      this.#rewinds++;
      this.#readsOwn = true;
    }
  }

  /** Holds the position at which a load begins; ours is set to it if there is none. */
  async #beginLoad(): Promise<{ hold: FeedPosition; server: string }> {
    try {
      if (this.#position === undefined) {
        this.#isBeginning = true;
        await this.#query(holdStatement(this.membership));
      }
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
      return { hold, server: row.server };
    } finally {
      this.#isBeginning = false;
    }
  }

  /** The position from which changes have to be kept for us. */
  #keptFrom(): FeedPosition | undefined {
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

function changeOf({ id, account, service, svcid }: ChangeRow): Change {
  if (id !== null) return { id };
  return { account: account ?? Buffer.alloc(0), service: service ?? '', serviceId: svcid ?? '' };
}
