import { Walk } from './walk.ts';

/** How long a storage server keeps a monitor that is not renewed, in seconds (docs/spec/network.md, section 3). */
export const MONITOR_LIFETIME = 65 * 60;

/** When an account is due: a second, or one of these. */
const AT_ONCE = 0;
const NOT_AT_ALL = 0xffff_fffe;
const IN_FLIGHT = 0xffff_ffff;
/** What the server last said about an account. */
const NEVER = 0;
const ASKED = 1;
const CONFIRMED = 2;
const REFUSED = 3;
const SPARED = 4;
/** The ages of a confirmation, in seconds, between which it is renewed, as in the original. */
const RENEW_FROM = 45 * 60;
const RENEW_TO = 55 * 60;
/** How long (seconds) to wait after an error that is about one account alone, at first and at most. */
const RETRY_FROM = 4;
const RETRY_TO = 600;

/** Lists without room. Shared, since 2,000 servers may be listed at once, before any has an account. */
const NO_SECONDS = new Uint32Array(0);
const NO_BYTES = new Uint8Array(0);

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
 * What the server last said is kept separately: an account stays confirmed while its renewal is in flight.
 *
 *     call                    due                                             last said
 *     append, reset           at once                                         never
 *     changed                 at once                                         as it was
 *     resigned                at once, unless confirmed or in flight          as it was
 *     asked                   in flight                                       never becomes asked
 *     confirmed               45 to 55 minutes after it was asked             confirmed
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
 * An account is spared if another hivemind sends first and enough other servers are asked for it ({@link Sparing}). A
 * monitor cannot be ended: what was confirmed before goes on until its time is over.
 *
 * The typed arrays run parallel to the account list of the swarm: 10 bytes for each account, whatever it subscribed to.
 */
export class Schedule {
  readonly #options: ScheduleOptions;
  /** The search for what is due. */
  readonly walk = new Walk();
  #count = 0;
  #due = NO_SECONDS;
  /** When the account was last confirmed or, before the first time, since when it should be; seconds. */
  #since = NO_SECONDS;
  #state = NO_BYTES;
  /** Errors in a row about this account alone. */
  #tries = NO_BYTES;
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

  /** How many accounts there are in its swarm. */
  get count(): number {
    return this.#count;
  }

  /**
   * How many accounts the server has confirmed, refused, been spared, and none of these; the oldest confirmation of
   * those neither refused nor spared, at the last {@link measure} (seconds, 0 if there is none); and its last error.
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

  /** Whether the server is not asked for the account, and as far as we know does not monitor it. */
  isSpared(position: number): boolean {
    return this.#state[position] === SPARED;
  }

  isInFlight(position: number): boolean {
    return this.#due[position] === IN_FLIGHT;
  }

  isAtOnce(position: number): boolean {
    return this.#due[position] === AT_ONCE;
  }

  /** The second of the last confirmation or, before the first, since when one has been wanted. */
  sinceOf(position: number): number {
    return this.#since[position]!;
  }

  /** Begins with a list of `count` accounts, none of them asked for yet. @param room how many to allocate for */
  begin(count: number, room: number): void {
    this.#count = count;
    this.#due = this.#since = NO_SECONDS;
    this.#state = this.#tries = NO_BYTES;
    if (room > 0) this.#grow(room);
    this.#since.fill(this.#options.now(), 0, count);
    this.#forget();
  }

  /** Makes everything due, after a handshake: the server may have restarted and forgotten us. */
  reset(): void {
    this.#due.fill(AT_ONCE, 0, this.#count);
    this.#state.fill(NEVER, 0, this.#count);
    this.#tries.fill(0, 0, this.#count);
    this.#forget();
  }

