import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Clock, Timer } from '../../clock.ts';
import type { Log } from '../../log.ts';
import { ALL_SLOTS, slotOf } from '../../session/slots.ts';
import type { Devices } from '../devices/devices.ts';
import { SLICE } from '../slice.ts';
import type { Change, ClusterStore } from '../store/cluster-store.ts';
import type { Store } from '../store/store.ts';
import { slotBits } from './roster.ts';

/** What {@link Feed} is built from. */
export interface FeedModules {
  readonly clock: Clock;
  readonly store: Pick<Store, 'load' | 'watchWrites'>;
  readonly cluster: Pick<ClusterStore, 'readChanges' | 'readCurrent' | 'skip' | 'trim'>;
  readonly devices: Pick<Devices, 'replace' | 'remove' | 'beginComparison' | 'removeUnseen'>;
  /** Whether this slot's subscriptions are in memory or being loaded. */
  readonly holds: (slot: number) => boolean;
  /** Whether a client's request for that device is being worked on, which may end in a change to memory. */
  readonly inWork: (service: string, serviceId: string) => boolean;
  readonly log: Pick<Log, 'debug' | 'info' | 'warn'>;
}

/** What the feed has done so far. */
export interface FeedCounters {
  /** Rounds of reading, and how long they and applying what they read took in all, in ms. */
  reads: number;
  readMs: number;
  /** Changes of others that were applied in memory. */
  changes: number;
  /** How often everything was loaded again. */
  reloads: number;
}

/** Subscriptions that one query reads. */
export const AT_ONCE = 250;
/** From this many pages on, of 4,000 changes each, loading everything again costs less than reading on. */
const RELOAD_AFTER_PAGES = 25;
/** How often changes are read without a hint, in ms. */
const READ_EVERY = 75;
/** The least time between two reads, in ms: the more hints come, the more changes one read brings. */
const LEAST_PAUSE = 20;
/** How often changes that every member has read are deleted, in ms. */
const TRIM_EVERY = 10_000;
/** How long after a failed load it is tried again, in ms. */
const RETRY = 1_000;
/** How long (ms) without a complete read is a complaint. */
const BEHIND = 10_000;

/**
 * Applies in memory what other members, or anybody else, have changed in the database. Our own writes are applied by
 * whoever makes them.
 *
 * A change only names a subscription; its current row is then read. So neither the order nor a repetition of changes
 * matters. A subscription that is being written here is read again a moment later: the row may be older than what the
 * writer is about to put into memory.
 */
export class Feed {
  readonly counters: FeedCounters = { reads: 0, readMs: 0, changes: 0, reloads: 0 };
  readonly #modules: FeedModules;
  readonly #stopping = new AbortController();
  readonly #timers: Timer[] = [];
  #hinted: Timer | undefined;
  #reading: Promise<void> | undefined;
  #reloading: Promise<void> | undefined;
  /** Whether changes were missed that the running reload may not include: one more follows then. */
  #isLost = false;
  /** Changed subscriptions whose rows are still to be read. */
  #pending: Change[] = [];
  /** When everything had last been read; monotonic ms. */
  #readAt: number;
  /** When the last query for changes began; monotonic ms. */
  #begunAt = Number.NEGATIVE_INFINITY;

  constructor(modules: FeedModules) {
    this.#modules = modules;
    this.#readAt = modules.clock.monotonic();
  }

