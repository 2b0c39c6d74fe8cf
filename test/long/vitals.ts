import fs from 'node:fs';
import { residentMegabytes } from '../../bench/cpu.ts';

interface Sample {
  /** Seconds since the start. */
  readonly at: number;
  readonly megabytes: number;
  readonly descriptors: number;
}

/** What a process used over a time, by linear regression: no single value decides. */
export interface Trend {
  readonly megabytes: number;
  /** How much more at the end of the time than at its beginning. */
  readonly megabytesGrown: number;
  readonly descriptors: number;
  readonly descriptorsGrown: number;
  readonly samples: number;
}

/** Memory and file descriptors of processes, noted once a second. */
export class Vitals {
  readonly #samples = new Map<number, Sample[]>();
  readonly #start = performance.now();
  readonly #timer: NodeJS.Timeout;

  /** @param pids those to look at, asked each time: processes come and go */
  constructor(pids: () => readonly number[]) {
    this.#timer = setInterval(() => {
      for (const pid of pids()) this.#look(pid);
    }, 1000);
  }

  #look(pid: number): void {
    try {
      const descriptors = fs.readdirSync(`/proc/${pid}/fd`).length;
      const at = (performance.now() - this.#start) / 1000;
      const samples = this.#samples.get(pid) ?? [];
      this.#samples.set(pid, samples);
      samples.push({ at, megabytes: residentMegabytes(pid), descriptors });
    } catch {
      // It has ended in between.
    }
  }

  /** @param since seconds since the start */
  trend(pid: number, since: number): Trend {
    const samples = (this.#samples.get(pid) ?? []).filter(({ at }) => at >= since);
    const span = samples.length > 1 ? samples.at(-1)!.at - samples[0]!.at : 0;
    const line = (value: (sample: Sample) => number) => regression(samples.map((one) => [one.at, value(one)]));
    const memory = line(({ megabytes }) => megabytes);
    const files = line(({ descriptors }) => descriptors);
    return {
      megabytes: Math.round(memory.mean),
      megabytesGrown: Math.round(memory.slope * span),
      descriptors: Math.round(files.mean),
      descriptorsGrown: Math.round(files.slope * span),
      samples: samples.length,
    };
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}

/** Least squares. */
function regression(points: readonly (readonly [number, number])[]): { mean: number; slope: number } {
  const count = points.length || 1;
  const meanX = points.reduce((sum, [x]) => sum + x, 0) / count;
  const mean = points.reduce((sum, [, y]) => sum + y, 0) / count;
  const above = points.reduce((sum, [x, y]) => sum + (x - meanX) * (y - mean), 0);
  const below = points.reduce((sum, [x]) => sum + (x - meanX) ** 2, 0);
  return { mean, slope: below === 0 ? 0 : above / below };
}
