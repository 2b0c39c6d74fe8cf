import { type Clock, type Timer, within } from '../../../clock.ts';
import { MAX_FINGERPRINTS, type News } from '../../../session/cluster-protocol.ts';

/**
 * Sends news to a member.
 *
 * @returns after a few seconds at most, whether it certainly has them; never rejects
 */
export type Tell = (member: string, news: News) => Promise<boolean>;

/** What {@link ProgressReports} is built from. */
export interface ProgressReportOptions {
  readonly clock: Clock;
  readonly isLiving: (member: string) => boolean;
  readonly tell: Tell;
}

/** How long (ms) news are gathered, unless there are so many that they go at once. */
export const GATHER = 100;
const FULL = 500;
/** The most news gathered for a member. With more, all are dropped: a member that hears nothing acts by itself. */
const MOST = 20_000;

/** A member to be told. */
interface Recipient {
  /** The latest news of each push, by its key. */
  readonly gathered: Map<string, keyof News>;
  /** The message under way: how much news is in it, and whether it arrives. */
  underWay: { readonly count: number; readonly arrives: Promise<boolean> } | undefined;
}

/**
 * Tells the other members what has become of pushes, many in one message. Only one message to each member is under way
 * at a time: what was lost is sent again, and never overtakes what is newer.
 */
export class ProgressReports {
  readonly #options: ProgressReportOptions;
  readonly #recipients = new Map<string, Recipient>();
  #timer: Timer | undefined;
  #stopped = false;

  constructor(options: ProgressReportOptions) {
    this.#options = options;
  }

  /** How much news the members are not known to have. */
  get waiting(): number {
    let waiting = 0;
    for (const { gathered, underWay } of this.#recipients.values()) waiting += gathered.size + (underWay?.count ?? 0);
    return waiting;
  }

  /** Adds to what a member is told. @param key the push's {@link PushIdentity.key} */
  note(member: string, key: string, news: keyof News): void {
    let recipient = this.#recipients.get(member);
    if (!recipient) {
      recipient = { gathered: new Map(), underWay: undefined };
      this.#recipients.set(member, recipient);
    }
    const { gathered } = recipient;
    if (gathered.size >= MOST) gathered.clear();
    gathered.set(key, news);
    if (gathered.size >= FULL) this.#send(member, recipient);
    this.#arm();
  }

  /** Sends what has been gathered, and waits until the others have it, but no longer than `ms`. */
  async flush(ms: number): Promise<void> {
    const all = async (member: string, recipient: Recipient) => {
      while (recipient.underWay || recipient.gathered.size > 0) {
        if (!this.#options.isLiving(member)) return;
        this.#send(member, recipient);
        // Give up on a member that cannot be reached now.
        if (!(await recipient.underWay?.arrives)) return;
      }
    };
    const sent = [...this.#recipients].map(([member, recipient]) => all(member, recipient));
    await within(Promise.all(sent), ms, this.#options.clock);
  }

  /** Stops sending, except by {@link flush}. */
  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #arm(): void {
    if (this.#stopped) return;
    this.#timer ??= this.#options.clock.setTimeout(() => {
      this.#timer = undefined;
      for (const [member, recipient] of this.#recipients) this.#send(member, recipient);
    }, GATHER);
  }

  #send(member: string, recipient: Recipient): void {
    const { gathered, underWay } = recipient;
    if (!this.#options.isLiving(member)) this.#recipients.delete(member);
    else if (!underWay && gathered.size > 0) this.#tell(member, recipient);
  }

  #tell(member: string, recipient: Recipient): void {
    const { gathered } = recipient;
    const news = { handed: [] as string[], ended: [] as string[], none: [] as string[] };
    const told: [string, keyof News][] = [];
    for (const entry of gathered) {
      if (told.length === MAX_FINGERPRINTS) break;
      told.push(entry);
    }
    for (const [key, what] of told) {
      gathered.delete(key);
      news[what].push(key);
    }
    const arrives = this.#options.tell(member, news).then((arrived) => {
      recipient.underWay = undefined;
      if (!arrived)
        for (const [key, what] of told) if (!gathered.has(key) && gathered.size < MOST) gathered.set(key, what);
      if (gathered.size > 0) this.#arm();
      return arrived;
    });
    recipient.underWay = { count: told.length, arrives };
  }
}
