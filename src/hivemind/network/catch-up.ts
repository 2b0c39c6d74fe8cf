import type { Clock } from '../../clock.ts';
import { BatchBuilder } from './batch.ts';
import { IN_FLIGHT, type Member } from './member.ts';
import { MAX_BODY, type Requests } from './requests.ts';
import { type Accounts, type Defer, MONITOR_LIFETIME } from './swarms.ts';

export interface CatchUpOptions {
  readonly clock: Clock;
  readonly accounts: Accounts;
  readonly requests: Requests;
  /** Seconds on the monitor's clock. */
  readonly now: () => number;
  /** Uniform in [0, 1). */
  readonly jitter: () => number;
  readonly defer: Defer;
  /** How long due renewals may be gathered into one request, in seconds. */
  readonly interval: number;
  /** Remembers that a member has something to ask, and lets it have another turn. */
  readonly wake: (member: Member) => void;
}

/**
 * Bytes of requests that wait for answers, over all servers, beyond which no bulk request is sent. A body stays in memory until
 * it is sent, and 2,000 servers times 5 MB would be more than any machine has.
 */
const MAX_BYTES_IN_FLIGHT = 64 * 1024 * 1024;
/** How long (ms) work holds the event loop, and how much is done between two glances at the clock. */
const SLICE = 8;
const ADDS = 32;
const ADDED_BYTES = 256 * 1024;
const STEPS = 32_768;

/**
 * Bulk requests: everything after a handshake, and renewals. The members take turns, one request at a time, which is built in
 * slices: a walk over the account list of the swarm takes along what is due.
 */
export class CatchUp {
  readonly #options: CatchUpOptions;
  readonly #builder: BatchBuilder;
  /** Members with something to ask, first come first served. */
  readonly #ready = new Set<Member>();
  /** The member whose request is being built, and its epoch when that began. */
  #job: { member: Member; epoch: number } | undefined;
  #working = false;
  #stopped = false;

  constructor(options: CatchUpOptions) {
    this.#options = options;
    this.#builder = new BatchBuilder(options.accounts, MAX_BODY);
  }

  /** There is or may be something due: the member gets its turn, if nothing speaks against it. */
  enqueue(member: Member): void {
    if (!member.link || member.bulkInFlight || this.#stopped) return;
    if (member.notBefore > this.#options.clock.monotonic()) return; // the tick will come back to it
    this.#ready.add(member);
    this.work();
  }

  /** Nothing can be sent to this one any more. */
  drop(member: Member): void {
    this.#ready.delete(member);
  }

  /** Goes on with what is waiting, in slices. */
  work(): void {
    if (this.#working || this.#ready.size === 0) return;
    this.#working = true;
    this.#options.defer(() => this.#slice());
  }

  stop(): void {
    this.#stopped = true;
    this.#ready.clear();
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
      if (this.#options.requests.bytesInFlight >= MAX_BYTES_IN_FLIGHT) return undefined;
      this.#ready.delete(member);
      if (!member.link || !member.swarm || member.bulkInFlight) continue;
      this.#builder.begin(member.limit);
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
    const { clock, requests } = this.#options;
    if (member.epoch !== epoch || !member.link) {
      // Lost, moved or connected anew in the meantime: what was written so far is not sent.
      member.cycling = false;
      if (member.link) this.#options.wake(member);
      return true;
    }
    for (;;) {
      const enough = this.#builder.size + ADDED_BYTES;
      for (let adds = 0; adds < ADDS && this.#builder.size < enough; ) {
        const position = nextDue(member, STEPS);
        if (member.scanned >= member.accounts) {
          this.#endCycle(member);
          return true;
        }
        if (position === undefined) break;
        if (!requests.put(this.#builder, member, position, true)) {
          requests.send(member, this.#builder, false);
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
    const { now, interval, jitter, requests } = this.#options;
    member.cycling = false;
    member.nextScan = now() + Math.ceil(interval * (0.75 + jitter() / 4));
    const again = member.again;
    member.again = false;
    if (this.#builder.count > 0) requests.send(member, this.#builder, false);
    else {
      member.measure(now() - MONITOR_LIFETIME);
      // With nothing left to ask, its silence is no news any more.
      if (member.urgentInFlight === 0) member.failures = 0;
    }
    if (again) this.#options.wake(member);
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
