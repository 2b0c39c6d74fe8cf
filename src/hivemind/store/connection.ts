import type net from 'node:net';
import type pg from 'pg';
import type { Clock, Timer } from '../../clock.ts';
import type { Logger } from '../../daemon/log.ts';
import { type OpenClient, openClient, requireSession } from './client.ts';
import { ConninfoError } from './conninfo.ts';
import { MARKS, takeLock } from './lock.ts';
import { StoreError, sqlState } from './store-error.ts';

/** How long (ms) we wait for another hivemind's lock: it may have just been killed, or be about to fail to start. */
const LOCK_WAIT = 3_000;
const LOCK_POLL = 100;
const RETRY_FIRST = 100;
const RETRY_MOST = 10_000;
const SESSION = [
  // The server notices within a minute that a hivemind's machine is gone, and frees its lock.
  'tcp_keepalives_idle = 30',
  'tcp_keepalives_interval = 10',
  'tcp_keepalives_count = 3',
  // Every statement here looks up a few rows by key. A plan made while the tables were small must not scan them once
  // they have grown.
  'plan_cache_mode = force_generic_plan',
  'enable_seqscan = off',
  'enable_hashjoin = off',
  'enable_mergejoin = off',
  'max_parallel_workers_per_gather = 0',
  'jit = off',
]
  .map((setting) => `SET ${setting}`)
  .join('; ');

/** Changes are read in index order up to a limit. A bitmap scan would collect them all first, however many. */
const MEMBER_SESSION = 'SET enable_bitmapscan = off';

export interface ConnectionOptions {
  url: string;
  clock: Clock;
  log: Logger;
  random: (bytes: number) => Buffer;
  /** how long the server may take for a connection or a statement, in ms */
  timeout: number;
  /** our name, if we are one of several hiveminds that share the database */
  name?: string | undefined;
  /** Called once if another hivemind has taken the lock while the connection was lost: no more is written then. */
  onTaken: (error: StoreError) => void;
}

/**
 * The one connection by which the hivemind writes. It holds the lock, so nobody writes without it. If it is lost, what
 * was in flight fails at once, and we reconnect at growing intervals.
 */
