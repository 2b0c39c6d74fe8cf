import { Worker } from 'node:worker_threads';
import type { Clock, Timer } from '../../clock.ts';
import type { Log } from '../../log.ts';
import { areGood, type Check, encodeChecks } from './checks.ts';

/** Requests in one message: its cost to the main thread is a few microseconds a request then. */
const AT_ONCE = 16;
/** Requests that may be with workers; while there are so many no further one is read. Some 20 ms of a worker's time. */
const MAX_PENDING = 256;
/** A worker that answers nothing for so long, in milliseconds, is ended: what it has takes it some milliseconds. */
const PATIENCE_MS = 5_000;
/** A worker that ended is started anew after this, in milliseconds. */
const RESTART_MS = 10_000;
/** More could not be kept busy: what is left to the main thread takes it longer than the checks take two workers. */
const MOST = 2;
/** A worker needs little memory of its own, and grows no heap for having it. */
const LIMITS = { maxOldGenerationSizeMb: 32, maxYoungGenerationSizeMb: 4 };

/**
 * How many workers there are to be where so many threads can run at once: none where the main thread and PostgreSQL
 * have them already (docs/decisions/39).
 */
export function workersFor(parallelism: number): number {
  return Math.max(0, Math.min(MOST, parallelism - 2));
}

interface Request {
  readonly checks: readonly Check[];
  readonly resolve: (isGood: boolean) => void;
}

/** What one message asks. */
interface Batch {
  readonly requests: readonly Request[];
  readonly since: number;
  /** Of each request; undefined until it is answered. */
  verdicts: readonly boolean[] | undefined;
}

/** A worker's place in the pool. */
interface Place {
  /** Undefined while there is none that is ready. */
  worker: Worker | undefined;
  /** What it was asked and has not answered, in that order. */
  readonly batches: Batch[];
  restart: Timer | undefined;
}

/**
 * Workers that verify signatures, so that the main thread need not. Their word counts only where it is good: whatever
 * else comes, from a bad signature to the end of a worker, is for the main thread to find out by itself. Answers come
 * in the order of the questions.
 */
export class CheckPool {
  /** Requests that workers were asked about, and those of them whose worker ended without an answer. */
  readonly counters = { asked: 0, lost: 0 };
  /** Called when there is room again. */
  onRoom: () => void = () => undefined;
  readonly #clock: Clock;
  readonly #log: Pick<Log, 'warn'>;
  readonly #entry: URL;
  readonly #places: readonly Place[];
  /** What was asked in this turn. */
  #turn: Request[] = [];
  /** What is not answered, in the order of the questions. */
  readonly #batches: Batch[] = [];
  #pending = 0;
  #watch: Timer | undefined;
  #closed = false;

