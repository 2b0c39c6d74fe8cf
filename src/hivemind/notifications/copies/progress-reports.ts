import { type Clock, type Timer, within } from '../../../clock.ts';
import { MAX_FINGERPRINTS, type News } from '../../../session/cluster-protocol.ts';

/**
 * Sends news to a member.
 *
 * @returns whether it has them for sure, in a few seconds at most; never rejects
 */
export type Tell = (member: string, news: News) => Promise<boolean>;

/** What the reports work with. */
export interface ProgressReportOptions {
  readonly clock: Clock;
  readonly isLiving: (member: string) => boolean;
  readonly tell: Tell;
}

/** How long (ms) news wait for more, and with how many they go at once. */
export const GATHER = 100;
const ENOUGH = 500;
/** What waits for a member that cannot be reached is forgotten when it is more: it then finds out for itself. */
const MOST = 20_000;

/** What one member is to be told. */
interface Recipient {
  /** The last word on each push. */
  readonly gathered: Map<string, keyof News>;
  /** What it is being told now, and whether that arrives. */
  sending: Promise<boolean> | undefined;
}

/**
 * Gathers what the other members are to be told of pushes, so that many go in one message. Each member has one message
 * at a time: what was lost on the way is sent again, and never after what is newer.
 */
export class ProgressReports {
  readonly #options: ProgressReportOptions;
  readonly #recipients = new Map<string, Recipient>();
  #timer: Timer | undefined;
  #stopped = false;

  constructor(options: ProgressReportOptions) {
    this.#options = options;
  }

  /** @param key of the push; see {@link Identity.key} */
  note(member: string, key: string, news: keyof News): void {
    let recipient = this.#recipients.get(member);
    if (!recipient) {
      recipient = { gathered: new Map(), sending: undefined };
      this.#recipients.set(member, recipient);
    }
    const { gathered } = recipient;
    if (gathered.size >= MOST) gathered.clear();
    gathered.set(key, news);
    if (gathered.size >= ENOUGH) this.#send(member, recipient);
    this.#arm();
  }

  /** Sends what has been gathered, and waits until the others have it, `ms` milliseconds at most. */
  async flush(ms: number): Promise<void> {
    const all = async (member: string, recipient: Recipient) => {
      while (recipient.sending || recipient.gathered.size > 0) {
        if (!this.#options.isLiving(member)) return;
        this.#send(member, recipient);
        // Whoever cannot be reached now will not be asked again and again.
        if (!(await recipient.sending)) return;
      }
    };
    const sent = [...this.#recipients].map(([member, recipient]) => all(member, recipient));
    await within(Promise.all(sent), ms, this.#options.clock);
  }

  /** Sends nothing by itself any more. */
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
    const { gathered, sending } = recipient;
    if (!this.#options.isLiving(member)) this.#recipients.delete(member);
    else if (!sending && gathered.size > 0) recipient.sending = this.#tell(member, recipient);
  }

  async #tell(member: string, recipient: Recipient): Promise<boolean> {
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
    const arrived = await this.#options.tell(member, news);
    recipient.sending = undefined;
    if (!arrived)
      for (const [key, what] of told) if (!gathered.has(key) && gathered.size < MOST) gathered.set(key, what);
    if (gathered.size > 0) this.#arm();
    return arrived;
  }
}
