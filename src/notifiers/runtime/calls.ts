import type { Clock } from '../../clock.ts';
import { type Backend, type Delivery, type Outcome, retry } from './backend.ts';

interface Call {
  readonly backend: Backend;
  /** Ends the call with these outcomes, unless it has ended. */
  readonly settle: (outcomes: readonly Outcome[]) => void;
}

/** The running calls of backends' `send`. Each ends in time, whatever the backend does. */
export class Calls {
  readonly #clock: Clock;
  readonly #timeout: number;
  readonly #running = new Set<Call>();
  #unused: { readonly backend: Backend; readonly resolve: () => void }[] = [];

  /** @param timeout milliseconds after which a call without a result counts as failed */
  constructor(clock: Clock, timeout: number) {
    this.#clock = clock;
    this.#timeout = timeout;
  }

  /** How many run. */
  get size(): number {
    return this.#running.size;
  }

  /**
   * Sends pushes. Returns an outcome for each, in the same order, but none for some if the backend gave too few; a
   * retry for all if it throws or takes too long.
   */
  run(backend: Backend, pushes: readonly Delivery[]): Promise<readonly (Outcome | undefined)[]> {
    return new Promise((resolve) => {
      const failed = (reason: string) => settle(pushes.map(() => retry(reason)));
      const timer = this.#clock.setTimeout(() => failed('no answer in time'), this.#timeout);
      const settle = (answers: readonly Outcome[]) => {
        timer.cancel();
        this.#running.delete(call);
        this.#checkUnused();
        resolve(answers);
      };
      const call: Call = { backend, settle };
      this.#running.add(call);
      // Through a promise, so that a backend that throws at once is handled the same way.
      Promise.resolve(pushes)
        .then((all) => backend.send(all))
        .then(settle, (error: unknown) => failed(error instanceof Error ? error.message : String(error)));
    });
  }

  /** Resolves when no call of this backend runs. */
  unused(backend: Backend): Promise<void> {
    return new Promise((resolve) => {
      this.#unused.push({ backend, resolve });
      this.#checkUnused();
    });
  }

  /** Ends all calls at once, without outcomes. */
  abandon(): void {
    for (const { settle } of this.#running) settle([]);
  }

  #checkUnused(): void {
    if (this.#unused.length === 0) return;
    const busy = new Set([...this.#running].map(({ backend }) => backend));
    for (const one of this.#unused.splice(0)) {
      if (busy.has(one.backend)) this.#unused.push(one);
      else one.resolve();
    }
  }
}
