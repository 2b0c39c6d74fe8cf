import type { Clock, Timer } from '../../src/clock.ts';

interface Entry {
  at: number;
  readonly order: number;
  readonly every: number | undefined;
  /** undefined: cancelled or done. */
  callback: (() => void) | undefined;
}

/**
 * So often it is looked at, and timers fire, while it stands still; then somebody waits in vain for it to move, and
 * fails instead of waiting for ever.
 */
const MOST_LOOKS = 10_000_000;
const MOST_TIMERS = 1_000_000;

/**
 * A clock that moves only when a test moves it. Timers fire in the order of their times, then of their making; they are
 * kept in a binary heap, so that hours of many timers pass in milliseconds.
 */
export class FakeClock implements Clock {
  #elapsed = 0;
  #wall: number;
  #order = 0;
  /** Looks at it, and timers that fired, since it moved. */
  #looks = 0;
  #fired = 0;
  readonly #heap: Entry[] = [];

  /** @param wall the wall clock at the start, in milliseconds since the Unix epoch */
  constructor(wall = 1_700_000_000_000) {
    this.#wall = wall;
  }

  now(): number {
    return this.#wall + this.#elapsed;
  }

  /** @throws Error if a loop looks at it until it moves, which it cannot */
  monotonic(): number {
    if (++this.#looks > MOST_LOOKS) throw new Error(`the clock was looked at ${MOST_LOOKS} times while it stood still`);
    return this.#elapsed;
  }

  /** Moves the wall clock alone, as an NTP step does. */
  jump(ms: number): void {
    this.#wall += ms;
  }

  /** Lets time pass without firing timers, as while the process is stopped or its event loop is blocked. */
  stall(ms: number): void {
    this.#moveTo(this.#elapsed + ms);
  }

  setTimeout(callback: () => void, ms: number): Timer {
    return this.#set(callback, ms, undefined);
  }

  setInterval(callback: () => void, ms: number): Timer {
    return this.#set(callback, ms, Math.max(ms, 1));
  }

  /**
   * Lets `ms` milliseconds pass, firing what falls due.
   *
   * @param settle what is waited for after each timer: unless given, a turn of the event loop, in which every promise
   *   settles that can without outside help
   */
  async advance(ms: number, settle: () => Promise<void> = turn): Promise<void> {
    for (const callback of this.#due(ms)) {
      callback();
      await settle();
    }
    await settle();
  }

  /** Lets `ms` milliseconds pass at once, for what knows no promises. */
  run(ms: number): void {
    for (const callback of this.#due(ms)) callback();
  }

  /** How many timers are set: a stopped part must leave none. */
  get pending(): number {
    return this.#heap.filter(({ callback }) => callback).length;
  }

  /** Moves the time to each timer that falls due, and at last to the end. */
  *#due(ms: number): Generator<() => void> {
    const end = this.#elapsed + ms;
    for (let first = this.#heap[0]; first && first.at <= end; first = this.#heap[0]) {
      const { callback, every } = first;
      if (!callback) {
        this.#pop();
        continue;
      }
      this.#moveTo(first.at);
      if (++this.#fired > MOST_TIMERS) throw new Error(`${MOST_TIMERS} timers have fired while the clock stood still`);
      if (every === undefined) {
        first.callback = undefined;
        this.#pop();
      } else {
        // An interval that was held up fires once, not as often as it was missed.
        first.at = this.#elapsed + every;
        this.#sink(first);
      }
      yield callback;
    }
    this.#moveTo(end);
  }

  #moveTo(elapsed: number): void {
    if (elapsed <= this.#elapsed) return;
    this.#elapsed = elapsed;
    this.#looks = 0;
    this.#fired = 0;
  }

  #set(callback: () => void, ms: number, every: number | undefined): Timer {
    const entry: Entry = { at: this.#elapsed + Math.max(ms, 0), order: this.#order++, every, callback };
    this.#push(entry);
    return {
      cancel: () => {
        entry.callback = undefined;
      },
    };
  }

  #push(entry: Entry): void {
    const heap = this.#heap;
    let i = heap.push(entry) - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!isBefore(entry, heap[parent]!)) break;
      heap[i] = heap[parent]!;
      i = parent;
    }
    heap[i] = entry;
  }

  #pop(): void {
    const last = this.#heap.pop()!;
    if (this.#heap.length > 0) this.#sink(last);
  }

  /** Puts an entry in the place of the first one, and then as far down as it belongs. */
  #sink(entry: Entry): void {
    const heap = this.#heap;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++;
      if (!isBefore(heap[child]!, entry)) break;
      heap[i] = heap[child]!;
      i = child;
    }
    heap[i] = entry;
  }
}

function isBefore(a: Entry, b: Entry): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
