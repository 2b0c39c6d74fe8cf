/**
 * What becomes of the storage servers' notifications; plain numbers that the metrics read. Each copy counts under
 * exactly one of the first eleven.
 */
export interface IntakeCounters {
  /** Copies of a message that was passed on before, or that confirmed it. */
  duplicates: number;
  /** Messages passed on: somebody wanted them. */
  unique: number;
  /** Nobody wants them, or no longer. */
  unwanted: number;
  /** Sent by a server that was not asked for the account. */
  unasked: number;
  /** Expired, so that no device gets them. */
  expired: number;
  /** Beyond what one server may send or one device may get; see message-limits.ts. */
  limited: number;
  /** Wanted only by devices at which a push would do harm; see {@link isFalseAlarm}. */
  unshown: number;
  /** Held, and then contradicted by a better copy. */
  contradicted: number;
  /** Doubtful, but not held, as too much of their server's was held already. */
  unheld: number;
  /** Held at this moment, until another server confirms them. */
  readonly held: number;
  /** Dropped as malformed, by reason. */
  readonly malformed: Map<string, number>;

  /** All `notify.message` received. */
  raw: number;
  /** Pushes made, one for each device. */
  pushes: number;
  /** Pushes not made because their device had had too many. */
  limitedPushes: number;
  /** Pushes not made because of {@link isFalseAlarm}. */
  unshownPushes: number;
  /** The unique ones, by what they were trusted for: their hash, a second server, or nothing but their sender. */
  readonly vouched: { hash: number; second: number; alone: number };
  /** Confirmed by a second server although their body does not match their hash. */
  misfits: number;
  /** Bytes of memory that the held ones take. */
  readonly heldBytes: number;
}

/**
 * Counters at 0.
 * @param held where `held` and `heldBytes` are read
 */
export function intakeCounters(held: { readonly size: number; readonly bytes: number }): IntakeCounters {
  return {
    duplicates: 0,
    unique: 0,
    unwanted: 0,
    unasked: 0,
    expired: 0,
    limited: 0,
    unshown: 0,
    contradicted: 0,
    unheld: 0,
    get held() {
      return held.size;
    },
    malformed: new Map(),
    raw: 0,
    pushes: 0,
    limitedPushes: 0,
    unshownPushes: 0,
    vouched: { hash: 0, second: 0, alone: 0 },
    misfits: 0,
    get heldBytes() {
      return held.bytes;
    },
  };
}
