import type { Clock } from '../../clock.ts';
import { MONITOR_LIFETIME, Schedule, type ScheduleOptions } from './schedule.ts';

/** A swarm: its accounts in a dense list, and its storage servers. */
export interface Swarm {
  readonly id: bigint;
  readonly number: number;
  accounts: Uint32Array;
  count: number;
  readonly members: SwarmMember[];
}

/** A connection to a storage server. Hides the sockets, so that the rules can be tested without any. */
export interface Channel {
  /**
   * Sends one `monitor.messages` request.
   * @param done called exactly once, later: with the reply's first part, or with what failed, in a word
   */
  request(body: Buffer, done: (reply: Buffer | undefined, failure: string | undefined) => void): void;
  close(): void;
}

export interface SwarmMemberOptions extends ScheduleOptions {
  readonly clock: Clock;
  /** See {@link SwarmMember.rank}. */
  readonly rank: number;
  /** Called when the storage server disagrees with us about where accounts are. */
  readonly suspect: () => void;
}

/** The largest, first and smallest body of a bulk request, in bytes; one account fits in any case. */
export const MAX_BODY = 5_000_000;
const FIRST_BODY = 256 * 1024;
const MIN_BODY = 1024;
/** A handshake within this time (ms) of the last is a flap; this many in a row have us ask for everything at once. */
const FLAPPING = 60_000;
const FREE_FLAPS = 3;
/**
 * How long (seconds) we wait before asking again about accounts that a server says are elsewhere: at first, and at
 * most. After the last of these times without a dispute the wait is back to the first.
 */
const DISPUTE_FROM = 4;
const DISPUTE_TO = 300;
const DISPUTE_OVER = 600;
/** A server counts as silent after this many requests in a row without a good answer. */
const SILENT_AFTER = 3;

/**
 * One storage server as a member of its swarm: what to ask it when ({@link Schedule}), what is in flight, and how much
 * it can take. Request bodies grow while good answers come and shrink when they do not, and a server that does not
 * answer is left alone for a while.
 */
export class SwarmMember {
  readonly schedule: Schedule;
  /** If only some servers of a swarm are asked, low ranks are preferred. */
  readonly rank: number;
  readonly #options: SwarmMemberOptions;
  #swarm: Swarm | undefined;
  #swarmId = -1n;
  #formers: { id: bigint; until: number }[] = [];
  #channel: Channel | undefined;
  /** Raised by every handshake and change of swarm: replies to requests of an earlier epoch do not count. */
  #epoch = 0;
  #bulkInFlight = false;
  #urgentInFlight = 0;
  /** Requests in a row without a good answer, and until when (monotonic ms) it is left alone because of them. */
  #failures = 0;
  #restsUntil = 0;
  /** When the latest handshake was (monotonic ms), and how many flaps in a row there have been. */
  #upAt = Number.NEGATIVE_INFINITY;
  #flaps = 0;
  /** The largest size of the next bulk body, in bytes. */
  #limit = 0;
  /** Disputes in a row about where accounts are, and when the latest ends (seconds). */
  #disputes = 0;
  #disputeUntil = Number.NEGATIVE_INFINITY;

  constructor(options: SwarmMemberOptions) {
    this.#options = options;
    this.rank = options.rank;
    this.schedule = new Schedule(options);
  }

  /** The swarm whose accounts it should monitor. */
  get swarm(): Swarm | undefined {
    return this.#swarm;
  }

  /** The id of its swarm, as listed. */
  get swarmId(): bigint {
    return this.#swarmId;
  }

  /** The swarms that it was in before, and until when (monotonic ms) its notifications about them still count. */
  get formers(): readonly { readonly id: bigint; readonly until: number }[] {
    return this.#formers;
  }

  get isUp(): boolean {
    return this.#channel !== undefined;
  }

  get epoch(): number {
    return this.#epoch;
  }

  get bulkInFlight(): boolean {
    return this.#bulkInFlight;
  }

  get urgentInFlight(): number {
    return this.#urgentInFlight;
  }

  get limit(): number {
    return this.#limit;
  }

  get failures(): number {
    return this.#failures;
  }

  get isSilent(): boolean {
    return this.isUp && this.#failures >= SILENT_AFTER;
  }

  /** Whether it is connected and has confirmed everything that it should monitor. */
  get isFresh(): boolean {
    return this.isUp && this.schedule.figures.unconfirmed === 0;
  }

  /** Whether it is left alone for now. */
  get isResting(): boolean {
    return this.#restsUntil > this.#options.clock.monotonic();
  }

  /** Sets the swarm that it is listed in. */
  listedIn(swarmId: bigint): void {
    this.#swarmId = swarmId;
  }

  /** Sets another swarm that it is listed in. Its notifications about the one before count as long as monitors last. */
  movedTo(swarmId: bigint): void {
    const now = this.#options.clock.monotonic();
    const formers = this.#formers.filter(({ id, until }) => until >= now && id !== this.#swarmId);
    this.#formers = [...formers, { id: this.#swarmId, until: now + MONITOR_LIFETIME * 1000 }];
    this.#swarmId = swarmId;
  }

