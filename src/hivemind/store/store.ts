import { randomBytes } from 'node:crypto';
import type pg from 'pg';
import type { QueryConfig } from 'pg';
import type { Clock, Timer } from '../../clock.ts';
import { type Logger, type Repeated, repeated } from '../../daemon/log.ts';
import { SLOTS } from '../../session/slots.ts';
import { type DeviceKey, type DeviceRow, MAX_SERVICE, rowFault } from '../devices/device.ts';
import { type OpenClient, openClient } from './client.ts';
import { becomeMember, dissolveCluster, type Membership, type MembershipOptions } from './cluster-start.ts';
import { SERVER } from './cluster-statements.ts';
import { ClusterStore } from './cluster-store.ts';
import { Connection } from './connection.ts';
import { CopyOut } from './copy-out.ts';
import { CopyRows, copyRows } from './copy-rows.ts';
import { GroupCommit, type WriteWatch } from './group-commit.ts';
import { migrate } from './migrate.ts';
import { StatChanges } from './stat-changes.ts';
import {
  countStatement,
  EXPIRED_PER_STATEMENT,
  expireStatement,
  findStatement,
  forgetStatement,
  forgetSurplusStatement,
  PROBE,
  statsStatement,
  surplusStatement,
} from './statements.ts';
import { asStoreError, isDataError, StoreError } from './store-error.ts';
import { deviceRow, type SubscriptionRow } from './subscription-rows.ts';
import { type WriteFault, WriteHealth } from './write-health.ts';

export { StoreError } from './store-error.ts';

/** How often statistics are written, in ms. */
const STATS_EVERY = 5_000;
/** The most statistics written by one statement. */
const STATS_AT_ONCE = 2_000;
/** After this long (ms) without a group commit, a probe tells whether the database writes. */
const IDLE = 60_000;
/** How often it is probed, in ms, while it does not. */
const PROBE_EVERY = 1_000;
/** -1 if the table was never counted. */
const ESTIMATE = "SELECT reltuples AS rows FROM pg_class WHERE oid = 'subscriptions'::regclass";
const NO_LIMIT = Number.MAX_SAFE_INTEGER;

export interface StoreOptions {
  /** as for libpq: `postgresql://user@host/database`, or without a host for the local socket */
  readonly url: string;
  readonly clock: Clock;
  readonly log: Logger;
  /** how long the server may take to answer, in ms; 5,000 if not given */
  readonly timeout?: number;
  readonly random?: (bytes: number) => Buffer;
  /** Called when another hivemind has taken over the database while we could not reach it: this process must end. */
  readonly onTaken?: (error: StoreError) => void;
  /** Given if we are one of several hiveminds that share the database; if not, we have it to ourselves. */
  readonly cluster?: MembershipOptions;
}

/** A row of `service_stats`. */
export interface StatRow {
  /** '' for the hivemind's own */
  readonly service: string;
  readonly name: string;
  readonly value: number | string;
}

/**
 * The subscriptions in PostgreSQL, in the original's tables. The database has the last word on what is subscribed, but
 * no push ever waits for it: only requests that change subscriptions do.
 *
 * One hivemind at a time works on a database, or several with names. Each holds a lock on the connection by which it
 * writes.
 */
export class Store {
  readonly #options: StoreOptions;
  readonly #connection: Connection;
  readonly #commits: GroupCommit;
  readonly #stats = new StatChanges();
  readonly #health: WriteHealth;
  readonly #faults: Repeated;
  readonly #timer: Timer;
  /** What members of a cluster share; undefined if we have the database to ourselves. */
  readonly cluster: ClusterStore | undefined;
  #flushing: Promise<void> | undefined;
  #expiring = false;
  #probing = false;
  /** When writing was last seen to work or fail, and how many group commits there had been. */
  #probed = { commits: 0, at: Number.NEGATIVE_INFINITY };

  /**
   * Connects, takes the lock, and brings the tables up to date.
   *
   * @throws StoreError with a sentence for the operator: `unavailable`, `locked` (by another hivemind) or `refused`
   *   (the tables are of a later version, or we may not create ours)
   */
  static async open(options: StoreOptions): Promise<Store> {
    const { url, clock, log, timeout = 5_000, random = randomBytes, onTaken = () => {}, cluster } = options;
    const connection = new Connection({ url, clock, log, timeout, random, onTaken, name: cluster?.name });
    let membership: Membership | undefined;
    await connection.open(async (client) => {
      // Building an index on a large table may take longer than we allow any later statement.
      await client.query('SET statement_timeout = 0');
      const applied = await migrate(client);
      if (cluster === undefined) await dissolveCluster(client);
      else membership = await becomeMember(client, cluster, random(8).readBigUInt64LE() >> 1n);
      await client.query(`SET statement_timeout = ${timeout}`);
      const files = applied.join(', ');
      if (files !== '') log.info(`the database was brought up to date: ${files}`);
    });
    return new Store(options, connection, membership && new ClusterStore(connection, membership, onTaken));
  }

