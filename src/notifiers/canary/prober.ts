import type { Clock, Timer } from '../../clock.ts';
import { type Logger, type Repeated, repeated } from '../../daemon/log.ts';
import { openPayload } from '../../session/payload.ts';
import type { FrontEnd } from './front-end.ts';
import { StoreError, type StoreFailure, type Swarm } from './swarm.ts';

/** What became of a message: its push came, or did not, or the message could not even be stored. */
export type Result = 'delivered' | 'lost' | 'not_registered' | 'not_subscribed' | StoreFailure;

/** How long things wait, in milliseconds. */
export interface Pace {
  /** From one message to the next. */
  readonly every: number;
  /** The same for the first few, until one has come back, so that one soon knows whether a start was good. */
  readonly first: number;
  /** After a subscription that may be new to the hivemind, until it has asked the storage servers. */
  readonly settle: number;
  /** A push that takes longer counts as lost. */
  readonly patience: number;
  /** From one subscription to the next, which is how long a broken front-end may go unnoticed. */
  readonly renew: number;
}

const PACE: Pace = { every: 60_000, first: 5_000, settle: 2_000, patience: 60_000, renew: 600_000 };
/** How many messages may be sent at the pace of the first. */
const FIRST_FEW = 12;

/** How long the first message waits for the registration with the hivemind, and how often that is checked, ms. */
const REGISTERING = 10_000;
const LOOK_AGAIN = 100;
const NONCE_BYTES = 16;

/** What a {@link Prober} is made with. */
export interface ProberOptions {
  readonly clock: Clock;
  readonly random: (bytes: number) => Buffer;
  readonly log: Logger;
  readonly frontEnd: FrontEnd;
  readonly swarm: Swarm;
  /** 32 bytes */
  readonly encKey: Buffer;
  /** Whether the hivemind has the canary's notifier. */
  readonly registered: () => boolean;
  /** Called for each push that came with how long it took, in seconds. */
  readonly took: (seconds: number) => void;
  readonly pace?: Pace;
}

/**
 * The canary's loop: it subscribes, stores a message each minute, and waits for its push. It goes on with whatever
 * works: while the front-end is away, messages are stored all the same.
 */
export class Prober {
  readonly results: Record<Result, number> = {
    delivered: 0,
    lost: 0,
    not_registered: 0,
    not_subscribed: 0,
    no_swarm: 0,
    wrong_swarm: 0,
    clock: 0,
    refused: 0,
    unreachable: 0,
  };
  readonly #options: ProberOptions;
  readonly #pace: Pace;
  readonly #say: Repeated;
  readonly #pending = new Map<string, { sentAt: number; patience: Timer | undefined }>();
  readonly #startedAt: number;
  #deliveredAt: number | undefined;
  #lastSeconds: number | undefined;
  #subscribedAt: number | undefined;
  /** Whether the hivemind may have lost the subscription. */
  #mayBeLost = false;
  #frontEndTrouble: string | undefined;
  #trouble: string | undefined = 'no message has come back yet';
  #sent = 0;
  #timer: Timer | undefined;
  #wake: (() => void) | undefined;
  #stopped = false;

  constructor(options: ProberOptions) {
    this.#options = options;
    this.#pace = options.pace ?? PACE;
    this.#say = repeated(options.log, options.clock);
    this.#startedAt = options.clock.monotonic();
  }

  /** How long the last push that came took, in seconds. */
  get lastSeconds(): number | undefined {
    return this.#lastSeconds;
  }

