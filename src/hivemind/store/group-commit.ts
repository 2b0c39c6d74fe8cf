import { setImmediate as nextTurn } from 'node:timers/promises';
import type { QueryConfig, QueryResult } from 'pg';
import type { Clock } from '../../clock.ts';
import { KeyCounts } from '../../key-counts.ts';
import type { DeviceKey, DeviceRow } from '../devices/device.ts';
import type { Connection } from './connection.ts';
import { dropStatement, type Removal, removeStatement, upsertStatement } from './statements.ts';
import { isDataError, StoreError, sqlState } from './store-error.ts';
import { OverloadError } from './write-health.ts';

/** The most rows in one statement. The database compares them with each other, so ten times as many gain little. */
const BATCH = 256;
/** From this many bytes of service data on, no more rows are added to a statement. */
const BATCH_BYTES = 4_000_000;
/**
 * The most namespaces in one statement, each of which is a row too: of one account; and of all subscriptions with more
 * than 32, which no app asks for. Everybody else's overtake these.
 */
const ACCOUNT_NAMESPACES = 256;
const WIDE = 32;
const WIDE_NAMESPACES = 1_024;
/** How many waiting requests are considered for one statement. */
const CONSIDERED = 4_096;
/** How many requests are answered in one turn of the event loop; each answer causes work. */
const SETTLED_AT_ONCE = 64;
/** The most requests that wait; more fail at once. */
const MAX_WAITING = 20_000;
/** How long (ms) a request waits for a database that is away. */
const PATIENCE = 2_000;
/** How often a statement is tried that the server rolled back because of others. */
const ATTEMPTS = 3;

type Change =
  | { readonly kind: 'upsert'; readonly what: DeviceRow }
  | { readonly kind: 'remove'; readonly what: Removal }
  | { readonly kind: 'drop'; readonly what: Removal };

type Waiting = Change & {
  readonly account: string;
  readonly key: string;
  readonly since: number;
  readonly settle: (result: 'added' | 'updated' | 'removed' | 'nothing' | StoreError) => void;
};

/** Called with the result of each group commit. */
interface CommitHealth {
  failed(error: unknown): void;
  succeeded(): void;
}

/** The keys being written since the watch began. */
export interface WriteWatch {
  /** Whether a request for that key has been at work since. It is until its sender has handled the answer. */
  has(key: DeviceKey): boolean;
  end(): void;
}

/**
 * Writes all requests that came in during the last commit in one statement, since a commit costs as much for one row as
 * for a hundred. Requests do not wait for others: one that finds the database idle is written at once.
 */
export class GroupCommit {
  readonly counters = { commits: 0, rows: 0, commitMs: 0 };
  readonly #connection: Pick<Connection, 'query' | 'whenConnected' | 'connected'>;
  readonly #clock: Clock;
  readonly #health: CommitHealth;
  #waiting: Waiting[] = [];
  #working: Promise<void> | undefined;
  #closed = false;
  /** How many requests are at work for each key. */
  readonly #writing = new KeyCounts();
  readonly #watches = new Set<Set<string>>();

  constructor(
    connection: Pick<Connection, 'query' | 'whenConnected' | 'connected'>,
    clock: Clock,
    health: CommitHealth,
  ) {
    this.#connection = connection;
    this.#clock = clock;
    this.#health = health;
  }

  async upsert(row: DeviceRow): Promise<'added' | 'updated' | 'stale'> {
    const result = await this.#do({ kind: 'upsert', what: row });
    return result === 'added' || result === 'updated' ? result : 'stale';
  }

