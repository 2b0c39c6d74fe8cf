import type { Duplex } from 'node:stream';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Connection, Submittable } from 'pg';
import type { Clock } from '../../clock.ts';
import { SLICE } from '../slice.ts';

/**
 * A `COPY … TO STDOUT` for `Client.query` of pg. It gives each message as it comes, of which PostgreSQL makes one a
 * row, and lets others have their turn after each {@link SLICE}.
 */
export class CopyOut implements Submittable {
  readonly #text: string;
  readonly #take: (message: Buffer) => void;
  readonly #clock: Pick<Clock, 'monotonic'>;
  readonly #done = Promise.withResolvers<void>();
  readonly #pause = () => this.#paused();
  #stream: Duplex | undefined;
  #since = 0;

  /**
   * @param text the statement
   * @param take gets each message, which is good only during the call; if it throws, the rest is not read
   */
  constructor(text: string, take: (message: Buffer) => void, clock: Pick<Clock, 'monotonic'>) {
    this.#text = text;
    this.#take = take;
    this.#clock = clock;
  }

  /** Resolves when everything was given; rejects with what the server, the connection or `take` fails with. */
  get done(): Promise<void> {
    return this.#done.promise;
  }

  // What pg calls:

  submit(connection: Connection): void {
    this.#stream = connection.stream;
    this.#since = this.#clock.monotonic();
    // Called for each piece of the stream after pg has read it.
    this.#stream.on('data', this.#pause);
    connection.query(this.#text);
  }

  handleCopyData({ chunk }: { chunk: Buffer }): void {
    if (this.#stream === undefined) return;
    try {
      this.#take(chunk);
    } catch (error) {
      this.handleError(error as Error);
    }
  }

  handleCommandComplete(): void {}

  handleReadyForQuery(): void {
    this.#end();
    this.#done.resolve();
  }

  handleError(error: Error): void {
    this.#end();
    this.#done.reject(error);
  }

  #end(): void {
    this.#stream?.off('data', this.#pause);
    this.#stream = undefined;
  }

  #paused(): void {
    const stream = this.#stream;
    if (stream === undefined || this.#clock.monotonic() - this.#since < SLICE) return;
    stream.pause();
    void nextTurn().then(() => {
      this.#since = this.#clock.monotonic();
      stream.resume();
    });
  }
}
