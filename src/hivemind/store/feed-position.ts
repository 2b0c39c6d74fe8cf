/**
 * Which transactions of the database had ended when we looked: PostgreSQL's own snapshot, in its text form
 * `xmin:xmax:xip,…`. Every transaction below `xmax` had, but those of `xip` (docs/decisions/18).
 *
 * A number gives nothing like it: transactions become visible in another order than they took their numbers in.
 */
export class FeedPosition {
  readonly xmax: bigint;
  /** Those that were under way, ascending. */
  readonly xip: readonly bigint[];

  private constructor(xmax: bigint, xip: readonly bigint[]) {
    this.xmax = xmax;
    this.xip = xip;
  }

  /** @throws Error on what is no snapshot */
  static parse(text: string): FeedPosition {
    const found = /^\d+:(\d+):([\d,]*)$/.exec(text);
    if (!found) throw new Error(`The database did not send a snapshot: ${text}`);
    const xip = (found[2] ?? '').split(',').filter(Boolean).map(BigInt);
    return new FeedPosition(BigInt(found[1] ?? ''), xip);
  }

  /** What is in both: of each transaction that it counts as ended, both knew that. */
  meet(other: FeedPosition): FeedPosition {
    const xmax = this.xmax < other.xmax ? this.xmax : other.xmax;
    const xip = new Set([...this.xip, ...other.xip].filter((xid) => xid < xmax));
    return new FeedPosition(
      xmax,
      [...xip].sort((a, b) => (a < b ? -1 : 1)),
    );
  }

  /** This, without the transactions from `xmax` on. */
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
