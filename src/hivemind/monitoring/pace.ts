import type { Clock, Timer } from '../../clock.ts';

export interface PaceOptions {
  readonly clock: Clock;
  /**
   * Has the storage servers asked for an account.
   * @param isMore whether for more than before, or only by other signatures
   * @returns false if there is nobody to ask
   */
  readonly ask: (id: number, isMore: boolean) => boolean;
  /** How many devices are subscribed to an account. */
  readonly devicesOf: (id: number) => number;
}

/**
 * One account may change so often at once, and then once in so many milliseconds for each 16 devices that it has; what
 * comes between is gathered. So an account with a thousand devices, whose requests may have a megabyte, is asked for
 * once in a quarter of an hour at most.
 */
const AT_ONCE = 4;
const EVERY = 15_000;
const DEVICES = 16;
const LOOK = 1_000;

interface Account {
  /** What one change costs, in ms. */
  readonly cost: number;
  /** When (monotonic ms) it may change {@link AT_ONCE} times at once again. */
  restedAt: number;
  /** What waits: more than before, other signatures, or nothing. */
  waiting: boolean | undefined;
}

/**
 * Each change of what is asked for an account goes to all storage servers of its swarm with all that the account asks
 * for, which may be a thousand times the size of the client's request. Who changes the same account all the time is
 * therefore made to wait; nobody else is.
 */
export class Pace {
  readonly #options: PaceOptions;
  /** Accounts that changed lately. */
  readonly #lately = new Map<number, Account>();
  #timer: Timer | undefined;
  #stopped = false;

  constructor(options: PaceOptions) {
    this.#options = options;
  }

  /** The account is asked for at once, or together with what else changes until its turn comes. */
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
    this.#timer ??= clock.setInterval(() => this.#look(), LOOK);
  }

  /** There is no such account any more. */
  forget(id: number): void {
    this.#lately.delete(id);
  }

  /** Nothing is asked for any more, whatever changes. */
  stop(): void {
    this.#stopped = true;
    this.#rest();
  }

  #look(): void {
    const now = this.#options.clock.monotonic();
    for (const [id, account] of this.#lately) {
      if (account.waiting !== undefined && isRested(account, now)) {
        if (this.#options.ask(id, account.waiting)) account.restedAt = Math.max(account.restedAt, now) + account.cost;
        account.waiting = undefined;
      }
      if (account.restedAt <= now) this.#lately.delete(id);
    }
    if (this.#lately.size === 0) this.#rest();
  }

  #rest(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }
}

function isRested({ restedAt, cost }: Account, now: number): boolean {
  return restedAt - now <= (AT_ONCE - 1) * cost;
}
