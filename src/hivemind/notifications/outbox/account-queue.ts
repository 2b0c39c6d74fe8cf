import type { QueuedPush } from './push.ts';

/** An account with waiting pushes. */
interface Account {
  readonly key: string;
  /** Its pushes, oldest first, linked by `next`. */
  first: QueuedPush;
  last: QueuedPush;
  count: number;
  /** Its place in the heap. */
  place: number;
  /** Its neighbours in the round; undefined only until it has entered it. */
  before: Account | undefined;
  after: Account | undefined;
}

/**
 * Waiting pushes, by account. Accounts take turns, so that none waits behind the many pushes of another, and the
 * account with the most is known at any time. Within an account, first in, first out. If each account has one push,
 * this is a plain queue.
 */
export class AccountQueue {
  readonly #accounts = new Map<string, Account>();
  /** A binary heap: see {@link heavier}. */
  readonly #heap: Account[] = [];
  /** The account whose turn it is, in the ring of all accounts. */
  #turn: Account | undefined;
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** How many accounts have a push here. */
  get accounts(): number {
    return this.#heap.length;
  }

  /** The push that {@link take} will take. */
  get next(): QueuedPush | undefined {
    return this.#turn?.first;
  }

  /** The oldest push of the account with the most pushes; if several have as many, the oldest of theirs. */
  get heaviest(): QueuedPush | undefined {
    return this.#heap[0]?.first;
  }

  /** The oldest waiting push of this one's account. */
  firstOf({ message }: QueuedPush): QueuedPush | undefined {
    return this.#accounts.get(message.account)?.first;
  }

  /** How many pushes of the account of this one, which waits, wait. */
  countOf({ message }: QueuedPush): number {
    return (this.#accounts.get(message.account) as Account).count;
  }

  /** Adds a push at the end of its account; a new account goes to the end of the round. */
  add(push: QueuedPush): void {
    push.next = undefined;
    const account = this.#accounts.get(push.message.account);
    if (!account) {
      this.#enter(push);
      return;
    }
    account.last.next = push;
    account.last = push;
    account.count++;
    this.#length++;
    this.#up(account);
  }

  /** Adds a push that may be older than others of its account, in its place among them. */
  insert(push: QueuedPush): void {
    const account = this.#accounts.get(push.message.account);
    if (account && push.id < account.last.id) this.putBack(push);
    else this.add(push);
  }

  /** Puts back a push that was taken, in its place within its account, whose turn is next. */
  putBack(push: QueuedPush): void {
    push.next = undefined;
    const known = this.#accounts.get(push.message.account);
    if (!known) {
      this.#turn = this.#enter(push);
      return;
    }
    if (push.id < known.first.id) {
      push.next = known.first;
      known.first = push;
    } else {
      let before = known.first;
      while (before.next && before.next.id < push.id) before = before.next;
      push.next = before.next;
      before.next = push;
      if (!push.next) known.last = push;
    }
    known.count++;
    this.#length++;
    this.#up(known);
    if (known !== this.#turn) {
      this.#leaveRound(known);
      this.#turn = this.#enterRound(known);
    }
  }

  /** Takes the oldest push of the account whose turn it is, and gives the turn to the next. */
  take(): QueuedPush | undefined {
    const account = this.#turn;
    if (!account) return undefined;
    this.#turn = account.after;
    return this.#takeFirst(account);
  }

  /** Takes this very push, which must be the first of its account. */
  takeFirst(push: QueuedPush): void {
    this.#takeFirst(this.#accounts.get(push.message.account) as Account);
  }

  #takeFirst(account: Account): QueuedPush {
    const push = account.first;
    this.#length--;
    account.count--;
    if (push.next) {
      account.first = push.next;
      push.next = undefined;
      this.#down(account);
    } else {
      this.#accounts.delete(account.key);
      this.#leaveRound(account);
      const last = this.#heap.pop() as Account;
      if (last !== account) {
        this.#set(account.place, last);
        this.#up(last);
        this.#down(last);
      }
    }
    return push;
  }

  #enter(push: QueuedPush): Account {
    const key = push.message.account;
    const place = this.#heap.length;
    const account: Account = { key, first: push, last: push, count: 1, place, before: undefined, after: undefined };
    this.#accounts.set(account.key, account);
    this.#heap.push(account);
    this.#length++;
    this.#up(account);
    return this.#enterRound(account);
  }

  /** Enters an account at the end of the round, which is just before the account whose turn it is. */
  #enterRound(account: Account): Account {
    const after = this.#turn ?? account;
    const before = after.before ?? account;
    account.after = after;
    account.before = before;
    before.after = account;
    after.before = account;
    this.#turn ??= account;
    return account;
  }

  #leaveRound(account: Account): void {
    const { before, after } = account as { before: Account; after: Account };
    if (this.#turn === account) this.#turn = after === account ? undefined : after;
    before.after = after;
    after.before = before;
    account.before = undefined;
    account.after = undefined;
  }

  #set(place: number, account: Account): void {
    this.#heap[place] = account;
    account.place = place;
  }

  #up(account: Account): void {
    let place = account.place;
    while (place > 0) {
      const parent = this.#heap[(place - 1) >> 1] as Account;
      if (!heavier(account, parent)) break;
      this.#set(place, parent);
      place = (place - 1) >> 1;
    }
    this.#set(place, account);
  }

  #down(account: Account): void {
    let place = account.place;
    for (;;) {
      let child = 2 * place + 1;
      if (child >= this.#heap.length) break;
      if (child + 1 < this.#heap.length && heavier(this.#heap[child + 1] as Account, this.#heap[child] as Account))
        child++;
      if (!heavier(this.#heap[child] as Account, account)) break;
      this.#set(place, this.#heap[child] as Account);
      place = child;
    }
    this.#set(place, account);
  }
}

function heavier(a: Account, b: Account): boolean {
  return a.count > b.count || (a.count === b.count && a.first.id < b.first.id);
}
