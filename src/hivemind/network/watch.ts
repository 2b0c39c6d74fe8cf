import type { Clock } from '../../clock.ts';
import { parseMonitorEnded } from '../../session/monitor.ts';
import type { ServiceNodes } from '../../session/service-nodes.ts';
import { Doubt } from './doubt.ts';
import { isFresh, isSilent, type NodeReport, reportNode } from './freshness.ts';
import { Monitor } from './monitor.ts';
import { type Connect, type Node, Nodes } from './nodes.ts';
import { Pace } from './pace.ts';
import { type Accounts, type Defer, MONITOR_LIFETIME, Swarms } from './swarms.ts';

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

export interface WatchOptions {
  readonly clock: Clock;
  /** Uniform in [0, 1). */
  readonly jitter: () => number;
  readonly defer: Defer;
  readonly accounts: MonitoredAccounts;
  /** So many connections to storage servers are established at a time; 0 = none at all. */
  readonly maxConnects: number;
  /** Whether storage servers may have addresses of a private network, or of this machine. */
  readonly allowPrivate: boolean;
  /** How long renewals that are due may wait for each other, in ms. */
  readonly interval: number;
  readonly connect: Connect;
  /** A storage server disagrees with us about where accounts are: the list should be asked for anew. */
  readonly suspect: () => void;
  /** Told of a storage server that did us harm and is left alone for that. */
  readonly cutOff: (node: Node, reason: string) => void;
}

/** So many ended monitors may be told of by one server in so long (ms), beside two for each account that there is. */
const ENDED_FREE = 10_000;
const ENDED_PERIOD = 60 * 60_000;

/** Renewals are gathered for at most this long (seconds), so that they are never late. */
const MAX_INTERVAL = 60;

/** Has every account watched by all storage servers of its swarm: joins the swarms, the servers and what they were asked. */
export class Watch {
  readonly #clock: Clock;
  readonly #accounts: MonitoredAccounts;
  readonly #origin: number;
  readonly #swarms: Swarms;
  readonly #monitor: Monitor;
  readonly #nodes: Nodes;
  readonly #pace: Pace;
  readonly #doubt: Doubt;
  /** Notices that a monitor has ended, by what came of them. */
  readonly #ended = { taken: 0, moved: 0, unasked: 0, malformed: 0 };

