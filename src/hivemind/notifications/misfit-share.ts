import type { Clock } from '../../clock.ts';

const WINDOW = 5 * 60_000;
/** So many messages, and this share of all, say that the rule of the hash is another one now. */
const MINIMUM = 20;
const SHARE = 0.2;

/**
 * The share of messages sent by several storage servers that did not match their hash, over the last five to ten
 * minutes. One server's lies do not count here. If many do not fit, the network has changed its rule: everything still
 * rings, but only on a second server's word.
 */
export class MisfitShare {
  readonly #clock: Clock;
  #since: number;
  #current = { all: 0, misfits: 0 };
  #previous = { all: 0, misfits: 0 };

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#since = clock.monotonic();
  }

  add(misfit: boolean): void {
    this.#turn();
    this.#current.all++;
    if (misfit) this.#current.misfits++;
  }

  /** The share, 0 to 1, if it is alarming. */
  get alarming(): number | undefined {
    this.#turn();
    const misfits = this.#current.misfits + this.#previous.misfits;
    const share = misfits / (this.#current.all + this.#previous.all);
    return misfits >= MINIMUM && share >= SHARE ? share : undefined;
  }

  #turn(): void {
    const age = this.#clock.monotonic() - this.#since;
    if (age < WINDOW) return;
    this.#previous = age < 2 * WINDOW ? this.#current : { all: 0, misfits: 0 };
    this.#current = { all: 0, misfits: 0 };
    this.#since = this.#clock.monotonic();
  }
}