  async remove(removal: Removal): Promise<boolean> {
    return (await this.#do({ kind: 'remove', what: removal })) === 'removed';
  }

  async drop(removal: Removal): Promise<boolean> {
    return (await this.#do({ kind: 'drop', what: removal })) === 'removed';
  }

  /** Begins a {@link WriteWatch}, which must be ended. */
  watch(): WriteWatch {
    const keys = new Set(this.#writing.keys());
    this.#watches.add(keys);
    return { has: (key) => keys.has(names(key).key), end: () => this.#watches.delete(keys) };
  }

  /** Takes no more requests. Resolves when all waiting ones are answered. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#working;
  }

  #do(change: Change): Promise<'added' | 'updated' | 'removed' | 'nothing'> {
    if (this.#closed) return Promise.reject(new StoreError('unavailable', 'The database is being closed'));
    if (this.#waiting.length >= MAX_WAITING) {
      const cause = new OverloadError('too many requests wait for it');
      this.#health.failed(cause);
      return Promise.reject(new StoreError('unavailable', 'Too many requests wait for the database', { cause }));
    }
    const { account, key } = names(change.what);
    this.#writing.add(key, 1);
    for (const keys of this.#watches) keys.add(key);
    return new Promise((resolve, reject) => {
      this.#waiting.push({
        ...change,
        account,
        key,
        since: this.#clock.monotonic(),
        settle: (result) => (result instanceof StoreError ? reject(result) : resolve(result)),
      });
      this.#working ??= this.#work();
    });
  }

  async #work(): Promise<void> {
    for (let [oldest] = this.#waiting; oldest; [oldest] = this.#waiting) {
      // Wait a turn, so that requests that arrived together are written together.
      await nextTurn();
      if (!this.#connection.connected) await this.#waitForConnection(oldest.since);
      for (const batch of this.#takeBatch()) await this.#write(batch);
    }
    // In the same turn as the check of the queue, so that the next request starts us again.
    this.#working = undefined;
  }

  /** @param oldest since when the first request waits; monotonic ms */
  async #waitForConnection(oldest: number): Promise<void> {
    const left = PATIENCE - (this.#clock.monotonic() - oldest);
    if (left > 0 && (await this.#connection.whenConnected(this.#closed ? 0 : left))) return;
    const now = this.#clock.monotonic();
    const isPatient = ({ since }: Waiting) => !this.#closed && now - since < PATIENCE;
    const expired = this.#waiting.filter((one) => !isPatient(one));
    this.#waiting = this.#waiting.filter(isPatient);
    const error = new StoreError('unavailable', 'The database cannot be reached');
    if (expired.length > 0) this.#health.failed(error);
    await this.#settle(expired, () => error);
  }

  /**
   * Takes the next changes to write, separated by kind. Only the first of several changes to one key is taken, and no
   * more of one account than its share; the others stay, in order.
   */
  #takeBatch(): Waiting[][] {
    if (!this.#connection.connected) return [];
    const kinds: Record<Change['kind'], Waiting[]> = { upsert: [], remove: [], drop: [] };
    const keys = new Set<string>();
    const spent = new Map<string, number>();
    const later: Waiting[] = [];
    let bytes = 0;
    let wide = 0;
    let n = 0;
    for (const one of this.#waiting) {
      if (n === CONSIDERED || keys.size >= BATCH || bytes >= BATCH_BYTES) break;
      n++;
      const cost = one.kind === 'upsert' ? one.what.namespaces.length : 1;
      const before = spent.get(one.account) ?? 0;
      // One that exceeds a limit by itself is the first of its kind.
      const isTooMuch =
        before + cost > Math.max(ACCOUNT_NAMESPACES, cost) ||
        (cost > WIDE && wide + cost > Math.max(WIDE_NAMESPACES, cost));
      if (isTooMuch || keys.has(one.key)) {
        // Nothing else of this account may overtake it.
        spent.set(one.account, Number.POSITIVE_INFINITY);
        later.push(one);
        continue;
      }
      keys.add(one.key);
      spent.set(one.account, before + cost);
      if (cost > WIDE) wide += cost;
      kinds[one.kind].push(one);
      if (one.kind === 'upsert') bytes += one.what.serviceData?.length ?? 0;
    }
    this.#waiting = later.concat(this.#waiting.slice(n));
    return [kinds.upsert, kinds.remove, kinds.drop].filter((batch) => batch.length > 0);
  }

  async #write(batch: readonly Waiting[]): Promise<void> {
    const started = this.#clock.monotonic();
    try {
      const { rows } = await this.#query(statementFor(batch));
      this.#health.succeeded();
      this.counters.commits++;
      this.counters.rows += batch.length;
      const results = new Map(
        rows.map(({ n, added }) => [n, added === undefined ? 'removed' : added ? 'added' : 'updated'] as const),
      );
      await this.#settle(batch, (n) => results.get(n) ?? 'nothing');
    } catch (error) {
      this.#health.failed(error);
      if (error instanceof StoreError) await this.#settle(batch, () => error);
      else if (isDataError(error) && batch.length > 1) {
        // One of the rows is bad: halve the batch, so that the others are written.
        const half = batch.length >> 1;
        await this.#write(batch.slice(0, half));
        await this.#write(batch.slice(half));
      } else {
        const code = isDataError(error) ? 'refused' : 'unavailable';
        // The server's error must not be the cause: it shows the row, with the device's token and key.
        const text = `The database did not store it: ${(error as Error).message} (${sqlState(error) ?? 'no SQLSTATE'})`;
        const failure = new StoreError(code, text);
        await this.#settle(batch, () => failure);
      }
    } finally {
      this.counters.commitMs += this.#clock.monotonic() - started;
    }
  }

  /** Answers a batch, {@link SETTLED_AT_ONCE} in each turn of the event loop. */
  async #settle(batch: readonly Waiting[], result: (n: number) => Parameters<Waiting['settle']>[0]): Promise<void> {
    for (let at = 0; at < batch.length; at += SETTLED_AT_ONCE) {
      if (at >= SETTLED_AT_ONCE) await nextTurn();
      const some = batch.slice(at, at + SETTLED_AT_ONCE);
      for (const [n, one] of some.entries()) one.settle(result(at + n));
      // By the next turn their senders have handled the answers.
      setImmediate(() => {
        for (const { key } of some) this.#writing.add(key, -1);
      });
    }
  }

  async #query(statement: QueryConfig): Promise<QueryResult<{ n: number; added?: boolean }>> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#connection.query(statement);
      } catch (error) {
        // 40: rolled back because of a conflict with others.
        if (attempt === ATTEMPTS || !sqlState(error)?.startsWith('40')) throw error;
      }
    }
  }
}

function statementFor(batch: readonly Waiting[]): QueryConfig {
  const rows: DeviceRow[] = [];
  const removals: Removal[] = [];
  for (const one of batch) {
    if (one.kind === 'upsert') rows.push(one.what);
    else removals.push(one.what);
  }
  if (rows.length > 0) return upsertStatement(rows);
  return batch.every(({ kind }) => kind === 'remove') ? removeStatement(removals) : dropStatement(removals);
}

function names({ account, service, serviceId }: DeviceKey): { account: string; key: string } {
  const name = account.toString('latin1');
  return { account: name, key: `${name}${service}\0${serviceId}` };
}
