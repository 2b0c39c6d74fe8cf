import type { Clock } from '../../clock.ts';

/** The event loop gets its turn after this much uninterrupted work, in milliseconds. */
const SLICE_MS = 4;
/** Of so many turns … */
const ROUND = 20;
/**
 * … those that go to large requests first, and the one that goes to doubtful ones; all others go to small requests
 * first.
 */
const LARGE_TURNS = new Set([4, 9, 14]);
const DOUBTFUL_TURN = 19;
/** The pace is a mean over about so much time with work to do, in milliseconds. */
const PACE_WINDOW_MS = 1_000;
/**
 * What one slice may take for the pace, in milliseconds: a process that was frozen for a minute is not slow for ever
 * after.
 */
const LONGEST_SLICE_MS = 1_000;
/** What a task is thought to take before any was done, in milliseconds. */
const FIRST_PACE = 0.5;

/** A task that was not done: nobody is waiting for it any more, or its request had to make way for others. */
export class NotDone extends Error {
  override readonly name = 'NotDone';
}

type LaneName = 'small' | 'large' | 'doubtful';

interface Task {
  readonly work: () => void;
  readonly fail: (error: NotDone) => void;
}

/**
 * Work on clients' requests, in slices between which the event loop turns. The tasks of small requests go first, one of
 * each client and request in turn; large requests are worked off one after the other, again in turn by client; and
 * requests with an element that no honest client sends get what is left, a task at a time. None of the three ever stops
 * altogether.
 */
