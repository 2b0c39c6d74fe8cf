import { setImmediate as nextTurn } from 'node:timers/promises';

/** After this many turns of the event loop, a `receive()` that has not resolved has not begun to read a message. */
const TURNS = 3;

/**
 * Chooses when a connection of a socket that is being read may be ended. libzmq 4.3.5 aborts the process (`!_more`,
 * fq.cpp:80) if it has begun to read a message of several parts and the connection that it came from is ended before
 * the next part. zeromq.js reads messages whole, but asking whether there is one begins it, and after 512 in a row it
 * lets the event loop turn between asking and reading. So while messages come in, a connection is ended right after one
 * was read; while none come, it is ended once the loop has turned often enough to be sure that none was begun.
 */
export class BetweenMessages {
  readonly #waiting: (() => void)[] = [];
  #isTaking = false;
  #taken = 0;

  /** A message has been read whole, and the next one will not be asked for before {@link end}. */
  begin(): void {
    this.#taken++;
    this.#isTaking = true;
  }

  end(): void {
    if (this.#waiting.length > 0) this.#doAll();
    this.#isTaking = false;
  }

  /** Does `work` now or soon. @param work must not throw */
  do(work: () => void): void {
    if (this.#isTaking) {
      work();
      return;
    }
    this.#waiting.push(work);
    if (this.#waiting.length === 1) this.#afterTurns(TURNS, this.#taken);
  }

  /** Does `work` after everything that is waiting, at once if nothing is. @param work must not throw */
  afterOthers(work: () => void): void {
    if (this.#waiting.length > 0) this.#waiting.push(work);
    else work();
  }

  /** Resolves when everything that has come in has been taken: the reader waits for a message. */
  async caughtUp(): Promise<void> {
    for (let before = -1; before !== this.#taken; ) {
      before = this.#taken;
      for (let turn = 0; turn < TURNS; turn++) await nextTurn();
    }
  }

  /** Resolves when all is done. */
  async done(): Promise<void> {
    while (this.#waiting.length > 0) await nextTurn();
  }

  #afterTurns(turns: number, taken: number): void {
    // A message came in, and the waiting work was done right after it.
    if (this.#taken !== taken) return;
    if (turns === 0) this.#doAll();
    else setImmediate(() => this.#afterTurns(turns - 1, taken));
  }

  #doAll(): void {
    for (const work of this.#waiting.splice(0)) work();
  }
}
