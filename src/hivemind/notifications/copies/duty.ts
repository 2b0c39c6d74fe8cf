/**
 * Who of a cluster sends which pushes, as far as this member knows. What it says may be late or wrong, and differ from
 * what others go by: then a push is sent twice, and the notifier drops the second, or it waits a second for nothing.
 */
export interface Duty {
  /** Our own name. */
  readonly own: string;

  /** The member that sends the pushes of that slot first; undefined while nobody holds it. */
  firstOf(slot: number): string | undefined;

  /**
   * The other members that may have pushes of that slot as well: those that live and hold it, or still hold it until
   * another one covers it. They are told what becomes of ours.
   */
  othersOf(slot: number): readonly string[];

  /**
   * Whether that member is alive; one that is leaving still is.
   *
   * @param run whether it is this very run of it that lives: what another held in memory is gone
   */
  isLiving(name: string, run?: bigint): boolean;

  /** Calls `listener` after any of the above has changed. */
  onChange(listener: () => void): void;
}
