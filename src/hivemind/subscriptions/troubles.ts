import type { Clock } from '../../clock.ts';
import type { Log } from '../../log.ts';

/** A trouble counts as over when it has not come again for so long, in ms. */
const OVER_MS = 60_000;

/**
 * Why clients were refused lately though neither they nor the database are to blame. Texts are ours, so there are few.
 */
export class Troubles {
  readonly #clock: Pick<Clock, 'monotonic'>;
  readonly #log: Pick<Log, 'warn'>;
  readonly #latest = new Map<string, number>();

  /** @param log told each time; it is its business not to say the same again and again */
  constructor(clock: Pick<Clock, 'monotonic'>, log: Pick<Log, 'warn'>) {
    this.#clock = clock;
    this.#log = log;
  }

  /** @param text a sentence for operators, the same each time */
  note(text: string): void {
    this.#latest.set(text, this.#clock.monotonic());
    this.#log.warn(text);
  }

  /** What goes on. */
  complaints(): string[] {
    const since = this.#clock.monotonic() - OVER_MS;
    for (const [text, latest] of this.#latest) if (latest <= since) this.#latest.delete(text);
    return [...this.#latest.keys()];
  }
}
