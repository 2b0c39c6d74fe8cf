import type { Clock, Timer } from '../../clock.ts';
import type { Log } from '../../log.ts';
import { SIGNATURE_LIFETIME } from '../../session/subscription.ts';
import type { Devices } from '../devices/devices.ts';
import type { Store } from '../store/store.ts';

/** What the expiry works with. */
export interface ExpiryModules {
  clock: Clock & {
    /** The earliest time that it may be, unix milliseconds. */
    earliest(): number;
    /** Why the time is in doubt; undefined while it is not. */
    readonly doubt: string | undefined;
  };
  devices: Pick<Devices, 'countExpired' | 'expire' | 'size'>;
  store: Pick<Store, 'deleteExpired'>;
  log: Pick<Log, 'info' | 'warn' | 'error'>;
}

/** The answer to admin.expire. */
export interface ExpiryReport {
  /** How many subscriptions went. */
  readonly expired: number;
  /** Why nothing is released: the time is in doubt. */
  readonly doubt?: string;
  /** What is held. */
  readonly held?: string;
}

/** Subscriptions that are held although their time seems to be over, because there are too many of them. */
export interface HeldExpiry {
  /** There are more than so many. */
  readonly moreThan: number;
  /** Of so many in all. */
  readonly of: number;
  /** Signed until then, unix seconds. */
  readonly cutoff: number;
}

const EVERY_MS = 30_000;
const DAY_MS = 86_400_000;
/**
 * The share of all subscriptions that may expire within a day; a server that was off for one loses at most a fourteenth
 * to it.
 */
const SHARE = 0.05;
/** Where there are few, so many may. */
const FEW = 20;
/** A mass expiry that is still held is logged again after this. */
const TELL_AGAIN_MS = 6 * 3_600_000;

/**
 * How many of `total` subscriptions may expire at once, unasked: never more than half, and beyond a few no more than a
 * small share. Whoever subscribed renews it within 14 days, so that many at once are a clock gone wrong or a server
 * that was off for long. Keeping them costs next to nothing: storage servers refuse what is really old.
 * @param spent how many have expired in the last day
 */
export function allowance(total: number, spent: number): number {
  return Math.floor(Math.min(total / 2, Math.max(FEW, total * SHARE) - spent));
}

/**
 * Takes away subscriptions whose signature is too old, from memory and from the database, but for a mass of them: that
 * is held until the operator says that it is right, for no clock can be trusted with everything.
 */
export class Expiry {
  readonly #modules: ExpiryModules;
  #timer: Timer | undefined;
  #held: HeldExpiry | undefined;
  #toldAt = Number.NEGATIVE_INFINITY;
  /** What has expired, less what the time since then has made good. */
  #spent = 0;
  #spentAt: number;
  #work: Promise<number> | undefined;
  #stopped = false;

  constructor(modules: ExpiryModules) {
    this.#modules = modules;
    this.#spentAt = modules.clock.monotonic();
  }

  /** Takes away what is out of date, from now on. */
  async start(): Promise<void> {
    this.#timer = this.#modules.clock.setInterval(() => void this.run(), EVERY_MS);
    await this.run();
  }

  /** What is held at the moment. */
  get held(): HeldExpiry | undefined {
    return this.#held;
  }

  /** For the operator, to whom admin.expire tells it; `approved` says that a mass expiry is right. */
  async report(approved: boolean): Promise<ExpiryReport> {
    const expired = approved ? await this.run(true) : 0;
    const doubt = this.#modules.clock.doubt;
    return { expired, ...(doubt !== undefined && { doubt }), ...(this.#held && { held: this.complaint ?? '' }) };
  }

  /** What the operator is told about it. */
  get complaint(): string | undefined {
    if (!this.#held) return undefined;
    const { moreThan, of, cutoff } = this.#held;
    const when = new Date(cutoff * 1000).toISOString().slice(0, 10);
    return (
      `more than ${moreThan} of ${of} subscriptions seem to be out of date (signed before ${when}) and are kept: ` +
      'if the time is right, "spns expire --yes" lets them go'
    );
  }

  /**
   * Takes away what is out of date.
   * @param approved whether the operator said that a mass expiry is right
   * @returns how many went from memory
   */
  run(approved = false): Promise<number> {
    const work = (this.#work ?? Promise.resolve(0)).then(() => this.#run(approved));
    this.#work = work;
    return work;
  }

  /** Ends; what is being written is left to the store. */
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
          ? 'the operator has released the subscriptions that were held back'
          : 'no mass of subscriptions is out of date any more',
      );
    this.#held = undefined;
    let expired = 0;
    while (!this.#stopped) {
      const some = devices.expire(cutoff);
      if (some === 0) break;
      expired += some;
      await new Promise((resolve) => setImmediate(resolve));
    }
    if (!approved) this.#spent += expired;
    const most = approved ? Number.MAX_SAFE_INTEGER : expired + Math.max(allowed - expired, FEW);
    // Not waited for: what stays in the database goes the next time.
    store
      .deleteExpired(cutoff, most)
      .catch((error: Error) => log.warn(`expired subscriptions could not be deleted: ${error.message}`));
    return expired;
  }

  #hold(held: HeldExpiry): void {
    const isNew = this.#held === undefined;
    this.#held = held;
    const now = this.#modules.clock.monotonic();
    if (!isNew && now - this.#toldAt < TELL_AGAIN_MS) return;
    this.#toldAt = now;
    this.#modules.log.error(this.complaint ?? '');
  }
}
