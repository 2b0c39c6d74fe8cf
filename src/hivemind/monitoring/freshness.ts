import type { Clock } from '../../clock.ts';
import { SLICE } from '../slice.ts';
import type { Swarm, SwarmMember } from './swarm-member.ts';
import type { Swarms } from './swarms.ts';

/** What one storage server monitors for us. */
export interface MonitoringReport {
  /**
   * Accounts of its swarm; of these, confirmed since the last handshake, not confirmed, refused, and spared because
   * another hivemind sends first.
   */
  accounts: number;
  confirmed: number;
  unconfirmed: number;
  refused: number;
  spared: number;
  /** Age of the oldest confirmation; an account never confirmed counts from when it was first wanted. */
  oldest_seconds: number;
  /** Requests in flight. */
  in_flight: number;
  /** Failed requests in a row. */
  failures: number;
  last_error: string;
}

/** What all servers monitor for us, in a few figures. */
export interface MonitoringSummary {
  swarms: number;
  /** Servers that have confirmed all they should monitor, since the last handshake and within a monitor's lifetime. */
  fresh: number;
  /** Servers that are connected but do not answer. */
  silent: number;
  /** Pairs of server and account that are not confirmed, refused, and spared. */
  unconfirmed: number;
  refused: number;
  spared: number;
  /** Accounts that no server of their swarm has confirmed. */
  uncovered: number;
  /** How long ago the account that has waited longest was last confirmed by any server of its swarm. */
  oldestSeconds: number;
}

export interface FreshnessOptions {
  readonly clock: Clock;
  readonly swarms: Swarms;
  readonly members: ReadonlySet<SwarmMember>;
  /** Seconds on the monitoring clock. */
  readonly now: () => number;
  /** About how old a figure may become, in seconds. */
  readonly interval: number;
}

/** How up to date the servers' monitors are. Measured in slices of a few servers and swarms. */
export class Freshness {
  readonly #options: FreshnessOptions;
  #members: SwarmMember[] = [];
  /** The next swarm to measure; undefined between rounds. */
  #swarm: number | undefined;
  #nextRound = 0;
  readonly #ofSwarm = new WeakMap<Swarm, { uncovered: number; oldest: number }>();

  constructor(options: FreshnessOptions) {
    this.#options = options;
  }

  /** Goes on with the round, or begins the next one when it is due; to be called regularly. */
  measureSome(): void {
    const { clock, swarms, members, now, interval } = this.#options;
    if (this.#swarm === undefined) {
      if (now() < this.#nextRound) return;
      this.#nextRound = now() + interval;
      this.#members = [...members];
      this.#swarm = 0;
    }
    const deadline = clock.monotonic() + SLICE;
    do {
      const member = this.#members.pop();
      if (member) {
        member.schedule.measure();
        continue;
      }
      const swarm = swarms.current[this.#swarm++];
      if (!swarm) {
        this.#swarm = undefined;
        return;
      }
      this.#ofSwarm.set(swarm, measure(swarm));
    } while (clock.monotonic() < deadline);
  }

  /** A report on one server. Ages may be one interval old. */
  report({ schedule, urgentInFlight, bulkInFlight, failures }: SwarmMember): MonitoringReport {
    const { confirmed, unconfirmed, refused, spared, oldest, lastError } = schedule.figures;
    return {
      accounts: schedule.count,
      confirmed,
      unconfirmed,
      refused,
      spared,
      oldest_seconds: oldest === 0 ? 0 : this.#options.now() - oldest,
      in_flight: urgentInFlight + (bulkInFlight ? 1 : 0),
      failures,
      last_error: lastError,
    };
  }

  /** Sums up servers and swarms, without looking at accounts: ages may be one interval old. */
  summary(): MonitoringSummary {
    const { swarms, members, now } = this.#options;
    let [fresh, silent, unconfirmed, refused, spared, uncovered, oldestSeconds] = [0, 0, 0, 0, 0, 0, 0];
    for (const member of members) {
      const { figures } = member.schedule;
      if (member.isFresh) fresh++;
      if (member.isSilent) silent++;
      unconfirmed += figures.unconfirmed;
      refused += figures.refused;
      spared += figures.spared;
    }
    for (const swarm of swarms.current) {
      const measured = this.#ofSwarm.get(swarm);
      if (!measured) continue;
      uncovered += measured.uncovered;
      if (measured.oldest > 0) oldestSeconds = Math.max(oldestSeconds, now() - measured.oldest);
    }
    return { swarms: swarms.current.length, fresh, silent, unconfirmed, refused, spared, uncovered, oldestSeconds };
  }
}

/**
 * Looks at every account of a swarm at every member (20 ms for a million at 10). Gives how many accounts no member has
 * confirmed, and the oldest of the accounts' latest confirmations: one dead server among seven costs nobody messages.
 */
function measure(swarm: Swarm): { uncovered: number; oldest: number } {
  const schedules = swarm.members.map(({ schedule }) => schedule);
  let uncovered = 0;
  let oldest = Number.POSITIVE_INFINITY;
  for (let position = 0; position < swarm.count; position++) {
    let latest = 0;
    let covered = false;
    for (const schedule of schedules) {
      if (schedule.isRefused(position) || schedule.isSpared(position)) continue;
      if (schedule.isConfirmed(position)) covered = true;
      latest = Math.max(latest, schedule.sinceOf(position));
    }
    if (!covered) uncovered++;
    if (latest > 0 && latest < oldest) oldest = latest;
  }
  return { uncovered, oldest: Number.isFinite(oldest) ? oldest : 0 };
}
