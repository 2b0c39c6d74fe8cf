import type { Clock, Timer } from '../clock.ts';
import { parseMonitorReply } from '../session/monitor.ts';
import { Answers, describe, isOtherError, type Results } from './answers.ts';
import { type Batch, BatchBuilder } from './batch.ts';
import { Measuring } from './measuring.ts';
import { AT_ONCE, IN_FLIGHT, type Link, type Member, State } from './member.ts';
import { type Accounts, type Defer, MONITOR_LIFETIME, type Swarms } from './swarms.ts';

export interface MonitorOptions {
  readonly clock: Clock;
  readonly accounts: Accounts;
  readonly swarms: Swarms;
  /** Seconds on the monitor's clock, from 1. */
  readonly now: () => number;
  /** Uniform in [0, 1). */
  readonly jitter: () => number;
  readonly defer: Defer;
  /** How long due renewals may be gathered into one request, in seconds. */
  readonly interval: number;
}

/** Largest body of a request, in bytes, and the first one after a handshake: it grows while the server keeps up. */
const MAX_BODY = 5_000_000;
const FIRST_BODY = 256 * 1024;
const MIN_BODY = 1024;
/**
 * Bytes of bulk requests that wait for answers, over all servers. A body stays in memory until it is sent, and 2,000 servers times
 * 5 MB would be more than any machine has.
 */
const MAX_BYTES_IN_FLIGHT = 64 * 1024 * 1024;
/** New subscriptions are gathered this long (ms) and then sent in small requests, several of which may be under way. */
const GATHER = 25;
const URGENT_BODY = 64 * 1024;
const MAX_URGENT_IN_FLIGHT = 8;
const MAX_URGENT = 2000;
/** Handshakes that follow each other within this time (ms); so many of them are answered with everything at once. */
const FLAPPING = 60_000;
const FREE_FLAPS = 3;
/** How long (ms) work holds the event loop, and how much is done between two glances at the clock. */
const SLICE = 8;
const ADDS = 32;
const STEPS = 32_768;

/**
 * What each storage server was asked, when to ask it again, what it answered (spec/network.md, sections 3 and 5).
 *
 * One bulk request is in flight for each server: while it catches up and for renewals. What is urgent (a new or
 * changed subscription, the next signature after a refused one) goes beside it in small requests: a server may take seconds to
 * verify 5 MB, and a phone that has just subscribed should not wait for that.
 */
export class Monitor {
  readonly #options: MonitorOptions;
  readonly #bulk: BatchBuilder;
  readonly #small: BatchBuilder;
  readonly #answers: Answers;
  readonly #measuring: Measuring;
  readonly #members = new Set<Member>();
  /** Members with something to ask, first come first served. */
  readonly #ready = new Set<Member>();
  /** The member whose bulk request is being built, and its epoch when that began. */
  #job: { member: Member; epoch: number } | undefined;
  #working = false;
  readonly #hasty = new Set<Member>();
  #flush: Timer | undefined;
  readonly #ticker: Timer;
  #stopped = false;
  #bytesInFlight = 0;
  readonly counters = {
    /** Requests by what came of them; `rejected`: of several accounts, with an error for all. */
    requests: { answered: 0, rejected: 0, unreadable: 0, timeout: 0, failed: 0, late: 0 },
    /** Accounts passed over because no signature is left, or because they do not fit into any request. */
    passedOver: { nothing_left: 0, too_large: 0 },
    sent: 0,
    sentUrgent: 0,
    sentBytes: 0,
  };

  constructor(options: MonitorOptions) {
    this.#options = options;
    this.#answers = new Answers({ ...options, hurry: (member, id) => this.#hurry(member, id) });
    this.#measuring = new Measuring({ ...options, members: this.#members });
    this.#bulk = new BatchBuilder(options.accounts, MAX_BODY);
    this.#small = new BatchBuilder(options.accounts, URGENT_BODY);
    this.#ticker = options.clock.setInterval(() => this.#tick(), 1000);
  }

  /** What came of the questions for single accounts. */
  get answers(): Answers['counters'] {
    return this.#answers.counters;
  }

  get bytesInFlight(): number {
    return this.#bytesInFlight;
  }

  add(member: Member): void {
    this.#members.add(member);
  }

  remove(member: Member): void {
    this.#members.delete(member);
    this.#ready.delete(member);
    this.#hasty.delete(member);
    member.link = undefined;
  }

