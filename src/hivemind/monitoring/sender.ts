import type { Clock, Timer } from '../../clock.ts';
import { SLICE } from '../slice.ts';
import { RecentRequests } from './recent-requests.ts';
import { Answers, type Request, RequestBuilder, readReply } from './request.ts';
import type { ScheduleOptions } from './schedule.ts';
import { MAX_BODY, type SwarmMember } from './swarm-member.ts';
import type { Accounts, Defer, Swarms } from './swarms.ts';

export interface SenderOptions extends ScheduleOptions {
  readonly clock: Clock;
  readonly accounts: Accounts;
  readonly swarms: Swarms;
  readonly defer: Defer;
  /** See {@link Sparing.spares}. */
  readonly spares: (member: SwarmMember, id: number) => boolean;
}

/**
 * The most bytes of requests in flight to all servers together before no more bulk requests are sent. A body stays in
 * memory until it is sent, and 2,000 servers times 5 MB would be more than most machines have.
 */
const MAX_BYTES_IN_FLIGHT = 64 * 1024 * 1024;
/**
 * Urgent accounts are gathered for this long (ms), and then sent in small requests (bytes), a few of which may be in
 * flight to a server.
 */
const GATHER = 25;
const URGENT_BODY = 64 * 1024;
const MAX_URGENT_IN_FLIGHT = 8;
/** The most urgent accounts that wait for one server; further ones go into its bulk requests. */
const MAX_URGENT = 2000;
/** After how many accounts added, bytes added or accounts looked at the time is checked. */
const ADDS = 32;
const ADDED_BYTES = 256 * 1024;
const STEPS = 32_768;

/**
 * Asks storage servers for the accounts that are due. Each has one bulk request in flight, for everything after a
 * handshake and for renewals: the servers take turns, and a walk over the accounts of the swarm collects what is due,
 * in slices. Urgent accounts (a new or changed subscription, the next signature after a refused one) go in small
 * requests of their own: a server may take seconds to verify 5 MB, and a phone that has just subscribed should not wait
 * for that.
 */
export class Sender {
  readonly #options: SenderOptions;
  readonly #answers: Answers;
  readonly #bulk: RequestBuilder;
  readonly #small: RequestBuilder;
  readonly #recent = new RecentRequests();
  /**
   * The members waiting for their turn to be sent a bulk request, in order, and those whose turn it is: of one swarm,
   * since what was made for one can often be sent to the others.
   */
  readonly #ready = new Set<SwarmMember>();
  #turn: SwarmMember[] = [];
  /** The member whose bulk request is being built, and its epoch when that began. */
  #job: { member: SwarmMember; epoch: number } | undefined;
  #working = false;
  /** Ids of urgent accounts, by member. */
  readonly #urgent = new Map<SwarmMember, number[]>();
  #timer: Timer | undefined;
  /** Bytes of all requests that wait for an answer. */
  #bytesInFlight = 0;
  #stopped = false;
  readonly #counters = {
    /** Requests by outcome; `rejected`: an error for each of several accounts. */
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

  /** Something is due at this member: it is sent when its turn comes. */
  wake(member: SwarmMember): void {
    member.schedule.walk.want();
    this.enqueue(member);
  }

