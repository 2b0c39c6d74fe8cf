import type { Clock, Timer } from '../../clock.ts';
import { parseMonitorEnded } from '../../session/monitor.ts';
import { Coverage } from './coverage.ts';
import { Freshness, type MemberReport, type MonitoringSummary } from './freshness.ts';
import { type Link, Member } from './member.ts';
import { Pace } from './pace.ts';
import { Sender } from './sender.ts';
import { Sparing } from './sparing.ts';
import { type Accounts, type Defer, Swarms } from './swarms.ts';

/** The accounts to monitor, and how they tell that something changed. `Devices` is one. */
export interface MonitoredAccounts extends Accounts {
  /** The id of an account, 33 bytes; -1 if there is none. */
  accountId(account: Uint8Array): number;
  onAccountAdded: (id: number) => void;
  onAccountRemoved: (id: number) => void;
  /** `isMore`: something is asked for that was not before; else only by other signatures, or less. */
  onUpstreamChanged: (id: number, isMore: boolean) => void;
  /** How many devices are subscribed to a live account. */
  devicesOf(id: number): number;
}

export interface MonitoringOptions {
  readonly clock: Clock;
  /** Uniform in [0, 1). */
  readonly jitter: () => number;
  readonly defer: Defer;
  readonly accounts: MonitoredAccounts;
  /** How long renewals that are due may wait for each other, in ms. */
  readonly interval: number;
  /** A storage server disagrees with us about where accounts are: the list should be asked for anew. */
  readonly suspect: () => void;
  /**
   * In which order this one of several hiveminds prefers the storage servers of a swarm, lowest first, by their public
   * keys in hex. Not needed by one that is alone.
   */
  readonly rank?: ((key: string) => number) | undefined;
}

/** So many ended monitors may be announced by one server in so long (ms), beside two for each account that there is. */
const ENDED_FREE = 10_000;
const ENDED_PERIOD = 60 * 60_000;

/** Renewals are gathered for at most this long (seconds), so that they are never late. */
const MAX_INTERVAL = 60;

/**
 * Has every account monitored by all storage servers of its swarm. The network reports which servers there are ({@link
 * added}, {@link moved}, {@link removed}) and which of them can be asked ({@link up}, {@link down}); of sockets nothing
 * is known here.
 */
export class Monitoring {
  readonly #clock: Clock;
  readonly #accounts: MonitoredAccounts;
  readonly #suspect: () => void;
  readonly #jitter: () => number;
  readonly #rank: (key: string) => number;
  readonly #interval: number;
  readonly #origin: number;
  /** Those that are to be asked, connected or not. */
  readonly #members = new Set<Member>();
  readonly #swarms: Swarms;
  readonly #sender: Sender;
  readonly #sparing: Sparing;
  readonly #freshness: Freshness;
  readonly #coverage: Coverage;
  readonly #pace: Pace;
  readonly #ticker: Timer;
  /**
   * Notices that a monitor has ended, by what came of them; and how many came from each server lately (ms, monotonic).
   */
  readonly #ended = { taken: 0, moved: 0, unasked: 0, malformed: 0 };
  readonly #notices = new WeakMap<Member, { since: number; count: number }>();

