import { isElsewhere, type MonitorResult, parseMonitorReply } from '../../session/monitor.ts';
import type { SwarmMember } from './swarm-member.ts';
import type { Accounts, Swarms } from './swarms.ts';

/**
 * One `monitor.messages` request, and what is needed to understand its reply. Never changed once it is made: the
 * servers of a swarm may be sent the same one.
 */
export interface Request {
  /** A bencoded list, in memory of its own: zeromq reads it on another thread until it is sent. */
  readonly body: Buffer;
  /** The accounts asked for, and the version of each at that time ({@link Swarms.versionOf}). */
  readonly ids: Uint32Array;
  readonly versions: Uint32Array;
  /** For each account the index of the dict after its last, and the offset in the body after that dict. */
  readonly ends: Uint32Array;
  readonly offsets: Uint32Array;
  /** For each dict the number that stands for its signature. */
  readonly refs: readonly number[];
  /**
   * Whether another request should copy from this one: the server has refused no signature of these accounts, and not
   * all of them are in an earlier one.
   */
  readonly isModel: boolean;
}

/**
 * The most dicts in a request for more than one account. The answer to each may take 4.2 kB (error 6, with the ten
 * nodes of the account's swarm, docs/spec/upstream.md, section 1.1), and a reply of more than 10 MiB costs the
 * connection: this leaves room for swarms of twelve.
 */
const MAX_DICTS = 2000;

/** What became of an account that was to be added to a request. */
export type Added = 'added' | 'nothing' | 'full' | 'too-large';

/** After so many accounts that are not in any of the requests to copy from, they are no longer searched. */
const MAX_MISSES = 4;

/**
 * Builds requests in a buffer that is reused. The finished body is copied (1 ms for 5 MB), since its size is not known
 * before it is written, and zeromq keeps the buffer it is given.
 *
 * Where another server of the swarm has just been asked for the same accounts, their dicts are copied from that
 * request, many at a time, which takes a fraction of the time that making them takes.
 */
export class RequestBuilder {
  readonly #accounts: Accounts;
  readonly #out: Buffer;
  #limit = 0;
  #offset = 0;
  #count = 0;
  #ids = new Uint32Array(256);
  #versions = new Uint32Array(256);
  #ends = new Uint32Array(256);
  #offsets = new Uint32Array(256);
  #refs: number[] = [];
  /** Whether a dict was written rather than copied, and whether one was so because of a refused signature. */
  #hasWritten = false;
  #hasRefused = false;
  /** The requests to copy from, the one that had the latest account, and the index in it of the account after that. */
  #models: readonly Request[] = [];
  #model: Request | undefined;
  #next = 0;
  #misses = 0;
  /** What is to be copied from the model: its dicts from one offset to another, to an offset of ours. */
  readonly #run = { from: 0, end: 0, to: 0 };

  /** @param size the largest body, in bytes */
  constructor(accounts: Accounts, size: number) {
    this.#accounts = accounts;
    this.#out = Buffer.allocUnsafeSlow(size);
  }

  get count(): number {
    return this.#count;
  }

  /** Bytes written so far. */
  get size(): number {
    return this.#offset;
  }

  /**
   * @param limit the largest body, in bytes; a single account may exceed it, up to the size of the buffer
   * @param models requests to copy from. If what is asked for one of their accounts changes without a new
   *   version of the account, call {@link dropModels}
   */
  begin(limit: number, models: readonly Request[] = []): void {
    this.#limit = Math.min(limit, this.#out.length) - 1;
    this.#out[0] = 0x6c; // l
    this.#offset = 1;
    this.#count = 0;
    this.#refs = [];
    this.#hasWritten = false;
    this.#hasRefused = false;
    this.#models = models;
    this.#model = undefined;
    this.#misses = 0;
    this.#run.from = this.#run.end;
  }

