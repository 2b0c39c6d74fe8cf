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
  /** The machine's own. */
  readonly clock: Clock;
  /** Reads the database's clock, unix milliseconds. Without it a step is believed once it has lasted long enough. */
  readonly database?: () => Promise<number>;
  /** Told when the wall clock has stepped, has come back, or is believed again. */
  readonly log: Pick<Log, 'info' | 'error'>;
}

/** How often the clocks are read. */
const LOOK_MS = 10_000;

/**
 * A clock whose `now` does not step when the machine's does (judged-time.ts). Decisions that cannot be undone go by it;
 * times that somebody else will check, such as those in tokens, come from the machine's own clock.
 */
export class JudgedClock implements Clock {
  readonly #options: JudgedClockOptions;
  readonly #timer: Timer;
  #time: JudgedTime;
  #looking = false;

  /** Reads the clocks for the first time. */
  static async start(options: JudgedClockOptions): Promise<JudgedClock> {
    const database = await options.database?.().catch(() => undefined);
    return new JudgedClock(options, database);
  }

  /** @param database what the database's clock says now, unix milliseconds, if it answered */
  constructor(options: JudgedClockOptions, database?: number) {
    this.#options = options;
    const { clock } = options;
    this.#time = firstJudgement({ monotonic: clock.monotonic(), wall: clock.now(), database }, PROGRAM_TIME);
    this.#tell(undefined);
    this.#timer = clock.setInterval(() => void this.#look(), LOOK_MS);
  }

  now(): number {
    // A whole number, as from Date.now: the messages that carry it take no fractions.
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

  /** All times that it could be, unix milliseconds, the judged one first. */
  possible(): number[] {
    this.#glance();
    return possibleTimes(this.#time, this.monotonic());
  }

  /**
   * As {@link possible}, but by the last reading of the clocks, which is seconds ago: for callers too frequent to read
   * them each time.
   */
  possibleLately(): number[] {
    return possibleTimes(this.#time, this.monotonic());
  }

  /** The earliest time that it could be: what is too old by this one is too old by all of them. */
  earliest(): number {
    return Math.min(...this.possible());
  }

  /** Takes in that it is known to be later than `floor` (unix milliseconds). */
  raiseFloor(floor: number): void {
    this.#time = withFloor(this.#time, floor);
    this.#glance();
  }

  stop(): void {
    this.#timer.cancel();
  }

  /** Reads the wall clock now, since it may have stepped since the timer last did. */
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
    // The database read its clock some time between our question and its answer.
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
    const how = Math.abs(taken) > AGREE ? `: a step of ${Math.round(taken / 1000)} s was accepted` : '';
    log.info(`the time is no longer in doubt${how}`);
  }
}
