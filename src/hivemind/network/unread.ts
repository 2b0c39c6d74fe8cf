import { performance } from 'node:perf_hooks';

/** What a process has, in bytes, as `process.memoryUsage` tells it. */
export interface ProcessMemory {
  readonly rss: number;
  readonly heapTotal: number;
  readonly external: number;
}

export interface UnreadOptions {
  readonly memory: () => ProcessMemory;
  /** The share of the time since the last call for which the event loop was busy. */
  readonly busy: () => number;
}

/** Below this the event loop has rested, so there was a moment when nothing waited to be read. */
const BUSY = 0.95;

/**
 * How much lies unread in libzmq. It takes in whatever peers send (a mark at which it stops would make it abort, see
 * `openRouter`) and tells nobody how much that is, but it shows in the memory of the process: while the event loop
 * finds no rest, what comes on top of the most that V8 and its buffers had, is unread messages.
 */
export class Unread {
  readonly #options: UnreadOptions;
  /** When all had been read, what the process had beside V8; and the most that V8 had since. */
  #beside = 0;
  #most = 0;

  constructor(options: UnreadOptions) {
    this.#options = options;
    this.settle();
  }

  /** An estimate in bytes, to be asked for again and again; 0 if all has been read since the last time. */
  look(): number {
    const memory = this.#options.memory();
    const ofV8 = memory.heapTotal + memory.external;
    if (this.#options.busy() < BUSY) this.#begin(memory.rss, ofV8);
    // What V8 has freed malloc may keep.
    this.#most = Math.max(this.#most, ofV8);
    return Math.max(0, memory.rss - this.#beside - this.#most);
  }

  /** What is there now counts no more. */
  settle(): void {
    const { rss, heapTotal, external } = this.#options.memory();
    this.#begin(rss, heapTotal + external);
  }

  #begin(rss: number, ofV8: number): void {
    this.#most = ofV8;
    this.#beside = rss - ofV8;
  }
}

/** By the memory and the event loop of this process, from now on. */
export function unreadOfThisProcess(): Unread {
  let last = performance.eventLoopUtilization();
  return new Unread({
    memory: () => process.memoryUsage(),
    busy: () => {
      const now = performance.eventLoopUtilization();
      const { utilization } = performance.eventLoopUtilization(now, last);
      last = now;
      return utilization;
    },
  });
}