  constructor(options: WatchOptions) {
    const { clock, jitter, defer, accounts, maxConnects, allowPrivate, connect } = options;
    this.#clock = clock;
    this.#accounts = accounts;
    this.#doubt = new Doubt(clock);
    this.#origin = clock.monotonic();
    const now = () => this.#now();
    const interval = Math.min(Math.max(Math.ceil(options.interval / 1000), 1), MAX_INTERVAL);
    const swarms = new Swarms({ clock, accounts, now, defer, onWork: (member) => monitor.wake(member) });
    const { suspect } = options;
    const monitor = new Monitor({ clock, accounts, swarms, now, jitter, defer, interval, suspect });
    this.#swarms = swarms;
    this.#monitor = monitor;
    this.#nodes = new Nodes({
      clock,
      jitter,
      maxConnects,
      allowPrivate,
      connect,
      on: {
        added: (node) => {
          monitor.add(node.member);
          this.#enter(node);
        },
        moved: (node, from) => this.#move(node, from),
        removed: (node) => {
          monitor.remove(node.member);
          swarms.leave(node.member);
        },
        up: (node, link) => monitor.up(node.member, link),
        down: (node) => monitor.down(node.member),
        cutOff: options.cutOff,
      },
    });
    accounts.onAccountAdded = (id) => {
      if (swarms.add(id)) monitor.urgent(id);
    };
    const pace = new Pace({
      clock,
      ask: (id, isMore) => {
        const swarm = isMore ? swarms.touch(id) : swarms.touchUnconfirmed(id);
        if (swarm) monitor.urgent(id);
        return swarm !== undefined;
      },
      devicesOf: (id) => accounts.devicesOf(id),
    });
    this.#pace = pace;
    accounts.onAccountRemoved = (id) => {
      pace.forget(id);
      swarms.remove(id);
    };
    accounts.onUpstreamChanged = (id, isMore) => pace.changed(id, isMore);
  }

  /** How many storage servers and swarms there are. */
  get size(): { nodes: number; swarms: number } {
    return { nodes: this.#nodes.size, swarms: this.#swarms.current.length };
  }

  get counters() {
    return {
      ...this.#monitor.counters,
      nodes: this.#nodes.counters,
      swarms: this.#swarms.counters,
      ended: this.#ended,
    };
  }

  /**
   * Takes over the network's storage servers.
   * @returns why not, in words, if the list is doubted; then everything stays as it was
   */
  update(list: ServiceNodes): string | undefined {
    const doubt = this.#doubt.judge(list);
    if (doubt !== undefined) return doubt;
    this.#swarms.setIds(list.swarms);
    this.#nodes.update(list.nodes);
    return undefined;
  }

  /**
   * Whether a notification about an account counts if it comes from this storage server: only if we asked that one to
   * monitor it, which means it is, or was within the lifetime of a monitor, of the account's swarm (docs/decisions/16).
   */
  accepts(node: Node, id: number): boolean {
    if (this.#swarms.belongs(id, node.address.swarm)) return true;
    if (node.formers.length === 0) return false;
    const now = this.#clock.monotonic();
    for (const { swarm, until } of node.formers) {
      if (until >= now && this.#swarms.belongs(id, swarm)) return true;
    }
    return false;
  }

  /** Whether another storage server that is connected should tell of that account's messages as well as this one. */
  hasOthers(node: Node, id: number): boolean {
    const swarm = this.#swarms.swarmOf(id);
    if (!swarm) return false;
    const position = this.#swarms.positionOf(id);
    return swarm.members.some((member) => member !== node.member && member.link && !member.refuses(position));
  }

  /**
   * A storage server says that it has ended a monitor: `notify.monitor_ended`. It says so of each account that leaves its swarm, and of no
   * account twice without having been asked again: one that says much more is cut off.
   */
  ended(node: Node, parts: readonly Buffer[]): void {
    const now = this.#clock.monotonic();
    if (now - node.ended.since >= ENDED_PERIOD) node.ended = { since: now, count: 0 };
    if (++node.ended.count > ENDED_FREE + 2 * this.#accounts.capacity) {
      this.#nodes.cutOff(node, `the server sent ${node.ended.count} notices of ended monitors within an hour`);
      return;
    }
    this.#ended[this.#endedOf(node, parts)]++;
  }

  #endedOf(node: Node, parts: readonly Buffer[]): 'taken' | 'moved' | 'unasked' | 'malformed' {
    let account: Buffer;
    try {
      account = parseMonitorEnded(parts);
    } catch {
      return 'malformed';
    }
    const id = this.#accounts.accountId(account);
    if (id < 0) return 'unasked';
    const swarm = this.#swarms.swarmOf(id);
    if (swarm && swarm === node.member.swarm) return this.#monitor.ended(node.member, id) ? 'taken' : 'unasked';
    return this.accepts(node, id) ? 'moved' : 'unasked';
  }

  /**
   * Every storage server, with what it watches for us.
   * @param recordOf what is known of it elsewhere
   */
  nodes<T extends object>(recordOf: (node: Node) => T = () => ({}) as T): (NodeReport & T)[] {
    const now = this.#now();
    return Array.from(this.#nodes.values(), (node) => ({ ...reportNode(node, now), ...recordOf(node) }));
  }

  /** Figures of the whole. Costs a look at each server and swarm, not at accounts: ages may be one interval old. */
  summary() {
    const { nodes, swarms } = this.size;
    let [connected, fresh, silent, unconfirmed, refused, uncovered, oldestSeconds] = [0, 0, 0, 0, 0, 0, 0];
    let [unusable, cutOff] = [0, 0];
    for (const { member, state } of this.#nodes.values()) {
      if (state === 'unusable') unusable++;
      if (state === 'cut-off') cutOff++;
      if (state === 'up') connected++;
      if (isFresh(member)) fresh++;
      if (isSilent(member)) silent++;
      unconfirmed += member.accounts - member.confirmed - member.refusedAccounts;
      refused += member.refusedAccounts;
    }
    for (const swarm of this.#swarms.current) {
      uncovered += swarm.uncovered;
      if (swarm.oldest > 0) oldestSeconds = Math.max(oldestSeconds, this.#now() - swarm.oldest);
    }
    const { pending } = this.#nodes;
    const sums = { connected, pending, fresh, silent, unusable, cutOff, unconfirmed, refused, uncovered };
    return { nodes, swarms, ...sums, oldestSeconds };
  }

  stop(): void {
    this.#pace.stop();
    this.#nodes.stop();
    this.#monitor.stop();
    this.#swarms.stop();
  }

  /** Whole seconds from 1 on, on a clock that never jumps. */
  #now(): number {
    return Math.floor((this.#clock.monotonic() - this.#origin) / 1000) + 1;
  }

  #enter(node: Node): void {
    const swarm = this.#swarms.get(node.address.swarm);
    if (swarm) this.#swarms.enter(node.member, swarm);
  }

  #move(node: Node, from: bigint): void {
    const now = this.#clock.monotonic();
    const formers = node.formers.filter((former) => former.until >= now && former.swarm !== from);
    node.formers = [...formers, { swarm: from, until: now + MONITOR_LIFETIME * 1000 }];
    this.#swarms.leave(node.member);
    this.#enter(node);
    this.#monitor.wake(node.member);
  }
}
