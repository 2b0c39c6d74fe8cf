import type { Clock } from '../../clock.ts';

/** In ms. */
const WINDOW = 5 * 60_000;
/** At least this many misfits, and this share of all messages, suggest that the network hashes them differently now. */
const MINIMUM = 20;
const SHARE = 0.2;

/**
 * The share of messages that did not match their hash although a second server confirmed them, over the last five to
 * ten minutes; so one server's lies do not count. If there are many, the network has changed how it hashes messages:
 * phones still ring, but only once a second server confirms each message.
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
