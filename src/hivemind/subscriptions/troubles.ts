import type { Clock } from '../../clock.ts';
import type { Log } from '../../log.ts';

/** A trouble counts as over when it has not recurred for this long, in ms. */
const OVER_MS = 60_000;

/** Why clients were refused lately although neither they nor the database were at fault. Texts are ours, so few. */
export class Troubles {
  readonly #clock: Pick<Clock, 'monotonic'>;
  readonly #log: Pick<Log, 'warn'>;
  readonly #latest = new Map<string, number>();

  /** @param log gets each note; it must not repeat itself too often */
  constructor(clock: Pick<Clock, 'monotonic'>, log: Pick<Log, 'warn'>) {
    this.#clock = clock;
    this.#log = log;
  }

  /** @param text a sentence for operators, the same each time */
  note(text: string): void {
    this.#latest.set(text, this.#clock.monotonic());
    this.#log.warn(text);
  }

  /** The troubles that are not over. */
  complaints(): string[] {
    const since = this.#clock.monotonic() - OVER_MS;
    for (const [text, latest] of this.#latest) if (latest <= since) this.#latest.delete(text);
    return [...this.#latest.keys()];
  }
}
