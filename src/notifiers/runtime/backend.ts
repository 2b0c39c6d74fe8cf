import type { Clock } from '../../clock.ts';
import type { Logger } from '../../daemon/log.ts';
import type { Section } from '../../settings/section.ts';

/**
 * The part of a notifier that knows its provider. A file that exports `create` for it makes a whole notifier: the
 * runtime does the registering, queueing, retrying, reporting, counting and draining.
 */
export interface Backend {
  /**
   * Checks what a client gave as `service_info` (any JSON) and names its device.
   *
   * @throws Refusal for what it cannot accept: the client is told its code and message. Any other error is a fault,
   *   whose text clients do not see, since it may be a library's
   */
  validate(info: unknown): Device;
  /**
   * Gives pushes to the provider and returns what became of each, in the same order. It is called again while earlier
   * calls are still running, up to `concurrency` times, and never with more than `batch` pushes. A rejection counts as
   * {@link retry} for all of them.
   */
  send(pushes: readonly Delivery[]): Promise<readonly Outcome[]>;
  /** The most pushes in one call of {@link send}; 1 unless given. */
  readonly batch?: number;
  /**
   * If pushes go to many independent providers: a name for the one to which this push goes. Each provider then has its
   * own pauses when it fails or asks us to wait, and none takes up what the others need: "provider" and "everyone" in
   * an outcome mean that one alone. Such a backend sends no batches.
   */
  lane?(push: Delivery): string;
  /** The most calls of {@link send} at the same time; 16 unless given. */
  readonly concurrency?: number;
  /** Milliseconds to wait for a batch to fill; 0 unless given. */
  readonly linger?: number;
  /**
   * When the credential for the provider expires, in Unix milliseconds; undefined if never. For a metric and a
   * warning.
   */
  readonly credentialExpiry?: number | undefined;
  /** Closes sockets and timers. */
  close?(): void | Promise<void>;
}

/**
 * What every backend file exports as `create`. It reads its keys, calls `section.check()`, and throws an Error with a
 * sentence for any other problem.
 */
export type CreateBackend = (context: BackendContext) => Backend | Promise<Backend>;

/** What a backend is made with. */
export interface BackendContext {
  /** The name under which clients subscribe to it, such as `apns-sandbox`. */
  readonly service: string;
  /** The `[notify-NAME]` section. */
  readonly section: Section;
  readonly log: Logger;
  /** A clock that does not step when the machine's does (judged-time.ts). */
  readonly clock: Clock;
  /**
   * The machine's own clock, unix milliseconds: for times that the provider checks, such as those in a signed token.
   */
  readonly wallClock: () => number;
  readonly random: (bytes: number) => Buffer;
  /** For {@link Backend.validate} to throw: an operator's own module cannot know where to import it from. */
  readonly Refusal: typeof Refusal;
}

/** A client's device. */
export interface Device {
  /** 32 to 999 bytes of UTF-8 without NUL, always the same for the same device. */
  readonly id: string;
  /** At most 99,999 bytes, which come back with every push. */
  readonly data?: Uint8Array;
}

/** One push for one device. */
export interface Delivery {
  /** What {@link Backend.validate} gave as `id`. */
  readonly id: string;
  /** What {@link Backend.validate} gave as `data`. */
  readonly data: Buffer | null;
  /** What the phone gets, sealed with its own key: `nonce ‖ ciphertext`, at most 2,856 bytes. */
  readonly payload: Buffer;
  /** Unix milliseconds after which it is pointless; 0 if never. */
  readonly expiry: number;
  /** Whether the app will show something for it, so that it is worth waking the phone at once. */
  readonly urgent: boolean;
}

/**
 * Whom the trouble behind a retry concerns: only this device; the provider, so that sending pauses if it goes on; or
 * everyone, since the provider asks to wait, so that nothing is sent until then.
 */
export type Whom = 'device' | 'provider' | 'everyone';

/** What became of a push at the provider. */
export type Outcome =
  | { readonly kind: 'accepted' }
  | { readonly kind: 'gone'; readonly reason: string; readonly time: number; readonly local?: true }
  | { readonly kind: 'refused'; readonly reason: string }
  | { readonly kind: 'retry'; readonly reason: string; readonly after?: number; readonly whom?: Whom }
  | { readonly kind: 'misconfigured'; readonly reason: string };

type OutcomeOf<Kind extends Outcome['kind']> = Extract<Outcome, { kind: Kind }>;

/** The provider took it. */
export const accepted = { kind: 'accepted' } as const satisfies Outcome;

/**
 * The device will never get anything again: the hivemind removes it, unless it subscribed after `time`.
 *
 * @param time Unix milliseconds, from the provider, or when the push was sent
 */
export function gone(reason: string, time: number): OutcomeOf<'gone'> {
  return { kind: 'gone', reason, time };
}

/**
 * As {@link gone}, but by the form of the token alone, without asking the provider: however many there are, that says
 * nothing about our certificate or topic.
 *
 * @param time Unix milliseconds
 */
export function noToken(reason: string, time: number): OutcomeOf<'gone'> {
  return { kind: 'gone', reason, time, local: true };
}

/** This push will never be taken, but the device may be fine. It is given up and counted. */
export function refused(reason: string): OutcomeOf<'refused'> {
  return { kind: 'refused', reason };
}

/**
 * A trouble that passes: the push is tried again.
 *
 * @param after milliseconds that the provider asked us to wait; the common policy adds to it
 */
export function retry(reason: string, after = 0, whom: Whom = 'provider'): OutcomeOf<'retry'> {
  return { kind: 'retry', reason, after, whom };
}

/** The provider does not accept us: the operator is told, the device is kept, and the push is tried again. */
export function misconfigured(reason: string): OutcomeOf<'misconfigured'> {
  return { kind: 'misconfigured', reason };
}

/** A `service_info` that names no valid device. The client is told code and message. */
export class Refusal extends Error {
  /** 1: something is missing; 4: something is wrong (docs/spec/hivemind.md, section 1.2). */
  readonly code: number;

  /** @throws RangeError for 0, which would mean that the device was accepted, and for anything but an integer */
  constructor(code: number, message: string) {
    super(message);
    if (!Number.isInteger(code) || code === 0) throw new RangeError(`${code} is not a code for a refusal`);
    this.name = 'Refusal';
    this.code = code;
  }
}

/**
 * The string `key` of a client's `service_info` (docs/spec/notifiers.md, section 3).
 *
 * @param wrong makes the text of the refusal from the value
 * @param code of that refusal; 4 unless given, as in the original
 * @throws Refusal with code 1 if the key is missing, with `code` if its value is not a string that `fits`
 */
export function tokenOf(
  info: unknown,
  key: string,
  fits: (token: string) => boolean,
  wrong: (token: unknown) => string,
  code = 4,
): string {
  if (typeof info !== 'object' || info === null || Array.isArray(info)) {
    throw new Refusal(4, 'Invalid service_info: expected an object');
  }
  if (!Object.hasOwn(info, key)) throw new Refusal(1, `Error: missing required key '${key}'`);
  const token = (info as Record<string, unknown>)[key];
  if (typeof token !== 'string' || !fits(token)) throw new Refusal(code, wrong(token));
  return token;
}
