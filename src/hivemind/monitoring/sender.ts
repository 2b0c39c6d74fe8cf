import type { Clock, Timer } from '../../clock.ts';
import { MAX_BODY, type Member } from './member.ts';
import { Answers, type Request, RequestBuilder, readReply } from './request.ts';
import type { ScheduleOptions } from './schedule.ts';
import type { Accounts, Defer, Swarms } from './swarms.ts';

export interface SenderOptions extends ScheduleOptions {
  readonly clock: Clock;
  readonly accounts: Accounts;
  readonly swarms: Swarms;
  readonly defer: Defer;
  /** Whether that storage server need not be asked for that account: see {@link Sparing.spares}. */
  readonly spares: (member: Member, id: number) => boolean;
}

/**
 * Bytes of requests that wait for answers, over all servers, beyond which no bulk request is sent. A body stays in
 * memory until it is sent, and 2,000 servers times 5 MB would be more than any machine has.
 */
const MAX_BYTES_IN_FLIGHT = 64 * 1024 * 1024;
/**
 * What is urgent is gathered for so long (ms) and then sent in small requests, several of which may be under way to a
 * server.
 */
const GATHER = 25;
const URGENT_BODY = 64 * 1024;
const MAX_URGENT_IN_FLIGHT = 8;
/** More than this for one server does not go into small requests. */
const MAX_URGENT = 2000;
/** How long (ms) work holds the event loop, and how much is done between two glances at the clock. */
const SLICE = 8;
const ADDS = 32;
const ADDED_BYTES = 256 * 1024;
const STEPS = 32_768;

/**
 * Sends the storage servers what is due. One bulk request is in flight for each, after a handshake and for renewals:
 * the servers take turns, and a walk over the accounts of the swarm takes along what is due, in slices. What is urgent
 * (a new or changed subscription, the next signature after a refused one) goes beside it in small requests: a server
 * may take seconds to verify 5 MB, and a phone that has just subscribed should not wait for that.
 */
