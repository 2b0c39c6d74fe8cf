/**
 * Which transactions of the database had ended when we looked: a PostgreSQL snapshot, in its text form
 * `xmin:xmax:xip,…`. Those below `xmax` had, except those in `xip` (docs/decisions/35).
 *
 * A single transaction number would not do, since transactions do not end in the order of their numbers.
 */
export class FeedPosition {
  readonly xmax: bigint;
  /** The transactions below `xmax` that had not ended, ascending. */
  readonly xip: readonly bigint[];

  private constructor(xmax: bigint, xip: readonly bigint[]) {
    this.xmax = xmax;
    this.xip = xip;
  }

  /** @throws Error if the text is not a snapshot */
  static parse(text: string): FeedPosition {
    const found = /^\d+:(\d+):([\d,]*)$/.exec(text);
    if (!found) throw new Error(`The database did not send a snapshot: ${text}`);
    const xip = (found[2] ?? '').split(',').filter(Boolean).map(BigInt);
    return new FeedPosition(BigInt(found[1] ?? ''), xip);
  }

  /** The position that counts as ended only what both do. */
  meet(other: FeedPosition): FeedPosition {
    const xmax = this.xmax < other.xmax ? this.xmax : other.xmax;
    const xip = new Set([...this.xip, ...other.xip].filter((xid) => xid < xmax));
    return new FeedPosition(
      xmax,
      [...xip].sort((a, b) => Number(a - b)),
    );
  }

  /** This position, but with no transaction from `xmax` on counted as ended. */
  upTo(xmax: bigint): FeedPosition {
    return new FeedPosition(
      xmax,
      this.xip.filter((xid) => xid < xmax),
    );
  }

  toString(): string {
    return `${this.xip[0] ?? this.xmax}:${this.xmax}:${this.xip.join()}`;
  }
}
