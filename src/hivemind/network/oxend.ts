import type { Clock, Timer } from '../../clock.ts';
import { parseServiceNodes, SERVICE_NODES_REQUEST, type ServiceNodes } from '../../session/service-nodes.ts';

/** How oxend is reached. */
export interface OxendConnection {
  /** Rejects if there was no answer. */
  request(command: string, parts: readonly string[]): Promise<Buffer[]>;
  close(): void;
}

export interface OxendEvents {
  /** A handshake is complete: the first one, or one after a loss. */
  up(): void;
  down(): void;
  /**
   * It never came about, or was given up, and is closed.
   * @param offence oxend did what would cost us as much again
   */
  failed(reason: string, offence: boolean): void;
}

export interface OxendOptions {
  readonly clock: Clock;
  /** Uniform in [0, 1). */
  readonly jitter: () => number;
  /** Makes the connection. May throw. */
  readonly connect: (events: OxendEvents) => OxendConnection;
  /**
   * Takes a new list. What it throws makes the answer a wrong one.
   * @returns why it does not believe it, in words; it is then asked for again soon
   */
  readonly onList: (list: ServiceNodes) => string | undefined;
  readonly log: { info(text: string): void; warn(text: string): void };
}

/** oxend forgets a `sub.block` after 30 minutes (docs/spec/network.md, section 1). */
const SUBSCRIBE_EVERY = 9 * 60_000;
/** The list is asked for this often without any block, in case that one was missed. */
const REFRESH_EVERY = 5 * 60_000;
/** Whoever says that our list is out of date makes us ask for it this often at most. */
const SUSPECT_EVERY = 10_000;
/** After it sent something that no oxend sends: shorter than for a storage server, for there is but one. */
const CUT_OFF = 60_000;
/** After a failure: at first, and at most. */
const RETRY_FROM = 1000;
const RETRY_TO = 60_000;
/** The same complaint is repeated in the log this often. */
const COMPLAIN_EVERY = 5 * 60_000;

/**
 * Our connection to oxend, which says what the network looks like. It may be absent for as long as it likes: we wait,
 * say so once in a while, and go on with what we knew.
 */
export class Oxend {
  readonly #options: OxendOptions;
  #link: OxendConnection | undefined;
  #isUp = false;
  /** Number of handshakes so far. */
  #session = 0;
  #stopped = false;
  /** The latest good answer. */
  #height = -1;
  #blockHash = '';
  #refreshing = false;
  #refreshAgain = false;
  #subscribing = false;
  #subscribeTimer: Timer | undefined;
  #refreshTimer: Timer | undefined;
  #suspectTimer: Timer | undefined;
  #askedAt = Number.NEGATIVE_INFINITY;
  #connectTimer: Timer | undefined;
  #failedRefreshes = 0;
  #failedSubscribes = 0;
  #failedConnects = 0;
  #complainedAt = Number.NEGATIVE_INFINITY;
  #problem = 'not connected yet';
  #doubted = false;
  readonly counters = {
    blocks: 0,
    lists: 0,
    doubted: 0,
    suspected: 0,
    wrongAnswers: 0,
    timeouts: 0,
    subscribes: 0,
    lostSubscriptions: 0,
    failures: 0,
  };

  constructor(options: OxendOptions) {
    this.#options = options;
  }

  /** Whether it is connected and its last answer was a valid one, whether believed or not. */
  get up(): boolean {
    return this.#isUp && (this.#problem === '' || this.#doubted);
  }

  /** Whether its last list is not believed yet. */
  get doubted(): boolean {
    return this.#doubted;
  }

  /** What is wrong, in words; empty if nothing is. */
  get problem(): string {
    return this.#problem;
  }

  /** Height of the block of the latest list; -1 before the first. */
  get height(): number {
    return this.#height;
  }

  /** Hash of that block in hex; empty before the first. */
  get blockHash(): string {
    return this.#blockHash;
  }

