import type { StatChange } from './statements.ts';

/**
 * The most counters that wait, so that a notifier that makes up names does not fill the memory while the database is
 * away.
 */
const MAX_WAITING = 20_000;
const MAX_NAME = 500;
const MAX_TEXT = 10_000;

/**
 * Statistics that wait to be written. Additions to a counter are summed up (docs/spec/hivemind.md, section 1.4).
 */
export class StatChanges {
  #changes = new Map<string, StatChange>();
  /** How many changes were dropped: impossible names or values, or too many waiting. */
  dropped = 0;

  get size(): number {
    return this.#changes.size;
  }

  /** Adds an integer to a counter. A string in it counts as 0. */
  add(service: string, name: string, by: number): void {
    this.#put({ service, name, adds: true, value: by });
  }

  /** Sets a counter to an integer or a string. */
  set(service: string, name: string, value: number | string): void {
    this.#put({ service, name, adds: false, value });
  }

  /** Removes and returns all changes. */
  take(): StatChange[] {
    const all = [...this.#changes.values()];
    this.#changes = new Map();
    return all;
  }

  /** Puts changes back that could not be written, before what has come since. */
  restore(changes: readonly StatChange[]): void {
    const since = this.take();
    for (const change of [...changes, ...since]) this.#put(change);
  }

  #put(change: StatChange): void {
    const { service, name, value } = change;
    const fits = typeof value === 'string' ? isStorable(value, MAX_TEXT) : Number.isFinite(value);
    if (!fits || !isStorable(service, MAX_NAME) || !isStorable(name, MAX_NAME)) {
      this.dropped++;
      return;
    }
    const key = `${service}\0${name}`;
    const before = this.#changes.get(key);
    if (!before && this.#changes.size >= MAX_WAITING) {
      this.dropped++;
      return;
    }
    this.#changes.set(key, before ? merge(before, change) : { ...change, value: whole(value) });
  }
}

function merge(before: StatChange, change: StatChange): StatChange {
  if (!change.adds) return { ...change, value: whole(change.value) };
  const base = typeof before.value === 'number' ? before.value : 0;
  return { ...before, value: whole(base + (change.value as number)) };
}

function whole(value: number | string): number | string {
  return typeof value === 'string' ? value : Math.trunc(value);
}

/** PostgreSQL refuses NUL in text, and more than some 2,700 bytes in a key. */
function isStorable(text: string, max: number): boolean {
  return text.length <= max && !text.includes('\0');
}
