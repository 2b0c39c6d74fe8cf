import type { Clock, Timer } from '../../../clock.ts';
import { RecentFingerprints } from '../../../recent-fingerprints.ts';
import type { News, Progress } from '../../../session/cluster-protocol.ts';
import { type Copy, highOf, type Keeper, lowOf } from './copy.ts';
import type { Duty } from './duty.ts';
import { ProgressReports, type Tell } from './progress-reports.ts';

/** Where pushes go that are ours to send. */
export interface Outlet {
  /** Whether a notifier of ours takes pushes of that service. */
  hasNotifier(service: string): boolean;
  /** Queues a push that was held back. */
  send(copy: Copy): void;
  /** Another member has ended a push that may be in our queue. */
  endedElsewhere(copy: Copy): void;
}

/** What a standby works with. */
export interface StandbyOptions {
  readonly clock: Clock;
  readonly duty: Duty;
  readonly outlet: Outlet;
  readonly tell: Tell;
  /** The most memory that pushes held back may take, in bytes. */
  readonly maxBytes: () => number;
  /** Runs a function when the messages that have arrived are dealt with. */
  readonly defer: (callback: () => void) => void;
}

/**
 * Why a push that was held back is sent after all: the first said nothing of it (`silence`), will not send it (`none`),
 * or is dead (`gone`); we are the first now (`duty`); there was no more memory (`room`).
 */
export type ReleaseReason = 'silence' | 'none' | 'gone' | 'duty' | 'room';

/** How long (ms) the first may say nothing of a push: it gathers its news for a tenth of that. */
export const SILENCE = 1_000;
/** How long (ms) news are remembered of pushes that we do not have yet: for one to two times that. */
const REMEMBERED = 60_000;
/** Of each kind of news, in one generation: 10 MB at most. */
const MAX_REMEMBERED = 500_000;
/** So many are released before the event loop gets its turn: about 2 ms. */
const SLICE = 500;

/**
 * The pushes that another member of the cluster sends first. They are held back, unsealed, until that one or any other
 * says what became of them, and sent if nobody does. Whatever goes wrong here, a push is sent that another member sends
 * as well, and the notifier drops it: never is one forgotten that no living member has in hand.
 *
 *     verb       what is known                                        state (see {@link CopyState})
 *     take       ended at another member                              not held at all
 *     take       a living member has it in hand                       kept
 *     take       we are first, or nobody is                           ours
 *     take       another one is first                                 waiting
 *     heed       a member has it in hand                              waiting, due → kept
 *     heed       the first, or who has it in hand, will not send it   waiting, kept → released
 *     heed       ended                                                any → gone
 *     a second   nothing was said                                     waiting → released
 *     duty       the first, or who has it in hand, is dead            waiting, due, kept → released
 *     duty       we are first now                                     waiting, due → released
 *
 * Where a push is to be released that we have no notifier for, while another member has it too, it is `due` instead,
 * and waits for a second from the moment on when a notifier comes.
 */
export class Standby {
  readonly counters = {
    /** Of those held back: sent after all. */
    released: { silence: 0, none: 0, gone: 0, duty: 0, room: 0 } satisfies Record<ReleaseReason, number>,
    /** Not sent, as another member had ended them. */
    ended: 0,
    /** Not sent, as the same push is here already. */
    repeated: 0,
    /** Given up, as they were older than a push may get, and nobody had said what became of them. */
    tooOld: 0,
    /** Left to the other members when we stopped. */
    left: 0,
  };
  readonly #options: StandbyOptions;
  readonly #reports: ProgressReports;
  /** All that are here, held back or ours, by {@link Identity.key}. */
  readonly #known = new Map<string, Copy>();
  /** Those made of doubtful messages, by each of the {@link Identity.lesser} keys. */
  readonly #doubtful = new Map<string, Set<Copy>>();
  /** Held back, oldest first. */
  readonly #held = new Set<Copy>();
  /** Of these the `waiting`, in the order in which their time is over. */
  readonly #waiting = new Set<Copy>();
  readonly #released = new Map<Copy, ReleaseReason>();
  #releasing = false;
  #bytes = 0;
  #timer: Timer | undefined;
  #stopped = false;
  /** By name; of each the run that it spoke of last. */
  readonly #keepers = new Map<string, Keeper>();
  /** News of pushes that we do not have yet: a message may come to us later than to others. */
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

  /** Pushes held back. */
  get size(): number {
    return this.#held.size;
  }

  /** The memory they take. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Those of which it is not known yet whether another member has them. */
  get unsettled(): number {
    return this.#waiting.size + this.#released.size;
  }

  /**
   * Decides on a new push.
   *
   * @returns whether it is ours to send, and then {@link queued} must follow
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

  /** A push is in our queue. */
  queued(copy: Copy): void {
    copy.state = 'ours';
    this.#index(copy);
    this.announce(copy);
  }

