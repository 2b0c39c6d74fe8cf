import { performance } from 'node:perf_hooks';

/** A process's memory in bytes, as of `process.memoryUsage`. */
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

/** Below this the event loop has been idle at times, so at some moment nothing was left to read. */
const BUSY = 0.95;

/**
 * Estimates how much lies unread in libzmq. It takes in whatever peers send (a high-water mark would make it abort, see
 * `openRouter`) and does not tell how much that is. But the process's memory shows it: while the event loop is never
 * idle, growth beyond the most that V8 and its buffers have taken is unread messages.
 */
export class Unread {
  readonly #options: UnreadOptions;
  /** The memory outside V8 when everything had last been read, and the most that V8 has had since. */
  #beside = 0;
  #most = 0;

  constructor(options: UnreadOptions) {
    this.#options = options;
    this.settle();
  }

  /** Bytes unread, to be called regularly; 0 if everything has been read since the last call. */
  estimate(): number {
    const memory = this.#options.memory();
    const ofV8 = memory.heapTotal + memory.external;
    if (this.#options.busy() < BUSY) this.#begin(memory.rss, ofV8);
    // The most, because malloc may keep what V8 has freed.
    this.#most = Math.max(this.#most, ofV8);
    return Math.max(0, memory.rss - this.#beside - this.#most);
  }

  /** Takes the present memory as that of a process that has read everything. */
  settle(): void {
    const { rss, heapTotal, external } = this.#options.memory();
    this.#begin(rss, heapTotal + external);
  }

  #begin(rss: number, ofV8: number): void {
    this.#most = ofV8;
    this.#beside = rss - ofV8;
  }
}

/** Judges by the memory and the event loop of this process, from now on. */
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