  /** Begins to serve a swarm, of which nothing has been asked yet. */
  enter(swarm: Swarm): void {
    this.#swarm = swarm;
    this.#beginEpoch();
    this.schedule.begin(swarm.count, swarm.accounts.length);
  }

  /** Ends serving its swarm. */
  leave(): void {
    this.#swarm = undefined;
    this.#beginEpoch();
    this.schedule.begin(0, 0);
  }

  /** A handshake is complete: it may know nothing of us, so everything is asked at once. */
  up(channel: Channel): void {
    const { clock, jitter } = this.#options;
    const now = clock.monotonic();
    this.#channel = channel;
    this.#failures = 0;
    // A connection that keeps breaking must not have us send everything each time.
    this.#flaps = now - this.#upAt < FLAPPING ? this.#flaps + 1 : 0;
    this.#upAt = now;
    const wait = this.#flaps > FREE_FLAPS ? Math.min(60, 2 ** (this.#flaps - FREE_FLAPS)) * (0.5 + jitter()) : 0;
    this.#restsUntil = now + wait * 1000;
    this.#limit = FIRST_BODY;
    this.#beginEpoch();
    this.schedule.reset();
  }

  /** The connection broke. */
  down(): void {
    this.#channel = undefined;
  }

  /**
   * Sends a request.
   * @param done called exactly once, later. `isLate`: there has been a handshake or a change of swarm since
   */
  request(
    body: Buffer,
    isUrgent: boolean,
    done: (reply: Buffer | undefined, failure: string | undefined, isLate: boolean) => void,
  ): void {
    const epoch = this.#epoch;
    const channel = this.#channel;
    if (!channel) throw new Error('a request to a server that is not connected');
    if (isUrgent) this.#urgentInFlight++;
    else this.#bulkInFlight = true;
    channel.request(body, (reply, failure) => {
      const isLate = this.#epoch !== epoch;
      if (!isLate && isUrgent) this.#urgentInFlight--;
      else if (!isLate) this.#bulkInFlight = false;
      done(reply, failure, isLate);
    });
  }

  /** A request was answered, whatever was said of each account. */
  answered(isUrgent: boolean): void {
    this.#failures = 0;
    this.#restsUntil = 0;
    if (!isUrgent) this.#limit = Math.min(this.#limit * 4, MAX_BODY);
  }

  /**
   * A whole request failed: the next ones are smaller and come after a pause.
   * @param bytes the size of its body
   * @param isRejected the server read it and refused all of it. One account may have spoilt it, which is narrowed down
   *   by halves
   */
  failed(reason: string, bytes: number, isUrgent: boolean, isRejected: boolean): void {
    const { clock, jitter } = this.#options;
    if (isRejected) this.#limit = Math.ceil(bytes / 2);
    else this.#limit = Math.max(MIN_BODY, Math.ceil((isUrgent ? this.#limit : bytes) / 4));
    // Requests in flight together fail together: that counts as one failure.
    if (!this.isResting) {
      this.#failures++;
      this.#restsUntil = clock.monotonic() + Math.min(60, 2 ** (this.#failures - 1)) * 1000 * (0.5 + jitter());
    }
    this.schedule.failedAll(reason);
  }

  /** There is nothing left to ask it, so its silence means nothing. */
  idle(): void {
    if (this.#urgentInFlight === 0) this.#failures = 0;
  }

  /**
   * The server says that the account is not in its swarm, but our list says that it is. One of us is a block behind, so
   * we ask oxend for the list, and then the server again within seconds. Accounts that come up during a dispute are
   * asked for together at its end, and the waits double, so that one server's claims cost us little however often it
   * makes them.
   */
  elsewhere(position: number, reason: string): void {
    const { now, jitter, suspect } = this.#options;
    if (now() >= this.#disputeUntil) {
      this.#disputes = now() - this.#disputeUntil > DISPUTE_OVER ? 0 : this.#disputes + 1;
      const wait = Math.min(DISPUTE_TO, DISPUTE_FROM * 2 ** this.#disputes);
      this.#disputeUntil = now() + Math.ceil(wait * (0.5 + jitter()));
      suspect();
    }
    this.schedule.elsewhere(position, this.#disputeUntil, reason);
  }

  /**
   * The server says that it no longer monitors the account.
   * @returns false if it had not confirmed the account
   */
  ended(position: number): boolean {
    if (!this.schedule.isConfirmed(position)) return false;
    // The answer to the request in flight will tell more.
    if (this.schedule.isInFlight(position)) this.schedule.ended(position);
    else this.elsewhere(position, 'ended the monitor of an account of its swarm');
    return true;
  }

  #beginEpoch(): void {
    this.#epoch++;
    this.#bulkInFlight = false;
    this.#urgentInFlight = 0;
  }
}
