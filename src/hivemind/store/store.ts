import { randomBytes } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type pg from 'pg';
import type { QueryConfig } from 'pg';
import { to as copyTo } from 'pg-copy-streams';
import type { Clock, Timer } from '../../clock.ts';
import { type Logger, type Repeated, repeated } from '../../daemon/log.ts';
import { type DeviceKey, type DeviceRow, rowFault } from '../devices/device.ts';
import { type OpenClient, openClient } from './client.ts';
import { type ClusterOptions, dissolveCluster, joinCluster, type Membership } from './cluster-start.ts';
import { SERVER } from './cluster-statements.ts';
import { ClusterStore } from './cluster-store.ts';
import { Connection } from './connection.ts';
import { CopyRows, copyRows } from './copy-rows.ts';
import { GroupCommit, type WriteWatch } from './group-commit.ts';
import { migrate } from './migrate.ts';
import { StatChanges } from './stat-changes.ts';
import {
  countStatement,
  EXPIRE_SLICE,
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

/** Statistics are written this often, in milliseconds. */
const STATS_EVERY = 5_000;
/** Of the statistics of one statement; more go with the next. */
const STATS_AT_ONCE = 2_000;
/** How long, in ms, the loading may hold the event loop. */
const LOAD_SLICE = 8;
/** Without a group commit for so long, in ms, it is tried whether the database writes. */
const IDLE = 60_000;
/** While it does not, it is tried no more often than this, in ms. */
const PROBE_EVERY = 1_000;
const NO_LIMIT = Number.MAX_SAFE_INTEGER;

export interface StoreOptions {
  /** as libpq takes it: `postgresql://user@host/database`, without a host the local socket */
  readonly url: string;
  readonly clock: Clock;
  readonly log: Logger;
  /** milliseconds that the server may take for an answer; 5,000 if not given */
  readonly timeout?: number;
  readonly random?: (bytes: number) => Buffer;
  /** Called when another hivemind took over the database while it could not be reached: this one must end. */
  readonly onTaken?: (error: StoreError) => void;
  /** If it is one of several, which share the database; else it has the database for itself. */
  readonly cluster?: ClusterOptions;
}

/** One row of service_stats. */
export interface StatRow {
  /** '' for the hivemind's own */
  readonly service: string;
  readonly name: string;
  readonly value: number | string;
}

/**
 * The subscriptions on disk, in the original's tables. The database is the truth, and never in the way of a push: only
 * requests that change subscriptions wait for it.
 *
 * One hivemind writes to a database at a time, or several that have names; each holds a lock for that on the connection
 * over which it writes.
 */
export class Store {
  readonly #options: StoreOptions;
  readonly #connection: Connection;
  readonly #commits: GroupCommit;
  readonly #stats = new StatChanges();
  readonly #health: WriteHealth;
  readonly #faults: Repeated;
  readonly #timer: Timer;
  /** What members of a cluster share; undefined if the database is ours alone. */
  readonly cluster: ClusterStore | undefined;
  #flushing: Promise<void> | undefined;
  #expiring = false;
  #probing = false;
  /** The last time, and group commits by then, that writing was seen to work or not. */
  #probed = { commits: 0, at: Number.NEGATIVE_INFINITY };

  /**
   * Connects, takes the lock, and brings the tables up to date.
   *
   * @throws StoreError with a sentence for the operator: `unavailable`, `locked` (by another hivemind), `refused`
   *   (tables of a later version, or no right to make ours)
   */
  static async open(options: StoreOptions): Promise<Store> {
    const { url, clock, log, timeout = 5_000, random = randomBytes, onTaken = () => {}, cluster } = options;
    const connection = new Connection({ url, clock, log, timeout, random, onTaken, name: cluster?.name });
    let membership: Membership | undefined;
    await connection.open(async (client) => {
      // A large table may need longer for a new index than any statement may take later.
      await client.query('SET statement_timeout = 0');
      const applied = await migrate(client);
      if (cluster === undefined) await dissolveCluster(client);
      else membership = await joinCluster(client, cluster, random(8).readBigUInt64LE() >> 1n);
      await client.query(`SET statement_timeout = ${timeout}`);
      if (applied.length > 0) log.info(`the database was brought up to date: ${applied.join(', ')}`);
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

  /** Whether the database answered last. */
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

  /** commits: group commits; rows: of these; commitMs: what they took together, in ms. */
  get counters(): { commits: number; rows: number; commitMs: number } {
    return this.#commits.counters;
  }

  /**
   * Reads all subscriptions, or those of some slots, without holding the event loop or the memory: in a stream of which
   * only a piece is here at a time.
   *
   * Signatures that are out of date are read like others: whether they are is not for this clock alone to say.
   *
   * @param visit gets each good row; its buffers are valid only during the call
   * @param stopping ends the reading, whether rows come or not
   * @param slots all if not given
   * @returns how many were visited, and how many skipped because they are not as they must be; never a reason to
   *   fail
   * @throws StoreError `unavailable`, also if it was ended
   */
  async load(
    visit: (row: DeviceRow) => void,
    stopping?: AbortSignal,
    slots?: readonly number[],
  ): Promise<{ rows: number; skipped: number }> {
    if (this.cluster === undefined) return this.#load(visit, stopping, slots, undefined);
    return this.cluster.whileLoading((server) => this.#load(visit, stopping, slots, server));
  }

  /** @param server the one to read from (see {@link SERVER}); any if not given */
  async #load(
    visit: (row: DeviceRow) => void,
    stopping: AbortSignal | undefined,
    slots: readonly number[] | undefined,
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
      let since = clock.monotonic();
      for await (const chunk of client.query(copyTo(copyRows(slots)))) {
        reader.push(chunk as Buffer);
        if (clock.monotonic() - since < LOAD_SLICE) continue;
        await nextTurn();
        since = clock.monotonic();
      }
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

  /** What is stored of a device's subscription to an account. @throws StoreError */
  async find(account: Uint8Array, service: string, serviceId: string): Promise<DeviceRow | undefined> {
    if (!isKey({ account: Buffer.from(account), service, serviceId })) return undefined;
    const [row] = await this.#read<SubscriptionRow>(findStatement(account, service, serviceId));
    const found = row && deviceRow(row);
    return found === undefined || rowFault(found) !== undefined ? undefined : found;
  }

  /**
   * How many devices are subscribed to an account, up to a thousand or so, and how many of them under one of its
   * subaccounts.
   *
   * @param tag of the subaccount, 36 bytes, if it is asked for
   * @throws StoreError
   */
  async countDevices(account: Uint8Array, tag?: Uint8Array): Promise<{ all: number; alike: number }> {
    const [row] = await this.#read<{ all: string; alike: string }>(countStatement(account, tag));
    return { all: Number(row?.all), alike: Number(row?.alike) };
  }

  /**
   * Stores a subscription, new or renewed; resolves after its commit.
   *
   * @returns 'stale' if what is stored for the same key, or the unsubscription of it, was signed later: then nothing
   *   has changed
   * @throws StoreError `unavailable`, or `refused` if the database cannot store such a row
   */
  upsert(row: DeviceRow): Promise<'added' | 'updated' | 'stale'> {
    const fault = rowFault(row);
    if (fault !== undefined)
      return Promise.reject(new StoreError('refused', `The subscription cannot be stored: ${fault}`));
    return this.#commits.upsert(row);
  }

  /**
   * Takes a subscription away because its device asked for that, and remembers it for as long as an earlier
   * subscription could be replayed (14 days), but no more than the latest of an account: 1,000 of devices that were
   * subscribed, 64 of others. Resolves after its commit.
   *
   * @param signedAt unix seconds: a subscription signed later stays
   * @returns whether there was one and it was taken away
   * @throws StoreError
   */
  remove(account: Uint8Array, service: string, serviceId: string, signedAt: number): Promise<boolean> {
    const key = { account: Buffer.from(account), service, serviceId };
    if (!isKey(key)) return Promise.reject(new StoreError('refused', 'There can be no such subscription'));
    return this.#commits.remove({ ...key, signedAt });
  }

  /**
   * Takes subscriptions away because their device is gone; nothing is remembered of it.
   *
   * @param keys with `signedAt`, if known: a subscription signed later stays
   * @returns how many were there
   * @throws StoreError
   */
  async removeDevices(keys: readonly (DeviceKey & { readonly signedAt?: number })[]): Promise<number> {
    const removed = await Promise.all(
      keys.filter(isKey).map((key) => this.#commits.drop({ ...key, signedAt: key.signedAt ?? NO_LIMIT })),
    );
    return removed.filter(Boolean).length;
  }

  /**
   * Tells of the subscriptions that are written here from now on, or are being written: what is read of them meanwhile
   * may be older. It must be ended.
   */
  watchWrites(): WriteWatch {
    return this.#commits.watch();
  }

  /**
   * Deletes what is out of date, a slice at a time, so that subscribers need not wait. A second call while one is at
   * work does nothing.
   *
   * @param cutoff unix seconds: signatures of then or earlier go, and unsubscriptions likewise
   * @param most subscriptions that may go, but for less than a slice
   * @returns the number of subscriptions that went
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

  /** What the server's clock says, unix milliseconds. @throws StoreError */
  async time(): Promise<number> {
    const [row] = await this.#read<{ now: string }>({
      text: 'SELECT extract(epoch FROM clock_timestamp()) * 1000 AS now',
    });
    return Number(row?.now);
  }

  /**
   * Changes statistics, in memory; they are written every few seconds, and at the end. What cannot be written waits for
   * the database to come back.
   *
   * @param service '' for the hivemind's own
   * @param increments integers to add
   * @param values integers or texts to put in the place of what is there
   */
  addStats(service: string, increments: Record<string, number>, values: Record<string, string | number> = {}): void {
    for (const [name, by] of Object.entries(increments)) this.#stats.add(service, name, by);
    for (const [name, value] of Object.entries(values)) this.#stats.set(service, name, value);
  }

  /** All statistics, with what was not written yet. @throws StoreError */
  async readStats(): Promise<StatRow[]> {
    await this.#flush();
    const rows = await this.#read<{ service: string; name: string; val_str: string | null; val_int: string | null }>({
      text: 'SELECT service, name, val_str, val_int FROM service_stats ORDER BY service, name',
    });
    return rows.map((row) => ({ service: row.service, name: row.name, value: row.val_str ?? Number(row.val_int) }));
  }

  /** Writes what waits, if the database answers, and ends the connection. Requests that come later fail. */
  async close(): Promise<void> {
    this.#timer.cancel();
    this.#health.stop();
    this.#faults.stop();
    await this.#commits.close();
    if (this.connected) await this.#flush();
    await this.#connection.close();
  }

  async #read<Row extends pg.QueryResultRow>(query: QueryConfig): Promise<Row[]> {
    try {
      return (await this.#connection.query<Row>(query)).rows;
    } catch (error) {
      throw asStoreError(error);
    }
  }

  /** Of devices that never were subscribed only so many unsubscriptions are remembered. */
  async #forgetSurplus(): Promise<void> {
    const { rows } = await this.#connection.query<{ signature_ts: string }>(surplusStatement());
    const latest = rows[0]?.signature_ts;
    if (latest !== undefined) await this.#slices(forgetSurplusStatement(Number(latest)), NO_LIMIT);
  }

  async #slices(statement: QueryConfig, most: number): Promise<number> {
    let total = 0;
    for (;;) {
      const { rowCount } = await this.#connection.query(statement);
      total += rowCount ?? 0;
      if ((rowCount ?? 0) < EXPIRE_SLICE || total >= most) return total;
    }
  }

  /**
   * Tries the writes of clients' requests while they fail, or when none has come for a while: clients who were told to
   * retry may stay away for long.
   */
  async #probe(): Promise<void> {
    const { commits } = this.counters;
    const now = this.#options.clock.monotonic();
    // While it fails one kind of write may work and another not: only a probe tells.
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

  #flush(): Promise<void> {
    this.#flushing ??= this.#writeStats().finally(() => {
      this.#flushing = undefined;
    });
    return this.#flushing;
  }

  async #writeStats(): Promise<void> {
    if (!this.connected) return;
    const changes = this.#stats.take();
    while (changes.length > 0) {
      const some = changes.splice(0, STATS_AT_ONCE);
      try {
        await this.#connection.query(statsStatement(some));
      } catch (error) {
        if (isDataError(error)) {
          // What can go wrong was sorted out before; should something be left, it must not stand in the way of the rest
          // for ever.
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

function isKey({ account, service, serviceId }: DeviceKey): boolean {
  return account.length > 0 && !service.includes('\0') && !serviceId.includes('\0') && serviceId.length < 1_000;
}

/** @throws Error if it is another server than the one whose changes we read */
async function requireServer(client: pg.Client, server: string): Promise<void> {
  const { rows } = await client.query<{ server: string }>(`SELECT ${SERVER} AS server`);
  if (rows[0]?.server !== server) throw new Error('another server answered');
}
