import type { Clock } from '../../clock.ts';
import { MONITOR_LIFETIME, Schedule, type ScheduleOptions } from './schedule.ts';

/** A swarm: its accounts in a dense list, and those of its storage servers that we know. */
export interface Swarm {
  readonly id: bigint;
  readonly number: number;
  accounts: Uint32Array;
  count: number;
  readonly members: Member[];
}

/** A connection to a storage server. The sockets are behind this, so that the rules can be tested without any. */
export interface Link {
  /**
   * Sends one `monitor.messages` request.
   * @param done called exactly once, later: with the reply's part, or with a word that says what failed
   */
  request(body: Buffer, done: (reply: Buffer | undefined, failure: string | undefined) => void): void;
  close(): void;
}

export interface MemberOptions extends ScheduleOptions {
  readonly clock: Clock;
  /** See {@link Member.rank}. */
  readonly rank: number;
  /** The storage server disagrees with us about where accounts are: the list should be asked for anew. */
  readonly suspect: () => void;
}

/** The largest, first and smallest body of a bulk request, in bytes; one account fits in any case. */
export const MAX_BODY = 5_000_000;
const FIRST_BODY = 256 * 1024;
const MIN_BODY = 1024;
/** Handshakes that follow each other within this time (ms); so many of them are answered with everything at once. */
const FLAPPING = 60_000;
const FREE_FLAPS = 3;
/**
 * How long (seconds) a server may say otherwise before it is asked again: at first, and at most; and after how long it
 * begins anew.
 */
const DISPUTE_FROM = 4;
const DISPUTE_TO = 300;
const DISPUTE_OVER = 600;
/** Requests in a row without a good answer, after which a server counts as silent. */
const SILENT_AFTER = 3;

/**
 * One storage server as a member of its swarm: what it is to be asked ({@link Schedule}), what is under way to it, and
 *   how much it can take. Bodies grow while good answers come and shrink when they do not, and a server that does not
 *   answer is left alone for a while.
 */
export class Member {
  readonly schedule: Schedule;
  /** Where not all of a swarm are asked, the lowest come first. */
  readonly rank: number;
  readonly #options: MemberOptions;
  #swarm: Swarm | undefined;
  #swarmId = -1n;
  #formers: { id: bigint; until: number }[] = [];
  #link: Link | undefined;
  /** Raised by every handshake and move: replies to what was asked in an earlier epoch no longer count. */
  #epoch = 0;
  #bulkInFlight = false;
  #urgentInFlight = 0;
  /** Requests in a row without a good answer, and until when (monotonic ms) it is left alone for that. */
  #failures = 0;
  #restsUntil = 0;
  /** When (monotonic ms) the latest handshake was, and how many in a row came shortly after another. */
  #upAt = Number.NEGATIVE_INFINITY;
  #flaps = 0;
  /** How large the next bulk body may be. */
  #limit = 0;
  /** Disputes in a row about where accounts are, and until when (seconds) the latest is. */
  #disputes = 0;
  #disputeUntil = Number.NEGATIVE_INFINITY;

  constructor(options: MemberOptions) {
    this.#options = options;
    this.rank = options.rank;
    this.schedule = new Schedule(options);
  }

  /** The swarm whose accounts it is to monitor. */
  get swarm(): Swarm | undefined {
    return this.#swarm;
  }

  /** The id of its swarm, as listed. */
  get swarmId(): bigint {
    return this.#swarmId;
  }

  /** The swarms that it was in before, and until when (ms, monotonic) it may still speak for them. */
  get formers(): readonly { readonly id: bigint; readonly until: number }[] {
    return this.#formers;
  }

  get isUp(): boolean {
    return this.#link !== undefined;
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

  /** Whether it has confirmed everything that it is to be asked. */
  get isFresh(): boolean {
    return this.isUp && this.schedule.figures.unconfirmed === 0;
  }

  /** Whether it is left alone for now. */
  get isResting(): boolean {
    return this.#restsUntil > this.#options.clock.monotonic();
  }

  /** By the list it is in this swarm from now on. */
  listedIn(swarmId: bigint): void {
    this.#swarmId = swarmId;
  }

  /**
   * By the list it is in another swarm from now on. It may speak for the one before as long as that may have had
   * monitors with it.
   */
  movedTo(swarmId: bigint): void {
    const now = this.#options.clock.monotonic();
    const formers = this.#formers.filter(({ id, until }) => until >= now && id !== this.#swarmId);
    this.#formers = [...formers, { id: this.#swarmId, until: now + MONITOR_LIFETIME * 1000 }];
    this.#swarmId = swarmId;
  }

  /** Takes its place in a swarm: nothing of it has been asked yet. */
  enter(swarm: Swarm): void {
    this.#swarm = swarm;
    this.#beginEpoch();
    this.schedule.begin(swarm.count, swarm.accounts.length);
  }

  /** Leaves its swarm. */
  leave(): void {
    this.#swarm = undefined;
    this.#beginEpoch();
    this.schedule.begin(0, 0);
  }

  /** A handshake is complete: it knows nothing of us, so everything is asked at once. */
  up(link: Link): void {
    const { clock, jitter } = this.#options;
    const now = clock.monotonic();
    this.#link = link;
    this.#failures = 0;
    // A connection that breaks again and again must not make us send everything again and again.
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
    this.#link = undefined;
  }

  /**
   * Sends a request.
   * @param done called exactly once, later. `isLate`: the server has been connected anew or moved in the meantime
   */
  request(
    body: Buffer,
    isUrgent: boolean,
    done: (reply: Buffer | undefined, failure: string | undefined, isLate: boolean) => void,
  ): void {
    const epoch = this.#epoch;
    const link = this.#link;
    if (!link) throw new Error('a request to a server that is not connected');
    if (isUrgent) this.#urgentInFlight++;
    else this.#bulkInFlight = true;
    link.request(body, (reply, failure) => {
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
   * A whole request, of so many bytes, came to nothing: what follows is smaller and comes after a while.
   * @param isRejected the server read it, and would have none of it: one account may have spoilt it, which is narrowed
   * down
   */
  failed(reason: string, bytes: number, isUrgent: boolean, isRejected: boolean): void {
    const { clock, jitter } = this.#options;
    if (isRejected) this.#limit = Math.ceil(bytes / 2);
    else this.#limit = Math.max(MIN_BODY, Math.ceil((isUrgent ? this.#limit : bytes) / 4));
    // Requests that were under way together fail together: that is one failure.
    if (!this.isResting) {
      this.#failures++;
      this.#restsUntil = clock.monotonic() + Math.min(60, 2 ** (this.#failures - 1)) * 1000 * (0.5 + jitter());
    }
    this.schedule.failedAll(reason);
  }

  /** There is nothing left to ask: its silence means nothing. */
  idle(): void {
    if (this.#urgentInFlight === 0) this.#failures = 0;
  }

  /**
   * The server says that the account is not in its swarm; by our list it is. One of the two is a block behind, so the
   * list is asked for, and, if it stays as it is, the server, within seconds. All accounts of one dispute are asked for
   * together, and disputes come ever more rarely: what one server says costs no more than that, however often it says
   * it.
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
   * The server says that it monitors the account no longer.
   * @returns false if it had not confirmed it
   */
  ended(position: number): boolean {
    if (!this.schedule.isConfirmed(position)) return false;
    // The answer to what is under way comes later, and says more.
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