  /** How long ago the last push came, or the start was if none has come, in seconds. */
  get silentSeconds(): number {
    return (this.#options.clock.monotonic() - (this.#deliveredAt ?? this.#startedAt)) / 1000;
  }

  /** What is wrong, in words: with messages, and with the front-end. */
  get problems(): string[] {
    return [this.#trouble, this.#frontEndTrouble].filter((each) => each !== undefined);
  }

  /** Whether the front-end took the last subscription. */
  get frontEndWorks(): boolean {
    return this.#subscribedAt !== undefined && this.#frontEndTrouble === undefined;
  }

  /** Goes on until {@link stop}. */
  async run(): Promise<void> {
    // The hivemind may be starting at the same time.
    for (let left = REGISTERING; left > 0 && !this.#options.registered() && !this.#stopped; left -= LOOK_AGAIN) {
      await this.#wait(LOOK_AGAIN);
    }
    while (!this.#stopped) {
      await this.#probe();
      const isFirst = this.#deliveredAt === undefined && this.#sent < FIRST_FEW;
      await this.#wait(isFirst ? this.#pace.first : this.#pace.every);
    }
  }

  /**
   * To be called when the notifier was given a push.
   *
   * @param payload nonce and ciphertext
   * @returns whether it could be decrypted
   */
  received(payload: Buffer): boolean {
    let text: string;
    try {
      text = String(openPayload(payload, this.#options.encKey).data ?? '');
    } catch (error) {
      this.#say.warn(`a push cannot be read: ${(error as Error).message}`);
      return false;
    }
    const nonce = /^spns canary ([0-9a-f]+)$/.exec(text)?.[1] ?? '';
    const pending = this.#pending.get(nonce);
    // It came too late, or twice, or somebody else wrote to the account, as anybody may.
    if (!pending) return true;
    this.#forget(nonce);
    const now = this.#options.clock.monotonic();
    const seconds = (now - pending.sentAt) / 1000;
    this.results.delivered++;
    this.#deliveredAt = now;
    this.#lastSeconds = seconds;
    this.#options.took(seconds);
    if (this.#trouble !== undefined)
      this.#options.log.info(`phones ring: a push came ${seconds.toFixed(2)} s after its message`);
    this.#trouble = undefined;
    return true;
  }

  /** Stops the loop, and unsubscribes if possible. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#timer?.cancel();
    this.#wake?.();
    for (const nonce of [...this.#pending.keys()]) this.#forget(nonce);
    this.#say.stop();
    if (this.#subscribedAt === undefined) return;
    await this.#options.frontEnd
      .unsubscribe()
      .catch((error: Error) => this.#options.log.info(`could not unsubscribe: ${error.message}`));
  }

  async #probe(): Promise<void> {
    const { clock, random, registered, swarm } = this.#options;
    this.#sent++;
    if (!registered()) return this.#failed('not_registered', 'not registered with the hivemind');
    await this.#subscribe();
    if (this.#stopped) return;
    if (this.#subscribedAt === undefined) return this.#failed('not_subscribed', 'not subscribed');
    const nonce = random(NONCE_BYTES).toString('hex');
    const pending = { sentAt: clock.monotonic(), patience: undefined as Timer | undefined };
    this.#pending.set(nonce, pending);
    try {
      await swarm.store(Buffer.from(`spns canary ${nonce}`), () => {
        pending.sentAt = clock.monotonic();
      });
    } catch (error) {
      if (!(error instanceof StoreError)) throw error;
      // A server may have taken the message without confirming it, and its push may have come by now.
      if (!this.#pending.has(nonce)) return;
      this.#forget(nonce);
      if (!this.#stopped) this.#failed(error.failure, error.message);
      return;
    }
    if (this.#stopped || !this.#pending.has(nonce)) return;
    pending.patience = clock.setTimeout(() => {
      this.#forget(nonce);
      this.#mayBeLost = true;
      this.#failed('lost', `no push came within ${this.#pace.patience / 1000} s of a message that was stored`);
    }, this.#pace.patience);
  }

  async #subscribe(): Promise<void> {
    const { clock, frontEnd } = this.#options;
    const isNew = this.#subscribedAt === undefined || this.#mayBeLost;
    const age = clock.monotonic() - (this.#subscribedAt ?? 0);
    if (!isNew && !this.#frontEndTrouble && age < this.#pace.renew) return;
    try {
      await frontEnd.subscribe();
      this.#frontEndTrouble = undefined;
      this.#subscribedAt = clock.monotonic();
      this.#mayBeLost = false;
      if (isNew) await this.#wait(this.#pace.settle);
    } catch (error) {
      this.#frontEndTrouble = (error as Error).message;
      this.#say.warn(`could not subscribe: ${this.#frontEndTrouble}`);
    }
  }

  #failed(result: Result, why: string): void {
    this.results[result]++;
    this.#trouble = why;
    this.#say.warn(`phones may not ring: ${why}`);
  }

  #forget(nonce: string): void {
    this.#pending.get(nonce)?.patience?.cancel();
    this.#pending.delete(nonce);
  }

  #wait(ms: number): Promise<void> {
    if (this.#stopped) return Promise.resolve();
    return new Promise((resolve) => {
      this.#wake = resolve;
      this.#timer = this.#options.clock.setTimeout(resolve, ms);
    });
  }
}
