/**
 * What a fake provider answers, instead of taking the push: set in advance, for one device or for whatever comes next.
 * The answers of a device come first.
 */
export class Script<Answer> {
  /** Answers everything that nothing else answers. */
  all: Answer | undefined;
  readonly #devices = new Map<string, Answer[]>();
  readonly #lasting = new Map<string, Answer>();
  #next: Answer[] = [];

  /** One after the other for this device; then it is taken again. */
  device(token: string, ...answers: Answer[]): void {
    this.#devices.set(token, [...(this.#devices.get(token) ?? []), ...answers]);
  }

  /** Always for this device. */
  always(token: string, answer: Answer): void {
    this.#lasting.set(token, answer);
  }

  /** For the next `count` pushes, whoever they are for. */
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

  /** The answer to a push for this device; undefined: take it. */
  answer(token: string): Answer | undefined {
    return this.#devices.get(token)?.shift() ?? this.#lasting.get(token) ?? this.#next.shift() ?? this.all;
  }
}

/** A push that a fake provider took. */
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

  /** Resolves when there were so many, since the start. */
  reached(count: number): Promise<void> {
    if (this.count >= count) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push({ count, resolve }));
  }
}

/** What a fake provider took: the newest in full, all of them as a number. */
export class Taken {
  readonly pushes: TakenPush[] = [];
  /** Called with each, for example to let a phone have it. */
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

  /** Resolves when so many were taken, since the start. */
  reached(count: number): Promise<void> {
    return this.#tally.reached(count);
  }
}

/** What all fake providers have. */
export interface FakeProvider {
  /** On 127.0.0.1. */
  readonly port: number;
  readonly taken: Taken;
  /** All requests for a push that were looked at, taken or not. */
  readonly requests: number;
  /**
   * Writes the credentials that a notifier needs for this provider into a folder.
   * @returns the keys and values for its section of spns.ini
   */
  settings(folder: string): Promise<Record<string, string>>;
  close(): Promise<void>;
}

export interface FakeOptions {
  /** 0, and thus any free one, unless given. */
  readonly port?: number;
  /** How many taken pushes are kept in full; 10,000 unless given. */
  readonly keep?: number;
  /** Milliseconds before each answer; none unless given. */
  readonly delay?: number;
}

export const KEEP = 10_000;
