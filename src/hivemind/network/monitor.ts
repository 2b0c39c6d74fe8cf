import type { Clock, Timer } from '../../clock.ts';
import { Answers } from './answers.ts';
import { CatchUp } from './catch-up.ts';
import { Measuring } from './measuring.ts';
import { IN_FLIGHT, type Link, type Member, State } from './member.ts';
import { Requests } from './requests.ts';
import type { Accounts, Defer, Swarms } from './swarms.ts';
import { Urgent } from './urgent.ts';

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
  /** A storage server disagrees with us about where accounts are. */
  readonly suspect: () => void;
}

/** The first body after a handshake, in bytes: they grow while the server keeps up. */
const FIRST_BODY = 256 * 1024;
/** Handshakes that follow each other within this time (ms); so many of them are answered with everything at once. */
const FLAPPING = 60_000;
const FREE_FLAPS = 3;

/**
 * What each storage server was asked, when to ask it again, what it answered (docs/spec/network.md, sections 3 and 5).
 *
 * One bulk request is in flight for each server: while it catches up and for renewals. What is urgent (a new or changed
 * subscription, the next signature after a refused one) goes beside it in small requests: a server may take seconds to
 * verify 5 MB, and a phone that has just subscribed should not wait for that.
 */
export class Monitor {
  readonly #options: MonitorOptions;
  readonly #members = new Set<Member>();
  readonly #answers: Answers;
  readonly #requests: Requests;
  readonly #urgent: Urgent;
  readonly #catchUp: CatchUp;
  readonly #measuring: Measuring;
  readonly #ticker: Timer;

  constructor(options: MonitorOptions) {
    this.#options = options;
    const wake = (member: Member) => this.wake(member);
    const answers = new Answers({ ...options, hurry: (member, id) => this.#urgent.hurry(member, id) });
    const requests = new Requests({ ...options, answers, settled: (member) => this.#settled(member) });
    this.#answers = answers;
    this.#requests = requests;
    this.#urgent = new Urgent({ ...options, requests, wake });
    this.#catchUp = new CatchUp({ ...options, requests, wake });
    this.#measuring = new Measuring({ ...options, members: this.#members });
    this.#ticker = options.clock.setInterval(() => this.#tick(), 1000);
  }

  get counters() {
    return { ...this.#requests.counters, answers: this.#answers.counters };
  }

  add(member: Member): void {
    this.#members.add(member);
  }

  remove(member: Member): void {
    this.#members.delete(member);
    this.down(member);
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
    this.#urgent.drop(member);
    this.#catchUp.drop(member);
  }

  /**
   * The server says that it monitors an account no longer. It is unconfirmed there, and asked for again if it stays where it is.
   * @returns false if the server had not confirmed it
   */
  ended(member: Member, id: number): boolean {
    const position = this.#options.swarms.positionOf(id);
    if (member.state[position] !== State.confirmed) return false;
    // The answer to what is under way comes later, and says more.
    if (member.due[position] === IN_FLIGHT) member.setState(position, State.asked);
    else this.#answers.dispute(member, position, 'ended the monitor of an account of its swarm');
    return true;
  }

  /** There is something due: it is sent as soon as the order of work allows. */
  wake(member: Member): void {
    member.wanted = true;
    this.#catchUp.enqueue(member);
  }

  /** An account is new or has changed: all members of its swarm hear of it almost at once. */
  urgent(id: number): void {
    const swarm = this.#options.swarms.swarmOf(id);
    if (!swarm) return;
    for (const member of swarm.members) this.#urgent.hurry(member, id);
  }

  stop(): void {
    this.#ticker.cancel();
    this.#requests.stop();
    this.#urgent.stop();
    this.#catchUp.stop();
  }

  #tick(): void {
    const now = this.#options.now();
    for (const member of this.#members) {
      if (member.nextScan <= now || member.retryAt <= now) member.wanted = true;
      if (member.cycling || member.wanted) this.#catchUp.enqueue(member);
    }
    this.#measuring.some(now);
  }

  #settled(member: Member): void {
    this.#urgent.flush(member);
    if (member.cycling || member.wanted) this.#catchUp.enqueue(member);
    // Others may have waited for the bytes that are free now.
    this.#catchUp.work();
  }
}
