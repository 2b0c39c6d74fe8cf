/**
 * Who sends which pushes in a cluster, as far as this member knows. It may be late, and differ from what other members
 * go by: at worst a push is sent twice, and the notifier drops the second one, or a push is sent a second late.
 */
export interface Duty {
  /** Our own name. */
  readonly own: string;

  /** The member that sends first in that slot; undefined while nobody holds it. */
  firstOf(slot: number): string | undefined;

  /**
   * The other members that may have the same pushes: those alive that should hold the slot, or still do until others
   * cover it. They are told what becomes of ours.
   */
  othersOf(slot: number): readonly string[];

  /**
   * Whether that member is alive. One that is leaving still is.
   *
   * @param run asks about this very run of it: what an earlier run had in memory is gone
   */
  isLiving(name: string, run?: bigint): boolean;

  /** Calls `listener` after any of the above has changed. */
  onChange(listener: () => void): void;
}
