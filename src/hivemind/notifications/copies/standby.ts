import type { Clock, Timer } from '../../../clock.ts';
import { RecentFingerprints } from '../../../recent-fingerprints.ts';
import type { News, Progress } from '../../../session/cluster-protocol.ts';
import type { Copy, Keeper } from '../outbox/push.ts';
import type { Duty } from './duty.ts';
import { highOf, lowOf } from './fingerprints.ts';
import { ProgressReports, type Tell } from './progress-reports.ts';

/** Where pushes go once they are ours to send. */
export interface Outlet {
  /** Whether we have a notifier for that service. */
  hasNotifier(service: string): boolean;
  /** Queues a push that was held back. */
  send(copy: Copy): void;
  /** Another member has ended a push that may be in our queue. */
  endedElsewhere(copy: Copy): void;
}

/** What {@link Standby} is built from. */
export interface StandbyOptions {
  readonly clock: Clock;
  readonly duty: Duty;
  readonly outlet: Outlet;
  readonly tell: Tell;
  /** The most memory that pushes held back may take, in bytes. */
  readonly maxBytes: () => number;
  /** Calls back once the messages that have arrived are handled. */
  readonly defer: (callback: () => void) => void;
}

/**
 * Why a push that was held back is sent after all. The member that sends first has not mentioned it (`silence`), will
 * not send it (`none`) or is dead (`gone`); we send first now (`duty`); or there was no more memory (`room`).
 */
export type ReleaseReason = 'silence' | 'none' | 'gone' | 'duty' | 'room';

/** How long (ms) we wait for the first to mention a push. It gathers its news for a tenth of that. */
export const SILENCE = 1_000;
/** How long (ms) news of pushes that we do not have yet are remembered: one to two times this. */
const REMEMBERED = 60_000;
/** The most news of each kind in one generation: 10 MB. */
const MAX_REMEMBERED = 500_000;
/** How many pushes are released before the event loop gets its turn: about 2 ms. */
const RELEASES_PER_TURN = 500;

/**
 * Holds back the pushes that another member of the cluster sends first. They are kept, unsealed, until some member says
 * what became of them, and sent if none does. If anything goes wrong here, a push is sent that another member sends as
 * well, and the notifier drops it; but none is ever forgotten that no living member has in hand.
 *
 *     call         what is known                                      state ({@link CopyState})
 *     take         another member has ended it                        not held at all
 *     take         a living member has it in hand                     kept
 *     take         we are first, or nobody is                         ours
 *     take         another member is first                            waiting
 *     onProgress   a member has it in hand                            waiting, due → kept
 *     onProgress   the first, or its keeper, will not send it         waiting, kept → released
 *     onProgress   a member has ended it                              any → gone
 *     a second     nothing was said                                   waiting → released
 *     duty         the first, or its keeper, is dead                  waiting, due, kept → released
 *     duty         we are first now                                   waiting, due → released
 *
 * A push that should be released, but that we have no notifier for while another member has it too, becomes `due`. When
 * a notifier comes it waits for a second as at first.
 */
export class Standby {
  readonly counters = {
    /** Sent after all. */
    released: { silence: 0, none: 0, gone: 0, duty: 0, room: 0 } satisfies Record<ReleaseReason, number>,
    /** Not sent, because another member had ended them. */
    ended: 0,
    /** Not sent, because the same push was here already. */
    repeated: 0,
    /** Given up as too old, although nobody had said what became of them. */
    tooOld: 0,
    /** Left to the other members when we stopped. */
    left: 0,
  };
  readonly #options: StandbyOptions;
  readonly #reports: ProgressReports;
  /** All copies, held back or ours, by {@link PushIdentity.key}. */
  readonly #known = new Map<string, Copy>();
  /** Copies made of doubtful messages, by each of their {@link PushIdentity.lesser} keys. */
  readonly #doubtful = new Map<string, Set<Copy>>();
  /** The copies held back, oldest first. */
  readonly #held = new Set<Copy>();
  /** Those of them that are `waiting`, in the order in which their second is over. */
  readonly #waiting = new Set<Copy>();
  /** Released copies that are still to be sent. */
  readonly #released = new Map<Copy, ReleaseReason>();
  #releasing = false;
  #bytes = 0;
  #timer: Timer | undefined;
  #stopped = false;
  /** By name, the latest run that each member has reported from. */
  readonly #keepers = new Map<string, Keeper>();
  /** News of pushes that we do not have yet: a message may reach us later than others. */
  readonly #ended: RecentFingerprints;
  readonly #none: RecentFingerprints;
  readonly #handed = new Map<Keeper, RecentFingerprints>();

