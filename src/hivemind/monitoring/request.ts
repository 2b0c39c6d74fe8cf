import { isElsewhere, type MonitorResult, parseMonitorReply } from '../../session/monitor.ts';
import type { Member } from './member.ts';
import type { Accounts, Swarms } from './swarms.ts';

/** One `monitor.messages` request and what must be remembered to understand its answer. */
export interface Request {
  /** A bencoded list. Its own memory: zeromq reads it on another thread until it has been sent. */
  readonly body: Buffer;
  /** The accounts asked for, and the version of each at that time. */
  readonly ids: Uint32Array;
  readonly versions: Uint32Array;
  /** Where the dicts of each account end in the list, and the signature of each dict. */
  readonly ends: Uint32Array;
  readonly refs: readonly number[];
}

/**
 * Dicts in a request, unless it is for one account alone. The answer to each may be of 4.2 kB (error 6, with the ten
 * nodes of the swarm that the account is in, docs/spec/upstream.md, section 1.1), and a reply of more than 10 MiB costs
 * the connection: this leaves room for swarms of twelve.
 */
const MAX_DICTS = 2000;

/** What became of an account that was to be added to a request. */
export type Added = 'added' | 'nothing' | 'full' | 'too-large';

/**
 * Builds requests in a buffer that is used again and again. Only the finished body is copied (1 ms for 5 MB), because
 * the size of an account's dicts is not known before they are written and zeromq keeps what it was given.
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
  #refs: number[] = [];

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

  /** @param limit how large the body should be; one account fits in any case if it fits the buffer */
  begin(limit: number): void {
    this.#limit = Math.min(limit, this.#out.length) - 1;
    this.#out[0] = 0x6c; // l
    this.#offset = 1;
    this.#count = 0;
    this.#refs = [];
  }

  /**
   * Adds all dicts of an account, or none.
   * @param refused signatures not to be used
   */
  add(id: number, version: number, refused: ReadonlySet<number> | undefined): Added {
    if (this.#count > 0 && (this.#offset >= this.#limit || this.#refs.length >= MAX_DICTS)) return 'full';
    const before = this.#refs.length;
    const offset = this.#accounts.writeMonitors(id, this.#out, this.#offset, refused, this.#refs);
    if (offset === this.#offset) return 'nothing';
    const fits = offset !== -1 && offset < this.#out.length;
    if (!fits || ((offset > this.#limit || this.#refs.length > MAX_DICTS) && this.#count > 0)) {
      this.#refs.length = before;
      return this.#count > 0 ? 'full' : 'too-large';
    }
    const n = this.#count++;
    if (n === this.#ids.length) this.#grow();
    this.#ids[n] = id;
    this.#versions[n] = version;
    this.#ends[n] = this.#refs.length;
    this.#offset = offset;
    return 'added';
  }

  finish(): Request {
    const n = this.#count;
    this.#out[this.#offset] = 0x65; // e
    return {
      body: Buffer.from(this.#out.subarray(0, this.#offset + 1)),
      ids: this.#ids.slice(0, n),
      versions: this.#versions.slice(0, n),
      ends: this.#ends.slice(0, n),
      refs: this.#refs,
    };
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
  }
}

/** Error codes of storage servers that condemn a signature: too old or in the future, and wrong. */
const BAD_TS = 4;
const BAD_SIG = 5;
/** A reply that begins with this is of the whole request, even if that was a list. */
const DICT = 0x64; // d

/** What is said of each account goes to the schedule of the storage server that says it. */
export class Answers {
  readonly #swarms: Swarms;
  /** Told of an account that is to be asked for at once, with another signature. */
  readonly #hurry: (member: Member, id: number) => void;
  /** For single accounts or, where a signature was refused, for single signatures. */
  readonly counters = { confirmed: 0, refused_timestamp: 0, refused_signature: 0, elsewhere: 0, error: 0 };

  constructor(swarms: Swarms, hurry: (member: Member, id: number) => void) {
    this.#swarms = swarms;
    this.#hurry = hurry;
  }

  /** Takes over what was said of each account of a request that was sent in the second `sentAt`. */
  apply(member: Member, request: Request, sentAt: number, results: readonly MonitorResult[]): void {
    const swarms = this.#swarms;
    const { schedule } = member;
    let dict = 0;
    for (let i = 0; i < request.ids.length; i++) {
      const id = request.ids[i]!;
      const end = request.ends[i]!;
      // The worst answer of its dicts: a refused signature can be replaced, another error is waited for.
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
      // It moved, changed or is somebody else by now: there is or was a newer question.
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
 * What a reply says of each dict of a request; or why it counts as none. One account that the server cannot read spoils
 * the answer for all: then it is `rejected`. That all are elsewhere is an answer, if it is given for each of them.
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

/** An error that condemns no signature. */
function isOtherError(result: MonitorResult): boolean {
  return result.code !== 0 && result.code !== BAD_TS && result.code !== BAD_SIG;
}

/** An answer in words, for the log. */
function describe(result: MonitorResult): string {
  return `error ${result.code}: ${result.error ?? ''}`.slice(0, 200);
}
