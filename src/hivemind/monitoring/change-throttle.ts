import type { Clock, Timer } from '../../clock.ts';

export interface ChangeThrottleOptions {
  readonly clock: Clock;
  /**
   * Asks the storage servers for an account.
   * @param isMore whether for more than before, or only by other signatures
   * @returns false if there is nobody to ask
   */
  readonly ask: (id: number, isMore: boolean) => boolean;
  /** How many devices are subscribed to an account. */
  readonly devicesOf: (id: number) => number;
}

/**
 * An account may change four times at once, and then every 15 s for each 16 devices that it has; changes in between are
 * gathered. So an account with a thousand devices, whose requests may have a megabyte, is asked for once in a quarter
 * of an hour at most.
 */
const AT_ONCE = 4;
const EVERY = 15_000;
const DEVICES = 16;
/** How often it is checked whose turn has come, in ms. */
const CHECK = 1_000;

interface Account {
  /** What one change costs, in ms. */
  readonly cost: number;
  /** When (monotonic ms) it may change {@link AT_ONCE} times at once again. */
  restedAt: number;
  /** Whether a change waits, and asks for more than before; undefined if none waits. */
  waiting: boolean | undefined;
}

/**
 * Limits how often storage servers are asked for an account that keeps changing. Each change goes to all servers of its
 * swarm with everything that the account asks for, which may be a thousand times the size of the client's request.
 * Other accounts do not wait.
 */
export class ChangeThrottle {
  readonly #options: ChangeThrottleOptions;
  /** Accounts that have changed lately, by id. */
  readonly #lately = new Map<number, Account>();
  #timer: Timer | undefined;
  #stopped = false;

  constructor(options: ChangeThrottleOptions) {
    this.#options = options;
  }

  /** Asks for the account at once, or when its turn comes, together with its other changes until then. */
  changed(id: number, isMore: boolean): void {
    if (this.#stopped) return;
    const { clock, ask, devicesOf } = this.#options;
    const now = clock.monotonic();
    const account = this.#lately.get(id);
    if (account !== undefined && !isRested(account, now)) {
      account.waiting = account.waiting === true || isMore;
      return;
    }
    if (!ask(id, isMore)) return;
    const cost = EVERY * Math.ceil(devicesOf(id) / DEVICES);
    const restedAt = Math.max(account?.restedAt ?? 0, now) + cost;
    this.#lately.set(id, { cost, restedAt, waiting: undefined });
    this.#timer ??= clock.setInterval(() => this.#askWaiting(), CHECK);
  }

  /** The account has been removed. */
  forget(id: number): void {
    this.#lately.delete(id);
  }

  /** From now on changes are ignored. */
  stop(): void {
    this.#stopped = true;
    this.#stopTimer();
  }

  #askWaiting(): void {
    const now = this.#options.clock.monotonic();
    for (const [id, account] of this.#lately) {
      if (account.waiting !== undefined && isRested(account, now)) {
        if (this.#options.ask(id, account.waiting)) account.restedAt = Math.max(account.restedAt, now) + account.cost;
        account.waiting = undefined;
      }
      if (account.restedAt <= now) this.#lately.delete(id);
    }
    if (this.#lately.size === 0) this.#stopTimer();
  }

  #stopTimer(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }
}

function isRested({ restedAt, cost }: Account, now: number): boolean {
  return restedAt - now <= (AT_ONCE - 1) * cost;
}