  private constructor(options: StoreOptions, connection: Connection, cluster: ClusterStore | undefined) {
    this.#options = options;
    this.cluster = cluster;
    this.#connection = connection;
    this.#health = new WriteHealth(options.clock, options.log);
    this.#faults = repeated(options.log, options.clock);
    this.#commits = new GroupCommit(connection, options.clock, {
      failed: (error) => this.#health.failed(error),
      succeeded: () => {
        this.#health.succeeded(false);
        if (this.#health.trouble !== undefined) void this.#probe();
      },
    });
    this.#timer = options.clock.setInterval(() => {
      void this.#flush();
      void this.#probe();
    }, STATS_EVERY);
  }

  /** Whether we are connected to the database. */
  get connected(): boolean {
    return this.#connection.connected;
  }

  /** Why clients' requests are not written, for the operator; undefined while they are. */
  get trouble(): string | undefined {
    if (this.connected) return this.#health.trouble;
    const { fault } = this.#connection;
    return `the database does not answer${fault === undefined ? '' : `: ${fault}`}`;
  }

  /** Writes that failed, by cause. */
  get errors(): ReadonlyMap<WriteFault, number> {
    return this.#health.errors;
  }

  /** Group commits, the rows in them, and how long they took in all, in ms. */
  get counters(): { commits: number; rows: number; commitMs: number } {
    return this.#commits.counters;
  }

  /**
   * Streams all subscriptions, or those of some slots, without holding the event loop or much memory.
   *
   * Expired ones are read like others, since our clock alone does not decide what has expired.
   *
   * @param visit gets each valid row, which is good only during the call
   * @param stopping ends the reading, even if no rows come
   * @param slots all if not given
   * @param expect gets about how many rows will come, before they do, if PostgreSQL has counted them
   * @returns how many rows were visited, and how many were invalid and skipped
   * @throws StoreError `unavailable`, also if `stopping` ended it
   */
  async load(
    visit: (row: DeviceRow) => void,
    stopping?: AbortSignal,
    slots?: readonly number[],
    expect?: (rows: number) => void,
  ): Promise<{ rows: number; skipped: number }> {
    if (this.cluster === undefined) return this.#load(visit, stopping, slots, expect, undefined);
    return this.cluster.whileLoading((server) => this.#load(visit, stopping, slots, expect, server));
  }

  /** @param server the only server to read from (see {@link SERVER}); any if not given */
  async #load(
    visit: (row: DeviceRow) => void,
    stopping: AbortSignal | undefined,
    slots: readonly number[] | undefined,
    expect: ((rows: number) => void) | undefined,
    server: string | undefined,
  ): Promise<{ rows: number; skipped: number }> {
    const { clock, log } = this.#options;
    const faults = new Map<string, number>();
    let rows = 0;
    const reader = new CopyRows((row) => {
      const fault = rowFault(row);
      if (fault !== undefined) {
        faults.set(fault, (faults.get(fault) ?? 0) + 1);
        return;
      }
      rows++;
      visit(row);
    });
    let made: OpenClient | undefined;
    const stop = () => made?.socket.destroy();
    stopping?.addEventListener('abort', stop);
    try {
      made = await openClient(this.#options.url, 10_000, { stopping, mustWrite: server !== undefined });
      const { client } = made;
      if (server !== undefined) await requireServer(client, server);
      const counted = await client.query<{ rows: number }>(ESTIMATE);
      expect?.((Math.max(counted.rows[0]?.rows ?? 0, 0) * (slots?.length ?? SLOTS)) / SLOTS);
      await client.query(new CopyOut(copyRows(slots), (message) => reader.push(message), clock)).done;
      if (!reader.ended) throw new Error('the connection was lost');
    } catch (error) {
      throw new StoreError('unavailable', `The subscriptions could not be read: ${(error as Error).message}`, {
        cause: error,
      });
    } finally {
      stopping?.removeEventListener('abort', stop);
      await made?.client.end().catch(() => undefined);
    }
    const skipped = [...faults.values()].reduce((sum, count) => sum + count, 0);
    const reasons = [...faults].map(([fault, count]) => `${count} ${fault}`).join(', ');
    if (skipped > 0) log.warn(`skipped invalid subscriptions, by reason: ${reasons}`);
    return { rows, skipped };
  }

  /** A device's subscription to an account, if there is a valid one. @throws StoreError */
  async find(account: Uint8Array, service: string, serviceId: string): Promise<DeviceRow | undefined> {
    if (!isKey({ account: Buffer.from(account), service, serviceId })) return undefined;
    const [row] = await this.#read<SubscriptionRow>(findStatement(account, service, serviceId));
    const found = row && deviceRow(row);
    return found === undefined || rowFault(found) !== undefined ? undefined : found;
  }

  /**
   * How many devices are subscribed to an account, and how many of them by the given subaccount. Stops counting at more
   * than an account may have.
   *
   * @param tag of the subaccount, 36 bytes
   * @throws StoreError
   */
  async countDevices(account: Uint8Array, tag?: Uint8Array): Promise<{ all: number; alike: number }> {
    const [row] = await this.#read<{ all: string; alike: string }>(countStatement(account, tag));
    return { all: Number(row?.all), alike: Number(row?.alike) };
  }

  /**
   * Stores a new or renewed subscription. Resolves after the commit.
   *
   * @returns 'stale' if the stored one, or an unsubscription, was signed later: nothing has changed then
   * @throws StoreError `unavailable`, or `refused` if the database cannot store such a row
   */
  upsert(row: DeviceRow): Promise<'added' | 'updated' | 'stale'> {
    const fault = rowFault(row);
    if (fault !== undefined)
      return Promise.reject(new StoreError('refused', `The subscription cannot be stored: ${fault}`));
    return this.#commits.upsert(row);
  }

  /**
   * Removes a subscription because its device asked for that, and remembers the unsubscription for as long as an
   * earlier subscription could be replayed (14 days). Of each account only the latest are remembered: 1,000 of devices
   * that were subscribed, 64 of others. Resolves after the commit.
   *
   * @param signedAt unix seconds: a subscription signed later stays
   * @returns whether a subscription was removed
   * @throws StoreError
   */
  remove(account: Uint8Array, service: string, serviceId: string, signedAt: number): Promise<boolean> {
    const key = { account: Buffer.from(account), service, serviceId };
    if (!isKey(key)) return Promise.reject(new StoreError('refused', 'No such subscription can exist'));
    return this.#commits.remove({ ...key, signedAt });
  }

  /**
   * Removes subscriptions because their device is gone. This is not remembered.
   *
   * @param keys with `signedAt` if known: a subscription signed later stays
   * @returns how many were removed
   * @throws StoreError
   */
  async removeDevices(keys: readonly (DeviceKey & { readonly signedAt?: number })[]): Promise<number> {
    const removed = await Promise.all(
      keys.filter(isKey).map((key) => this.#commits.drop({ ...key, signedAt: key.signedAt ?? NO_LIMIT })),
    );
    return removed.filter(Boolean).length;
  }

  /**
   * Watches which subscriptions are being written here, now and until the watch is ended: rows of these that are read
   * meanwhile may be out of date.
   */
  watchWrites(): WriteWatch {
    return this.#commits.watch();
  }

  /**
   * Deletes expired subscriptions and unsubscriptions, in slices, so that subscribers need not wait. Does nothing while
   * an earlier call is at work.
   *
   * @param cutoff unix seconds: what was signed then or earlier is deleted
   * @param most how many subscriptions to delete at most, but for less than a slice
   * @returns how many subscriptions were deleted
   * @throws StoreError
   */
  async deleteExpired(cutoff: number, most: number): Promise<number> {
    if (this.#expiring) return 0;
    this.#expiring = true;
    try {
      await this.#slices(forgetStatement(cutoff), NO_LIMIT);
      await this.#forgetSurplus();
      return await this.#slices(expireStatement(cutoff), most);
    } catch (error) {
      throw asStoreError(error);
    } finally {
      this.#expiring = false;
    }
  }

  /** The time by the database server's clock, unix ms. @throws StoreError */
  async time(): Promise<number> {
    const [row] = await this.#read<{ now: string }>({
      text: 'SELECT extract(epoch FROM clock_timestamp()) * 1000 AS now',
    });
    return Number(row?.now);
  }

  /**
   * Changes statistics. They are kept in memory and written every few seconds and at the end; while the database is
   * away they wait. Those that cannot be stored are dropped, which is logged.
   *
   * @param service '' for the hivemind's own
   * @param increments integers to add
   * @param values integers or strings that replace what is there
   */
  addStats(service: string, increments: Record<string, number>, values: Record<string, string | number> = {}): void {
    const before = this.#stats.dropped;
    for (const [name, by] of Object.entries(increments)) this.#stats.add(service, name, by);
    for (const [name, value] of Object.entries(values)) this.#stats.set(service, name, value);
    const { dropped } = this.#stats;
    if (dropped > before)
      this.#faults.warn('statistics were dropped: a name or value cannot be stored, or too many are waiting', {
        service: service.slice(0, MAX_SERVICE),
        dropped,
      });
  }

  /** All statistics, those not written yet included. @throws StoreError */
  async readStats(): Promise<StatRow[]> {
    await this.#flushAll();
    const rows = await this.#read<{ service: string; name: string; val_str: string | null; val_int: string | null }>({
      text: 'SELECT service, name, val_str, val_int FROM service_stats ORDER BY service, name',
    });
    return rows.map((row) => ({ service: row.service, name: row.name, value: row.val_str ?? Number(row.val_int) }));
  }

  /** Writes what waits, if the database answers, and disconnects. Later requests fail. */
  async close(): Promise<void> {
    this.#timer.cancel();
    this.#health.stop();
    this.#faults.stop();
    await this.#commits.close();
    if (this.connected) await this.#flushAll();
    await this.#connection.close();
  }

  async #read<Row extends pg.QueryResultRow>(query: QueryConfig): Promise<Row[]> {
    try {
      return (await this.#connection.query<Row>(query)).rows;
    } catch (error) {
      throw asStoreError(error);
    }
  }

  /** Forgets the oldest unsubscriptions of devices that were never subscribed, if there are too many. */
  async #forgetSurplus(): Promise<void> {
    const { rows } = await this.#connection.query<{ signature_ts: string }>(surplusStatement());
    const latest = rows[0]?.signature_ts;
    if (latest !== undefined) await this.#slices(forgetSurplusStatement(Number(latest)), NO_LIMIT);
  }

  async #slices(statement: QueryConfig, most: number): Promise<number> {
    let total = 0;
    for (;;) {
      const { rowCount } = await this.#connection.query(statement);
      const deleted = rowCount ?? 0;
      total += deleted;
      if (deleted < EXPIRED_PER_STATEMENT || total >= most) return total;
    }
  }

  /**
   * Tries what clients' requests write, while they fail or when none has come for a while: clients that were told to
   * retry may stay away for long.
   */
  async #probe(): Promise<void> {
    const { commits } = this.counters;
    const now = this.#options.clock.monotonic();
    // While writes fail, one kind may work and another not, so commits tell nothing: only a probe does.
    if (commits !== this.#probed.commits && this.#health.trouble === undefined) this.#probed = { commits, at: now };
    const isIdle = now - this.#probed.at >= IDLE;
    const isWanted = this.#health.trouble === undefined ? isIdle : now - this.#probed.at >= PROBE_EVERY;
    if (!this.connected || this.#probing || !isWanted) return;
    this.#probing = true;
    try {
      await this.#connection.query({ text: PROBE });
      this.#health.succeeded(true);
    } catch (error) {
      this.#health.failed(error);
    } finally {
      this.#probing = false;
      this.#probed = { commits, at: now };
    }
  }

  /** Writes the statistics that wait now: a flush under way has not taken those that came after it began. */
  async #flushAll(): Promise<void> {
    await this.#flushing;
    await this.#flush();
  }

  #flush(): Promise<void> {
    this.#flushing ??= this.#writeStats().finally(() => {
      this.#flushing = undefined;
    });
    return this.#flushing;
  }

  async #writeStats(): Promise<void> {
    const changes = this.#stats.take();
    while (changes.length > 0) {
      const some = changes.splice(0, STATS_AT_ONCE);
      try {
        await this.#connection.query(statsStatement(some));
      } catch (error) {
        if (isDataError(error)) {
          // StatChanges has rejected what the database cannot store. If something slipped through, drop it rather than
          // let it block the rest for ever.
          this.#options.log.error(`${some.length} statistics could not be written: ${(error as Error).message}`);
          continue;
        }
        this.#stats.restore([...some, ...changes]);
        if (this.connected) this.#faults.warn(`statistics could not be written yet: ${(error as Error).message}`);
        return;
      }
    }
  }
}

/** Whether such a subscription can be stored, so that it is worth asking the database about. */
function isKey({ account, service, serviceId }: DeviceKey): boolean {
  return account.length > 0 && !service.includes('\0') && !serviceId.includes('\0') && serviceId.length < 1_000;
}

/** @throws Error if this is not the server whose changes we read */
async function requireServer(client: pg.Client, server: string): Promise<void> {
  const { rows } = await client.query<{ server: string }>(`SELECT ${SERVER} AS server`);
  if (rows[0]?.server !== server) throw new Error('another server answered');
}