  /** Appends an account to the list, in the second `now`. @param room how many to allocate for, if it is full */
  append(now: number, room: number): void {
    const position = this.#count++;
    if (position === this.#due.length) this.#grow(room);
    this.#due[position] = AT_ONCE;
    this.#since[position] = now;
    this.#state[position] = NEVER;
    this.#tries[position] = 0;
  }

  /** Removes the account at `position`; the last one takes its place. */
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

  /** There is something new to ask for. */
  changed(position: number): void {
    this.#due[position] = AT_ONCE;
    this.#tries[position] = 0;
  }

  /**
   * The same or less is asked for by other signatures. A storage server does not store signatures: if it has confirmed
   * the account it need not be asked before the next renewal, and if a request is in flight, its answer will tell
   * whether another signature is needed.
   * @returns whether the account is due now
   */
  resigned(position: number): boolean {
    if (this.isConfirmed(position) || this.isInFlight(position) || this.isSpared(position)) return false;
    this.changed(position);
    return true;
  }

  /**
   * The signatures of an account not to use if it is asked for now. A regular renewal gives them another chance, since
   * the fault may have been the server's.
   */
  barredNow(position: number, id: number): ReadonlySet<number> | undefined {
    if (!this.isAtOnce(position)) this.#barred.delete(id);
    return this.#barred.get(id);
  }

  /** The account is part of a request that is sent. */
  asked(position: number): void {
    this.#due[position] = IN_FLIGHT;
    if (this.#state[position] === NEVER || this.isSpared(position)) this.#set(position, ASKED);
  }

  /** @param at the second in which it was asked for: the server cannot have begun to monitor earlier */
  confirmed(position: number, at: number): void {
    this.#set(position, CONFIRMED);
    this.#since[position] = at;
    this.#tries[position] = 0;
    this.#due[position] = this.#renewal(at);
  }

  /** Bars a signature until the account's next renewal. @param signature its number in the request */
  bar(id: number, signature: number, code: number): void {
    this.#lastError = `signature refused with code ${code}`;
    const barred = this.#barred.get(id);
    if (barred) barred.add(signature);
    else this.#barred.set(id, new Set([signature]));
  }

  /** A signature was refused: asks at once by the next one. See {@link bar}. */
  refused(position: number): void {
    this.#set(position, REFUSED);
    this.#due[position] = AT_ONCE;
  }

  /** No signature is left, or what is asked for does not fit into any request. */
  exhausted(position: number): void {
    this.#set(position, REFUSED);
    this.#due[position] = this.#renewal(this.#options.now());
  }

  /** An error about this account alone, which may pass. */
  erred(position: number, reason: string): void {
    this.#lastError = reason;
    const tries = this.#tries[position]!;
    this.#tries[position] = Math.min(tries + 1, 255);
    const wait = Math.min(RETRY_TO, RETRY_FROM * 2 ** tries);
    this.#due[position] = this.#options.now() + Math.ceil(wait * (0.5 + this.#options.jitter()));
    this.walk.wantAt(this.#due[position]);
  }

  /** The server says that the account is not in its swarm. @param due the second in which to ask again */
  elsewhere(position: number, due: number, reason: string): void {
    this.#lastError = reason;
    this.#set(position, ASKED);
    this.#due[position] = due;
    this.walk.wantAt(due);
  }

  /** The server says that it no longer monitors an account that it had confirmed. */
  ended(position: number): void {
    this.#set(position, ASKED);
  }

  /** The account is due but need not be asked for. See {@link Sparing}. */
  spared(position: number): void {
    // If it is due at once it has changed since it was confirmed, so the server does not monitor what we want.
    if (!this.isConfirmed(position) || this.isAtOnce(position)) this.#set(position, SPARED);
    this.#due[position] = NOT_AT_ALL;
  }

  /** Spared accounts may have to be asked for after all: makes all of them due again. About 2 ms for a million. */
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

  /** The request that the account was part of has failed. */
  failed(position: number): void {
    if (this.isInFlight(position)) this.#due[position] = AT_ONCE;
  }

  /** A whole request has failed: the walk that it came from starts again. */
  failedAll(reason: string): void {
    this.#lastError = reason;
    this.walk.beginAnew();
  }

  /** See {@link Walk.next}. */
  next(steps: number): number | undefined {
    return this.walk.next(this.#due, this.#count, steps);
  }

  /**
   * Looks at every account (about 2 ms for a million): finds the oldest confirmation, and ends confirmations that are
   * older than a monitor lasts.
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

  /** When to renew a confirmation of that second: early enough to be gathered with others for one interval. */
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
    const seconds = (from: Uint32Array<ArrayBuffer>) =>
      from === NO_SECONDS ? new Uint32Array(room) : new Uint32Array(from.buffer.transfer(4 * room));
    const bytes = (from: Uint8Array<ArrayBuffer>) =>
      from === NO_BYTES ? new Uint8Array(room) : new Uint8Array(from.buffer.transfer(room));
    this.#due = seconds(this.#due);
    this.#since = seconds(this.#since);
    this.#state = bytes(this.#state);
    this.#tries = bytes(this.#tries);
  }

  #forget(): void {
    this.#barred.clear();
    this.#confirmed = 0;
    this.#refused = 0;
    this.#spared = 0;
    this.walk.restart();
  }
}
