import { isUtf8 } from 'node:buffer';
import type { Clock } from '../../clock.ts';
import { BencodeError, decode } from '../../codec/bencode.ts';
import type { StatRow, Store } from '../store/store.ts';

/** Notifications received, copies included, and pushes made of them; since the start. */
interface IntakeCounts {
  readonly raw: number;
  readonly pushes: number;
}

/** Makes a function that adds what was counted since its last call to the statistics. */
export function intakeCounter(stats: Pick<Stats, 'add'>, counters: IntakeCounts): () => void {
  let counted = { raw: 0, pushes: 0 };
  return () => {
    const { raw, pushes } = counters;
    stats.add('', { pushes: raw - counted.raw, notifications: pushes - counted.pushes });
    counted = { raw, pushes };
  };
}

/** The value of a statistic, an integer or a string as in the table `service_stats`. */
export type StatValue = number | string;

/** A service is alive if its notifier has reported within this many seconds (docs/spec/hivemind.md, section 1.5). */
const ALIVE_SECONDS = 60;

/**
 * The statistics that outlive the process: a copy in memory, which all queries are answered from, of the table
 * `service_stats`, which the store writes in the background. The service '' has the hivemind's own.
 */
export class Stats {
  readonly #clock: Clock;
  readonly #store: Pick<Store, 'addStats'>;
  readonly #values = new Map<string, Map<string, StatValue>>();

  constructor(clock: Clock, store: Pick<Store, 'addStats'>) {
    this.#clock = clock;
    this.#store = store;
  }

  /** Takes over the rows that the database has at the start. */
  load(rows: readonly StatRow[]): void {
    for (const { service, name, value } of rows) this.#of(service).set(name, value);
  }

  /** Adds to counters and sets values of a service, '' for the hivemind's own. */
  add(service: string, increments: Record<string, number>, values: Record<string, StatValue> = {}): void {
    const known = this.#of(service);
    for (const [name, by] of Object.entries(increments)) {
      const old = known.get(name);
      known.set(name, (typeof old === 'number' ? old : 0) + by);
    }
    for (const [name, value] of Object.entries(values)) known.set(name, value);
    this.#store.addStats(service, increments, values);
  }

  /**
   * Takes a notifier's `admin.service_stats` (docs/spec/hivemind.md, section 1.4).
   * @param report a bencoded dict: `+key` adds an integer, any other key replaces a value
   * @throws BencodeError if any part of it makes no sense; none of it is taken then
   */
  report(service: string, report: Buffer): void {
    const dict = decode(report);
    if (!(dict instanceof Map)) throw new BencodeError('service_stats: expected a dict');
    const increments: Record<string, number> = {};
    const values: Record<string, StatValue> = {};
    for (const [key, value] of dict) {
      const name = Buffer.from(key, 'latin1');
      if (!isUtf8(name) || name.includes(0)) throw new BencodeError('service_stats: a key is not text');
      if (key.startsWith('+')) {
        if (typeof value !== 'number') throw new BencodeError('service_stats: an increment is not an integer');
        increments[name.toString('utf8', 1)] = value;
      } else if (typeof value === 'number') {
        values[name.toString('utf8')] = value;
      } else if (Buffer.isBuffer(value) && isUtf8(value) && !value.includes(0)) {
        values[name.toString('utf8')] = value.toString('utf8');
      } else {
        throw new BencodeError('service_stats: a value is neither an integer nor a text');
      }
    }
    this.add(service, increments, values);
    this.add('', {}, { [`last.${service}`]: Math.floor(this.#clock.now() / 1000) });
  }

  /** A value of the hivemind's own. */
  get(name: string): StatValue | undefined {
    return this.#values.get('')?.get(name);
  }

  /** Whether a notifier of that service has ever reported. */
  hasReported(service: string): boolean {
    return this.get(`last.${service}`) !== undefined;
  }

  /** What the notifiers of a service have ever reported. */
  of(service: string): ReadonlyMap<string, StatValue> {
    return this.#values.get(service) ?? new Map();
  }

  /** The sum of one counter over all services. */
  total(name: string): number {
    let total = 0;
    for (const [service, values] of this.#values) {
      const value = values.get(name);
      if (service !== '' && typeof value === 'number') total += value;
    }
    return total;
  }

  /** The services whose notifiers have reported since `since` (unix seconds) and within the last minute, sorted. */
  alive(since = 0): string[] {
    const now = Math.floor(this.#clock.now() / 1000);
    const names: string[] = [];
    for (const [name, value] of this.#values.get('') ?? []) {
      if (!name.startsWith('last.') || typeof value !== 'number') continue;
      if (value > now - ALIVE_SECONDS && value >= since) names.push(name.slice('last.'.length));
    }
    return names.sort();
  }

  /** The part of `admin.get_stats` that comes from here (docs/spec/hivemind.md, section 1.5). */
  snapshot(): Record<string, unknown> {
    const own: Record<string, unknown> = Object.create(null);
    const notifier: Record<string, Record<string, StatValue>> = Object.create(null);
    const alive = new Set(this.alive());
    for (const [service, values] of this.#values) {
      if (service !== '') {
        notifier[service] = Object.fromEntries(values);
        continue;
      }
      for (const [name, value] of values) {
        own[name] = value;
        if (name.startsWith('last.'))
          own[`alive.${name.slice('last.'.length)}`] = alive.has(name.slice('last.'.length));
      }
    }
    if (Object.keys(notifier).length > 0) own.notifier = notifier;
    return own;
  }

  #of(service: string): Map<string, StatValue> {
    let values = this.#values.get(service);
    if (!values) {
      values = new Map();
      this.#values.set(service, values);
    }
    return values;
  }
}
