import type { Clock } from '../clock.ts';

/** The event loop gets its turn after this much uninterrupted work, in milliseconds. */
const SLICE_MS = 4;
/** Of so many turns … */
const ROUND = 20;
/** … those that go to large requests first, and the one that goes to doubtful ones; all others go to small requests first. */
const LARGE_TURNS = new Set([4, 9, 14]);
const DOUBTFUL_TURN = 19;
/** How many tasks of one large request are done in a row, so that what was begun is finished rather than much begun. */
const IN_A_ROW = 128;
/** The pace is a mean over about so much time with work to do, in milliseconds. */
const PACE_WINDOW_MS = 1_000;
/** What a task is thought to take before any was done, in milliseconds. */
const FIRST_PACE = 0.5;

/** A task that was not done: nobody waits for it any more, or its request had to make room for others. */
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
 * requests with an element that no honest client sends get what is left, a task at a time: others may have something to
 * do as soon as the event loop has turned. None of the three ever stops altogether.
 */
export class FairQueue {
  readonly #clock: Clock;
  readonly #open: () => boolean;
  readonly #isDoubtful: (error: unknown) => boolean;
  readonly #lanes: Record<LaneName, Lane> = { small: new Lane(1), large: new Lane(IN_A_ROW), doubtful: new Lane(1) };
  #turn = 0;
  #scheduled = false;
  /** Of the time with work to do that the pace is taken from: when its last piece ended, and its fading sums. */
  #mark = 0;
  #paceMs = FIRST_PACE * 20;
  #paceTasks = 20;
  /** Time spent on tasks in milliseconds, how many were done, and how many were not because nobody waited any more. */
  readonly counters = { ms: 0, tasks: 0, late: 0 };

  /**
   * @param modules.open whether what follows a task has room for its outcome; if it had none, {@link FairQueue.wake} tells
   *   that it has
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
   * @param patience milliseconds after which nobody waits for it any more
   */
  ticket(client: string, lane: 'small' | 'large', tasks: number, patience: number): Ticket {
    const ticket = new Ticket(this, client, lane, this.#clock.monotonic() + patience);
    ticket.expect(tasks);
    return ticket;
  }

  /** How long a request would take to be worked off if it came now, in milliseconds; 0 if there is nothing else to do. */
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
    while (now - start < SLICE_MS && this.#open()) {
      const next = this.#next();
      if (!next) break;
      const { ticket, task } = next;
      if (now >= ticket.deadline) {
        this.counters.late++;
        task.fail(new NotDone('nobody waits for it any more'));
      } else {
        const { doubtful } = ticket;
        task.work();
        done++;
        if (doubtful) {
          now = clock.monotonic();
          break;
        }
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
    const elapsed = now - this.#mark;
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
  #expected = 0;
  #lane: LaneName;
  readonly #queue: FairQueue;

  constructor(queue: FairQueue, client: string, lane: LaneName, deadline: number) {
    this.#queue = queue;
    this.client = client;
    this.#lane = lane;
    this.deadline = deadline;
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

  /** Gives up what has not been done. */
  cancel(): void {
    this.#queue.lane(this.#lane).remove(this);
    for (const { fail } of this.tasks.splice(0)) fail(new NotDone('others needed its place'));
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

/** Requests of one kind that have tasks to be done, by client. */
class Lane {
  readonly #inARow: number;
  /** Each client's requests, the one whose turn is next first. */
  readonly #tickets = new Map<string, Ticket[]>();
  /** The clients in the order of their turns. */
  readonly #ring: string[] = [];
  readonly #expected = new Map<string, number>();
  /** Tasks that requests of this lane have yet to see done. */
  expected = 0;
  /** How many tasks the client at the head has had in its turn. */
  #had = 0;

  /** @param inARow how many tasks of a client are done in one turn of its */
  constructor(inARow: number) {
    this.#inARow = inARow;
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
    const tickets = this.#tickets.get(ticket.client);
    // What was begun goes on before anything else is begun, where requests are worked off one after the other.
    const resumes = ticket.begun && this.#inARow > 1;
    if (tickets) {
      if (resumes) tickets.unshift(ticket);
      else tickets.push(ticket);
      return;
    }
    this.#tickets.set(ticket.client, [ticket]);
    if (resumes && this.#had < this.#inARow) this.#ring.unshift(ticket.client);
    else this.#ring.push(ticket.client);
  }

  remove(ticket: Ticket): void {
    const tickets = this.#tickets.get(ticket.client);
    const at = tickets?.indexOf(ticket) ?? -1;
    if (!tickets || at < 0) return;
    tickets.splice(at, 1);
    if (tickets.length > 0) return;
    this.#tickets.delete(ticket.client);
    this.#ring.splice(this.#ring.indexOf(ticket.client), 1);
    this.#had = 0;
  }

  /** Takes the task whose turn it is. */
  next(): { ticket: Ticket; task: Task } | undefined {
    const client = this.#ring[0];
    if (client === undefined) return undefined;
    const tickets = this.#tickets.get(client)!;
    const ticket = tickets[0]!;
    const task = ticket.tasks.shift()!;
    const turnIsOver = ++this.#had >= this.#inARow;
    if (ticket.tasks.length === 0) tickets.shift();
    else if (this.#inARow === 1 && tickets.length > 1) tickets.push(tickets.shift()!);
    if (tickets.length === 0) {
      this.#tickets.delete(client);
      this.#ring.shift();
    } else if (turnIsOver) {
      this.#ring.push(this.#ring.shift()!);
    }
    if (turnIsOver) this.#had = 0;
    return { ticket, task };
  }
}