export class FairQueue {
  readonly #clock: Clock;
  readonly #open: () => boolean;
  readonly #isDoubtful: (error: unknown) => boolean;
  readonly #lanes: Record<LaneName, Lane> = {
    small: new Lane(false),
    large: new Lane(true),
    doubtful: new Lane(false),
  };
  #turn = 0;
  #scheduled = false;
  /** Of the time with work to do that the pace is taken from: when its last piece ended, and its fading sums. */
  #mark = 0;
  #paceMs = FIRST_PACE * 20;
  #paceTasks = 20;
  /** Time spent on tasks in milliseconds, how many were done, and how many were not because nobody waited any more. */
  readonly counters = { ms: 0, tasks: 0, late: 0 };

  /**
   * @param modules.open whether what follows a task has room for its outcome; if it had none, {@link FairQueue.wake}
   *   tells that it has
   * @param modules.isDoubtful whether what a task threw speaks against its whole request
   */
  constructor(modules: { clock: Clock; open: () => boolean; isDoubtful: (error: unknown) => boolean }) {
    this.#clock = modules.clock;
    this.#open = modules.open;
    this.#isDoubtful = modules.isDoubtful;
    this.#mark = modules.clock.monotonic();
  }

  /**
   * A place for a request, to be closed at its end.
   *
   * @param client who sent it, as far as clients can be told apart
   * @param tasks how many it will bring, as far as is known
   * @param patience milliseconds after which nobody is waiting for it any more
   */
  ticket(client: string, lane: 'small' | 'large', tasks: number, patience: number): Ticket {
    const ticket = new Ticket(this, client, lane, this.#clock.monotonic() + patience);
    ticket.expect(tasks);
    return ticket;
  }

  /**
   * How long a request would take to be worked off if it came now, in milliseconds; 0 if there is nothing else to do.
   */
  wait(client: string, lane: 'small' | 'large', tasks: number): number {
    const { small, large } = this.#lanes;
    const before = lane === 'small' ? small.expected : small.expected + large.expected;
    if (before === 0) return 0;
    // In its turn each client gets as much as this one, until this one has all that it asked for.
    const rounds = (this.#lanes[lane].expectedOf(client) + tasks) * this.#lanes[lane].clients;
    const ahead = Math.min(before, lane === 'small' ? rounds : rounds + small.expected);
    return ((ahead + tasks) * this.#paceMs) / this.#paceTasks;
  }

  /** What follows the tasks has room again. */
  wake(): void {
    if (this.#scheduled || !Object.values(this.#lanes).some((lane) => lane.busy)) return;
    this.#scheduled = true;
    setImmediate(() => this.#slice());
  }

  lane(name: LaneName): Lane {
    return this.#lanes[name];
  }

  doubts(error: unknown): boolean {
    return this.#isDoubtful(error);
  }

  /** A task was added. */
  added(): void {
    if (!this.#scheduled) {
      // Time in which there was nothing to do says nothing about the pace.
      if (this.#open()) this.#mark = this.#clock.monotonic();
      this.wake();
    }
  }

  #slice(): void {
    const clock = this.#clock;
    const start = clock.monotonic();
    let now = start;
    let done = 0;
    let turnOver = false;
    while (!turnOver && now - start < SLICE_MS && this.#open()) {
      const next = this.#next();
      if (!next) break;
      const { ticket, task } = next;
      if (now >= ticket.deadline) {
        this.counters.late++;
        task.fail(new NotDone('nobody is waiting for it any more'));
      } else {
        const { doubtful } = ticket;
        task.work();
        done++;
        // Others may have something to do as soon as the loop has turned; and so may a large request that was begun,
        // before another one is.
        turnOver = doubtful || (ticket.isLarge && ticket.tasks.length === 0);
      }
      now = clock.monotonic();
    }
    this.counters.ms += now - start;
    this.counters.tasks += done;
    if (done > 0) this.#setPace(now, done);
    this.#scheduled = false;
    if (this.#open()) this.wake();
  }

  #setPace(now: number, done: number): void {
    const elapsed = Math.min(now - this.#mark, LONGEST_SLICE_MS);
    this.#mark = now;
    const fading = Math.exp(-elapsed / PACE_WINDOW_MS);
    this.#paceMs = this.#paceMs * fading + elapsed;
    this.#paceTasks = this.#paceTasks * fading + done;
  }

  #next(): { ticket: Ticket; task: Task } | undefined {
    const turn = this.#turn;
    this.#turn = (turn + 1) % ROUND;
    const { small, large, doubtful } = this.#lanes;
    if (turn === DOUBTFUL_TURN) return doubtful.next() ?? small.next() ?? large.next();
    if (LARGE_TURNS.has(turn)) return large.next() ?? small.next() ?? doubtful.next();
    return small.next() ?? large.next() ?? doubtful.next();
  }
}

/** One request's place in the queue. */
export class Ticket {
  readonly client: string;
  /** On the monotonic clock, in milliseconds. */
  readonly deadline: number;
  /** Some task of it was done. */
  begun = false;
  readonly tasks: Task[] = [];
  #cancelled = false;
  #expected = 0;
  #lane: LaneName;
  readonly #queue: FairQueue;

  constructor(queue: FairQueue, client: string, lane: LaneName, deadline: number) {
    this.#queue = queue;
    this.client = client;
    this.#lane = lane;
    this.deadline = deadline;
  }

  get isLarge(): boolean {
    return this.#lane === 'large';
  }

  get doubtful(): boolean {
    return this.#lane === 'doubtful';
  }

  /** Says how many tasks the request has yet to bring, or to see done. */
  expect(tasks: number): void {
    this.#queue.lane(this.#lane).expect(this.client, tasks - this.#expected);
    this.#expected = tasks;
  }

  /**
   * Does `work` when its turn comes.
   *
   * @throws NotDone by rejection if it was not done; else what `work` throws
   */
  run<T>(work: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.#cancelled) {
        reject(evicted());
        return;
      }
      this.tasks.push({
        work: () => {
          this.begun = true;
          if (this.#expected > 0) this.expect(this.#expected - 1);
          try {
            resolve(work());
          } catch (error) {
            if (this.#queue.doubts(error)) this.#doubt();
            reject(error);
          }
        },
        fail: reject,
      });
      if (this.tasks.length === 1) this.#queue.lane(this.#lane).add(this);
      this.#queue.added();
    });
  }

  /** Gives up what has not been done, and whatever comes after it: nobody counts any more what that request takes. */
  cancel(): void {
    this.#cancelled = true;
    this.#queue.lane(this.#lane).remove(this);
    for (const { fail } of this.tasks.splice(0)) fail(evicted());
  }

  /** Nothing more will come of it. */
  close(): void {
    this.expect(0);
  }

  #doubt(): void {
    if (this.doubtful) return;
    const expected = this.#expected;
    this.expect(0);
    this.#queue.lane(this.#lane).remove(this);
    this.#lane = 'doubtful';
    this.expect(expected);
    if (this.tasks.length > 0) this.#queue.lane(this.#lane).add(this);
  }
}

function evicted(): NotDone {
  return new NotDone('others needed its place');
}

/** Requests of one kind that have tasks to be done, by client. */
class Lane {
  readonly #wholly: boolean;
  /** Each client's requests, the one whose turn is next first. */
  readonly #tickets = new Map<string, Ticket[]>();
  /** The same lists in the order of the clients' turns. */
  readonly #ring: Ticket[][] = [];
  readonly #expected = new Map<string, number>();
  /** Tasks that requests of this lane have yet to see done. */
  expected = 0;

  /**
   * @param wholly whether what was begun is finished before another request is begun; else each gets one task done in
   * its turn
   */
  constructor(wholly: boolean) {
    this.#wholly = wholly;
  }

  get busy(): boolean {
    return this.#ring.length > 0;
  }

  /** How many clients have requests here. */
  get clients(): number {
    return this.#expected.size;
  }

  expectedOf(client: string): number {
    return this.#expected.get(client) ?? 0;
  }

  expect(client: string, more: number): void {
    const expected = this.expectedOf(client) + more;
    this.expected += more;
    if (expected > 0) this.#expected.set(client, expected);
    else this.#expected.delete(client);
  }

  add(ticket: Ticket): void {
    let tickets = this.#tickets.get(ticket.client);
    const isNew = !tickets;
    tickets ??= [];
    if (isNew) this.#tickets.set(ticket.client, tickets);
    if (this.#wholly && ticket.begun) {
      tickets.unshift(ticket);
      if (!isNew) this.#ring.splice(this.#ring.indexOf(tickets), 1);
      // After others that were begun: they are older, or have had their turn interrupted.
      const at = this.#ring.findIndex(([next]) => !next?.begun);
      this.#ring.splice(at < 0 ? this.#ring.length : at, 0, tickets);
    } else {
      tickets.push(ticket);
      if (isNew) this.#ring.push(tickets);
    }
  }

  remove(ticket: Ticket): void {
    const tickets = this.#tickets.get(ticket.client);
    const at = tickets?.indexOf(ticket) ?? -1;
    if (!tickets || at < 0) return;
    tickets.splice(at, 1);
    if (tickets.length > 0) return;
    this.#tickets.delete(ticket.client);
    this.#ring.splice(this.#ring.indexOf(tickets), 1);
  }

  /** Takes the task whose turn it is. */
  next(): { ticket: Ticket; task: Task } | undefined {
    const [tickets] = this.#ring;
    const ticket = tickets?.[0];
    const task = ticket?.tasks.shift();
    if (!tickets || !ticket || !task) return undefined;
    if (ticket.tasks.length > 0 && this.#wholly) return { ticket, task };
    // The client's turn is over, and that of this request of its.
    tickets.shift();
    this.#ring.shift();
    if (ticket.tasks.length > 0) tickets.push(ticket);
    if (tickets.length > 0) this.#ring.push(tickets);
    else this.#tickets.delete(ticket.client);
    return { ticket, task };
  }
}