  /** A handshake with the server is complete: it knows nothing of us, so everything is asked at once. */
  up(member: Member, link: Link): void {
    const { clock, jitter } = this.#options;
    member.link = link;
    member.failures = 0;
    // A connection that breaks again and again must not make us send everything again and again.
    member.flaps = clock.monotonic() - member.upAt < FLAPPING ? member.flaps + 1 : 0;
    member.upAt = clock.monotonic();
    const wait = member.flaps > FREE_FLAPS ? Math.min(60, 2 ** (member.flaps - FREE_FLAPS)) * (0.5 + jitter()) : 0;
    member.notBefore = clock.monotonic() + wait * 1000;
    member.limit = FIRST_BODY;
    member.reset();
    this.wake(member);
  }

  /** The connection broke. Nothing is sent before the next handshake. */
  down(member: Member): void {
    member.link = undefined;
    member.urgent = [];
    this.#ready.delete(member);
    this.#hasty.delete(member);
  }

  /** There is something due: it is sent as soon as the order of work allows. */
  wake(member: Member): void {
    member.wanted = true;
    this.#enqueue(member);
  }

  /** An account is new or has changed: all members of its swarm hear of it within {@link GATHER} ms. */
  urgent(id: number): void {
    const swarm = this.#options.swarms.swarmOf(id);
    if (!swarm) return;
    for (const member of swarm.members) this.#hurry(member, id);
  }

  stop(): void {
    this.#stopped = true;
    this.#flush?.cancel();
    this.#ticker.cancel();
    this.#ready.clear();
    this.#hasty.clear();
  }