  /** Something may be due at this member: gives it its turn, unless it cannot be sent anything now. */
  enqueue(member: SwarmMember): void {
    if (!member.isUp || member.bulkInFlight || this.#stopped) return;
    if (member.isResting) return; // the tick will come back to it
    this.#ready.add(member);
    this.#work();
  }

  /** Asks a member for an account at once. */
  hurry(member: SwarmMember, id: number): void {
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

  /** Other signatures are to be used for an account from now on, or something else is asked for it. */
  changed(id: number): void {
    const swarm = this.#options.swarms.swarmOf(id);
    if (!swarm) return;
    this.#recent.drop(swarm);
    if (this.#job?.member.swarm === swarm) this.#bulk.dropModels();
  }

  /** The member's connection or swarm has changed or gone: drops what it was to be sent. */
  drop(member: SwarmMember): void {
    this.#urgent.delete(member);
    this.#ready.delete(member);
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
    this.#urgent.clear();
    this.#ready.clear();
    this.#recent.clear();
  }

  #flushAll(): void {
    this.#timer = undefined;
    const deadline = this.#options.clock.monotonic() + SLICE;
    const sent = new RecentRequests();
    for (const member of this.#urgent.keys()) this.#flush(member, deadline, sent);
  }

  /**
   * Sends a member's urgent accounts, as many as may be in flight, until `deadline` (monotonic ms); the rest later.
   * @param sent the urgent requests that were sent in this turn
   */
  #flush(member: SwarmMember, deadline: number, sent = new RecentRequests()): void {
    const { clock, swarms } = this.#options;
    let waiting = this.#urgent.get(member);
    while (waiting && waiting.length > 0 && member.urgentInFlight < MAX_URGENT_IN_FLIGHT) {
      if (clock.monotonic() >= deadline) {
        this.#timer ??= clock.setTimeout(() => this.#flushAll(), 0);
        return;
      }
      this.#small.begin(URGENT_BODY, sent.of(member.swarm!));
      let taken = 0;
      for (const id of waiting) {
        if (swarms.swarmOf(id) === member.swarm) {
          const position = swarms.positionOf(id);
          // If it is no longer due at once, a bulk request has taken it in the meantime.
          if (member.schedule.isAtOnce(position) && !this.#put(this.#small, member, position, false)) break;
        }
        taken++;
      }
      if (this.#small.count > 0) this.#send(member, this.#small, true, sent);
      // Too large for a small request: a bulk request can hold it.
      if (taken === 0) this.wake(member);
      waiting = waiting.slice(Math.max(taken, 1));
      this.#urgent.set(member, waiting);
    }
    if (waiting?.length === 0) this.#urgent.delete(member);
  }

  /** Starts building bulk requests in slices, unless that is going on. */
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

  #nextJob(): { member: SwarmMember; epoch: number } | undefined {
    while (this.#ready.size > 0 && this.#bytesInFlight < MAX_BYTES_IN_FLIGHT) {
      const member = this.#nextMember();
      if (!this.#ready.delete(member)) continue;
      if (!member.isUp || !member.swarm || member.bulkInFlight) continue;
      const recent = this.#recent.of(member.swarm);
      this.#bulk.begin(member.limit, recent);
      // Where it can catch up with the others, so that from then on all are sent the same requests.
      const start = recent[0]?.ids[0];
      const { now, swarms } = this.#options;
      const isThere = start !== undefined && swarms.swarmOf(start) === member.swarm;
      member.schedule.walk.begin(now(), isThere ? swarms.positionOf(start) : 0);
      return { member, epoch: member.epoch };
    }
    return undefined;
  }

  /** The next member of the turn, or of a new one. */
  #nextMember(): SwarmMember {
    const next = this.#turn.pop();
    if (next) return next;
    const [first] = this.#ready as Iterable<SwarmMember>;
    this.#turn = first?.swarm?.members.filter((other) => other !== first && this.#ready.has(other)) ?? [];
    return first!;
  }

  /** Goes on building a member's bulk request. @returns whether that is over: it was sent, or there is none to send */
  #build(member: SwarmMember, epoch: number, deadline: number): boolean {
    const { schedule } = member;
    if (member.epoch !== epoch || !member.isUp) {
      // There has been a disconnect, handshake or move since: what was built so far is not sent.
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
          this.#send(member, this.#bulk, false, this.#recent);
          return true;
        }
        schedule.walk.pass();
      }
      if (this.#options.clock.monotonic() >= deadline) return false;
    }
  }

  /** The walk has visited every account. */
  #endWalk(member: SwarmMember): void {
    const { now, interval, jitter } = this.#options;
    const { schedule } = member;
    schedule.walk.end(now() + Math.ceil(interval * (0.75 + jitter() / 4)));
    if (this.#bulk.count > 0) this.#send(member, this.#bulk, false, this.#recent);
    else {
      schedule.measure();
      member.idle();
    }
    if (schedule.walk.hasWork) this.enqueue(member);
  }

  /**
   * Adds the account at `position` to a request, unless it is spared.
   * @param isLast whether an account too large for a request of its own is given up, rather than left to a larger one
   * @returns false if the account has to go into another request
   */
  #put(builder: RequestBuilder, member: SwarmMember, position: number, isLast: boolean): boolean {
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

  /** @param recent gets the request, if others should copy from it */
  #send(member: SwarmMember, builder: RequestBuilder, isUrgent: boolean, recent: RecentRequests): void {
    const { clock, now } = this.#options;
    const request = builder.finish();
    if (request.isModel) recent.add(member.swarm!, request);
    const bytes = request.body.length;
    const sentAt = now();
    this.#counters.sentBytes += bytes;
    this.#bytesInFlight += bytes;
    if (isUrgent) this.#counters.sentUrgent++;
    else this.#counters.sent++;
    member.request(request.body, isUrgent, (reply, failure, isLate) => {
      this.#bytesInFlight -= bytes;
      if (this.#bytesInFlight === 0) this.#recent.clear();
      if (this.#stopped) return;
      const outcome = isLate ? 'late' : this.#settle(member, request, sentAt, reply, failure, isUrgent);
      this.#counters.requests[outcome]++;
      this.#flush(member, clock.monotonic() + SLICE);
      if (member.schedule.walk.hasWork) this.enqueue(member);
      // Other members may have waited for MAX_BYTES_IN_FLIGHT.
      this.#work();
    });
  }

  /** Handles the reply or the failure of a request. @returns its outcome */
  #settle(
    member: SwarmMember,
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
      this.#requeue(member, request);
      member.failed(read.reason, request.body.length, isUrgent, read.outcome === 'rejected');
      return read.outcome;
    }
    this.#answers.apply(member, request, sentAt, read);
    member.answered(isUrgent);
    if (!isUrgent && !member.schedule.walk.isGoing) member.schedule.measure();
    return 'answered';
  }

  /** Makes the accounts of a failed request due again. They and whatever is urgent go into the next bulk request. */
  #requeue(member: SwarmMember, { ids }: Request): void {
    const { swarms } = this.#options;
    for (const id of ids) if (swarms.swarmOf(id) === member.swarm) member.schedule.failed(swarms.positionOf(id));
    this.#urgent.delete(member);
  }
}
