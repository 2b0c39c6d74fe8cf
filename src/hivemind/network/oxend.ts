import type { Clock, Timer } from '../../clock.ts';
import { parseServiceNodes, SERVICE_NODES_REQUEST, type ServiceNodes } from '../../session/service-nodes.ts';
import type { Defer } from '../monitoring/swarms.ts';

/** A connection to oxend. */
export interface OxendConnection {
  /** Rejects if there is no answer. */
  request(command: string, parts: readonly string[]): Promise<Buffer[]>;
  close(): void;
}

export interface OxendEvents {
  /** A handshake is complete, the first or one after a loss. */
  up(): void;
  down(): void;
  /**
   * The connection could not be made, or was given up; it is closed.
   * @param offence whether oxend did something harmful, which it would do again
   */
  failed(reason: string, offence: boolean): void;
}

export interface OxendOptions {
  readonly clock: Clock;
  /** Uniform in [0, 1). */
  readonly jitter: () => number;
  /** Connects. May throw. */
  readonly connect: (events: OxendEvents) => OxendConnection;
  /**
   * Takes a new list. If it throws, the answer counts as wrong.
   * @returns why the list is doubted, in words: it is then asked for again soon
   */
  readonly onList: (list: ServiceNodes) => string | undefined;
  /** Calls back after what is due now, as setImmediate does. */
  readonly defer: Defer;
  readonly log: { info(text: string): void; warn(text: string): void };
}

/** How often `sub.block` is renewed, in ms: oxend forgets it after 30 minutes (docs/spec/network.md, section 1). */
const SUBSCRIBE_EVERY = 9 * 60_000;
/** How often the list is asked for without a new block, in ms, in case one was missed. */
const REFRESH_EVERY = 5 * 60_000;
/** The least time (ms) between two requests for the list because somebody says that ours is out of date. */
const SUSPECT_EVERY = 10_000;
/** How long (ms) oxend is left alone after an offence: shorter than a storage server, since there is only one oxend. */
const CUT_OFF = 60_000;
/** How long to wait after a failure, at first and at most, in ms. */
const RETRY_FROM = 1000;
const RETRY_TO = 60_000;
/** The least time (ms) between two complaints in the log. */
const COMPLAIN_EVERY = 5 * 60_000;

/**
 * Our connection to oxend, which tells us the state of the network. It may be away for any length of time: we log that
 * now and then, and carry on with what we last knew.
 */
export class Oxend {
  readonly #options: OxendOptions;
  #link: OxendConnection | undefined;
  #isUp = false;
  /** How many handshakes there have been. */
  #session = 0;
  #stopped = false;
  /** Of the latest list that was believed. */
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

  /** Whether it is connected and its last answer was valid, believed or not. */
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
    // Late events of an earlier connection must not count as this one's.
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

  /** Asks for the list. Calls while it is being asked for are answered by one more request. */
  refresh(): void {
    void this.#refresh();
  }

  /** Called when a storage server disagrees with our list. It may be a block ahead or behind, or lying. */
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
    // Subscribe before asking for the list, so that a block in between is announced to us.
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
   * @param first whether it is the first time after a handshake: oxend may be a new one, so we ask for the list anyway
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
      // OK instead of ALREADY: oxend had forgotten us, so blocks may have gone by unseen.
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
    // There has been another handshake since: this answer does not count for it.
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
      // To take over a list of thousands of servers takes as long as to read it. Deferred once, it would come before
      // the event loop has turned.
      await this.#deferred();
      await this.#deferred();
      if (this.#stopped) return;
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

  #deferred(): Promise<void> {
    return new Promise((resolve) => this.#options.defer(resolve));
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