  /** Starts reading changes. Memory must hold what was loaded, and nothing newer. */
  start(): void {
    const { clock } = this.#modules;
    this.#readAt = clock.monotonic();
    this.#timers.push(
      clock.setInterval(() => void this.#read(), READ_EVERY),
      clock.setInterval(() => void this.#trim(), TRIM_EVERY),
    );
  }

  /** Called when another member says that it has changed something: reads sooner than otherwise. */
  hint(): void {
    if (this.#timers.length === 0 || this.#hinted || this.#stopping.signal.aborted) return;
    const { clock } = this.#modules;
    this.#hinted = clock.setTimeout(
      () => {
        this.#hinted = undefined;
        void this.#read();
      },
      Math.max(0, this.#begunAt + LEAST_PAUSE - clock.monotonic()),
    );
  }

  /** How many changed subscriptions are still to be read. */
  get pending(): number {
    return this.#pending.length;
  }

  /** What an operator should know, in one sentence; undefined if all is well. */
  get complaint(): string | undefined {
    if (this.#timers.length === 0) return undefined;
    const since = this.#modules.clock.monotonic() - this.#readAt;
    if (since < BEHIND) return undefined;
    return `changes that other hiveminds made in the database have not been read for ${Math.floor(since / 1000)} s`;
  }

  /** Stops reading. Resolves when nothing is being read or loaded any more. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    for (const timer of this.#timers) timer.cancel();
    this.#hinted?.cancel();
    await this.#reading;
    await this.#reloading;
  }

  /** Reads all changes there are. Never throws. */
  #read(): Promise<void> {
    this.#reading ??= this.#readAll()
      .catch((error: Error) => this.#modules.log.debug(`others' changes could not be read: ${error.message}`))
      .finally(() => {
        this.#reading = undefined;
      });
    return this.#reading;
  }

  async #readAll(): Promise<void> {
    for (let pages = 0; !this.#stopping.signal.aborted; pages++) {
      if (pages === RELOAD_AFTER_PAGES) this.#modules.cluster.skip();
      if (!(await this.#readSome())) return;
      // Let other work in between: changes can wait in the database.
      await nextTurn();
    }
  }

  /** @returns whether there is more */
  async #readSome(): Promise<boolean> {
    const { clock, cluster, holds } = this.#modules;
    this.#begunAt = clock.monotonic();
    // No point in learning of more changes while the rows of the known ones cannot be read.
    const isBehind = this.#pending.length >= AT_ONCE;
    const result = isBehind
      ? { changes: [], more: false }
      : await cluster.readChanges(slotBits(ALL_SLOTS.filter(holds)));
    this.counters.reads++;
    if (result === 'reload') {
      this.#reload();
      return false;
    }
    this.#pending.push(...result.changes);
    await this.#applyPending();
    this.counters.readMs += clock.monotonic() - this.#begunAt;
    if (!result.more && !isBehind && !this.#reloading) this.#readAt = clock.monotonic();
    return result.more;
  }

  /** Reads the rows of the pending changes into memory. */
  async #applyPending(): Promise<void> {
    const busy: Change[] = [];
    try {
      while (this.#pending.length > 0) {
        const some = this.#pending.slice(0, AT_ONCE);
        busy.push(...(await this.#apply(some)));
        this.#pending.splice(0, some.length);
      }
    } finally {
      this.#pending.push(...busy);
    }
  }

  /** @returns the changes to subscriptions that are being written here, to be read again */
  async #apply(changes: readonly Change[]): Promise<Change[]> {
    const { clock, store, cluster, devices, holds, inWork } = this.#modules;
    const busy: Change[] = [];
    const watch = store.watchWrites();
    try {
      const found = await cluster.readCurrent(changes);
      let since = clock.monotonic();
      for (const { account, service, serviceId, row } of found) {
        if (!holds(slotOf(account))) continue;
        const key = { account, service, serviceId };
        if (watch.has(key) || inWork(service, serviceId)) {
          busy.push(key);
          continue;
        }
        if (row === undefined) devices.remove(account, service, serviceId);
        else devices.replace(row, Math.floor(clock.now() / 1000));
        this.counters.changes++;
        if (clock.monotonic() - since < SLICE) continue;
        await nextTurn();
        since = clock.monotonic();
      }
      return busy;
    } finally {
      watch.end();
    }
  }

  #reload(): void {
    this.#isLost = true;
    this.#reloading ??= this.#reloadSafely().finally(() => {
      this.#reloading = undefined;
    });
  }

  /** Loads what we hold again, in place: meanwhile pushes go by what is in memory. */
  async #reloadSafely(): Promise<void> {
    const { clock, log } = this.#modules;
    const { signal } = this.#stopping;
    while (this.#isLost && !signal.aborted) {
      this.#isLost = false;
      try {
        const started = clock.monotonic();
        const rows = await this.#loadAnew();
        this.counters.reloads++;
        const seconds = ((clock.monotonic() - started) / 1000).toFixed(1);
        log.info(`loaded ${rows} subscriptions again in ${seconds} s: changes of other hiveminds were missed`);
      } catch (error) {
        this.#isLost = true;
        if (signal.aborted) return;
        log.warn((error as Error).message);
        await new Promise<void>((resolve) => {
          const timer = clock.setTimeout(resolve, RETRY);
          signal.addEventListener('abort', () => {
            timer.cancel();
            resolve();
          });
        });
      }
    }
  }

  async #loadAnew(): Promise<number> {
    const { store, devices, holds } = this.#modules;
    const { signal } = this.#stopping;
    const slots = new Set(ALL_SLOTS.filter(holds));
    devices.beginComparison();
    const { rows } = await store.load(
      (row) => {
        if (holds(slotOf(row.account))) devices.replace(row, row.signedAt);
      },
      signal,
      [...slots],
    );
    const isCompared = (bytes: Uint8Array, offset: number) => slots.has(slotOf(bytes, offset));
    for (let next: number | undefined = 0; next !== undefined && !signal.aborted; ) {
      next = devices.removeUnseen(isCompared, next);
      await nextTurn();
    }
    return rows;
  }

  async #trim(): Promise<void> {
    try {
      while (!this.#stopping.signal.aborted && (await this.#modules.cluster.trim())) {
        await nextTurn();
      }
    } catch (error) {
      this.#modules.log.debug(`old entries of spns_changes could not be deleted: ${(error as Error).message}`);
    }
  }
}
