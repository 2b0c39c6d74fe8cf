import type net from 'node:net';
import type pg from 'pg';
import type { Clock, Timer } from '../../clock.ts';
import type { Logger } from '../../daemon/log.ts';
import { type OpenClient, openClient, requireSession } from './client.ts';
import { ConninfoError } from './conninfo.ts';
import { MARKS, takeLock } from './lock.ts';
import { StoreError, sqlState } from './store-error.ts';

/** How long a start waits for the lock of one that was killed a moment ago. */
const LOCK_WAIT = 3_000;
const LOCK_POLL = 100;
const RETRY_FIRST = 100;
const RETRY_MOST = 10_000;
const SESSION = [
  // The server notices within a minute that the machine of a lost hivemind is gone, and gives its lock free.
  'tcp_keepalives_idle = 30',
  'tcp_keepalives_interval = 10',
  'tcp_keepalives_count = 3',
  // Every statement here seeks a few rows by their keys. A plan made while the tables were small must not read them
  // through when they have grown.
  'plan_cache_mode = force_generic_plan',
  'enable_seqscan = off',
  'enable_hashjoin = off',
  'enable_mergejoin = off',
  'max_parallel_workers_per_gather = 0',
  'jit = off',
]
  .map((setting) => `SET ${setting}`)
  .join('; ');

/** Changes are read along their index up to a limit, and never gathered to be sorted: there may be very many. */
const MEMBER_SESSION = 'SET enable_bitmapscan = off';

export interface ConnectionOptions {
  url: string;
  clock: Clock;
  log: Logger;
  random: (bytes: number) => Buffer;
  /** milliseconds that the server may take for a connection or a statement */
  timeout: number;
  /** of this hivemind, if it is one of several: then it shares the database with those of other names */
  name?: string | undefined;
  /**
   * Called, once, when another hivemind took the lock while the connection was lost: nothing is written here any more.
   */
  onTaken: (error: StoreError) => void;
}

/**
 * The one connection over which the hivemind writes. It holds the lock, so whoever writes here is the only one who
 * does. When it is lost it is made anew, at growing intervals; what was in flight fails at once.
 */
export class Connection {
  readonly #options: ConnectionOptions;
  #client: OpenClient | undefined;
  /**
   * A second lock, shared, that is held beside the first: by it we know a process of PostgreSQL's that serves us, or
   * still believes so.
   */
  readonly #mark: number;
  #fault: string | undefined;
  /**
   * A start goes on beside a database that takes no changes; a hivemind that comes back to one looks for a better one.
   */
  #mustWrite = false;
  #closed = false;
  #failures = 0;
  /** Since when (monotonic) another hivemind was seen to hold the lock. */
  #lockedSince: number | undefined;
  #retry: Timer | undefined;
  readonly #waiting = new Set<() => void>();
  #lane: Promise<unknown> = Promise.resolve();

  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.#mark = MARKS + (options.random(4).readUInt32LE() >>> 2);
  }

  /** Whether the database answered last. */
  get connected(): boolean {
    return this.#client !== undefined;
  }

  /**
   * The first connection.
   *
   * @param prepare is done on it before anything else
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

  /** Why it does not answer: the latest attempt's words. */
  get fault(): string | undefined {
    return this.#fault;
  }

  /** Waits until the database answers, but no longer than `ms`. */
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
   * Runs one statement, after those that were given before it.
   *
   * @throws the server's error, or StoreError `unavailable`
   */
  query<Row extends pg.QueryResultRow>(query: pg.QueryConfig): Promise<pg.QueryResult<Row>> {
    const result = this.#lane.then(() => this.#query<Row>(query));
    this.#lane = result.catch(() => undefined);
    return result;
  }

  /** Ends the connection, and with it the lock. What is in flight fails. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#retry?.cancel();
    for (const done of [...this.#waiting]) done();
    const last = this.#client;
    this.#client = undefined;
    if (!last) return;
    await this.#within(last.socket, last.client.end()).catch(() => undefined);
    last.socket.destroy();
  }

  async #query<Row extends pg.QueryResultRow>(query: pg.QueryConfig): Promise<pg.QueryResult<Row>> {
    const current = this.#client;
    if (!current) throw new StoreError('unavailable', 'The database cannot be reached');
    try {
      return await this.#within(current.socket, current.client.query<Row>(query));
    } catch (error) {
      const state = sqlState(error);
      // 25006: it has become a standby. 57P01 to 57P05: it is going down. Neither is any use to us.
      if (state === undefined || state === '25006' || state.startsWith('57P')) this.#lost(current, error as Error);
      if (state !== undefined && !/^(08|25006|53|57)/.test(state)) throw error;
      throw new StoreError('unavailable', `The database did not carry it out: ${(error as Error).message}`, {
        cause: error,
      });
    }
  }

  /**
   * The server ends a statement that takes too long; a server that does not answer at all loses the connection a moment
   * later.
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
      // Not as start-up parameters, of which PgBouncer knows only a few.
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
    made.client.on('end', () => this.#lost(made, new Error('the connection was ended')));
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

  /**
   * Whether another hivemind has the lock, and not only for a start that fails in a moment: then there is no coming
   * back.
   */
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
          // The first is logged prominently, the others are the same fault.
          log[this.#failures === 1 ? 'error' : 'debug'](cause.message);
          this.#reconnect();
        },
      );
    }, wait);
  }
}
