import type { Clock, Timer } from '../../src/clock.ts';

interface Entry {
  due: number;
  readonly every: number | undefined;
  readonly callback: () => void;
  handle: NodeJS.Timeout | undefined;
}

/** The machine's clock, on which a test can let time pass at once: for real sockets together with long timeouts. */
export class SkippingClock implements Clock {
  readonly #entries = new Set<Entry>();
  #skipped = 0;
  #jumped = 0;

  now(): number {
    return Date.now() + this.#jumped;
  }

  monotonic(): number {
    return performance.now() + this.#skipped;
  }

  /** Moves the wall clock alone, as an NTP step does. */
  jump(ms: number): void {
    this.#jumped += ms;
  }

  /**
   * Lets time pass at once. What falls due in it fires soon, and an interval only once, as after a process was stopped
   * for so long.
   */
  skip(ms: number): void {
    this.#skipped += ms;
    for (const entry of this.#entries) this.#arm(entry);
  }

  setTimeout(callback: () => void, ms: number): Timer {
    return this.#add(callback, ms, undefined);
  }

  setInterval(callback: () => void, ms: number): Timer {
    return this.#add(callback, ms, ms);
  }

  #add(callback: () => void, ms: number, every: number | undefined): Timer {
    const entry: Entry = { due: this.monotonic() + ms, every, callback, handle: undefined };
    this.#entries.add(entry);
    this.#arm(entry);
    return {
      cancel: () => {
        clearTimeout(entry.handle);
        this.#entries.delete(entry);
      },
    };
  }

  #arm(entry: Entry): void {
    clearTimeout(entry.handle);
    entry.handle = setTimeout(() => this.#fire(entry), Math.max(entry.due - this.monotonic(), 0));
  }

  #fire(entry: Entry): void {
    if (entry.every === undefined) this.#entries.delete(entry);
    else {
      entry.due = this.monotonic() + entry.every;
      this.#arm(entry);
    }
    entry.callback();
  }
}
