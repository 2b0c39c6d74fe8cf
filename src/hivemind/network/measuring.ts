import type { Clock } from '../../clock.ts';
import type { Member } from './member.ts';
import { MONITOR_LIFETIME, type Swarms } from './swarms.ts';

export interface MeasuringOptions {
  readonly clock: Clock;
  readonly swarms: Swarms;
  readonly members: ReadonlySet<Member>;
  /** Every figure is at most about so old, in seconds. */
  readonly interval: number;
}

/** How long, in ms, it may hold the event loop. */
const SLICE = 8;

/** Keeps the figures of freshness up to date, a few servers and swarms at a time: looking at all accounts of all takes too long. */
export class Measuring {
  readonly #options: MeasuringOptions;
  #members: Member[] = [];
  /** The next swarm to measure; undefined = the round is over. */
  #swarm: number | undefined;
  #nextRound = 0;

  constructor(options: MeasuringOptions) {
    this.#options = options;
  }

  /**
   * Goes on with the round, or begins the next one when it is time.
   * @param now seconds on the monitor's clock
   */
  some(now: number): void {
    const { clock, swarms, members, interval } = this.#options;
    if (this.#swarm === undefined) {
      if (now < this.#nextRound) return;
      this.#nextRound = now + interval;
      this.#members = [...members];
      this.#swarm = 0;
    }
    const deadline = clock.monotonic() + SLICE;
    do {
      const member = this.#members.pop();
      if (member) {
        member.measure(now - MONITOR_LIFETIME);
        continue;
      }
      const swarm = swarms.current[this.#swarm++];
      if (!swarm) {
        this.#swarm = undefined;
        return;
      }
      swarms.measure(swarm);
    } while (clock.monotonic() < deadline);
  }
}
