import type { Clock } from '../../clock.ts';
import { KeyCounts } from '../../key-counts.ts';

/** After this much uninterrupted work, in ms, the event loop gets its turn. */
const SLICE_MS = 4;
/** Turns in a round. */
const ROUND = 20;
/** The turns in which large requests come first, and the one in which doubtful ones do; small ones do in all others. */
const LARGE_TURNS = new Set([4, 9, 14]);
const DOUBTFUL_TURN = 19;
/** The pace is averaged over about this much time with work to do, in ms. */
const PACE_WINDOW_MS = 1_000;
/** The longest time (ms) that one slice counts for the pace, so that a process frozen for a minute recovers soon. */
const LONGEST_SLICE_MS = 1_000;
/** How long a task is assumed to take before any has been done, in ms. */
const FIRST_PACE = 0.5;

/** A task was not done: nobody waits for it any more, or its request had to make room for others. */
export class NotDone extends Error {
  override readonly name = 'NotDone';
}

type LaneName = 'small' | 'large' | 'doubtful';

interface Task {
  readonly work: () => void;
  readonly fail: (error: NotDone) => void;
}

/**
 * Works on clients' requests in slices, between which the event loop gets its turn. Small requests come first, with one
 * task of each client and request in turn. Large requests are finished one after the other, clients taking turns.
 * Doubtful requests, with an element that no honest client sends, get what time is left, a task at a time. None of the
 * three ever stops altogether.
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
  /** When the last slice ended, and the decaying sums of time and tasks that make the pace. */
  #mark: number;
  #paceMs = FIRST_PACE * 20;
  #paceTasks = 20;
  /** Time spent on tasks in ms, how many were done, and how many were not because nobody waited any more. */
  readonly counters = { ms: 0, tasks: 0, late: 0 };

  /**
   * @param modules.open whether there is room for a task's outcome; call {@link FairQueue.wake} when there is again
   * @param modules.isDoubtful whether an error thrown by a task makes its whole request doubtful
   */
  constructor(modules: { clock: Clock; open: () => boolean; isDoubtful: (error: unknown) => boolean }) {
    this.#clock = modules.clock;
    this.#open = modules.open;
    this.#isDoubtful = modules.isDoubtful;
    this.#mark = modules.clock.monotonic();
  }

  /**
   * Makes a ticket for a request, to be closed when it ends.
   *
   * @param client who sent it, as far as clients can be told apart
   * @param tasks how many tasks it will have, as far as is known
   * @param patience after how long nobody waits for it any more, in ms
   */
  ticket(client: string, lane: 'small' | 'large', tasks: number, patience: number): Ticket {
    const ticket = new Ticket(this, client, lane, this.#clock.monotonic() + patience);
    ticket.expect(tasks);
    return ticket;
  }

  /** How long a request that came now would take until it is done, in ms; 0 if there is nothing else to do. */
  wait(client: string, lane: 'small' | 'large', tasks: number): number {
    const { small, large } = this.#lanes;
    const before = lane === 'small' ? small.expected : small.expected + large.expected;
    if (before === 0) return 0;
    // Clients take turns: until this one's tasks are done, each other client gets as many done.
    const rounds = (this.#lanes[lane].expectedOf(client) + tasks) * this.#lanes[lane].clients;
    const ahead = Math.min(before, lane === 'small' ? rounds : rounds + small.expected);
    return ((ahead + tasks) * this.#paceMs) / this.#paceTasks;
  }

  /** There is room for outcomes again, or a task to do. */
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

  /** A task has been added. */
  added(): void {
    if (!this.#scheduled) {
      // Idle time does not count for the pace.
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
        task.fail(new NotDone('nobody waits for it any more'));
      } else {
        const { doubtful } = ticket;
        task.work();
        done++;
        // After a doubtful task others may have more to do once the loop has turned; and a large request that was begun
        // may have, before another one is.
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
  /** When nobody waits for it any more; monotonic ms. */
  readonly deadline: number;
  /** Whether a task of it has been done. */
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

  /** Says how many tasks of the request are still to be done, those not added yet included. */
  expect(tasks: number): void {
    this.#queue.lane(this.#lane).expect(this.client, tasks - this.#expected);
    this.#expected = tasks;
  }

  /**
   * Runs `work` when its turn comes.
   *
   * @throws NotDone by rejection if it is not run; else what `work` throws
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

  /** Gives up all tasks that have not been done, and all later ones, since the request gives its place away. */
  cancel(): void {
    this.#cancelled = true;
    this.#queue.lane(this.#lane).remove(this);
    for (const { fail } of this.tasks.splice(0)) fail(evicted());
  }

  /** The request has ended. */
  close(): void {
    this.expect(0);
  }

  #doubt(): void {
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

/** The requests of one kind that have tasks, by client. */
class Lane {
  readonly #finishes: boolean;
  /** Each client's requests, the next one first. */
  readonly #tickets = new Map<string, Ticket[]>();
  /** The same lists in the order of the clients' turns. */
  readonly #ring: Ticket[][] = [];
  /** How many tasks each client's requests are still to have done. */
  readonly #expected = new KeyCounts();
  /** The sum of these. */
  expected = 0;

  /**
   * @param finishes whether a request that was begun is finished before another is begun; if not, each gets one task
   *   done in its turn
   */
  constructor(finishes: boolean) {
    this.#finishes = finishes;
  }

  get busy(): boolean {
    return this.#ring.length > 0;
  }

  /** How many clients have requests here. */
  get clients(): number {
    return this.#expected.size;
  }

  expectedOf(client: string): number {
    return this.#expected.get(client);
  }

  expect(client: string, more: number): void {
    this.expected += more;
    this.#expected.add(client, more);
  }

  add(ticket: Ticket): void {
    let tickets = this.#tickets.get(ticket.client);
    const isNew = !tickets;
    tickets ??= [];
    if (isNew) this.#tickets.set(ticket.client, tickets);
    if (this.#finishes && ticket.begun) {
      tickets.unshift(ticket);
      if (!isNew) this.#ring.splice(this.#ring.indexOf(tickets), 1);
      // After the other requests that were begun: they are older, or their turn was interrupted.
      const at = this.#ring.findIndex(([next]) => !next?.begun);
      this.#ring.splice(at < 0 ? this.#ring.length : at, 0, tickets);
    } else {
      tickets.push(ticket);
      if (isNew) this.#ring.push(tickets);
    }
  }

  remove(ticket: Ticket): void {
    const tickets = this.#tickets.get(ticket.client);
    if (!tickets?.includes(ticket)) return;
    tickets.splice(tickets.indexOf(ticket), 1);
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
    if (ticket.tasks.length > 0 && this.#finishes) return { ticket, task };
    // The turn of this client, and of this one of its requests, is over.
    tickets.shift();
    this.#ring.shift();
    if (ticket.tasks.length > 0) tickets.push(ticket);
    if (tickets.length > 0) this.#ring.push(tickets);
    else this.#tickets.delete(ticket.client);
    return { ticket, task };
  }
}
