/**
 * What a fake provider answers instead of accepting a push, set in advance for a device or for whatever comes next. A
 * device's own answers come first.
 */
export class Script<Answer> {
  /** The answer to every push that nothing else here answers. */
  all: Answer | undefined;
  readonly #devices = new Map<string, Answer[]>();
  readonly #lasting = new Map<string, Answer>();
  #next: Answer[] = [];

  /** One after the other for this device; after that its pushes are accepted again. */
  device(token: string, ...answers: Answer[]): void {
    this.#devices.set(token, [...(this.#devices.get(token) ?? []), ...answers]);
  }

  /** Always for this device. */
  always(token: string, answer: Answer): void {
    this.#lasting.set(token, answer);
  }

  /** For the next `count` pushes, whichever device they are for. */
  next(answer: Answer, count = 1): void {
    for (let index = 0; index < count; index++) this.#next.push(answer);
  }

  /** Forgets everything. */
  clear(): void {
    this.all = undefined;
    this.#devices.clear();
    this.#lasting.clear();
    this.#next = [];
  }

  /** The answer to a push for this device; undefined if it is to be accepted. */
  answer(token: string): Answer | undefined {
    return this.#devices.get(token)?.shift() ?? this.#lasting.get(token) ?? this.#next.shift() ?? this.all;
  }
}

/** A push that a fake provider accepted. */
export interface TakenPush {
  readonly token: string;
  /** The sealed payload, as the phone gets it: nonce and ciphertext. */
  readonly payload: Buffer;
  /** The body as it was sent. */
  readonly body: unknown;
  /** Request headers, names in lower case. */
  readonly headers: Readonly<Record<string, unknown>>;
}

/** A number that can be waited for. */
export class Tally {
  count = 0;
  #waiting: { readonly count: number; readonly resolve: () => void }[] = [];

  add(): void {
    this.count++;
    if (this.#waiting.length === 0) return;
    for (const waiter of this.#waiting.filter(({ count }) => this.count >= count)) waiter.resolve();
    this.#waiting = this.#waiting.filter(({ count }) => this.count < count);
  }

  /** Resolves when the count has reached so many. */
  reached(count: number): Promise<void> {
    if (this.count >= count) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push({ count, resolve }));
  }
}

/** The pushes that a fake provider accepted: the newest in full, all of them as a number. */
export class Taken {
  readonly pushes: TakenPush[] = [];
  /** Called with each, for example to deliver it to a phone. */
  onPush: ((push: TakenPush) => void) | undefined;
  readonly #keep: number;
  readonly #tally = new Tally();

  /** @param keep how many are kept */
  constructor(keep: number) {
    this.#keep = keep;
  }

  get count(): number {
    return this.#tally.count;
  }

  add(push: TakenPush): void {
    this.pushes.push(push);
    if (this.pushes.length > this.#keep) this.pushes.shift();
    this.onPush?.(push);
    this.#tally.add();
  }

  /** Resolves when so many have been accepted since the start. */
  reached(count: number): Promise<void> {
    return this.#tally.reached(count);
  }
}

/** What all fake providers have. */
export interface FakeProvider {
  /** On 127.0.0.1. */
  readonly port: number;
  readonly taken: Taken;
  /** How many requests for a push were processed, whether accepted or not. */
  readonly requests: number;
  /**
   * Writes the credentials that a notifier needs for this provider into a folder.
   * @returns the keys and values for its section of spns.ini
   */
  settings(folder: string): Promise<Record<string, string>>;
  close(): Promise<void>;
}

export interface FakeOptions {
  /** Any free one unless given. */
  readonly port?: number;
  /** How many accepted pushes are kept in full; {@link KEEP} unless given. */
  readonly keep?: number;
  /** How long to wait before each answer, ms; not at all unless given. */
  readonly delay?: number;
  /** What each answer waits for before that, so that nothing is answered until then. */
  readonly held?: Promise<unknown>;
}

/** Gives an answer when the options, as they are now, have it given. */
export function answerWhen({ delay, held }: FakeOptions, answer: () => void): void {
  const act = () => {
    if (delay) setTimeout(answer, delay);
    else answer();
  };
  if (held === undefined) act();
  else void held.then(act);
}

/** How many accepted pushes are kept, unless a test or the world says otherwise. */
export const KEEP = 10_000;
