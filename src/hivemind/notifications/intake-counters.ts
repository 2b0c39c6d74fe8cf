/**
 * What becomes of the storage servers' notifications; plain numbers, read by the metrics. Every copy counts under
 * exactly one of the first eleven.
 */
export interface IntakeCounters {
  /** Copies of messages that were passed on before, or that vouched for one. */
  duplicates: number;
  /** Messages that were passed on, because somebody wanted them. */
  unique: number;
  /** Nobody (any more) wants them. */
  unwanted: number;
  /** Reported by a node that was not asked to. */
  unasked: number;
  /** Expired messages, which no device is sent. */
  expired: number;
  /** More than one server may send, or one device may get; see message-limits.ts. */
  limited: number;
  /** Word of settings, for devices that asked for the settings themselves; see {@link isFalseAlarm}. */
  unshown: number;
  /** Waited, and turned out to say something else than a better copy. */
  contradicted: number;
  /** Should have waited for another server's word, but their server had too much that waits. */
  unheld: number;
  /** Wait at this moment for another server's word. */
  readonly held: number;
  /** Dropped as malformed, by reason. */
  readonly malformed: Map<string, number>;

  /** notify.message received. */
  raw: number;
  /** Pushes made of them, one a device. */
  pushes: number;
  /** Pushes not made because their device had too many. */
  limitedPushes: number;
  /** Pushes not made because their device would show a message that there is not, or nothing. */
  unshownPushes: number;
  /** The unique ones, by what vouched for them: their hash, a second server, nobody but the one that told. */
  readonly vouched: { hash: number; second: number; alone: number };
  /** Those for which a second server vouched although their hash does not fit. */
  misfits: number;
  /** Memory of those that wait. */
  readonly heldBytes: number;
}

/**
 * All at 0.
 * @param held what waits: two of them are about it
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