  constructor(options: StandbyOptions) {
    this.#options = options;
    const { clock, duty, tell } = options;
    this.#reports = new ProgressReports({ clock, isLiving: (name) => duty.isLiving(name), tell });
    this.#ended = new RecentFingerprints(clock, REMEMBERED, MAX_REMEMBERED);
    this.#none = new RecentFingerprints(clock, REMEMBERED, MAX_REMEMBERED);
    duty.onChange(() => this.#dutyChanged());
  }

  /** How many pushes are held back. */
  get size(): number {
    return this.#held.size;
  }

  /** The memory that they take, in bytes. */
  get bytes(): number {
    return this.#bytes;
  }

  /** How many pushes may be lost if we stop now: it is not known yet whether another member has them. */
  get unsettled(): number {
    return this.#waiting.size + this.#released.size;
  }

  /** How much news of pushes the other members are not known to have. */
  get untold(): number {
    return this.#reports.waiting;
  }

  /**
   * Decides on a new push.
   *
   * @returns whether it is ours to send; {@link queued} must then follow
   */
  take(copy: Copy): boolean {
    const { outlet } = this.#options;
    const { service } = copy.push.message;
    if (this.#known.has(copy.key)) {
      this.counters.repeated++;
      return false;
    }
    if (remembers(this.#ended, copy)) {
      this.counters.ended++;
      return false;
    }
    const keeper = this.#keeperOf(copy);
    if (keeper) this.#hold(copy, 'kept', keeper);
    else if (this.#isOurs(copy)) return true;
    else if (!remembers(this.#none, copy)) this.#hold(copy, 'waiting');
    else if (outlet.hasNotifier(service)) return true;
    else this.#hold(copy, 'due');
    return false;
  }

  /** A push enters our queue. */
  queued(copy: Copy): void {
    copy.state = 'ours';
    this.#index(copy);
    this.announce(copy);
  }

  /** Tells the others whether we have a notifier for a push in our queue; to be called again when that changes. */
  announce(copy: Copy): void {
    this.#note(copy, this.#options.outlet.hasNotifier(copy.push.message.service) ? 'handed' : 'none');
  }

  /** A push of ours has ended. */
  ended(copy: Copy): void {
    this.#end(copy, 'ended');
  }

  /** A push of ours was given up, but another member may still send it. */
  gaveUp(copy: Copy): void {
    this.#end(copy, 'none');
  }

  /** A push of ours that another member has ended has left our queue. */
  left(copy: Copy): void {
    this.#forget(copy);
  }

  /** Takes another member's report. */
  onProgress({ name, run, handed, ended, none }: Progress): void {
    const keeper = this.#keeper(name, run);
    for (const key of ended) this.#onEnded(key);
    for (const key of none) this.#onNone(key, keeper);
    for (const key of handed) this.#onHanded(key, keeper);
  }

  /** We have a notifier for that service, and had none before. */
  notifierCame(service: string): void {
    // The first may have one too now: it gets its second to say so.
    for (const copy of this.#held)
      if (copy.state === 'due' && copy.push.message.service === service) this.#startWaiting(copy);
  }

  /**
   * Gives up copies that are too old. Called every few seconds.
   * @param maxAge how long a push may wait, in ms
   */
  sweep(maxAge: number): void {
    const now = this.#options.clock.monotonic();
    for (const copy of this.#held) {
      if (now - copy.push.message.queuedAt <= maxAge) break;
      this.#unhold(copy);
      this.#forget(copy);
      this.counters.tooOld++;
    }
  }

  /** Leaves what is held back to the other members. What becomes of ours is reported until {@link close}. */
  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
    this.#timer = undefined;
    this.counters.left += this.#held.size + this.#released.size;
    for (const copies of [this.#held, this.#released.keys()]) for (const copy of copies) this.#forget(copy);
    this.#held.clear();
    this.#waiting.clear();
    this.#released.clear();
    this.#bytes = 0;
  }

  /** Tells the other members what they have not been told yet, but takes no longer than `ms`. */
  async flush(ms: number): Promise<void> {
    await this.#reports.flush(ms);
  }

  /** Stops reporting. */
  close(): void {
    this.#reports.stop();
  }

  /** Whether no other living member sends it first. */
  #isOurs({ slot }: Copy): boolean {
    const { duty } = this.#options;
    const first = duty.firstOf(slot);
    return first === undefined || first === duty.own || !duty.isLiving(first);
  }

  #hold(copy: Copy, state: 'waiting' | 'kept' | 'due', keeper?: Keeper): void {
    copy.state = state;
    copy.keeper = keeper;
    this.#index(copy);
    this.#held.add(copy);
    const { push } = copy;
    this.#bytes += push.bytes;
    if (push.message.heldBack++ === 0) this.#bytes += push.message.bytes;
    if (state === 'waiting') this.#startWaiting(copy);
    const most = this.#options.maxBytes();
    for (const oldest of this.#held) {
      if (this.#bytes <= most) break;
      this.#release(oldest, 'room');
    }
  }

  #startWaiting(copy: Copy): void {
    copy.state = 'waiting';
    copy.since = this.#options.clock.monotonic();
    this.#waiting.add(copy);
    this.#arm();
  }

  #arm(): void {
    if (this.#timer || this.#stopped) return;
    const { clock } = this.#options;
    for (const { since } of this.#waiting) {
      this.#timer = clock.setTimeout(() => this.#releaseSilent(), since + SILENCE - clock.monotonic());
      return;
    }
  }

  #releaseSilent(): void {
    this.#timer = undefined;
    const due = this.#options.clock.monotonic() - SILENCE;
    for (const copy of this.#waiting) {
      if (copy.since > due) break;
      this.#releaseIfWeCan(copy, 'silence');
    }
    this.#arm();
  }

  #onEnded(key: string): void {
    const known = this.#known.get(key);
    if (!known) this.#ended.add(lowOf(key), highOf(key));
    this.#forEachOf(key, known, (copy) => {
      if (copy.state === 'ours') this.#options.outlet.endedElsewhere(copy);
      if (copy.state === 'ours' || copy.state === 'over') return;
      if (!this.#released.delete(copy)) this.#unhold(copy);
      this.#forget(copy);
      this.counters.ended++;
    });
  }

  #onHanded(key: string, keeper: Keeper): void {
    const known = this.#known.get(key);
    if (!known) {
      let handed = this.#handed.get(keeper);
      if (!handed) {
        handed = new RecentFingerprints(this.#options.clock, REMEMBERED, MAX_REMEMBERED);
        this.#handed.set(keeper, handed);
      }
      handed.add(lowOf(key), highOf(key));
    }
    this.#forEachOf(key, known, (copy) => {
      if (copy.state !== 'waiting' && copy.state !== 'due' && copy.state !== 'kept') return;
      this.#waiting.delete(copy);
      copy.state = 'kept';
      copy.keeper = keeper;
    });
  }