export class Connection {
  readonly #options: ConnectionOptions;
  #client: OpenClient | undefined;
  /** Marks our connections, so that we recognize one that PostgreSQL still believes in. See {@link takeLock}. */
  readonly #mark: number;
  #fault: string | undefined;
  /** A start accepts a database that accepts no changes; after a lost connection we look for one that does. */
  #mustWrite = false;
  #closed = false;
  #failures = 0;
  /** Since when another hivemind has been seen holding the lock; monotonic ms. */
  #lockedSince: number | undefined;
  #retry: Timer | undefined;
  readonly #waiting = new Set<() => void>();
  /** Settles after the last statement: they run one after the other. */
  #lane: Promise<unknown> = Promise.resolve();

  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.#mark = MARKS + (options.random(4).readUInt32LE() >>> 2);
  }

  /** Whether we are connected. */
  get connected(): boolean {
    return this.#client !== undefined;
  }

  /**
   * Connects for the first time.
   *
   * @param prepare runs on the connection before anything else
   * @throws StoreError
   */
  async open(prepare: (client: pg.Client) => Promise<void>): Promise<void> {
    const { clock } = this.#options;
    const deadline = clock.monotonic() + LOCK_WAIT;
    for (;;) {
      try {
        const made = await this.#connect();
        try {
          await prepare(made.client);
        } catch (error) {
          made.socket.destroy();
          if (error instanceof StoreError) throw error;
          const code = sqlState((error as Error).cause ?? error) === undefined ? 'unavailable' : 'refused';
          throw new StoreError(code, (error as Error).message, { cause: error });
        }
        this.#keep(made);
        return;
      } catch (error) {
        const isLocked = error instanceof StoreError && error.code === 'locked';
        if (!isLocked || clock.monotonic() > deadline) throw error;
        await new Promise<void>((resolve) => clock.setTimeout(resolve, LOCK_POLL));
      }
    }
  }

  /** Why we are not connected, by the latest attempt; undefined if we are. */
  get fault(): string | undefined {
    return this.#fault;
  }

  /** Waits until we are connected, but no longer than `ms`. @returns whether we are */
  async whenConnected(ms: number): Promise<boolean> {
    if (this.connected || this.#closed) return this.connected;
    await new Promise<void>((resolve) => {
      const done = () => {
        timer.cancel();
        this.#waiting.delete(done);
        resolve();
      };
      const timer = this.#options.clock.setTimeout(done, ms);
      this.#waiting.add(done);
    });
    return this.connected;
  }

  /**
   * Runs a statement, after all given before it.
   *
   * @throws the server's error, or StoreError `unavailable`
   */
  query<Row extends pg.QueryResultRow>(query: pg.QueryConfig): Promise<pg.QueryResult<Row>> {
    const result = this.#lane.then(() => this.#query<Row>(query));
    this.#lane = result.catch(() => undefined);
    return result;
  }

  /** Disconnects, which frees the lock. What is in flight fails. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#retry?.cancel();
    for (const done of [...this.#waiting]) done();
    const last = this.#client;
    this.#client = undefined;
    if (last) await this.#within(last.socket, last.client.end()).catch(() => undefined);
  }

  async #query<Row extends pg.QueryResultRow>(query: pg.QueryConfig): Promise<pg.QueryResult<Row>> {
    const current = this.#client;
    if (!current) throw new StoreError('unavailable', 'The database cannot be reached');
    try {
      return await this.#within(current.socket, current.client.query<Row>(query));
    } catch (error) {
      const state = sqlState(error);
      // 25006: it has become a standby. 57P01 to 57P05: it is shutting down. Neither is of use to us.
      if (state === undefined || state === '25006' || state.startsWith('57P')) this.#lost(current, error as Error);
      if (state !== undefined && !/^(08|25006|53|57)/.test(state)) throw error;
      throw new StoreError('unavailable', `The database did not carry the statement out: ${(error as Error).message}`, {
        cause: error,
      });
    }
  }

  /**
   * Waits for an answer. The server itself cancels a statement that takes too long; if it does not answer at all, we
   * disconnect a moment later.
   */
  async #within<T>(socket: net.Socket, work: Promise<T>): Promise<T> {
    let timedOut = false;
    const timer = this.#options.clock.setTimeout(() => {
      timedOut = true;
      socket.destroy(new Error('no answer'));
    }, this.#options.timeout + Math.min(1_000, this.#options.timeout));
    try {
      return await work;
    } catch (error) {
      if (timedOut) throw new Error(`no answer within ${this.#options.timeout} ms`, { cause: error });
      throw error;
    } finally {
      timer.cancel();
    }
  }

  async #connect(): Promise<OpenClient> {
    const { url, timeout, name, random } = this.#options;
    const origin = random(6).readUIntBE(0, 6);
    let made: OpenClient | undefined;
    try {
      made = await openClient(url, timeout, { mustWrite: this.#mustWrite });
      const { client, socket } = made;
      // Not as startup parameters, because PgBouncer accepts only a few.
      await this.#within(socket, client.query(`${SESSION}; SET statement_timeout = ${timeout}`));
      const pid = await this.#within(socket, takeLock(client, this.#mark, name));
      if (name !== undefined)
        await this.#within(socket, client.query(`SET spns.origin = ${origin}; ${MEMBER_SESSION}`));
      await requireSession(client, pid, url, timeout);
      return made;
    } catch (error) {
      made?.socket.destroy();
      if (error instanceof StoreError) throw error;
      if (error instanceof ConninfoError)
        throw new StoreError('refused', `[db].url: ${error.message}`, { cause: error });
      throw new StoreError('unavailable', `The database cannot be reached: ${(error as Error).message}`, {
        cause: error,
      });
    }
  }

  #keep(made: OpenClient): void {
    if (this.#closed) {
      made.socket.destroy();
      return;
    }
    this.#failures = 0;
    this.#lockedSince = undefined;
    this.#fault = undefined;
    this.#client = made;
    made.client.on('error', (error) => this.#lost(made, error));
    for (const done of [...this.#waiting]) done();
  }

  #lost(which: OpenClient, error: Error): void {
    if (this.#client !== which) return;
    this.#client = undefined;
    this.#mustWrite = true;
    this.#fault = error.message;
    which.socket.destroy();
    this.#options.log.warn(`the connection to the database is lost: ${error.message}`);
    this.#reconnect();
  }

  /** Whether another hivemind has the lock, and for longer than a start that fails would: then we cannot come back. */
  #isTaken(cause: Error): boolean {
    const { clock, onTaken } = this.#options;
    if (!(cause instanceof StoreError && cause.code === 'locked')) {
      this.#lockedSince = undefined;
      return false;
    }
    this.#lockedSince ??= clock.monotonic();
    if (clock.monotonic() - this.#lockedSince < LOCK_WAIT) {
      this.#failures = Math.min(this.#failures, 2);
      return false;
    }
    if (!this.#closed) onTaken(cause);
    return true;
  }

  #reconnect(): void {
    if (this.#closed) return;
    const { clock, log, random } = this.#options;
    const longest = Math.min(RETRY_MOST, RETRY_FIRST * 2 ** this.#failures++);
    const wait = longest * (0.5 + random(2).readUInt16LE() / 2 ** 17);
    this.#retry = clock.setTimeout(() => {
      this.#connect().then(
        (made) => {
          if (this.#failures > 1) log.info(`the database answers again, after ${this.#failures} attempts`);
          else log.info('the database answers again');
          this.#keep(made);
        },
        (cause: Error) => {
          this.#fault = cause.message;
          if (this.#isTaken(cause)) return;
          // The first failure is logged as an error; later ones have the same cause.
          log[this.#failures === 1 ? 'error' : 'debug'](cause.message);
          this.#reconnect();
        },
      );
    }, wait);
  }
}
