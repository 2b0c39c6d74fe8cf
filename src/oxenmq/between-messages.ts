/** Turns of the event loop after which a `receive()` that has not resolved waits for something to come in. */
const TURNS = 3;

/**
 * When a connection of a socket that is read may be ended: libzmq 4.3.5 aborts the process (`!_more`, fq.cpp:80) if it
 * has begun to read a message of several parts and the connection that it comes from is ended before the next part.
 * zeromq.js reads a message as a whole, but to ask whether there is one begins it; and having read 512 in a row it lets
 * the event loop turn between asking and reading. So while messages come, a connection is ended right after one was
 * read; and while none come, when the loop has turned often enough to know that none has been begun.
 */
export class BetweenMessages {
  readonly #waiting: (() => void)[] = [];
  #isTaking = false;
  #taken = 0;

  /** A message has been read as a whole, and the next one will not be asked for before {@link end}. */
  begin(): void {
    this.#taken++;
    this.#isTaking = true;
  }

  end(): void {
    if (this.#waiting.length > 0) this.#doAll();
    this.#isTaking = false;
  }

  /** Does it now or soon. @param work must not throw */
  do(work: () => void): void {
    if (this.#isTaking) {
      work();
      return;
    }
    this.#waiting.push(work);
    if (this.#waiting.length === 1) this.#afterTurns(TURNS, this.#taken);
  }

  /** Does it behind what waits, at once if that is nothing. @param work must not throw */
  afterOthers(work: () => void): void {
    if (this.#waiting.length > 0) this.#waiting.push(work);
    else work();
  }

  /** Resolves when all is done. */
  async done(): Promise<void> {
    while (this.#waiting.length > 0) await new Promise((resolve) => setImmediate(resolve));
  }

  #afterTurns(turns: number, taken: number): void {
    // If a message came, it was done behind that.
    if (this.#taken !== taken) return;
    if (turns === 0) this.#doAll();
    else setImmediate(() => this.#afterTurns(turns - 1, taken));
  }

  #doAll(): void {
    for (const work of this.#waiting.splice(0)) work();
  }
}
