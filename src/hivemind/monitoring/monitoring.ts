import type { Clock, Timer } from '../../clock.ts';
import { parseMonitorEnded } from '../../session/monitor.ts';
import { ChangeThrottle } from './change-throttle.ts';
import { Coverage } from './coverage.ts';
import { Freshness, type MonitoringReport, type MonitoringSummary } from './freshness.ts';
import { Sender } from './sender.ts';
import { Sparing } from './sparing.ts';
import { type Channel, SwarmMember } from './swarm-member.ts';
import { type Accounts, type Defer, Swarms } from './swarms.ts';

/** The accounts to monitor, and their events. {@link Devices} implements it. */
export interface MonitoredAccounts extends Accounts {
  /** The id of an account, 33 bytes; -1 if there is none. */
  accountId(account: Uint8Array): number;
  onAccountAdded: (id: number) => void;
  onAccountRemoved: (id: number) => void;
  /** `isMore`: something is asked for that was not before; if not, less, or the same by other signatures. */
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
  /** How long due renewals may be gathered into one request, in ms. */
  readonly interval: number;
  /** Called when a storage server disagrees with us about where accounts are: the list should be asked for again. */
  readonly suspect: () => void;
  /**
   * Ranks a storage server by its public key in hex: a hivemind that asks only some servers of a swarm prefers low
   * ranks. Not needed by a single hivemind.
   */
  readonly rank?: ((key: string) => number) | undefined;
}

/** How many ended monitors one server may announce per period (ms), on top of two for each account there is. */
const ENDED_FREE = 10_000;
const ENDED_PERIOD = 60 * 60_000;

/** Renewals are gathered for at most this long (seconds), so that they are never late. */
const MAX_INTERVAL = 60;

/**
 * Has every account monitored by the storage servers of its swarm. The network tells it which servers there are ({@link
 * added}, {@link moved}, {@link removed}) and which of them are connected ({@link up}, {@link down}); it knows nothing
 * of sockets.
 */
