import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Clock, Timer } from '../../clock.ts';
import type { Log } from '../../log.ts';
import { SIGNATURE_LIFETIME } from '../../session/subscription.ts';
import type { Devices } from '../devices/devices.ts';
import type { Store } from '../store/store.ts';

/** What {@link Expiry} is built from. */
export interface ExpiryModules {
  clock: Clock & {
    /** The earliest time that it may be now, unix ms. */
    earliest(): number;
    /** Why the time is in doubt; undefined if it is not. */
    readonly doubt: string | undefined;
  };
  devices: Pick<Devices, 'countExpired' | 'expire' | 'size'>;
  store: Pick<Store, 'deleteExpired'>;
  log: Pick<Log, 'info' | 'warn' | 'error'>;
}

/** The answer to `admin.expire`. */
export interface ExpiryReport {
  /** How many subscriptions were removed. */
  readonly expired: number;
  /** Why the time is in doubt, so that nothing expires. */
  readonly doubt?: string;
  /** What is held, in a sentence. */
  readonly held?: string;
}

/** Subscriptions that are kept although they seem to have expired, because there are too many of them. */
export interface HeldExpiry {
  /** More subscriptions than this are held, */
  readonly moreThan: number;
  /** of this many in all; */
  readonly of: number;
  /** they were signed then or earlier, unix seconds. */
  readonly cutoff: number;
}

const EVERY_MS = 30_000;
const DAY_MS = 86_400_000;
/**
 * The share of all subscriptions that may expire within a day. They last 14 days, so while a server is off for a day
 * about a fourteenth of them expire at most.
 */
const SHARE = 0.05;
/** The least number that may, however few there are. */
const FEW = 20;
/** How often a mass expiry that is still held is logged again. */
const LOG_AGAIN_MS = 6 * 3_600_000;

/**
 * How many of `total` subscriptions may expire without the operator's approval: never more than half, and no more than
 * a small share, or a few. Devices renew their subscriptions within 14 days, so many that expire at once point to a
 * wrong clock or a server that was off for long. Keeping them costs next to nothing: storage servers refuse those that
 * are really old.
 * @param spent how many have expired within about a day
 */
export function allowance(total: number, spent: number): number {
  return Math.floor(Math.min(total / 2, Math.max(FEW, total * SHARE) - spent));
}

/**
 * Removes subscriptions whose signature is too old from memory and from the database. If too many expire at once they
 * are held until the operator approves, because a wrong clock must not cost all subscriptions.
 */
export class Expiry {
  readonly #modules: ExpiryModules;
  #timer: Timer | undefined;
  #held: HeldExpiry | undefined;
  #loggedAt = Number.NEGATIVE_INFINITY;
  /** How many have expired, less what has been allowed again since. */
  #spent = 0;
  #spentAt: number;
  #work: Promise<number> | undefined;
  #stopped = false;

  constructor(modules: ExpiryModules) {
    this.#modules = modules;
    this.#spentAt = modules.clock.monotonic();
  }

  /** Removes what has expired, now and from now on. */
  async start(): Promise<void> {
    this.#timer = this.#modules.clock.setInterval(() => void this.run(), EVERY_MS);
    await this.run();
  }

  /** What is being held; undefined if nothing is. */
  get held(): HeldExpiry | undefined {
    return this.#held;
  }

  /** Answers `admin.expire`. @param approved whether the operator approves of a mass expiry, which is then done */
  async report(approved: boolean): Promise<ExpiryReport> {
    const expired = approved ? await this.run(true) : 0;
    const doubt = this.#modules.clock.doubt;
    return { expired, ...(doubt !== undefined && { doubt }), ...(this.#held && { held: this.complaint ?? '' }) };
  }

  /** What is being held, as a sentence for the operator; undefined if nothing is. */
  get complaint(): string | undefined {
    if (!this.#held) return undefined;
    const { moreThan, of, cutoff } = this.#held;
    const when = new Date(cutoff * 1000).toISOString().slice(0, 10);
    return (
      `more than ${moreThan} of ${of} subscriptions seem to be out of date (signed before ${when}) and are kept: ` +
      'if the time is right, "spns expire --yes" deletes them'
    );
  }

  /**
   * Removes what has expired.
   * @param approved whether the operator approves of a mass expiry
   * @returns how many were removed from memory
   */
  run(approved = false): Promise<number> {
    const work = (this.#work ?? Promise.resolve()).then(() => this.#run(approved));
    this.#work = work;
    return work;
  }

  /** Stops. What is being written is left to the store. */
  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  async #run(approved: boolean): Promise<number> {
    const { clock, devices, store, log } = this.#modules;
    if (clock.doubt !== undefined || this.#stopped) return 0;
    const cutoff = Math.floor(clock.earliest() / 1000) - SIGNATURE_LIFETIME;
    const total = devices.size;
    const now = clock.monotonic();
    this.#spent = Math.max(0, this.#spent - (Math.max(FEW, total * SHARE) * (now - this.#spentAt)) / DAY_MS);
    this.#spentAt = now;
    const allowed = Math.max(0, allowance(total, this.#spent));
    const count = devices.countExpired(cutoff, allowed);
    if (count > allowed && !approved) {
      this.#hold({ moreThan: allowed, of: total, cutoff });
      return 0;
    }
    if (this.#held)
      log.info(
        approved
          ? 'the operator has approved deleting the expired subscriptions'
          : 'there are no longer too many expired subscriptions at once',
      );
    this.#held = undefined;
    let expired = 0;
    while (!this.#stopped) {
      const some = devices.expire(cutoff);
      if (some === 0) break;
      expired += some;
      await nextTurn();
    }
    if (!approved) this.#spent += expired;
    const most = approved ? Number.MAX_SAFE_INTEGER : expired + Math.max(allowed - expired, FEW);
    // Not awaited: what stays in the database is deleted the next time.
    store
      .deleteExpired(cutoff, most)
      .catch((error: Error) => log.warn(`expired subscriptions could not be deleted: ${error.message}`));
    return expired;
  }

  #hold(held: HeldExpiry): void {
    const isNew = this.#held === undefined;
    this.#held = held;
    const now = this.#modules.clock.monotonic();
    if (!isNew && now - this.#loggedAt < LOG_AGAIN_MS) return;
    this.#loggedAt = now;
    this.#modules.log.error(this.complaint ?? '');
  }
}
