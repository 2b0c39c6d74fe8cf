import { Walk } from './walk.ts';

/** How long a storage server keeps a monitor that is not renewed, in seconds (docs/spec/network.md, section 3). */
export const MONITOR_LIFETIME = 65 * 60;

/** When to ask: a second, or one of these. */
const AT_ONCE = 0;
const NOT_AT_ALL = 0xffff_fffe;
const IN_FLIGHT = 0xffff_ffff;
/** What the server last said of an account. */
const NEVER = 0;
const ASKED = 1;
const CONFIRMED = 2;
const REFUSED = 3;
const SPARED = 4;
/** Renewals come between these ages of a confirmation, in seconds, as the original's do. */
const RENEW_FROM = 45 * 60;
const RENEW_TO = 55 * 60;
/** How long (seconds) an account whose own fault it is waits for the next attempt: at first, and at most. */
const RETRY_FROM = 4;
const RETRY_TO = 600;

export interface ScheduleOptions {
  /** Whole seconds from 1 on, on a clock that never jumps. */
  readonly now: () => number;
  /** Uniform in [0, 1). */
  readonly jitter: () => number;
  /** How long due renewals may be gathered into one request, in seconds. */
  readonly interval: number;
}

/**
 * When one storage server is to be asked for each account of its swarm (docs/spec/network.md, sections 3 and 5):
 *
 *     append, reset, changed, resigned
 *               │
 *               ▼       asked                     confirmed, exhausted, erred, elsewhere
 *            at once ─────────────► in flight ──────────────────────────────────────────► at a later second
 *            │  ▲  ▲                 │     ▲                                               │
 *     spared │  │  └ refused, failed ┘     └───────────────────── asked ───────────────────┤
 *            ▼  │                                                                          │ spared
 *         not at all ◄─────────────────────────────────────────────────────────────────────┘
 *               └── reconsider: at once, or at the renewal
 *
 * What the server last said of it is another matter: an account stays confirmed while its renewal is under way.
 *
 *     verb                    to be asked                                     last said
 *     append, reset           at once                                         never
 *     changed                 at once                                         as it was
 *     resigned                at once, unless confirmed or in flight          as it was
 *     asked                   in flight                                       never becomes asked
 *     confirmed               45 to 55 minutes after the question             confirmed
 *     refused                 at once, without that signature                 refused
 *     exhausted               as if confirmed now; all signatures count then  refused
 *     erred                   in 4, 8, … 600 seconds                          as it was
 *     elsewhere               at the end of the dispute                       asked
 *     ended                   as it was                                       asked
 *     failed                  at once                                         as it was
 *     spared                  not at all                                      spared, unless confirmed as it is asked
 *     reconsider              of those that are spared: at once, or if        spared becomes never
 *                             confirmed when they would be renewed
 *     measure                 as it was                                       confirmed becomes never after 65 minutes,
 *                                                                             or spared
 *
 * Spared is what another hivemind hears of first, and is asked of enough other servers ({@link Sparing}). There is no
 * way to end a monitor: what was confirmed before goes on until its time is over.
 *
 * The typed arrays run parallel to the account list of the swarm: 10 bytes for each account, whatever it subscribed to.
 */
export class Schedule {
  readonly #options: ScheduleOptions;
  /** The search for what is due. */
  readonly walk = new Walk();
  #count = 0;
  #due = new Uint32Array(0);
  /** The last confirmation or, before the first, since when one is wanted. */
  #since = new Uint32Array(0);
  #state = new Uint8Array(0);
  /** Failed attempts in a row that are this account's own fault. */
  #tries = new Uint8Array(0);
  /** Signatures that this server refused, by account id. */
  readonly #barred = new Map<number, Set<number>>();
  #confirmed = 0;
  #refused = 0;
  #spared = 0;
  #oldest = 0;
  #lastError = '';

  constructor(options: ScheduleOptions) {
    this.#options = options;
  }

  /** How many accounts the server is to monitor. */
  get count(): number {
    return this.#count;
  }