  #onNone(key: string, keeper: Keeper): void {
    const copy = this.#known.get(key);
    if (!copy) this.#none.add(lowOf(key), highOf(key));
    else if (copy.state === 'kept') {
      // What a third member says changes nothing.
      if (copy.keeper === keeper || !this.#lives(copy.keeper)) this.#releaseIfWeCan(copy, 'none');
    } else if (copy.state === 'waiting' && this.#options.duty.firstOf(copy.slot) === keeper.name) {
      this.#releaseIfWeCan(copy, 'none');
    }
  }

  /** Visits every copy that news of this key is about: its own, and those of the same push with more doubt. */
  #forEachOf(key: string, known: Copy | undefined, visit: (copy: Copy) => void): void {
    if (known) visit(known);
    if (this.#doubtful.size === 0) return;
    for (const copy of [...(this.#doubtful.get(key) ?? [])]) visit(copy);
  }

  #dutyChanged(): void {
    const { duty } = this.#options;
    for (const name of this.#keepers.keys()) if (!duty.isLiving(name)) this.#keepers.delete(name);
    const living = new Set([...this.#keepers.values()].filter((keeper) => this.#lives(keeper)));
    for (const keeper of this.#handed.keys()) if (!living.has(keeper)) this.#handed.delete(keeper);
    for (const copy of this.#held) {
      if (copy.state === 'kept') {
        if (copy.keeper && !living.has(copy.keeper)) this.#release(copy, 'gone');
        continue;
      }
      const first = duty.firstOf(copy.slot);
      if (first === undefined || first === duty.own) this.#release(copy, 'duty');
      else if (!duty.isLiving(first)) this.#release(copy, 'gone');
    }
  }

  /** Releases a copy, unless we have no notifier for it. */
  #releaseIfWeCan(copy: Copy, reason: ReleaseReason): void {
    if (this.#options.outlet.hasNotifier(copy.push.message.service)) {
      this.#release(copy, reason);
      return;
    }
    this.#waiting.delete(copy);
    copy.state = 'due';
    copy.keeper = undefined;
  }

  #release(copy: Copy, reason: ReleaseReason): void {
    this.#unhold(copy);
    copy.state = 'released';
    this.#released.set(copy, reason);
    if (this.#releasing) return;
    this.#releasing = true;
    this.#options.defer(() => this.#sendReleased());
  }

  /** In slices, because all that a member had is released at once when it dies. */
  #sendReleased(): void {
    let left = RELEASES_PER_TURN;
    for (const [copy, reason] of this.#released) {
      if (left-- === 0) break;
      this.#released.delete(copy);
      this.counters.released[reason]++;
      this.#options.outlet.send(copy);
    }
    this.#releasing = this.#released.size > 0;
    if (this.#releasing) this.#options.defer(() => this.#sendReleased());
  }

  /** Takes a copy out of those held back. */
  #unhold(copy: Copy): void {
    if (!this.#held.delete(copy)) return;
    this.#waiting.delete(copy);
    copy.keeper = undefined;
    const { push } = copy;
    this.#bytes -= push.bytes;
    if (--push.message.heldBack === 0) this.#bytes -= push.message.bytes;
  }

  #end(copy: Copy, news: 'ended' | 'none'): void {
    this.#forget(copy);
    this.#note(copy, news);
  }

  #note({ key, slot }: Copy, news: keyof News): void {
    for (const member of this.#options.duty.othersOf(slot)) this.#reports.note(member, key, news);
  }

  #index(copy: Copy): void {
    this.#known.set(copy.key, copy);
    for (const key of copy.lesser) {
      const those = this.#doubtful.get(key);
      if (those) those.add(copy);
      else this.#doubtful.set(key, new Set([copy]));
    }
  }

  #forget(copy: Copy): void {
    this.#known.delete(copy.key);
    for (const key of copy.lesser) {
      const those = this.#doubtful.get(key);
      if (those?.delete(copy) && those.size === 0) this.#doubtful.delete(key);
    }
  }

  #keeper(name: string, run: bigint): Keeper {
    let keeper = this.#keepers.get(name);
    if (keeper?.run !== run) {
      keeper = { name, run };
      this.#keepers.set(name, keeper);
    }
    return keeper;
  }

  /** A living member that has said that it has this push in hand. */
  #keeperOf(copy: Copy): Keeper | undefined {
    for (const [keeper, handed] of this.#handed) {
      if (remembers(handed, copy) && this.#lives(keeper)) return keeper;
    }
    return undefined;
  }

  #lives(keeper: Keeper | undefined): boolean {
    return keeper !== undefined && this.#options.duty.isLiving(keeper.name, keeper.run);
  }
}

function remembers(recent: RecentFingerprints, { key, lesser }: Copy): boolean {
  if (recent.size === 0) return false;
  if (recent.has(lowOf(key), highOf(key))) return true;
  return lesser.some((less) => recent.has(lowOf(less), highOf(less)));
}
