import type { Clock, Timer } from '../../clock.ts';
import { BatchBuilder } from './batch.ts';
import { AT_ONCE, type Member } from './member.ts';
import type { Requests } from './requests.ts';
import type { Accounts, Swarms } from './swarms.ts';

export interface UrgentOptions {
  readonly clock: Clock;
  readonly accounts: Accounts;
  readonly swarms: Swarms;
  readonly requests: Requests;
  /** Leaves it to the bulk requests. */
  readonly wake: (member: Member) => void;
}

/** What is urgent is gathered for so long (ms) and then sent in small requests, several of which may be under way to a server. */
const GATHER = 25;
const BODY = 64 * 1024;
const MAX_IN_FLIGHT = 8;
/** More than this for one server is no matter for small requests. */
const MAX_WAITING = 2000;
/** How long (ms) the building of small requests may hold the event loop. */
const SLICE = 8;

/** New and changed subscriptions, and signatures that take the place of refused ones, beside the bulk requests. */
export class Urgent {
  readonly #options: UrgentOptions;
  readonly #builder: BatchBuilder;
  readonly #hasty = new Set<Member>();
  #timer: Timer | undefined;
  #stopped = false;

  constructor(options: UrgentOptions) {
    this.#options = options;
    this.#builder = new BatchBuilder(options.accounts, BODY);
  }

  /** This account should be asked for at once. */
  hurry(member: Member, id: number): void {
    const { clock, wake } = this.#options;
    if (!member.link || this.#stopped) return;
    const resting = member.notBefore > clock.monotonic();
    const patient = resting || member.failures > 0 || member.urgent.length >= MAX_WAITING;
    if (patient) {
      member.again = true;
      wake(member);
      return;
    }
    member.urgent.push(id);
    this.#hasty.add(member);
    this.#timer ??= clock.setTimeout(() => this.#flushAll(), GATHER);
  }

  #flushAll(): void {
    this.#timer = undefined;
    const deadline = this.#options.clock.monotonic() + SLICE;
    for (const member of this.#hasty) this.flush(member, deadline);
  }

  /** Sends what is waiting, as far as requests are free and it does not take too long; the rest goes soon after. */
  flush(member: Member, deadline = this.#options.clock.monotonic() + SLICE): void {
    const { clock, swarms, requests, wake } = this.#options;
    if (!member.link) member.urgent = [];
    while (member.urgent.length > 0 && member.urgentInFlight < MAX_IN_FLIGHT) {
      if (clock.monotonic() >= deadline) {
        this.#timer ??= clock.setTimeout(() => this.#flushAll(), 0);
        return;
      }
      this.#builder.begin(BODY);
      let taken = 0;
      for (const id of member.urgent) {
        if (swarms.swarmOf(id) === member.swarm) {
          const position = swarms.positionOf(id);
          // Anything but AT_ONCE means that a bulk request took it along in the meantime.
          if (member.due[position] === AT_ONCE && !requests.put(this.#builder, member, position, false)) break;
        }
        taken++;
      }
      member.urgent = member.urgent.slice(taken);
      if (this.#builder.count > 0) requests.send(member, this.#builder, true);
      if (taken === 0) {
        // Too large for a small body: the bulk request can hold it.
        member.urgent.shift();
        wake(member);
      }
    }
    if (member.urgent.length === 0) this.#hasty.delete(member);
  }

  /** Nothing can be sent to this one any more. */
  drop(member: Member): void {
    member.urgent = [];
    this.#hasty.delete(member);
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
    this.#hasty.clear();
  }
}
