import type { Clock, Timer } from './clock.ts';
import {
  AGREE,
  doubtOf,
  firstJudgement,
  type JudgedTime,
  judge,
  judgedNow,
  PROGRAM_TIME,
  possibleTimes,
  withFloor,
} from './judged-time.ts';
import type { Log } from './log.ts';

/** What a {@link JudgedClock} is made with. */
export interface JudgedClockOptions {
  /** The machine's. */
  readonly clock: Clock;
  /** The database's clock, unix milliseconds. Without it a step is believed when it has lasted. */
  readonly database?: () => Promise<number>;
  /** Called when the wall clock stepped, came back, or was believed. */
  readonly log: Pick<Log, 'info' | 'error'>;
}

/** So often, in ms, the clocks are looked at. */
const LOOK_MS = 10_000;

/**
 * A clock whose `now` does not step when the machine's does (judged-time.ts). Everything whose judgement costs
 * something that cannot be had back goes by it; what leaves the process for somebody who checks it goes by the
 * machine's own.
 */
export class JudgedClock implements Clock {
  readonly #options: JudgedClockOptions;
  readonly #timer: Timer;
  #time: JudgedTime;
  #looking = false;

  /** Looks at the clocks for the first time. */
  static async start(options: JudgedClockOptions): Promise<JudgedClock> {
    const database = await options.database?.().catch(() => undefined);
    return new JudgedClock(options, database);
  }

  /** @param database what its clock says now, unix milliseconds, if there is one that answers */
  constructor(options: JudgedClockOptions, database?: number) {
    this.#options = options;
    const { clock } = options;
    this.#time = firstJudgement({ monotonic: clock.monotonic(), wall: clock.now(), database }, PROGRAM_TIME);
    this.#tell(undefined);
    this.#timer = clock.setInterval(() => void this.#look(), LOOK_MS);
  }

  now(): number {
    // Whole, as the machine's own: what it is sent in takes no fractions.
    return Math.floor(judgedNow(this.#time, this.monotonic()));
  }

  monotonic(): number {
    return this.#options.clock.monotonic();
  }

  setTimeout(callback: () => void, ms: number): Timer {
    return this.#options.clock.setTimeout(callback, ms);
  }

  setInterval(callback: () => void, ms: number): Timer {
    return this.#options.clock.setInterval(callback, ms);
  }

  /** Why the time is in doubt, in a sentence; undefined while it is not. */
  get doubt(): string | undefined {
    this.#glance();
    return doubtOf(this.#time, this.monotonic());
  }

  /** Every time that it may be, unix milliseconds, the judged one first. */
  possible(): number[] {
    this.#glance();
    return possibleTimes(this.#time, this.monotonic());
  }

  /**
   * As {@link possible}, by the last look at the clocks, which is seconds ago: for what comes too often to look at them
   * each time.
   */
  possibleLately(): number[] {
    return possibleTimes(this.#time, this.monotonic());
  }

  /** The earliest time that it may be: by it nothing is too old that is valid for another witness. */
  earliest(): number {
    return Math.min(...this.possible());
  }

  /** It is known to be later than this (unix milliseconds). */
  isAfter(floor: number): void {
    this.#time = withFloor(this.#time, floor);
    this.#glance();
  }

  stop(): void {
    this.#timer.cancel();
  }

  /** Between two looks the wall clock may have stepped: who asks for more than `now` is to know it. */
  #glance(database?: number): void {
    const { clock } = this.#options;
    const look = { monotonic: clock.monotonic(), wall: clock.now(), database };
    const before = this.#time;
    this.#time = judge(before, look, { needsDatabase: this.#options.database !== undefined });
    this.#tell(before);
  }

  async #look(): Promise<void> {
    if (this.#looking) return;
    this.#looking = true;
    const start = this.monotonic();
    const database = await this.#options.database?.().catch(() => undefined);
    // It read its clock some time between our question and its answer.
    const age = (this.monotonic() - start) / 2;
    this.#glance(database === undefined ? undefined : database + age);
    this.#looking = false;
  }

  #tell(before: JudgedTime | undefined): void {
    const { log } = this.#options;
    const monotonic = this.monotonic();
    const was = before && doubtOf(before, monotonic);
    const is = doubtOf(this.#time, monotonic);
    if (is !== undefined && was === undefined) log.error(`the time is in doubt: ${is}`);
    if (is !== undefined || was === undefined || !before) return;
    const taken = this.#time.offset - before.offset;
    const how = Math.abs(taken) > AGREE ? `: a step of ${Math.round(taken / 1000)} s was taken over` : '';
    log.info(`the time is no longer in doubt${how}`);
  }
}
