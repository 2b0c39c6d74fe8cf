import type { Clock } from '../../clock.ts';
import { type Logger, type Repeated, repeated } from '../../daemon/log.ts';
import { isDataError, sqlState } from './store-error.ts';

/** Why the database did not write; a label of a counter. */
export type WriteFault =
  | 'unreachable'
  | 'disk_full'
  | 'resources'
  | 'permission'
  | 'read_only'
  | 'schema'
  | 'conflict'
  | 'timeout'
  | 'overload'
  | 'data'
  | 'other';

/** Faults by SQLSTATE (PostgreSQL's appendix A); the first that matches counts. */
const FAULTS: readonly (readonly [RegExp, WriteFault])[] = [
  [/^53100/, 'disk_full'],
  [/^53/, 'resources'],
  [/^42501/, 'permission'],
  [/^25006/, 'read_only'],
  [/^(42|3D|3F)/, 'schema'],
  [/^(40|55)/, 'conflict'],
  [/^57014/, 'timeout'],
  [/^(08|57)/, 'unreachable'],
];
/** For this long (ms) after a failure only a successful probe ends the trouble: one kind of write may still fail. */
const SETTLED_MS = 60_000;
/** The most characters of the server's message. */
const LONGEST = 200;

/** A write was refused because too many are waiting. */
export class OverloadError extends Error {}

/** @param error the server's, or one of ours with the server's as its cause */
function writeFault(error: unknown): WriteFault {
  if (error instanceof OverloadError) return 'overload';
  if (isDataError(error)) return 'data';
  const state = stateOf(error);
  if (state === undefined) return 'unreachable';
  return FAULTS.find(([pattern]) => pattern.test(state))?.[1] ?? 'other';
}

/**
 * Tracks whether clients' requests are written. A database that answers may still refuse every write: its disk is full,
 * our rights are gone, a table is missing. That is logged once, counted by cause, and reported until every kind of
 * write that clients need has succeeded again.
 */
export class WriteHealth {
  /** Failures by cause. */
  readonly errors = new Map<WriteFault, number>();
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #faults: Repeated;
  #trouble: { readonly text: string; readonly since: number; latest: number; count: number } | undefined;

  constructor(clock: Clock, log: Logger) {
    this.#clock = clock;
    this.#log = log;
    this.#faults = repeated(log, clock);
  }

  /** What is wrong, in the server's words; undefined while writes work. */
  get trouble(): string | undefined {
    return this.#trouble?.text;
  }

  /** A write that a client waited for has failed. */
  failed(error: unknown): void {
    const fault = writeFault(error);
    this.errors.set(fault, (this.errors.get(fault) ?? 0) + 1);
    // The client learns of its bad row, and Connection reports that it is lost.
    if (fault === 'data' || fault === 'unreachable') return;
    const text = `the database does not write: ${messageOf(error)}`;
    this.#faults.error(text);
    const now = this.#clock.monotonic();
    const { since, count } = this.#trouble ?? { since: now, count: 0 };
    this.#trouble = { text, since, latest: now, count: count + 1 };
  }

  /**
   * A write has succeeded.
   * @param all whether of every kind that clients need; if not, another kind may still fail
   */
  succeeded(all: boolean): void {
    const trouble = this.#trouble;
    const now = this.#clock.monotonic();
    if (!trouble || (!all && now - trouble.latest < SETTLED_MS)) return;
    this.#trouble = undefined;
    const seconds = Math.round((now - trouble.since) / 1000);
    this.#log.info(`writing to the database works again, after ${trouble.count} failures in ${seconds} s`);
  }

  stop(): void {
    this.#faults.stop();
  }
}

/** The server's message without its details, which show the row with the device's token and key. */
function messageOf(error: unknown): string {
  const { cause } = error as Error;
  const { message } = (sqlState(error) === undefined && cause instanceof Error ? cause : error) as Error;
  const state = stateOf(error);
  return `${message.replace(/\n.*/s, '').slice(0, LONGEST)}${state === undefined ? '' : ` (SQLSTATE ${state})`}`;
}

function stateOf(error: unknown): string | undefined {
  return sqlState(error) ?? sqlState((error as Error).cause);
}
