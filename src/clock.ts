/** A timer that was set on a {@link Clock}. */
export interface Timer {
  /** Stops the timer; harmless if it has fired or was cancelled before. */
  cancel(): void;
}

/**
 * Time, passed in wherever it matters, so that tests can control it.
 * Nothing outside this file and the entry points asks the machine for the time.
 */
export interface Clock {
  /**
   * The wall clock, in milliseconds since the Unix epoch. It may jump; use it only for times that leave the process.
   */
  now(): number;
  /** A clock that never jumps, in milliseconds since some fixed point. For intervals, ages and deadlines. */
  monotonic(): number;
  /** Calls `callback` once, `ms` milliseconds from now, however long that is. */
  setTimeout(callback: () => void, ms: number): Timer;
  /** Calls `callback` every `ms` milliseconds. */
  setInterval(callback: () => void, ms: number): Timer;
}

/** The longest delay that Node's timers take, in milliseconds: with a longer one they fire at once. */
const LONGEST_TIMER = 2 ** 31 - 1;

/** The machine's own clock. Its timers keep the process alive until they are cancelled. */
export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  setTimeout(callback, ms) {
    let timer: NodeJS.Timeout;
    const wait = (left: number) => {
      timer =
        left > LONGEST_TIMER ? setTimeout(() => wait(left - LONGEST_TIMER), LONGEST_TIMER) : setTimeout(callback, left);
    };
    wait(ms);
    return { cancel: () => clearTimeout(timer) };
  },
  setInterval(callback, ms) {
    if (ms > LONGEST_TIMER) return longInterval(callback, ms);
    const timer = setInterval(callback, ms);
    return { cancel: () => clearInterval(timer) };
  },
};

function longInterval(callback: () => void, ms: number): Timer {
  const next = () => {
    timer = systemClock.setTimeout(next, ms);
    callback();
  };
  let timer = systemClock.setTimeout(next, ms);
  return { cancel: () => timer.cancel() };
}

/**
 * Whether `work` is done within `ms` milliseconds; a negative `ms` counts as 0. The work goes on either way.
 *
 * @throws what `work` fails with, if it fails in time
 */
export async function within(work: Promise<unknown>, ms: number, clock: Clock): Promise<boolean> {
  let timer: Timer | undefined;
  const late = new Promise<false>((resolve) => {
    timer = clock.setTimeout(() => resolve(false), Math.max(ms, 0));
  });
  try {
    return await Promise.race([work.then(() => true), late]);
  } finally {
    timer?.cancel();
  }
}