  /**
   * Adds all dicts of an account, or none.
   * @param version see {@link Swarms.versionOf}
   * @param refused signatures not to use, by their numbers
   */
  add(id: number, version: number, refused: ReadonlySet<number> | undefined): Added {
    if (this.#count > 0 && (this.#offset >= this.#limit || this.#refs.length >= MAX_DICTS)) return 'full';
    const before = this.#refs.length;
    const isCopy = refused === undefined && this.#seek(id, version);
    const offset = isCopy ? this.#copy() : this.#write(id, refused);
    if (offset === this.#offset) return 'nothing';
    const fits = offset !== -1 && offset < this.#out.length;
    if (!fits || ((offset > this.#limit || this.#refs.length > MAX_DICTS) && this.#count > 0)) {
      this.#refs.length = before;
      if (isCopy) this.#run.end -= offset - this.#offset;
      return this.#count > 0 ? 'full' : 'too-large';
    }
    const n = this.#count++;
    if (n === this.#ids.length) this.#grow();
    this.#ids[n] = id;
    this.#versions[n] = version;
    this.#ends[n] = this.#refs.length;
    this.#offsets[n] = offset;
    this.#offset = offset;
    if (!isCopy) this.#hasWritten = true;
    if (refused !== undefined) this.#hasRefused = true;
    return 'added';
  }

  /** What is asked for some account of the models has changed: from now on nothing is copied from them. */
  dropModels(): void {
    this.#endRun();
    this.#models = [];
    this.#model = undefined;
  }

  finish(): Request {
    const n = this.#count;
    const model = this.#model;
    if (model !== undefined && n === model.ids.length && this.#run.end - this.#run.from === model.body.length - 2) {
      return model;
    }
    this.#endRun();
    this.#out[this.#offset] = 0x65; // e
    return {
      body: Buffer.from(this.#out.subarray(0, this.#offset + 1)),
      ids: this.#ids.slice(0, n),
      versions: this.#versions.slice(0, n),
      ends: this.#ends.slice(0, n),
      offsets: this.#offsets.slice(0, n),
      refs: this.#refs,
      isModel: this.#hasWritten && !this.#hasRefused,
    };
  }

  #write(id: number, refused: ReadonlySet<number> | undefined): number {
    this.#endRun();
    return this.#accounts.writeMonitors(id, this.#out, this.#offset, refused, this.#refs);
  }

  /** Finds an account in the models. @returns whether {@link #copy} can take it from there */
  #seek(id: number, version: number): boolean {
    const model = this.#model;
    if (model === undefined || model.ids[this.#next] !== id) {
      if (this.#misses === MAX_MISSES || this.#models.length === 0) return false;
      if (!this.#find(id)) {
        this.#misses++;
        return false;
      }
    }
    return this.#model!.versions[this.#next] === version;
  }

  #find(id: number): boolean {
    for (const model of this.#models) {
      const index = model.ids.indexOf(id);
      if (index < 0) continue;
      this.#endRun();
      this.#model = model;
      this.#next = index;
      return true;
    }
    return false;
  }

  /** Adds the next account of the model to what is to be copied. @returns the offset after it */
  #copy(): number {
    const { ends, offsets, refs } = this.#model!;
    const index = this.#next++;
    const from = index === 0 ? 1 : offsets[index - 1]!;
    const run = this.#run;
    if (run.end !== from) {
      this.#endRun();
      run.from = from;
      run.to = this.#offset;
    } else if (run.from === run.end) run.to = this.#offset;
    run.end = offsets[index]!;
    for (let dict = index === 0 ? 0 : ends[index - 1]!; dict < ends[index]!; dict++) this.#refs.push(refs[dict]!);
    return this.#offset + run.end - from;
  }

  #endRun(): void {
    const run = this.#run;
    if (run.from !== run.end) this.#model!.body.copy(this.#out, run.to, run.from, run.end);
    run.from = run.end;
  }

  #grow(): void {
    const grown = (from: Uint32Array) => {
      const to = new Uint32Array(from.length * 2);
      to.set(from);
      return to;
    };
    this.#ids = grown(this.#ids);
    this.#versions = grown(this.#versions);
    this.#ends = grown(this.#ends);
    this.#offsets = grown(this.#offsets);
  }
}

/** Error codes of storage servers about a signature: too old or from the future, and invalid. */
const BAD_TS = 4;
const BAD_SIG = 5;
/** A reply that begins with this is one answer to the whole request. */
const DICT = 0x64; // d

/** Enters the answers to requests in the storage servers' schedules. */
export class Answers {
  readonly #swarms: Swarms;
  /** Called with an account to ask for at once by another signature. */
  readonly #hurry: (member: SwarmMember, id: number) => void;
  /** Accounts by what was answered; where a signature was refused, signatures. */
  readonly counters = { confirmed: 0, refused_timestamp: 0, refused_signature: 0, elsewhere: 0, error: 0 };

  constructor(swarms: Swarms, hurry: (member: SwarmMember, id: number) => void) {
    this.#swarms = swarms;
    this.#hurry = hurry;
  }

  /** Enters the answer for each account of a request. @param sentAt the second in which it was sent */
  apply(member: SwarmMember, request: Request, sentAt: number, results: readonly MonitorResult[]): void {
    const swarms = this.#swarms;
    const { schedule } = member;
    let dict = 0;
    for (let i = 0; i < request.ids.length; i++) {
      const id = request.ids[i]!;
      const end = request.ends[i]!;
      // The worst answer to its dicts counts: a refused signature can be replaced, other errors have to be waited out.
      let error: MonitorResult | undefined;
      let isRefused = false;
      for (; dict < end; dict++) {
        const result = results[dict]!;
        if (result.code === 0) continue;
        if (isOtherError(result)) error = result;
        else {
          isRefused = true;
          if (result.code === BAD_TS) this.counters.refused_timestamp++;
          else this.counters.refused_signature++;
          if (swarms.swarmOf(id) === member.swarm) schedule.bar(id, request.refs[dict]!, result.code);
        }
      }
      // The account has moved or changed since, or its id belongs to another: a later request settles it.
      if (swarms.swarmOf(id) !== member.swarm || swarms.versionOf(id) !== request.versions[i]) continue;
      const position = swarms.positionOf(id);
      if (isRefused) {
        schedule.refused(position);
        this.#hurry(member, id);
      } else if (error && isElsewhere(error)) {
        this.counters.elsewhere++;
        member.elsewhere(position, describe(error));
      } else if (error) {
        this.counters.error++;
        schedule.erred(position, describe(error));
      } else {
        this.counters.confirmed++;
        schedule.confirmed(position, sentAt);
      }
    }
  }
}

/**
 * The answer to each dict of a request, or why the reply counts as a failure. One account that the server cannot read
 * spoils the reply for all, which is then `rejected`. If each is said to be elsewhere, that is a proper answer.
 */
export function readReply(
  { ids, refs }: Request,
  reply: Buffer,
): readonly MonitorResult[] | { outcome: 'unreadable' | 'rejected'; reason: string } {
  let results: readonly MonitorResult[];
  try {
    results = parseMonitorReply(reply, refs.length);
  } catch (error) {
    return { outcome: 'unreadable', reason: `unreadable reply: ${error instanceof Error ? error.message : error}` };
  }
  const isWhole = reply[0] === DICT;
  const isRejection = results.every((result) => isOtherError(result) && (isWhole || !isElsewhere(result)));
  return ids.length > 1 && isRejection ? { outcome: 'rejected', reason: describe(results[0]!) } : results;
}

/** Whether it is an error that is not about the signature. */
function isOtherError(result: MonitorResult): boolean {
  return result.code !== 0 && result.code !== BAD_TS && result.code !== BAD_SIG;
}

/** An answer in words, for the log. */
function describe(result: MonitorResult): string {
  return `error ${result.code}: ${result.error ?? ''}`.slice(0, 200);
}
