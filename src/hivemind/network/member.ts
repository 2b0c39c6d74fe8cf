/** A swarm: its accounts in a dense list, and those of its storage servers that we know. */
export interface Swarm {
  readonly id: bigint;
  readonly number: number;
  accounts: Uint32Array;
  count: number;
  readonly members: Member[];
  /** At the last look: accounts that no member has confirmed, and the oldest of their latest confirmations (0 = none). */
  uncovered: number;
  oldest: number;
}

/** `due` of an account that is to be asked for at the next opportunity. */
export const AT_ONCE = 0;
/** `due` of an account that is part of a request which has not been answered yet. */
export const IN_FLIGHT = 0xffff_ffff;

/** What a storage server last said of an account. Above {@link State.refused}: refused, the rest is its error code. */
export const State = { never: 0, asked: 1, confirmed: 2, refused: 3 } as const;

/** How a storage server is reached. The sockets are behind this, so that the rules can be tested without any. */
export interface Link {
  /**
   * Sends one `monitor.messages` request.
   * @param done called exactly once, later: with the reply's part, or with a word that says what failed
   */
  request(body: Buffer, done: (reply: Buffer | undefined, failure: string | undefined) => void): void;
  close(): void;
}

/**
 * One storage server as a member of its swarm: what it was asked, what it answered and when to ask it again.
 * The typed arrays run parallel to the account list of its swarm: 10 bytes for each account, whatever it subscribed to.
 * All times in them are whole seconds on the monitor's own clock, which starts at 1 and never jumps.
 */
export class Member {
  swarm: Swarm | undefined;
  /** When to ask again; {@link AT_ONCE} and {@link IN_FLIGHT} are special. */
  due = new Uint32Array(0);
  /** The last confirmation or, before the first, since when one is wanted. */
  since = new Uint32Array(0);
  state = new Uint8Array(0);
  /** Failed attempts in a row that are this account's own fault. */
  tries = new Uint8Array(0);
  /** How many accounts have `state` confirmed, and refused. */
  confirmed = 0;
  refusedAccounts = 0;
  /** Oldest `since` of those that are not refused, at the last look; 0 = there were none. */
  oldest = 0;

  link: Link | undefined;
  /** Raised by every handshake, move and loss: replies to what was asked in an earlier epoch no longer count. */
  epoch = 0;
  /** Requests that wait for an answer in this epoch. */
  bulkInFlight = false;
  urgentInFlight = 0;
  /** Account ids that should go out at once, beside a bulk request. */
  urgent: number[] = [];
  /** Signatures that this server refused, for each account: the next best one is tried instead. */
  refused = new Map<number, Set<number>>();

  /** Requests in a row without a good answer, and until when (monotonic ms) it is left alone for that. */
  failures = 0;
  notBefore = 0;
  /** When (monotonic ms) the latest handshake was, and how many in a row came shortly after another. */
  upAt = Number.NEGATIVE_INFINITY;
  flaps = 0;
  /** How large the next bulk body may be: grows while answers come, shrinks when they do not. */
  limit = 0;
  lastError = '';
  /** Rounds in a row in which it says that accounts are in another swarm than by our list, and until when (seconds) the latest is. */
  disputes = 0;
  disputeUntil = Number.NEGATIVE_INFINITY;

  /** The walk over the account list in search of what is due: where it is, and how far it has come. */
  cycling = false;
  cursor = 0;
  scanned = 0;
  horizon = 0;
  /** The list changed behind the walk's back: walk again. */
  again = false;
  /** There is something to ask; when (seconds) to look in any case; and when an account that failed is to be tried again. */
  wanted = false;
  nextScan = 0;
  retryAt = IN_FLIGHT;

  /** Number of accounts that this server is to monitor. */
  get accounts(): number {
    return this.swarm?.count ?? 0;
  }

  /** Takes its place in a swarm: nothing of it has been asked yet. */
  enter(swarm: Swarm, now: number): void {
    this.swarm = swarm;
    const room = swarm.accounts.length;
    this.due = new Uint32Array(room);
    this.since = new Uint32Array(room).fill(now, 0, swarm.count);
    this.state = new Uint8Array(room);
    this.tries = new Uint8Array(room);
    this.#forget();
  }

  /** Leaves its swarm and frees what it knew. */
  leave(): void {
    this.swarm = undefined;
    this.due = new Uint32Array(0);
    this.since = new Uint32Array(0);
    this.state = new Uint8Array(0);
    this.tries = new Uint8Array(0);
    this.#forget();
  }

  /** After a handshake: the server may have restarted and forgotten us, so everything is to be asked at once. */
  reset(): void {
    const count = this.accounts;
    this.due.fill(AT_ONCE, 0, count);
    this.state.fill(State.never, 0, count);
    this.tries.fill(0, 0, count);
    this.#forget();
  }

  /** Makes room for as many accounts as the list of the swarm has. */
  grow(room: number): void {
    this.due = enlarged(this.due, new Uint32Array(room));
    this.since = enlarged(this.since, new Uint32Array(room));
    this.state = enlarged(this.state, new Uint8Array(room));
    this.tries = enlarged(this.tries, new Uint8Array(room));
  }

  /** The account at `position` is new here. */
  append(position: number, now: number): void {
    this.due[position] = AT_ONCE;
    this.since[position] = now;
    this.state[position] = State.never;
    this.tries[position] = 0;
  }

  /** There is something new to ask about the account at `position`. */
  touch(position: number): void {
    this.due[position] = AT_ONCE;
    this.tries[position] = 0;
  }

  /** The account at `position` goes, the one at `last` takes its place. */
  remove(position: number, last: number, id: number): void {
    this.setState(position, State.never);
    this.due[position] = this.due[last]!;
    this.since[position] = this.since[last]!;
    this.state[position] = this.state[last]!;
    this.tries[position] = this.tries[last]!;
    this.refused.delete(id);
    if (this.cycling) this.again = true;
  }

  /** Whether the server last refused the account at `position`. */
  refuses(position: number): boolean {
    return this.state[position]! >= State.refused;
  }

  setState(position: number, state: number): void {
    const before = this.state[position]!;
    if (before === State.confirmed) this.confirmed--;
    else if (before >= State.refused) this.refusedAccounts--;
    if (state === State.confirmed) this.confirmed++;
    else if (state >= State.refused) this.refusedAccounts++;
    this.state[position] = state;
  }

  /**
   * Looks at every account (about 2 ms for a million): finds the oldest confirmation and takes the word "confirmed" from those
   * whose time at the server is over.
   * @param lapsed confirmations before this second no longer hold
   */
  measure(lapsed: number): void {
    const { since, state, accounts } = this;
    let oldest = IN_FLIGHT;
    for (let position = 0; position < accounts; position++) {
      const s = state[position]!;
      if (s >= State.refused) continue;
      const at = since[position]!;
      if (at < oldest) oldest = at;
      if (at < lapsed && s === State.confirmed) this.setState(position, State.never);
    }
    this.oldest = oldest === IN_FLIGHT ? 0 : oldest;
  }

  #forget(): void {
    this.epoch++;
    this.bulkInFlight = false;
    this.urgentInFlight = 0;
    this.urgent = [];
    this.refused.clear();
    this.confirmed = 0;
    this.refusedAccounts = 0;
    this.cycling = false;
    this.cursor = 0;
    this.again = false;
    this.retryAt = IN_FLIGHT;
  }
}

function enlarged<T extends Uint32Array | Uint8Array>(from: T, to: T): T {
  to.set(from);
  return to;
}
