import type { Clock, Timer } from '../../src/clock.ts';

interface Entry {
  at: number;
  order: number;
  every: number | undefined;
  callback: () => void;
}

/** A clock that moves only when a test moves it. Timers fire in the order of their times, then of their making. */
export class FakeClock implements Clock {
  #elapsed = 0;
  #wall: number;
  #order = 0;
  readonly #timers = new Set<Entry>();

  /** @param wall the wall clock at the start, in milliseconds since the Unix epoch */
  constructor(wall = 1_700_000_000_000) {
    this.#wall = wall;
  }

  now(): number {
    return this.#wall + this.#elapsed;
  }

  monotonic(): number {
    return this.#elapsed;
  }

  /** Moves the wall clock alone, as an NTP step does. */
  jump(ms: number): void {
    this.#wall += ms;
  }

  /** Lets time pass without firing anything, as when the process is stopped or its event loop is blocked. */
  stall(ms: number): void {
    this.#elapsed += ms;
  }

  setTimeout(callback: () => void, ms: number): Timer {
    return this.#add(callback, ms, undefined);
  }

  setInterval(callback: () => void, ms: number): Timer {
    return this.#add(callback, ms, ms);
  }

  /** Lets `ms` milliseconds pass, firing what falls due, and lets promises settle after each timer. */
  async advance(ms: number): Promise<void> {
    const end = this.#elapsed + ms;
    for (;;) {
      let next: Entry | undefined;
      for (const entry of this.#timers) {
        if (entry.at > end) continue;
        if (!next || entry.at < next.at || (entry.at === next.at && entry.order < next.order)) next = entry;
      }
      if (!next) break;
      this.#elapsed = Math.max(this.#elapsed, next.at);
      if (next.every === undefined) this.#timers.delete(next);
      // An interval that was held up fires once, not as often as it was missed.
      else next.at = Math.max(next.at, this.#elapsed) + Math.max(next.every, 1);
      next.callback();
      await settle();
    }
    this.#elapsed = end;
    await settle();
  }

  /** How many timers are set: a stopped part must leave none. */
  get pending(): number {
    return this.#timers.size;
  }

  #add(callback: () => void, ms: number, every: number | undefined): Timer {
    const entry: Entry = { at: this.#elapsed + Math.max(ms, 0), order: this.#order++, every, callback };
    this.#timers.add(entry);
    return { cancel: () => this.#timers.delete(entry) };
  }
}

/** One turn of the event loop: every promise that can settle without outside help has settled after it. */
function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
