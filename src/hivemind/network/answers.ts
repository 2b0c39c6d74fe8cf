import { isElsewhere, type parseMonitorReply } from '../../session/monitor.ts';
import type { Batch } from './batch.ts';
import { AT_ONCE, type Member, State } from './member.ts';
import type { Swarms } from './swarms.ts';

export type Results = ReturnType<typeof parseMonitorReply>;
type Result = Results[number];

export interface AnswersOptions {
  readonly swarms: Swarms;
  /** Seconds on the monitor's clock. */
  readonly now: () => number;
  /** Uniform in [0, 1). */
  readonly jitter: () => number;
  /** How long due renewals may be gathered into one request, in seconds. */
  readonly interval: number;
  /** Asks for an account at once. */
  readonly hurry: (member: Member, id: number) => void;
  /** A storage server disagrees with us about where accounts are: the list should be asked for anew. */
  readonly suspect: () => void;
}

/** Renewals come between these ages of a confirmation, in seconds, as the original's do. */
const RENEW_FROM = 45 * 60;
const RENEW_TO = 55 * 60;
/** Error codes of storage servers that condemn a signature: too old or in the future, and wrong. */
const BAD_TS = 4;
const BAD_SIG = 5;
/** How long (seconds) a server may say otherwise before it is asked again: at first, and at most; and after how long it begins anew. */
const DISPUTE_FROM = 4;
const DISPUTE_TO = 300;
const DISPUTE_OVER = 600;

/** What a storage server's answers mean for each account, and when that one is asked for again. */
export class Answers {
  readonly #options: AnswersOptions;
  /** For single accounts or, where a signature was refused, for single signatures. */
  readonly counters = { confirmed: 0, refused_timestamp: 0, refused_signature: 0, elsewhere: 0, error: 0 };

  constructor(options: AnswersOptions) {
    this.#options = options;
  }

  /** Takes over what was said of each account. */
  apply(member: Member, batch: Batch, sentAt: number, results: Results): void {
    const { swarms } = this.#options;
    let dict = 0;
    for (let i = 0; i < batch.ids.length; i++) {
      const id = batch.ids[i]!;
      const end = batch.ends[i]!;
      // The worst answer of its dicts: a refused signature can be replaced, another error is waited for.
      let error: Result | undefined;
      let refused = 0;
      for (; dict < end; dict++) {
        const result = results[dict]!;
        if (result.code === 0) continue;
        if (isOtherError(result)) error = result;
        else {
          refused = result.code;
          this.#refuse(member, id, batch.refs[dict]!, result.code);
        }
      }
      // It moved, changed or is somebody else by now: there is or was a newer question.
      if (swarms.swarmOf(id) !== member.swarm || swarms.versionOf(id) !== batch.versions[i]) continue;
      const position = swarms.positionOf(id);
      if (refused > 0) this.#again(member, position, id, refused);
      else if (error && isElsewhere(error)) this.#dispute(member, position, error);
      else if (error) this.#postpone(member, position, error);
      else {
        this.counters.confirmed++;
        member.setState(position, State.confirmed);
        member.since[position] = sentAt;
        member.tries[position] = 0;
        member.due[position] = this.renewal(sentAt);
      }
    }
  }

  #refuse(member: Member, id: number, ref: number, code: number): void {
    if (code === BAD_TS) this.counters.refused_timestamp++;
    else this.counters.refused_signature++;
    member.lastError = `signature refused with code ${code}`;
    if (this.#options.swarms.swarmOf(id) !== member.swarm) return;
    const refs = member.refused.get(id);
    if (refs) refs.add(ref);
    else member.refused.set(id, new Set([ref]));
  }

  /** A signature was refused: the next best one is tried at once. */
  #again(member: Member, position: number, id: number, code: number): void {
    member.setState(position, State.refused + code);
    member.due[position] = AT_ONCE;
    this.#options.hurry(member, id);
  }

  #dispute(member: Member, position: number, error: Result): void {
    this.counters.elsewhere++;
    this.dispute(member, position, describe(error));
  }

  /**
   * The server says that the account is not in its swarm; by our list it is. One of the two is a block behind, so the list is asked for,
   * and, if it stays as it is, the server, within seconds. All accounts of one round are asked for together, and rounds come ever more
   * rarely: what one server says costs no more than that, however often it says it.
   */
  dispute(member: Member, position: number, reason: string): void {
    const { now, jitter, suspect } = this.#options;
    member.lastError = reason;
    if (now() >= member.disputeUntil) {
      member.disputes = now() - member.disputeUntil > DISPUTE_OVER ? 0 : member.disputes + 1;
      const wait = Math.min(DISPUTE_TO, DISPUTE_FROM * 2 ** member.disputes);
      member.disputeUntil = now() + Math.ceil(wait * (0.5 + jitter()));
      suspect();
    }
    member.setState(position, State.asked);
    member.due[position] = member.disputeUntil;
    member.retryAt = Math.min(member.retryAt, member.disputeUntil);
  }

  #postpone(member: Member, position: number, error: Result): void {
    const { now, jitter } = this.#options;
    this.counters.error++;
    member.lastError = describe(error);
    const tries = member.tries[position]!;
    member.tries[position] = Math.min(tries + 1, 255);
    const due = now() + Math.ceil(Math.min(600, 4 * 2 ** tries) * (0.5 + jitter()));
    member.due[position] = due;
    member.retryAt = Math.min(member.retryAt, due);
  }

  /** When a confirmation of this second is to be renewed: early enough to be gathered with others for one interval. */
  renewal(confirmed: number): number {
    const { jitter, interval } = this.#options;
    return confirmed + RENEW_FROM + Math.floor(jitter() * (RENEW_TO - RENEW_FROM - interval));
  }
}

/** An error that condemns no signature. */
export function isOtherError(result: Result): boolean {
  return result.code !== 0 && result.code !== BAD_TS && result.code !== BAD_SIG;
}

/** An answer in words, for the log. */
export function describe(result: Result): string {
  return `error ${result.code}: ${result.error ?? ''}`.slice(0, 200);
}