  /**
   * How many of them it has confirmed, refuses, need not monitor, and none of these; the oldest confirmation (seconds,
   * 0 = none) of those that it is to monitor and does not refuse, at the last {@link measure}; and what it last had
   * against us, in words.
   */
  get figures() {
    const [confirmed, refused, spared] = [this.#confirmed, this.#refused, this.#spared];
    const unconfirmed = this.#count - confirmed - refused - spared;
    return { confirmed, refused, spared, unconfirmed, oldest: this.#oldest, lastError: this.#lastError };
  }

  isConfirmed(position: number): boolean {
    return this.#state[position] === CONFIRMED;
  }

  isRefused(position: number): boolean {
    return this.#state[position] === REFUSED;
  }

  /** Whether it is not asked for it, and as far as we know does not monitor it. */
  isSpared(position: number): boolean {
    return this.#state[position] === SPARED;
  }

  isInFlight(position: number): boolean {
    return this.#due[position] === IN_FLIGHT;
  }

  isAtOnce(position: number): boolean {
    return this.#due[position] === AT_ONCE;
  }

  sinceOf(position: number): number {
    return this.#since[position]!;
  }

  /** Begins with a list of so many accounts, of which nothing has been asked yet. `room`: how many to allow for. */
  begin(count: number, room: number): void {
    this.#count = count;
    this.#due = new Uint32Array(room);
    this.#since = new Uint32Array(room).fill(this.#options.now(), 0, count);
    this.#state = new Uint8Array(room);
    this.#tries = new Uint8Array(room);
    this.#forget();
  }

  /** After a handshake: the server may have restarted and forgotten us. */
  reset(): void {
    this.#due.fill(AT_ONCE, 0, this.#count);
    this.#state.fill(NEVER, 0, this.#count);
    this.#tries.fill(0, 0, this.#count);
    this.#forget();
  }

  /** An account comes at the end of the list, in the second `now`. `room`: how many to allow for. */
  append(now: number, room: number): void {
    const position = this.#count++;
    if (position === this.#due.length) this.#grow(room);
    this.#due[position] = AT_ONCE;
    this.#since[position] = now;
    this.#state[position] = NEVER;
    this.#tries[position] = 0;
  }

  /** The account at `position` goes, the last one takes its place. */
  remove(position: number, id: number): void {
    const last = --this.#count;
    this.#set(position, NEVER);
    this.#due[position] = this.#due[last]!;
    this.#since[position] = this.#since[last]!;
    this.#state[position] = this.#state[last]!;
    this.#tries[position] = this.#tries[last]!;
    this.#barred.delete(id);
    this.walk.reordered();
  }

  /** There is something new to ask about an account. */
  changed(position: number): void {
    this.#due[position] = AT_ONCE;
    this.#tries[position] = 0;
  }

  /**
   * Other signatures stand for what is asked. A storage server keeps none: if it has confirmed the account it need not
   * hear of it before the next renewal; and the answer to a request that is under way tells by itself whether another
   * signature is needed.
   * @returns whether there is something to ask
   */
  resigned(position: number): boolean {
    if (this.isConfirmed(position) || this.isInFlight(position) || this.isSpared(position)) return false;
    this.changed(position);
    return true;
  }

  /**
   * Signatures of an account that are not to be used if it is asked for now. A regular renewal is the time to give them
   * another chance: the fault may have been the server's.
   */
  barredNow(position: number, id: number): ReadonlySet<number> | undefined {
    if (!this.isAtOnce(position)) this.#barred.delete(id);
    return this.#barred.get(id);
  }

  asked(position: number): void {
    this.#due[position] = IN_FLIGHT;
    if (this.#state[position] === NEVER || this.isSpared(position)) this.#set(position, ASKED);
  }

  /** `at`: the second in which it was asked; the server cannot have begun to monitor earlier. */
  confirmed(position: number, at: number): void {
    this.#set(position, CONFIRMED);
    this.#since[position] = at;
    this.#tries[position] = 0;
    this.#due[position] = this.#renewal(at);
  }

  /** Not to be used for this account again before the next renewal. `signature`: its number in the request. */
  bar(id: number, signature: number, code: number): void {
    this.#lastError = `signature refused with code ${code}`;
    const barred = this.#barred.get(id);
    if (barred) barred.add(signature);
    else this.#barred.set(id, new Set([signature]));
  }

  refused(position: number): void {
    this.#set(position, REFUSED);
    this.#due[position] = AT_ONCE;
  }

  /** No signature is left, or what is asked fits into no request. */
  exhausted(position: number): void {
    this.#set(position, REFUSED);
    this.#due[position] = this.#renewal(this.#options.now());
  }

  /** An error of this account alone that may pass. */
  erred(position: number, reason: string): void {
    this.#lastError = reason;
    const tries = this.#tries[position]!;
    this.#tries[position] = Math.min(tries + 1, 255);
    const wait = Math.min(RETRY_TO, RETRY_FROM * 2 ** tries);
    this.#due[position] = this.#options.now() + Math.ceil(wait * (0.5 + this.#options.jitter()));
    this.walk.wantAt(this.#due[position]);
  }

  /** By the server's word the account is not in its swarm: asked for again in the second `due`, if it stays here. */
  elsewhere(position: number, due: number, reason: string): void {
    this.#lastError = reason;
    this.#set(position, ASKED);
    this.#due[position] = due;
    this.walk.wantAt(due);
  }

  /** By the server's word it monitors an account no longer that it has confirmed. */
  ended(position: number): void {
    this.#set(position, ASKED);
  }

  /** It is due, and need not be asked for: another hivemind is first, and other servers tell us enough of it. */
  spared(position: number): void {
    // What has changed since it was confirmed is not what the server monitors.
    if (!this.isConfirmed(position) || this.isAtOnce(position)) this.#set(position, SPARED);
    this.#due[position] = NOT_AT_ALL;
  }

  /** Some of what is spared may have to be asked for: all of it becomes due again. About 2 ms for a million. */
  reconsider(): void {
    const now = this.#options.now();
    for (let position = 0; position < this.#count; position++) {
      if (this.#due[position] !== NOT_AT_ALL) continue;
      if (this.isConfirmed(position)) {
        this.#due[position] = this.#renewal(this.#since[position]!);
        continue;
      }
      this.#set(position, NEVER);
      this.#since[position] = now;
      this.#due[position] = AT_ONCE;
    }
  }

  /** The request that it was part of came to nothing. */
  failed(position: number): void {
    if (this.isInFlight(position)) this.#due[position] = AT_ONCE;
  }

  /** A whole request came to nothing, and the walk that it came from begins anew. */
  failedAll(reason: string): void {
    this.#lastError = reason;
    this.walk.beginAnew();
  }

  /**
   * The next position with something due, where the walk stays; undefined if there is none within `steps`, or none
   * left.
   */
  next(steps: number): number | undefined {
    return this.walk.next(this.#due, this.#count, steps);
  }

  /**
   * Looks at every account (about 2 ms for a million): finds the oldest confirmation, and takes the word "confirmed"
   * from those whose time at the server is over.
   */
  measure(): void {
    const [due, since, state, count] = [this.#due, this.#since, this.#state, this.#count];
    const lapsed = this.#options.now() - MONITOR_LIFETIME;
    let oldest = IN_FLIGHT;
    for (let position = 0; position < count; position++) {
      const s = state[position]!;
      if (s === REFUSED) continue;
      const at = since[position]!;
      const isSpared = due[position] === NOT_AT_ALL;
      if (at < oldest && !isSpared) oldest = at;
      if (at < lapsed && s === CONFIRMED) this.#set(position, isSpared ? SPARED : NEVER);
    }
    this.#oldest = oldest === IN_FLIGHT ? 0 : oldest;
  }

  /** When a confirmation of this second is to be renewed: early enough to be gathered with others for one interval. */
  #renewal(confirmed: number): number {
    const { jitter, interval } = this.#options;
    return confirmed + RENEW_FROM + Math.floor(jitter() * (RENEW_TO - RENEW_FROM - interval));
  }

  #set(position: number, state: number): void {
    const before = this.#state[position]!;
    if (before === CONFIRMED) this.#confirmed--;
    else if (before === REFUSED) this.#refused--;
    else if (before === SPARED) this.#spared--;
    if (state === CONFIRMED) this.#confirmed++;
    else if (state === REFUSED) this.#refused++;
    else if (state === SPARED) this.#spared++;
    this.#state[position] = state;
  }

  #grow(room: number): void {
    this.#due = new Uint32Array(this.#due.buffer.transfer(4 * room));
    this.#since = new Uint32Array(this.#since.buffer.transfer(4 * room));
    this.#state = new Uint8Array(this.#state.buffer.transfer(room));
    this.#tries = new Uint8Array(this.#tries.buffer.transfer(room));
  }

  #forget(): void {
    this.#barred.clear();
    this.#confirmed = 0;
    this.#refused = 0;
    this.#spared = 0;
    this.walk.restart();
  }
}