  #tick(): void {
    const now = this.#options.now();
    for (const member of this.#members) {
      if (member.nextScan <= now || member.retryAt <= now) member.wanted = true;
      if (member.cycling || member.wanted) this.#enqueue(member);
    }
    this.#measuring.some(now);
  }

  #enqueue(member: Member): void {
    if (!member.link || member.bulkInFlight || this.#stopped) return;
    if (member.notBefore > this.#options.clock.monotonic()) return; // the tick will come back to it
    this.#ready.add(member);
    this.#work();
  }

  // Urgent requests

  #hurry(member: Member, id: number): void {
    if (!member.link || this.#stopped) return;
    const resting = member.notBefore > this.#options.clock.monotonic();
    const patient = resting || member.failures > 0 || member.urgent.length >= MAX_URGENT;
    if (patient) {
      member.again = true;
      this.wake(member);
      return;
    }
    member.urgent.push(id);
    this.#hasty.add(member);
    this.#flush ??= this.#options.clock.setTimeout(() => {
      this.#flush = undefined;
      for (const m of this.#hasty) this.#sendUrgent(m);
    }, GATHER);
  }

  #sendUrgent(member: Member): void {
    const { swarms } = this.#options;
    while (member.urgent.length > 0 && member.urgentInFlight < MAX_URGENT_IN_FLIGHT) {
      this.#small.begin(URGENT_BODY);
      let taken = 0;
      for (const id of member.urgent) {
        if (swarms.swarmOf(id) === member.swarm) {
          const position = swarms.positionOf(id);
          // Anything but AT_ONCE means that a bulk request took it along in the meantime.
          if (member.due[position] === AT_ONCE && !this.#put(this.#small, member, position)) break;
        }
        taken++;
      }
      member.urgent = member.urgent.slice(taken);
      if (this.#small.count > 0) this.#send(member, this.#small, true);
      if (taken === 0) {
        // Too large for a small body: the bulk request can hold it.
        member.urgent.shift();
        this.wake(member);
      }
    }
    if (member.urgent.length === 0) this.#hasty.delete(member);
  }

  // Bulk requests

  #work(): void {
    if (this.#working) return;
    this.#working = true;
    this.#options.defer(() => this.#slice());
  }

  #slice(): void {
    const { clock } = this.#options;
    const deadline = clock.monotonic() + SLICE;
    while (!this.#stopped) {
      this.#job ??= this.#nextJob();
      if (!this.#job) break;
      if (this.#build(this.#job.member, this.#job.epoch, deadline)) this.#job = undefined;
      if (clock.monotonic() >= deadline) {
        this.#options.defer(() => this.#slice());
        return;
      }
    }
    this.#working = false;
  }

  #nextJob(): { member: Member; epoch: number } | undefined {
    for (const member of this.#ready) {
      if (this.#bytesInFlight >= MAX_BYTES_IN_FLIGHT) return undefined;
      this.#ready.delete(member);
      if (!member.link || !member.swarm || member.bulkInFlight) continue;
      this.#bulk.begin(member.limit);
      if (!member.cycling) {
        member.cycling = true;
        member.scanned = 0;
        member.horizon = this.#options.now();
        member.again = false;
        member.wanted = false;
        if (member.retryAt <= member.horizon) member.retryAt = IN_FLIGHT;
      }
      return { member, epoch: member.epoch };
    }
    return undefined;
  }

  /** Goes on looking for what is due. True if the request is sent, or there is none to send. */
  #build(member: Member, epoch: number, deadline: number): boolean {
    const { clock } = this.#options;
    if (member.epoch !== epoch || !member.link) {
      // Lost, moved or connected anew in the meantime: what was written so far is not sent.
      member.cycling = false;
      if (member.link) this.wake(member);
      return true;
    }
    for (;;) {
      for (let adds = 0; adds < ADDS; ) {
        const position = nextDue(member, STEPS);
        if (member.scanned >= member.accounts) {
          this.#endCycle(member);
          return true;
        }
        if (position === undefined) break;
        if (!this.#put(this.#bulk, member, position)) {
          this.#send(member, this.#bulk, false);
          return true;
        }
        member.scanned++;
        member.cursor++;
        adds++;
      }
      if (clock.monotonic() >= deadline) return false;
    }
  }

  /** Every account was looked at. */
  #endCycle(member: Member): void {
    const { now, interval, jitter } = this.#options;
    member.cycling = false;
    member.nextScan = now() + Math.ceil(interval * (0.75 + jitter() / 4));
    const again = member.again;
    member.again = false;
    if (this.#bulk.count > 0) this.#send(member, this.#bulk, false);
    else {
      member.measure(now() - MONITOR_LIFETIME);
      // With nothing left to ask, its silence is no news any more.
      if (member.urgentInFlight === 0) member.failures = 0;
    }
    if (again) this.wake(member);
  }

  /** Puts the account at `position` into a request. False if that is full. */
  #put(builder: BatchBuilder, member: Member, position: number): boolean {
    const { swarms, now } = this.#options;
    const id = member.swarm!.accounts[position]!;
    // A regular renewal is the time to give refused signatures another chance: the fault may have been the server's.
    if (member.due[position] !== AT_ONCE) member.refused.delete(id);
    const added = builder.add(id, swarms.versionOf(id), member.refused.get(id));
    if (added === 'full' || (added === 'too-large' && builder === this.#small)) return false;
    if (added === 'added') {
      member.due[position] = IN_FLIGHT;
      if (member.state[position] === State.never) member.setState(position, State.asked);
      return true;
    }
    if (added === 'too-large') this.counters.passedOver.too_large++;
    else this.counters.passedOver.nothing_left++;
    if (member.state[position]! < State.refused) member.setState(position, State.refused);
    member.due[position] = this.#answers.renewal(now());
    return true;
  }

  #send(member: Member, builder: BatchBuilder, urgent: boolean): void {
    const { now } = this.#options;
    const batch = builder.finish();
    const { epoch } = member;
    const sentAt = now();
    this.counters.sentBytes += batch.body.length;
    this.#bytesInFlight += batch.body.length;
    if (urgent) {
      this.counters.sentUrgent++;
      member.urgentInFlight++;
    } else {
      this.counters.sent++;
      member.bulkInFlight = true;
    }
    member.link!.request(batch.body, (reply, failure) => {
      this.#bytesInFlight -= batch.body.length;
      if (this.#stopped) return;
      if (member.epoch !== epoch) this.counters.requests.late++;
      else {
        if (urgent) member.urgentInFlight--;
        else member.bulkInFlight = false;
        this.#answered(member, batch, sentAt, reply, failure, urgent);
        if (member.urgent.length > 0 && member.link) this.#sendUrgent(member);
        if (member.cycling || member.wanted) this.#enqueue(member);
      }
      if (this.#ready.size > 0) this.#work();
    });
  }

  // Answers

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
    if (batch.ids.length > 1 && results.every(isOtherError)) {
      // One account that the server cannot read spoils the answer for all of its request: narrow it down.
      this.counters.requests.rejected++;
      this.#failed(member, batch, describe(results[0]!), urgent);
      member.limit = Math.ceil(batch.body.length / 2);
      return;
    }
    this.counters.requests.answered++;
    this.#answers.apply(member, batch, sentAt, results);
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
    this.#hasty.delete(member);
    member.cycling = false;
    member.wanted = true;
  }
}

/** The next position with something due, looking at no more than `steps`; the walk of the member stands there then. */
function nextDue(member: Member, steps: number): number | undefined {
  const { due, horizon, accounts } = member;
  let { cursor, scanned } = member;
  const end = Math.min(scanned + steps, accounts);
  let found: number | undefined;
  for (; scanned < end; scanned++, cursor++) {
    if (cursor >= accounts) cursor = 0;
    if (due[cursor]! <= horizon) {
      found = cursor;
      break;
    }
  }
  member.cursor = cursor;
  member.scanned = scanned;
  return found;
}
