import type { Clock, Timer } from '../../clock.ts';
import type { Log } from '../../log.ts';
import { SLOTS, slotOf } from '../../session/slots.ts';
import type { Devices } from '../devices/devices.ts';
import type { Changed, ClusterStore } from '../store/cluster-store.ts';
import type { Store } from '../store/store.ts';
import { slotBits } from './roster.ts';

/** What the feed works with. */
export interface FeedModules {
  readonly clock: Clock;
  readonly store: Pick<Store, 'load' | 'watchWrites'>;
  readonly cluster: Pick<ClusterStore, 'readChanges' | 'readCurrent' | 'skip' | 'trim'>;
  readonly devices: Pick<Devices, 'replace' | 'remove' | 'beginComparison' | 'removeUnseen'>;
  /** Whether the subscriptions of that slot belong in memory: they are there, or are being loaded. */
  readonly holds: (slot: number) => boolean;
  /** Whether a client's request for that device is in work, which may end with a change of what is in memory. */
  readonly inWork: (service: string, serviceId: string) => boolean;
  readonly log: Pick<Log, 'debug' | 'info' | 'warn'>;
}

/** What it has done so far. */
export interface FeedCounters {
  /** Times that the database was asked, and what that and bringing it into memory took together, in ms. */
  reads: number;
  readMs: number;
  /** Subscriptions that others have changed, and that were brought into memory. */
  changes: number;
  /** Times that everything was loaded anew. */
  reloads: number;
}

const ALL_SLOTS = Array.from({ length: SLOTS }, (_, slot) => slot);
/** Subscriptions that are read at once. */
const AT_ONCE = 250;
/** After so many pages, of 4,000 changes each, loading all anew costs less than reading on. */
const FAR = 25;
/** Unasked, the changes are read this often, in ms. */
const EVERY = 75;
/** However many hints come, they are read no more often than this, in ms: the more come the more are read at once. */
const LEAST = 20;
/** What every member has read is taken away this often, in ms. */
const TRIM_EVERY = 10_000;
/** How long (ms) the changes of others may hold the event loop. */
const SLICE = 8;
/** A load that failed is tried again after so many ms. */
const RETRY = 1_000;
/** Not having read for so long (ms) is a complaint. */
const BEHIND = 10_000;

/**
 * Brings into memory what others have changed in the database: other members, and whoever else writes there. What we
 * write ourselves is put into memory by those who write it.
 *
 * It reads what a subscription is now, not what was done to it, so nothing depends on the order or the number of
 * times. A subscription that is being written here is read again a moment later: what was read of it may be older than
 * what the writer puts into memory.
 */
export class Feed {
  readonly counters: FeedCounters = { reads: 0, readMs: 0, changes: 0, reloads: 0 };
  readonly #modules: FeedModules;
  readonly #stopping = new AbortController();
  readonly #timers: Timer[] = [];
  #hinted: Timer | undefined;
  #reading: Promise<void> | undefined;
  #reloading: Promise<void> | undefined;
  /** Whether what is being loaded is not to be had from the changes since its beginning. */
  #isLost = false;
  /** Subscriptions that were changed, and are to be read. */
  #pending: Changed[] = [];
  /** The last time that everything had been read, monotonic ms. */
  #readAt: number;
  #begunAt = Number.NEGATIVE_INFINITY;

  constructor(modules: FeedModules) {
    this.#modules = modules;
    this.#readAt = modules.clock.monotonic();
  }

  /** Reads from now on. What is in memory was loaded before, and nothing else. */
  start(): void {
    const { clock } = this.#modules;
    this.#readAt = clock.monotonic();
    this.#timers.push(
      clock.setInterval(() => void this.#read(), EVERY),
      clock.setInterval(() => void this.#trim(), TRIM_EVERY),
    );
  }

  /** Another member has changed something: reads a little earlier. */
  hint(): void {
    if (this.#timers.length === 0 || this.#hinted || this.#stopping.signal.aborted) return;
    const { clock } = this.#modules;
    this.#hinted = clock.setTimeout(
      () => {
        this.#hinted = undefined;
        void this.#read();
      },
      Math.max(0, this.#begunAt + LEAST - clock.monotonic()),
    );
  }

  /** What an operator should know, in a sentence; undefined if all is well. */
  get complaint(): string | undefined {
    if (this.#timers.length === 0) return undefined;
    const seconds = Math.floor((this.#modules.clock.monotonic() - this.#readAt) / 1000);
    if (seconds * 1000 < BEHIND) return undefined;
    return `what other hiveminds have changed in the database has been unknown for ${seconds} s`;
  }

  /** Ends. Resolves when nothing is being read or loaded any more. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    for (const timer of this.#timers) timer.cancel();
    this.#hinted?.cancel();
    await this.#reading;
    await this.#reloading;
  }

  /** Reads all that there is. Never throws. */
  #read(): Promise<void> {
    this.#reading ??= this.#readAll()
      .catch((error: Error) => this.#modules.log.debug(`the changes of others could not be read: ${error.message}`))
      .finally(() => {
        this.#reading = undefined;
      });
    return this.#reading;
  }

  async #readAll(): Promise<void> {
    for (let pages = 0; !this.#stopping.signal.aborted; pages++) {
      if (pages === FAR) this.#modules.cluster.skip();
      if (!(await this.#readSome())) return;
      // Others come first: what waits in the database keeps.
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  /** @returns whether there is more */
  async #readSome(): Promise<boolean> {
    const { clock, cluster, holds } = this.#modules;
    this.#begunAt = clock.monotonic();
    // Where what is now cannot be read, what has changed need not be known.
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
    await this.#bringPending();
    this.counters.readMs += clock.monotonic() - this.#begunAt;
    if (!result.more && !isBehind && !this.#reloading) this.#readAt = clock.monotonic();
    return result.more;
  }

  /** Brings what is pending into memory. */
  async #bringPending(): Promise<void> {
    const busy: Changed[] = [];
    try {
      while (this.#pending.length > 0) {
        const some = this.#pending.slice(0, AT_ONCE);
        busy.push(...(await this.#bring(some)));
        this.#pending.splice(0, some.length);
      }
    } finally {
      this.#pending.push(...busy);
    }
  }

  /** @returns those that are being written here */
  async #bring(changes: readonly Changed[]): Promise<Changed[]> {
    const { clock, store, cluster, devices, holds, inWork } = this.#modules;
    const busy: Changed[] = [];
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
        await new Promise((resolve) => setImmediate(resolve));
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

  /** Loads what we hold, in the place of what is in memory, which pushes go on by meanwhile. */
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
      await new Promise((resolve) => setImmediate(resolve));
    }
    return rows;
  }

  async #trim(): Promise<void> {
    try {
      while (!this.#stopping.signal.aborted && (await this.#modules.cluster.trim())) {
        await new Promise((resolve) => setImmediate(resolve));
      }
    } catch (error) {
      this.#modules.log.debug(`changes that every hivemind has read could not be deleted: ${(error as Error).message}`);
    }
  }
}
