import type { Clock, Timer } from '../../src/clock.ts';

/**
 * A process on a simulated clock that can be stopped, as by SIGSTOP, and killed: what it would have done happens later
 * or never. Whatever reaches it from outside goes through {@link does}.
 */
export class SimulatedProcess {
  /** Its own: the timers of a process that stands or is dead do not fire. */
  readonly clock: Clock;
  readonly #world: Clock;
  readonly #timers = new Set<Timer>();
  #isDead = false;
  #stands = false;
  #lateTimers: (() => void)[] = [];
  #lateEvents: (() => void)[] = [];

  constructor(world: Clock) {
    this.#world = world;
    this.clock = {
      now: () => world.now(),
      monotonic: () => world.monotonic(),
      setTimeout: (callback, ms) => this.#set(callback, ms, false),
      setInterval: (callback, ms) => this.#set(callback, ms, true),
    };
  }

  get isDead(): boolean {
    return this.#isDead;
  }

  get stands(): boolean {
    return this.#stands;
  }

  /** How many timers are set: a process that has stopped in order has none. */
  get timers(): number {
    return this.#timers.size;
  }

  /** What happens to it: now, when it goes on, or not at all. */
  does(what: () => void): void {
    if (this.#isDead) return;
    if (this.#stands) this.#lateEvents.push(what);
    else what();
  }

  /** Stands still for so many ms. */
  pause(ms: number): void {
    if (this.#stands || this.#isDead) return;
    this.#stands = true;
    this.#world.setTimeout(() => this.#goOn(), ms);
  }

  /** Is gone from one moment to the next. */
  die(): void {
    this.#isDead = true;
    for (const timer of this.#timers) timer.cancel();
    this.#timers.clear();
    this.#lateTimers = [];
    this.#lateEvents = [];
  }

  /** As an event loop does: first the timers that are due, then what has come in meanwhile, one after the other. */
  #goOn(): void {
    const next = this.#lateTimers.shift() ?? this.#lateEvents.shift();
    if (!next) {
      this.#stands = false;
      return;
    }
    next();
    this.#world.setTimeout(() => this.#goOn(), 0);
  }

  #set(callback: () => void, ms: number, isInterval: boolean): Timer {
    let isLate = false;
    const fire = () => {
      // An interval that was held up fires once, not as often as it was missed.
      if (isLate) return;
      if (!isInterval) this.#timers.delete(timer);
      if (!this.#stands) {
        callback();
        return;
      }
      isLate = true;
      this.#lateTimers.push(() => {
        isLate = false;
        if (!isCancelled) callback();
      });
    };
    let isCancelled = false;
    const inner = isInterval ? this.#world.setInterval(fire, ms) : this.#world.setTimeout(fire, ms);
    const timer: Timer = {
      cancel: () => {
        isCancelled = true;
        inner.cancel();
        this.#timers.delete(timer);
      },
    };
    if (this.#isDead) inner.cancel();
    else this.#timers.add(timer);
    return timer;
  }
}