  start(): void {
    if (this.#stopped) return;
    // Events of an earlier connection must not count as this one's.
    let link: OxendConnection | undefined;
    const isCurrent = () => link !== undefined && link === this.#link;
    try {
      link = this.#options.connect({
        up: () => isCurrent() && this.#up(),
        down: () => isCurrent() && this.#down(),
        failed: (reason, offence) => isCurrent() && this.#failed(reason, offence),
      });
      this.#link = link;
    } catch (error) {
      this.#failed(error instanceof Error ? error.message : String(error), false);
    }
  }

  /** oxend announced a block, or somebody else has a reason to look: the list is asked for, once for many calls. */
  refresh(): void {
    void this.#refresh();
  }

  /** A storage server says that accounts are elsewhere than in our list: it may be a block ahead, or behind, or lie. */
  suspect(): void {
    if (this.#suspectTimer || !this.#isUp || this.#stopped) return;
    this.counters.suspected++;
    const wait = Math.max(0, this.#askedAt + SUSPECT_EVERY - this.#options.clock.monotonic());
    this.#suspectTimer = this.#options.clock.setTimeout(
      () => {
        this.#suspectTimer = undefined;
        this.refresh();
      },
      wait + 1000 * this.#options.jitter(),
    );
  }

  /** A `notify.block` came. */
  block(): void {
    this.counters.blocks++;
    this.refresh();
  }

  stop(): void {
    this.#stopped = true;
    this.#cancelTimers();
    this.#connectTimer?.cancel();
    this.#link?.close();
    this.#link = undefined;
  }

  #up(): void {
    this.#isUp = true;
    this.#session++;
    this.#failedConnects = 0;
    this.#failedSubscribes = 0;
    this.#failedRefreshes = 0;
    this.#options.log.info('oxend is connected');
    // First the subscription, then the list: a block in between is then announced to us.
    void this.#subscribe(true);
  }

  #down(): void {
    this.#isUp = false;
    this.#doubted = false;
    this.#cancelTimers();
    this.#complain('the connection is lost');
  }

  #failed(reason: string, offence: boolean): void {
    this.counters.failures++;
    this.#isUp = false;
    this.#cancelTimers();
    this.#link?.close();
    this.#link = undefined;
    this.#complain(reason);
    const wait = this.#delay(this.#failedConnects++, 10_000);
    this.#connectTimer = this.#options.clock.setTimeout(() => this.start(), offence ? CUT_OFF + wait : wait);
  }

  /**
   * @param first the first time after a handshake: oxend or the connection may be new, so the list is asked for anyway
   */
  async #subscribe(first: boolean): Promise<void> {
    const link = this.#link;
    if (!link || this.#subscribing) return;
    this.#subscribing = true;
    const session = this.#session;
    this.#subscribeTimer?.cancel();
    let wait = SUBSCRIBE_EVERY * (0.9 + this.#options.jitter() / 10);
    try {
      const [answer] = await link.request('sub.block', []);
      const word = answer?.toString('latin1');
      if (word !== 'OK' && word !== 'ALREADY')
        throw new Error(`sub.block answered ${JSON.stringify(word?.slice(0, 50))}`);
      this.counters.subscribes++;
      this.#failedSubscribes = 0;
      // OK instead of ALREADY: oxend had forgotten us, and blocks went by unseen.
      const lost = !first && word === 'OK';
      if (lost) this.counters.lostSubscriptions++;
      if (first || lost) this.refresh();
    } catch (error) {
      if (session === this.#session && this.#isUp) this.#wrong(error);
      wait = this.#delay(this.#failedSubscribes++);
      if (first) this.refresh();
    }
    this.#subscribing = false;
    if (this.#stopped || !this.#isUp) return;
    // Another handshake came in the meantime: what was answered does not count for it.
    if (session !== this.#session) void this.#subscribe(true);
    else this.#subscribeTimer = this.#options.clock.setTimeout(() => void this.#subscribe(false), wait);
  }

  async #refresh(): Promise<void> {
    const link = this.#link;
    if (!link || !this.#isUp) return;
    if (this.#refreshing) {
      this.#refreshAgain = true;
      return;
    }
    this.#refreshing = true;
    const session = this.#session;
    this.#refreshAgain = false;
    this.#refreshTimer?.cancel();
    this.#askedAt = this.#options.clock.monotonic();
    let wait = REFRESH_EVERY * (0.9 + this.#options.jitter() / 10);
    try {
      const reply = await link.request('rpc.get_service_nodes', [SERVICE_NODES_REQUEST]);
      if (this.#stopped) return;
      const list = parseServiceNodes(reply);
      const doubt = this.#options.onList(list);
      this.#doubted = doubt !== undefined;
      if (doubt !== undefined) {
        this.counters.doubted++;
        this.#complain(doubt);
        wait = this.#delay(this.#failedRefreshes++);
      } else {
        this.counters.lists++;
        this.#failedRefreshes = 0;
        this.#height = list.height;
        this.#blockHash = list.blockHash;
        this.#problem = '';
        this.#complainedAt = Number.NEGATIVE_INFINITY;
      }
    } catch (error) {
      this.#doubted = false;
      if (session === this.#session && this.#isUp) this.#wrong(error);
      wait = this.#delay(this.#failedRefreshes++);
    } finally {
      this.#refreshing = false;
    }
    if (this.#stopped || !this.#isUp) return;
    if (this.#refreshAgain && this.#failedRefreshes === 0) this.refresh();
    else this.#refreshTimer = this.#options.clock.setTimeout(() => this.refresh(), wait);
  }

  #wrong(error: unknown): void {
    if ((error as { code?: unknown }).code === 'TIMEOUT') this.counters.timeouts++;
    else this.counters.wrongAnswers++;
    this.#complain(error instanceof Error ? error.message : String(error));
  }

  #complain(problem: string): void {
    this.#problem = problem;
    const now = this.#options.clock.monotonic();
    if (this.#stopped || now - this.#complainedAt < COMPLAIN_EVERY) return;
    this.#complainedAt = now;
    const state = this.#height < 0 ? 'waiting for it' : `going on with the network as of height ${this.#height}`;
    this.#options.log.warn(`oxend: ${problem}; ${state}`);
  }

  /** A jittered wait in ms that doubles with each failure. */
  #delay(failures: number, most = RETRY_TO): number {
    return Math.min(RETRY_FROM * 2 ** failures, most) * (0.5 + this.#options.jitter() / 2);
  }

  #cancelTimers(): void {
    this.#subscribeTimer?.cancel();
    this.#refreshTimer?.cancel();
    this.#suspectTimer?.cancel();
    this.#suspectTimer = undefined;
  }
}