  constructor(options: MonitoringOptions) {
    const { clock, jitter, defer, accounts } = options;
    this.#clock = clock;
    this.#accounts = accounts;
    this.#suspect = options.suspect;
    this.#jitter = jitter;
    this.#rank = options.rank ?? (() => 0);
    this.#origin = clock.monotonic();
    this.#interval = Math.min(Math.max(Math.ceil(options.interval / 1000), 1), MAX_INTERVAL);
    const now = () => this.#now();
    const interval = this.#interval;
    const swarms = new Swarms({ clock, accounts, now, defer, onWork: (member) => this.#sender.wake(member) });
    this.#swarms = swarms;
    const sparing = new Sparing({ clock, accounts, swarms, defer, onWork: (member) => this.#sender.wake(member) });
    this.#sparing = sparing;
    const spares = (member: Member, id: number) => sparing.spares(member, id);
    this.#sender = new Sender({ clock, accounts, swarms, spares, now, jitter, defer, interval });
    this.#freshness = new Freshness({ clock, swarms, members: this.#members, now, interval });
    this.#coverage = new Coverage({ clock, accounts, swarms, defer });
    const pace = new Pace({
      clock,
      ask: (id, isMore) => {
        const swarm = isMore ? swarms.touch(id) : swarms.touchUnconfirmed(id);
        if (swarm) this.#hurry(id);
        return swarm !== undefined;
      },
      devicesOf: (id) => accounts.devicesOf(id),
    });
    this.#pace = pace;
    accounts.onAccountAdded = (id) => {
      if (swarms.add(id)) this.#hurry(id);
    };
    accounts.onAccountRemoved = (id) => {
      pace.forget(id);
      swarms.remove(id);
    };
    accounts.onUpstreamChanged = (id, isMore) => pace.changed(id, isMore);
    this.#ticker = clock.setInterval(() => this.#tick(), 1000);
  }

  get counters() {
    return { ...this.#sender.counters, swarms: this.#swarms.counters, ended: this.#ended };
  }

  /** How many swarms the network has. */
  get swarms(): number {
    return this.#swarms.current.length;
  }

  /** A storage server of which nothing is asked yet. @param key its public key in hex */
  newMember(key: string): Member {
    const now = () => this.#now();
    return new Member({
      clock: this.#clock,
      rank: this.#rank(key),
      jitter: this.#jitter,
      now,
      interval: this.#interval,
      suspect: this.#suspect,
    });
  }

  /** Takes over the swarm ids of the network, in any order. */
  setSwarms(ids: Iterable<bigint>): void {
    this.#swarms.setIds(ids);
  }

  /** A storage server of this swarm is to be asked from now on, as soon as it is up. */
  added(member: Member, swarmId: bigint): void {
    this.#members.add(member);
    member.listedIn(swarmId);
    this.#enter(member, swarmId);
  }

  /**
   * Another hivemind is first of these slots and covers them, so that of each swarm only some storage servers are asked
   * for their accounts from now on ({@link Sparing}). None, unless told.
   */
  spareSlots(slots: ReadonlySet<number>): void {
    this.#sparing.setSlots(slots);
  }

  /** See {@link Sparing.askedSince}. */
  askedSince(member: Member, slot: number): number | undefined {
    return this.#sparing.askedSince(member, slot);
  }

  /** A storage server is in another swarm now. */
  moved(member: Member, swarmId: bigint): void {
    member.movedTo(swarmId);
    this.#leave(member);
    this.#enter(member, swarmId);
    this.#sender.drop(member);
    this.#sender.wake(member);
  }

  /** A storage server is not to be asked any more. */
  removed(member: Member): void {
    this.#members.delete(member);
    this.down(member);
    this.#leave(member);
  }

  /**
   * A handshake is complete, the first or one after a loss: the server knows nothing of us, so everything is asked at
   * once.
   */
  up(member: Member, link: Link): void {
    this.#sender.drop(member);
    member.up(link);
    if (member.swarm) this.#sparing.choose(member.swarm);
    this.#sender.wake(member);
  }

  /** The connection broke. Nothing is sent before the next handshake. */
  down(member: Member): void {
    member.down();
    this.#sender.drop(member);
    if (member.swarm) this.#sparing.choose(member.swarm);
  }

  /**
   * Whether a notification about an account counts if it comes from this storage server: only if we asked that one to
   * monitor it, which means it is, or was within the lifetime of a monitor, of the account's swarm (docs/decisions/16).
   */
  accepts(member: Member, id: number): boolean {
    if (this.#swarms.belongs(id, member.swarmId)) return true;
    if (member.formers.length === 0) return false;
    const now = this.#clock.monotonic();
    for (const former of member.formers) {
      if (former.until >= now && this.#swarms.belongs(id, former.id)) return true;
    }
    return false;
  }

  /** Whether another connected storage server should announce that account's messages as well as this one. */
  hasOthers(member: Member, id: number): boolean {
    const swarm = this.#swarms.swarmOf(id);
    if (!swarm) return false;
    const position = this.#swarms.positionOf(id);
    return swarm.members.some(
      (other) =>
        other !== member && other.isUp && !other.schedule.isRefused(position) && !other.schedule.isSpared(position),
    );
  }

  /**
   * A storage server says that it has ended a monitor: `notify.monitor_ended`. It says so of each account that leaves
   * its swarm, and of no account twice without having been asked again.
   * @returns why the server should be cut off, in words, if it says much more than that
   */
  ended(member: Member, parts: readonly Buffer[]): string | undefined {
    const now = this.#clock.monotonic();
    let notices = this.#notices.get(member);
    if (!notices || now - notices.since >= ENDED_PERIOD) {
      notices = { since: now, count: 0 };
      this.#notices.set(member, notices);
    }
    if (++notices.count > ENDED_FREE + 2 * this.#accounts.capacity) {
      return `the server sent ${notices.count} notices of ended monitors within an hour`;
    }
    this.#ended[this.#endedOf(member, parts)]++;
    return undefined;
  }

  /** What one server monitors for us; ages may be one interval old. */
  report(member: Member): MemberReport {
    return this.#freshness.report(member);
  }

  /** What all of them do; cheap. */
  summary(): MonitoringSummary {
    return this.#freshness.summary();
  }

  /** See {@link Coverage.uncovered}. */
  uncoveredSlots(): Promise<Set<number> | undefined> {
    return this.#coverage.uncovered();
  }

  stop(): void {
    this.#ticker.cancel();
    this.#pace.stop();
    this.#sender.stop();
    this.#sparing.stop();
    this.#swarms.stop();
  }

  /** Whole seconds from 1 on, on a clock that never jumps. */
  #now(): number {
    return Math.floor((this.#clock.monotonic() - this.#origin) / 1000) + 1;
  }

  #enter(member: Member, swarmId: bigint): void {
    const swarm = this.#swarms.get(swarmId);
    if (!swarm) return;
    this.#swarms.enter(member, swarm);
    this.#sparing.entered(member, swarm);
  }

  #leave(member: Member): void {
    const { swarm } = member;
    this.#swarms.leave(member);
    this.#sparing.forget(member);
    if (swarm) this.#sparing.choose(swarm);
  }

  /** An account is new or has changed: all members of its swarm hear of it almost at once. */
  #hurry(id: number): void {
    for (const member of this.#swarms.swarmOf(id)?.members ?? []) this.#sender.hurry(member, id);
  }

  #tick(): void {
    const now = this.#now();
    this.#sparing.review();
    for (const member of this.#members) if (member.schedule.walk.hasWorkAt(now)) this.#sender.enqueue(member);
    this.#freshness.measureSome();
  }

  #endedOf(member: Member, parts: readonly Buffer[]): 'taken' | 'moved' | 'unasked' | 'malformed' {
    let account: Buffer;
    try {
      account = parseMonitorEnded(parts);
    } catch {
      return 'malformed';
    }
    const id = this.#accounts.accountId(account);
    if (id < 0) return 'unasked';
    const swarm = this.#swarms.swarmOf(id);
    if (swarm && swarm === member.swarm) {
      return member.ended(this.#swarms.positionOf(id)) ? 'taken' : 'unasked';
    }
    return this.accepts(member, id) ? 'moved' : 'unasked';
  }
}