  /** Tells the others whether a push in our queue is in good hands here: to be called again when that changes. */
  announce(copy: Copy): void {
    this.#note(copy, this.#options.outlet.hasNotifier(copy.push.message.service) ? 'handed' : 'none');
  }

  /** One of ours is done with. */
  ended(copy: Copy): void {
    this.#end(copy, 'ended');
  }

  /** One of ours had to be given up, and another member may still send it. */
  gaveUp(copy: Copy): void {
    this.#end(copy, 'none');
  }

  /** One of ours was ended by another member, and has left our queue. */
  left(copy: Copy): void {
    this.#forget(copy);
  }

  /** What another member says. */
  heed({ name, run, handed, ended, none }: Progress): void {
    const keeper = this.#keeper(name, run);
    for (const key of ended) this.#heedEnded(key);
    for (const key of none) this.#heedNone(key, keeper);
    for (const key of handed) this.#heedHanded(key, keeper);
  }

  /** A notifier takes pushes of that service, where there was none before. */
  notifierCame(service: string): void {
    // The first may have heard of it as well, and gets its second to say so.
    for (const copy of this.#held) if (copy.state === 'due' && copy.push.message.service === service) this.#await(copy);
  }

  /**
   * Called every few seconds.
   * @param maxAge how long a push may wait, in ms
   */
  sweep(maxAge: number): void {
    const now = this.#options.clock.monotonic();
    for (const copy of this.#held) {
      if (now - copy.push.message.queuedAt <= maxAge) break;
      this.#letGo(copy);
      this.#forget(copy);
      this.counters.tooOld++;
    }
  }

  /** Leaves what is held back to the other members. What is ours is still reported until {@link close}. */
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

  /** Tells the other members what they have not been told yet, for `ms` milliseconds at most. */
  async flush(ms: number): Promise<void> {
    await this.#reports.flush(ms);
  }

  /** Reports nothing any more. */
  close(): void {
    this.#reports.stop();
  }

  /** Whether nobody else is to send it first. */
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
    if (state === 'waiting') this.#await(copy);
    const most = this.#options.maxBytes();
    for (const oldest of this.#held) {
      if (this.#bytes <= most) break;
      this.#release(oldest, 'room');
    }
  }

  #await(copy: Copy): void {
    copy.state = 'waiting';
    copy.since = this.#options.clock.monotonic();
    this.#waiting.add(copy);
    this.#arm();
  }

  #arm(): void {
    if (this.#timer || this.#stopped) return;
    const { clock } = this.#options;
    for (const { since } of this.#waiting) {
      this.#timer = clock.setTimeout(() => this.#silent(), since + SILENCE - clock.monotonic());
      return;
    }
  }

  #silent(): void {
    this.#timer = undefined;
    const due = this.#options.clock.monotonic() - SILENCE;
    for (const copy of this.#waiting) {
      if (copy.since > due) break;
      this.#releaseIfWeCan(copy, 'silence');
    }
    this.#arm();
  }

  #heedEnded(key: string): void {
    const known = this.#known.get(key);
    if (!known) this.#ended.add(lowOf(key), highOf(key));
    this.#forEachOf(key, known, (copy) => {
      if (copy.state === 'ours') this.#options.outlet.endedElsewhere(copy);
      if (copy.state === 'ours' || copy.state === 'over') return;
      if (!this.#released.delete(copy)) this.#letGo(copy);
      this.#forget(copy);
      this.counters.ended++;
    });
  }

  #heedHanded(key: string, keeper: Keeper): void {
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

  #heedNone(key: string, keeper: Keeper): void {
    const copy = this.#known.get(key);
    if (!copy) this.#none.add(lowOf(key), highOf(key));
    else if (copy.state === 'kept') {
      // A third member's word changes nothing.
      if (copy.keeper === keeper || !this.#lives(copy.keeper)) this.#releaseIfWeCan(copy, 'none');
    } else if (copy.state === 'waiting' && this.#options.duty.firstOf(copy.slot) === keeper.name) {
      this.#releaseIfWeCan(copy, 'none');
    }
  }

  /** Every push that this key speaks of: its own, and the same with more doubt. */
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

  /** Releases it, unless we have no notifier for it. */
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
    this.#letGo(copy);
    copy.state = 'released';
    this.#released.set(copy, reason);
    if (this.#releasing) return;
    this.#releasing = true;
    this.#options.defer(() => this.#sendReleased());
  }

  /** In slices: when a member dies, all that it had in hand is released at once. */
  #sendReleased(): void {
    let left = SLICE;
    for (const [copy, reason] of this.#released) {
      if (left-- === 0) break;
      this.#released.delete(copy);
      this.counters.released[reason]++;
      this.#options.outlet.send(copy);
    }
    this.#releasing = this.#released.size > 0;
    if (this.#releasing) this.#options.defer(() => this.#sendReleased());
  }

  /** Takes it out of those held back. */
  #letGo(copy: Copy): void {
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

  /** A living member that has said it has that push in hand. */
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