  /**
   * @param options.workers how many, see {@link workersFor}
   * @param options.entry what they run; only a test has another
   */
  constructor(options: { clock: Clock; workers: number; log: Pick<Log, 'warn'>; entry?: URL }) {
    this.#clock = options.clock;
    this.#log = options.log;
    this.#entry = options.entry ?? new URL('./check-worker-main.ts', import.meta.url);
    this.#places = Array.from({ length: options.workers }, () => ({
      worker: undefined,
      batches: [],
      restart: undefined,
    }));
    for (const place of this.#places) this.#start(place);
  }

  /** How many workers can be asked. */
  get ready(): number {
    return this.#closed ? 0 : this.#places.filter(({ worker }) => worker !== undefined).length;
  }

  /** Whether more may be asked now; else {@link onRoom} tells when. */
  get hasRoom(): boolean {
    return this.#pending < MAX_PENDING;
  }

  /**
   * Whether all checks of a request come out well. False too if that could not be found out. Never rejects.
   *
   * @param checks at most 255
   */
  ask(checks: readonly Check[]): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    // Behind all that is read in this turn.
    if (this.#turn.length === 0) queueMicrotask(() => this.#flush());
    this.#turn.push({ checks, resolve });
    this.#pending++;
    return promise;
  }

  /** Lets the workers end; nobody is asked any more. */
  close(): void {
    this.#closed = true;
    for (const { worker, restart } of this.#places) {
      restart?.cancel();
      worker?.postMessage(null);
    }
    this.#look();
  }

  #flush(): void {
    const turn = this.#turn;
    this.#turn = [];
    const [only, ...others] = turn;
    if (only && others.length === 0 && this.#batches.length === 0) {
      // The main thread has nothing else to do, and would be asleep and woken again before a worker has answered.
      this.#settle([only], [areGood(only.checks)]);
      return;
    }
    for (let at = 0; at < turn.length; at += AT_ONCE) this.#send(turn.slice(at, at + AT_ONCE));
  }

  #send(requests: readonly Request[]): void {
    let place: Place | undefined;
    for (const one of this.#places)
      if (one.worker && (!place || one.batches.length < place.batches.length)) place = one;
    if (!place?.worker) {
      // The last one has ended since they were read.
      this.#settle(requests, []);
      return;
    }
    this.counters.asked += requests.length;
    const batch: Batch = { requests, since: this.#clock.monotonic(), verdicts: undefined };
    this.#batches.push(batch);
    place.batches.push(batch);
    const bytes = encodeChecks(requests.map(({ checks }) => checks));
    place.worker.postMessage(bytes, [bytes.buffer]);
    this.#watch ??= this.#clock.setTimeout(() => this.#look(), PATIENCE_MS);
  }

  /** Answers what is answered and has nothing unanswered before it. */
  #release(): void {
    for (let [first] = this.#batches; first?.verdicts; [first] = this.#batches) {
      this.#batches.shift();
      this.#settle(first.requests, first.verdicts);
    }
  }

  /** @param verdicts in the order of the requests; those that have none were not found out */
  #settle(requests: readonly Request[], verdicts: readonly boolean[]): void {
    const wasFull = !this.hasRoom;
    this.#pending -= requests.length;
    for (const [n, { resolve }] of requests.entries()) resolve(verdicts[n] === true);
    if (wasFull && this.hasRoom) this.onRoom();
  }

  #start(place: Place): void {
    const worker = new Worker(this.#entry, { execArgv: [], resourceLimits: LIMITS });
    let reason = '';
    worker.unref();
    worker.on('message', (said: 'ready' | Uint8Array) => {
      if (said === 'ready') {
        // Not asked to end before: Node 24.21 aborts the whole process if a worker is ended while it starts.
        if (this.#closed) worker.postMessage(null);
        else place.worker = worker;
        return;
      }
      const batch = place.batches.shift();
      if (batch) batch.verdicts = Array.from(said, (verdict) => verdict === 1);
      this.#release();
    });
    worker.on('error', (error) => {
      reason = `: ${(error as Error).message}`;
    });
    worker.on('exit', () => this.#ended(place, reason));
  }

  #ended(place: Place, reason: string): void {
    place.worker = undefined;
    for (const batch of place.batches.splice(0)) {
      batch.verdicts = [];
      this.counters.lost += batch.requests.length;
    }
    if (!this.#closed) {
      this.#log.warn(`a worker that verifies signatures ended${reason}: the main thread does its work for a while`);
      place.restart = this.#clock.setTimeout(() => this.#start(place), RESTART_MS);
    }
    this.#release();
  }

  /** Ends workers that answer nothing, for as long as there is something to be answered. */
  #look(): void {
    this.#watch?.cancel();
    this.#watch = undefined;
    const since = this.#clock.monotonic() - PATIENCE_MS;
    for (const { worker, batches } of this.#places)
      if (batches[0] !== undefined && batches[0].since <= since) void worker?.terminate();
    if (this.#batches.length > 0) this.#watch = this.#clock.setTimeout(() => this.#look(), PATIENCE_MS);
  }
}