export class Sender {
  readonly #options: SenderOptions;
  readonly #answers: Answers;
  readonly #bulk: RequestBuilder;
  readonly #small: RequestBuilder;
  /** Whose turn it is to be sent a bulk request, first come first served. */
  readonly #ready = new Set<Member>();
  /** The member whose bulk request is being built, and its epoch when that began. */
  #job: { member: Member; epoch: number } | undefined;
  #working = false;
  /** Account ids that should go out beside the bulk requests. */
  readonly #urgent = new Map<Member, number[]>();
  #timer: Timer | undefined;
  /** Bytes of all requests that wait for an answer. */
  #bytesInFlight = 0;
  #stopped = false;
  readonly #counters = {
    /** Requests by what came of them; `rejected`: of several accounts, with an error for all. */
    requests: { answered: 0, rejected: 0, unreadable: 0, timeout: 0, failed: 0, late: 0 },
    /** Accounts skipped because no signature is left, or because they do not fit into any request. */
    passedOver: { nothing_left: 0, too_large: 0 },
    sent: 0,
    sentUrgent: 0,
    sentBytes: 0,
  };

  constructor(options: SenderOptions) {
    this.#options = options;
    this.#answers = new Answers(options.swarms, (member, id) => this.hurry(member, id));
    this.#bulk = new RequestBuilder(options.accounts, MAX_BODY);
    this.#small = new RequestBuilder(options.accounts, URGENT_BODY);
  }

  get counters() {
    return { ...this.#counters, answers: this.#answers.counters };
  }

  /** There is something due: it is sent as soon as the order of work allows. */
  wake(member: Member): void {
    member.schedule.walk.want();
    this.enqueue(member);
  }

  /** There is or may be something due: the member gets its turn, if nothing speaks against it. */
  enqueue(member: Member): void {
    if (!member.isUp || member.bulkInFlight || this.#stopped) return;
    if (member.isResting) return; // the tick will come back to it
    this.#ready.add(member);
    this.#work();
  }

  /** This account should be asked for at once. */
  hurry(member: Member, id: number): void {
    if (!member.isUp || this.#stopped) return;
    const waiting = this.#urgent.get(member);
    if (member.isResting || member.failures > 0 || (waiting && waiting.length >= MAX_URGENT)) {
      this.wake(member);
      return;
    }
    if (waiting) waiting.push(id);
    else this.#urgent.set(member, [id]);
    this.#timer ??= this.#options.clock.setTimeout(() => this.#flushAll(), GATHER);
  }

  /** Its connection or its swarm is another one, or none: what was to be sent to this one is not. */
  drop(member: Member): void {
    this.#urgent.delete(member);
    this.#ready.delete(member);
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
    this.#urgent.clear();
    this.#ready.clear();
  }

  #flushAll(): void {
    this.#timer = undefined;
    const deadline = this.#options.clock.monotonic() + SLICE;
    for (const member of this.#urgent.keys()) this.#flush(member, deadline);
  }

  /** Sends what is urgent, as far as requests are free and it does not take too long; the rest goes soon after. */
  #flush(member: Member, deadline: number): void {
    const { clock, swarms } = this.#options;
    let waiting = this.#urgent.get(member);
    while (waiting && waiting.length > 0 && member.urgentInFlight < MAX_URGENT_IN_FLIGHT) {
      if (clock.monotonic() >= deadline) {
        this.#timer ??= clock.setTimeout(() => this.#flushAll(), 0);
        return;
      }
      this.#small.begin(URGENT_BODY);
      let taken = 0;
      for (const id of waiting) {
        if (swarms.swarmOf(id) === member.swarm) {
          const position = swarms.positionOf(id);
          // Anything else means that a bulk request took it along in the meantime.
          if (member.schedule.isAtOnce(position) && !this.#put(this.#small, member, position, false)) break;
        }
        taken++;
      }
      if (this.#small.count > 0) this.#send(member, this.#small, true);
      // Too large for a small body: the bulk request can hold it.
      if (taken === 0) this.wake(member);
      waiting = waiting.slice(Math.max(taken, 1));
      this.#urgent.set(member, waiting);
    }
    if (waiting?.length === 0) this.#urgent.delete(member);
  }

  /** Goes on with the bulk requests, in slices. */
  #work(): void {
    if (this.#working || this.#ready.size === 0) return;
    this.#working = true;
    this.#options.defer(() => this.#slice());
  }

  #slice(): void {
    const { clock, defer } = this.#options;
    const deadline = clock.monotonic() + SLICE;
    while (!this.#stopped) {
      this.#job ??= this.#nextJob();
      if (!this.#job) break;
      if (this.#build(this.#job.member, this.#job.epoch, deadline)) this.#job = undefined;
      if (clock.monotonic() >= deadline) {
        defer(() => this.#slice());
        return;
      }
    }
    this.#working = false;
  }

  #nextJob(): { member: Member; epoch: number } | undefined {
    for (const member of this.#ready) {
      if (this.#bytesInFlight >= MAX_BYTES_IN_FLIGHT) return undefined;
      this.#ready.delete(member);
      if (!member.isUp || !member.swarm || member.bulkInFlight) continue;
      this.#bulk.begin(member.limit);
      member.schedule.walk.begin(this.#options.now());
      return { member, epoch: member.epoch };
    }
    return undefined;
  }

  /** Goes on looking for what is due. True if the request is sent, or there is none to send. */
  #build(member: Member, epoch: number, deadline: number): boolean {
    const { schedule } = member;
    if (member.epoch !== epoch || !member.isUp) {
      // Lost, moved or connected anew in the meantime: what was written so far is not sent.
      schedule.walk.abandon();
      if (member.isUp) this.wake(member);
      return true;
    }
    for (;;) {
      const enough = this.#bulk.size + ADDED_BYTES;
      for (let adds = 0; adds < ADDS && this.#bulk.size < enough; adds++) {
        const position = schedule.next(STEPS);
        if (schedule.walk.isOver) {
          this.#endWalk(member);
          return true;
        }
        if (position === undefined) break;
        if (!this.#put(this.#bulk, member, position, true)) {
          this.#send(member, this.#bulk, false);
          return true;
        }
        schedule.walk.pass();
      }
      if (this.#options.clock.monotonic() >= deadline) return false;
    }
  }

  /** Every account was looked at. */
  #endWalk(member: Member): void {
    const { now, interval, jitter } = this.#options;
    const { schedule } = member;
    schedule.walk.end(now() + Math.ceil(interval * (0.75 + jitter() / 4)));
    if (this.#bulk.count > 0) this.#send(member, this.#bulk, false);
    else {
      schedule.measure();
      member.idle();
    }
    if (schedule.walk.hasWork) this.enqueue(member);
  }

  /**
   * Puts the account at `position` into a request, or spares the server that.
   * @param isLast no larger request will be tried: an account that does not fit is skipped
   * @returns false if it is full
   */
  #put(builder: RequestBuilder, member: Member, position: number, isLast: boolean): boolean {
    const { swarms, spares } = this.#options;
    const { schedule, swarm } = member;
    const id = swarm!.accounts[position]!;
    if (spares(member, id)) {
      schedule.spared(position);
      return true;
    }
    const added = builder.add(id, swarms.versionOf(id), schedule.barredNow(position, id));
    if (added === 'full' || (added === 'too-large' && !isLast)) return false;
    if (added === 'added') {
      schedule.asked(position);
      return true;
    }
    if (added === 'too-large') this.#counters.passedOver.too_large++;
    else this.#counters.passedOver.nothing_left++;
    schedule.exhausted(position);
    return true;
  }

  #send(member: Member, builder: RequestBuilder, isUrgent: boolean): void {
    const { clock, now } = this.#options;
    const request = builder.finish();
    const bytes = request.body.length;
    const sentAt = now();
    this.#counters.sentBytes += bytes;
    this.#bytesInFlight += bytes;
    if (isUrgent) this.#counters.sentUrgent++;
    else this.#counters.sent++;
    member.request(request.body, isUrgent, (reply, failure, isLate) => {
      this.#bytesInFlight -= bytes;
      if (this.#stopped) return;
      const outcome = isLate ? 'late' : this.#settle(member, request, sentAt, reply, failure, isUrgent);
      this.#counters.requests[outcome]++;
      this.#flush(member, clock.monotonic() + SLICE);
      if (member.schedule.walk.hasWork) this.enqueue(member);
      // Others may have waited for the bytes that are free now.
      this.#work();
    });
  }

  /** What came of a request as a whole. */
  #settle(
    member: Member,
    request: Request,
    sentAt: number,
    reply: Buffer | undefined,
    failure: string | undefined,
    isUrgent: boolean,
  ): 'answered' | 'rejected' | 'unreadable' | 'timeout' | 'failed' {
    const read = reply
      ? readReply(request, reply)
      : { outcome: failure === 'TIMEOUT' ? ('timeout' as const) : ('failed' as const), reason: failure ?? 'no reply' };
    if ('outcome' in read) {
      this.#repeat(member, request);
      member.failed(read.reason, request.body.length, isUrgent, read.outcome === 'rejected');
      return read.outcome;
    }
    this.#answers.apply(member, request, sentAt, read);
    member.answered(isUrgent);
    if (!isUrgent && !member.schedule.walk.isGoing) member.schedule.measure();
    return 'answered';
  }

  /**
   * The accounts of a request that came to nothing are due again, in a bulk request, and so is what was urgent beside
   * it.
   */
  #repeat(member: Member, { ids }: Request): void {
    const { swarms } = this.#options;
    for (const id of ids) if (swarms.swarmOf(id) === member.swarm) member.schedule.failed(swarms.positionOf(id));
    this.#urgent.delete(member);
  }
}
