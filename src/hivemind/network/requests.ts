import type { Clock } from '../../clock.ts';
import { isElsewhere, parseMonitorReply } from '../../session/monitor.ts';
import { type Answers, describe, isOtherError, type Results } from './answers.ts';
import type { Batch, BatchBuilder } from './batch.ts';
import { AT_ONCE, IN_FLIGHT, type Member, State } from './member.ts';
import { MONITOR_LIFETIME, type Swarms } from './swarms.ts';

export interface RequestsOptions {
  readonly clock: Clock;
  readonly swarms: Swarms;
  /** Seconds on the monitor's clock. */
  readonly now: () => number;
  /** Uniform in [0, 1). */
  readonly jitter: () => number;
  readonly answers: Answers;
  /** A request of this member has come to its end, whatever that was. */
  readonly settled: (member: Member) => void;
}

/** The largest and smallest body of a bulk request, in bytes; one account fits in any case. */
export const MAX_BODY = 5_000_000;
const MIN_BODY = 1024;
/** A reply that begins with this is of the whole request, even if that was a list. */
const DICT = 0x64; // d

/** `monitor.messages`: what goes into a request, and what becomes of it as a whole. */
export class Requests {
  readonly #options: RequestsOptions;
  #stopped = false;
  /** Bytes of all requests that wait for an answer. */
  bytesInFlight = 0;
  readonly counters = {
    /** Requests by what came of them; `rejected`: of several accounts, with an error for all. */
    requests: { answered: 0, rejected: 0, unreadable: 0, timeout: 0, failed: 0, late: 0 },
    /** Accounts passed over because no signature is left, or because they do not fit into any request. */
    passedOver: { nothing_left: 0, too_large: 0 },
    sent: 0,
    sentUrgent: 0,
    sentBytes: 0,
  };

  constructor(options: RequestsOptions) {
    this.#options = options;
  }

  /**
   * Puts the account at `position` into a request.
   * @param isLast no larger request will be tried: an account that does not fit is passed over
   * @returns false if it is full
   */
  put(builder: BatchBuilder, member: Member, position: number, isLast: boolean): boolean {
    const { swarms, now } = this.#options;
    const id = member.swarm!.accounts[position]!;
    // A regular renewal is the time to give refused signatures another chance: the fault may have been the server's.
    if (member.due[position] !== AT_ONCE) member.refused.delete(id);
    const added = builder.add(id, swarms.versionOf(id), member.refused.get(id));
    if (added === 'full' || (added === 'too-large' && !isLast)) return false;
    if (added === 'added') {
      member.due[position] = IN_FLIGHT;
      if (member.state[position] === State.never) member.setState(position, State.asked);
      return true;
    }
    if (added === 'too-large') this.counters.passedOver.too_large++;
    else this.counters.passedOver.nothing_left++;
    if (member.state[position]! < State.refused) member.setState(position, State.refused);
    member.due[position] = this.#options.answers.renewal(now());
    return true;
  }

  /** Sends what the builder holds. */
  send(member: Member, builder: BatchBuilder, urgent: boolean): void {
    const { now } = this.#options;
    const batch = builder.finish();
    const { epoch } = member;
    const sentAt = now();
    this.counters.sentBytes += batch.body.length;
    this.bytesInFlight += batch.body.length;
    if (urgent) {
      this.counters.sentUrgent++;
      member.urgentInFlight++;
    } else {
      this.counters.sent++;
      member.bulkInFlight = true;
    }
    member.link!.request(batch.body, (reply, failure) => {
      this.bytesInFlight -= batch.body.length;
      if (this.#stopped) return;
      if (member.epoch !== epoch) this.counters.requests.late++;
      else {
        if (urgent) member.urgentInFlight--;
        else member.bulkInFlight = false;
        this.#answered(member, batch, sentAt, reply, failure, urgent);
      }
      this.#options.settled(member);
    });
  }

  /** Takes no notice of answers any more. */
  stop(): void {
    this.#stopped = true;
  }

  #answered(
    member: Member,
    batch: Batch,
    sentAt: number,
    reply: Buffer | undefined,
    failure: string | undefined,
    urgent: boolean,
  ): void {
    if (!reply) {
      if (failure === 'TIMEOUT') this.counters.requests.timeout++;
      else this.counters.requests.failed++;
      this.#failed(member, batch, failure ?? 'no reply', urgent);
      return;
    }
    let results: Results;
    try {
      results = parseMonitorReply(reply, batch.refs.length);
    } catch (error) {
      this.counters.requests.unreadable++;
      this.#failed(member, batch, `unreadable reply: ${error instanceof Error ? error.message : error}`, urgent);
      return;
    }
    const isWhole = reply[0] === DICT;
    if (batch.ids.length > 1 && results.every((result) => isOtherError(result) && (isWhole || !isElsewhere(result)))) {
      // One account that the server cannot read spoils the answer for all of its request: narrow it down.
      this.counters.requests.rejected++;
      this.#failed(member, batch, describe(results[0]!), urgent);
      member.limit = Math.ceil(batch.body.length / 2);
      return;
    }
    this.counters.requests.answered++;
    this.#options.answers.apply(member, batch, sentAt, results);
    member.failures = 0;
    member.notBefore = 0;
    if (urgent) return;
    member.limit = Math.min(member.limit * 4, MAX_BODY);
    if (!member.cycling) member.measure(this.#options.now() - MONITOR_LIFETIME);
  }

  /** The whole request came to nothing: it is repeated, smaller and after a while. */
  #failed(member: Member, batch: Batch, reason: string, urgent: boolean): void {
    const { swarms, clock, jitter } = this.#options;
    member.lastError = reason;
    member.limit = Math.max(MIN_BODY, Math.ceil((urgent ? member.limit : batch.body.length) / 4));
    // Requests that were under way together fail together: that is one failure.
    if (clock.monotonic() >= member.notBefore) {
      member.failures++;
      member.notBefore = clock.monotonic() + Math.min(60, 2 ** (member.failures - 1)) * 1000 * (0.5 + jitter());
    }
    for (const id of batch.ids) {
      if (swarms.swarmOf(id) !== member.swarm) continue;
      const position = swarms.positionOf(id);
      if (member.due[position] === IN_FLIGHT) member.due[position] = AT_ONCE;
    }
    member.urgent = [];
    member.cycling = false;
    member.wanted = true;
  }
}