export class Monitoring {
  readonly #clock: Clock;
  readonly #accounts: MonitoredAccounts;
  readonly #suspect: () => void;
  readonly #jitter: () => number;
  readonly #rank: (key: string) => number;
  readonly #interval: number;
  readonly #origin: number;
  /** The servers to ask, connected or not. */
  readonly #members = new Set<SwarmMember>();
  readonly #swarms: Swarms;
  readonly #sender: Sender;
  readonly #sparing: Sparing;
  readonly #freshness: Freshness;
  readonly #coverage: Coverage;
  readonly #throttle: ChangeThrottle;
  readonly #ticker: Timer;
  /** Notices of ended monitors: how many came to what, and how many each server has sent since when (monotonic ms). */
  readonly #ended = { taken: 0, moved: 0, unasked: 0, malformed: 0 };
  readonly #notices = new WeakMap<SwarmMember, { since: number; count: number }>();

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
    const spares = (member: SwarmMember, id: number) => sparing.spares(member, id);
    this.#sender = new Sender({ clock, accounts, swarms, spares, now, jitter, defer, interval });
    this.#freshness = new Freshness({ clock, swarms, members: this.#members, now, interval });
    this.#coverage = new Coverage({ clock, accounts, swarms, defer });
    const throttle = new ChangeThrottle({
      clock,
      ask: (id, isMore) => {
        const swarm = isMore ? swarms.touch(id) : swarms.touchUnconfirmed(id);
        if (swarm) this.#hurry(id);
        return swarm !== undefined;
      },
      devicesOf: (id) => accounts.devicesOf(id),
    });
    this.#throttle = throttle;
    accounts.onAccountAdded = (id) => {
      if (swarms.add(id)) this.#hurry(id);
    };
    accounts.onAccountRemoved = (id) => {
      throttle.forget(id);
      swarms.remove(id);
    };
    accounts.onUpstreamChanged = (id, isMore) => {
      this.#sender.changed(id);
      throttle.changed(id, isMore);
    };
    this.#ticker = clock.setInterval(() => this.#tick(), 1000);
  }

  get counters() {
    return { ...this.#sender.counters, swarms: this.#swarms.counters, ended: this.#ended };
  }

  /** How many swarms the network has. */
  get swarms(): number {
    return this.#swarms.current.length;
  }

  /** Makes the state of a storage server that is not asked anything yet. @param key its public key in hex */
  newSwarmMember(key: string): SwarmMember {
    const now = () => this.#now();
    return new SwarmMember({
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

  /** From now on a storage server of this swarm is to be asked, as soon as it is up. */
  added(member: SwarmMember, swarmId: bigint): void {
    this.#members.add(member);
    member.listedIn(swarmId);
    this.#enter(member, swarmId);
  }

  /**
   * Sets the slots in which another hivemind sends first, so that only some storage servers of each swarm are asked for
   * their accounts ({@link Sparing}). At first there are none.
   */
  spareSlots(slots: ReadonlySet<number>): void {
    this.#sparing.setSlots(slots);
  }

  /** See {@link Sparing.askedSince}. */
  askedSince(member: SwarmMember, slot: number): number | undefined {
    return this.#sparing.askedSince(member, slot);
  }

  /** A storage server is now in another swarm. */
  moved(member: SwarmMember, swarmId: bigint): void {
    member.movedTo(swarmId);
    this.#leave(member);
    this.#enter(member, swarmId);
    this.#sender.drop(member);
    this.#sender.wake(member);
  }

  /** A storage server is no longer to be asked. */
  removed(member: SwarmMember): void {
    this.#members.delete(member);
    this.down(member);
    this.#leave(member);
  }

  /**
   * A handshake is complete, the first or one after a loss. The server may know nothing of us, so it is asked for
   * everything at once.
   */
  up(member: SwarmMember, channel: Channel): void {
    this.#sender.drop(member);
    member.up(channel);
    if (member.swarm) this.#sparing.choose(member.swarm);
    this.#sender.wake(member);
  }

  /** The connection broke. Nothing is sent before the next handshake. */
  down(member: SwarmMember): void {
    member.down();
    this.#sender.drop(member);
    if (member.swarm) this.#sparing.choose(member.swarm);
  }

  /**
   * Whether a notification about an account counts if this storage server sent it: only if we may have asked it for the
   * account, that is if it is in the account's swarm or was within the lifetime of a monitor (docs/decisions/16).
   */
  accepts(member: SwarmMember, id: number): boolean {
    if (this.#swarms.belongs(id, member.swarmId)) return true;
    if (member.formers.length === 0) return false;
    const now = this.#clock.monotonic();
    for (const former of member.formers) {
      if (former.until >= now && this.#swarms.belongs(id, former.id)) return true;
    }
    return false;
  }

  /** Whether some other connected storage server should report this account's messages as well. */
  hasOthers(member: SwarmMember, id: number): boolean {
    const swarm = this.#swarms.swarmOf(id);
    if (!swarm) return false;
    const position = this.#swarms.positionOf(id);
    return swarm.members.some(
      (other) =>
        other !== member && other.isUp && !other.schedule.isRefused(position) && !other.schedule.isSpared(position),
    );
  }

  /**
   * Handles `notify.monitor_ended`. A storage server sends it once for each account that leaves its swarm.
   * @returns why the server should be cut off, in words, if it has sent many more than that
   */
  ended(member: SwarmMember, parts: readonly Buffer[]): string | undefined {
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

  /** A report on one server; ages may be one interval old. */
  report(member: SwarmMember): MonitoringReport {
    return this.#freshness.report(member);
  }

  /** Figures of all servers; cheap. */
  summary(): MonitoringSummary {
    return this.#freshness.summary();
  }

  /** See {@link Coverage.uncovered}. */
  uncoveredSlots(): Promise<Set<number> | undefined> {
    return this.#coverage.uncovered();
  }

  stop(): void {
    this.#ticker.cancel();
    this.#throttle.stop();
    this.#sender.stop();
    this.#sparing.stop();
    this.#swarms.stop();
  }

  /** Whole seconds from 1 on, on a clock that never jumps. */
  #now(): number {
    return Math.floor((this.#clock.monotonic() - this.#origin) / 1000) + 1;
  }

  #enter(member: SwarmMember, swarmId: bigint): void {
    const swarm = this.#swarms.get(swarmId);
    if (!swarm) return;
    this.#swarms.enter(member, swarm);
    this.#sparing.entered(member, swarm);
  }

  #leave(member: SwarmMember): void {
    const { swarm } = member;
    this.#swarms.leave(member);
    this.#sparing.forget(member);
    if (swarm) this.#sparing.choose(swarm);
  }

  /** Asks all members of a new or changed account's swarm almost at once. */
  #hurry(id: number): void {
    for (const member of this.#swarms.swarmOf(id)?.members ?? []) this.#sender.hurry(member, id);
  }

  #tick(): void {
    const now = this.#now();
    this.#sparing.review();
    for (const member of this.#members) if (member.schedule.walk.hasWorkAt(now)) this.#sender.enqueue(member);
    this.#freshness.measureSome();
  }

  #endedOf(member: SwarmMember, parts: readonly Buffer[]): 'taken' | 'moved' | 'unasked' | 'malformed' {
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
