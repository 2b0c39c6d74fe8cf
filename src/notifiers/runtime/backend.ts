import type { Clock } from '../../clock.ts';
import type { Logger } from '../../daemon/log.ts';
import type { Section } from '../../settings/section.ts';

/**
 * One provider of push notifications. A file that exports `create` is a whole notifier: the runtime does the
 * registering, queueing, retrying, reporting, counting and draining.
 */
export interface Backend {
  /**
   * Checks what a client gave as `service_info` (any JSON) and names its device.
   * Throws {@link Refusal} for what it cannot accept, and the client is told its code and message. Whatever else is
   * thrown is a fault, which clients do not see: the text may be a library's.
   */
  validate(info: unknown): Device;
  /**
   * Gives pushes to the provider and says what it made of each, in the same order. It is called again while earlier
   * calls are still running, up to `concurrency` times, and never with more than `batch` pushes. A rejection counts as
   * {@link retry} for all of them.
   */
  send(pushes: readonly Delivery[]): Promise<readonly Outcome[]>;
  /** Pushes in one call of {@link send}; 1 unless given. */
  readonly batch?: number;
  /**
   * Where pushes go to many providers that know nothing of each other: a name for the one that this push goes to. Each
   * is then left alone by itself when it fails or asks us to wait, and none takes up what the others need: "provider"
   * and "everyone" in an outcome mean that one alone. Such a backend sends no batches.
   */
  lane?(push: Delivery): string;
  /** Calls of {@link send} at a time; 16 unless given. */
  readonly concurrency?: number;
  /** Milliseconds to wait for a batch to fill; 0 unless given. */
  readonly linger?: number;
  /**
   * When what it shows to the provider expires, in Unix milliseconds; undefined if never. For the metric and the
   * warning.
   */
  readonly credentialExpiry?: number | undefined;
  /** Gives back sockets and timers. */
  close?(): void | Promise<void>;
}

/**
 * What every backend file exports as `create`. It reads its keys, ends with `section.check()`, and throws an Error with
 * a sentence for anything else.
 */
export type CreateBackend = (context: BackendContext) => Backend | Promise<Backend>;

/** What a backend is made with. */
export interface BackendContext {
  /** The name under which clients ask for it, for example `apns-sandbox`. */
  readonly service: string;
  /** The `[notify-NAME]` section. */
  readonly section: Section;
  readonly log: Logger;
  /** Its time does not step when the machine's does (judged-time.ts). */
  readonly clock: Clock;
  /**
   * What the machine's own clock says, unix milliseconds: for what the provider checks by its own, such as the time in
   * a signed token.
   */
  readonly wallClock: () => number;
  readonly random: (bytes: number) => Buffer;
  /** What {@link Backend.validate} throws: an operator's own module cannot know where to import it from. */
  readonly Refusal: typeof Refusal;
}

/** A client's device. */
export interface Device {
  /** 32 to 999 bytes of UTF-8 without NUL; the same device always gets the same id. */
  readonly id: string;
  /** At most 99,999 bytes that come back with every push. */
  readonly data?: Uint8Array;
}

/** One push for one device. */
export interface Delivery {
  /** What {@link Backend.validate} gave as `id`. */
  readonly id: string;
  /** What {@link Backend.validate} gave as `data`. */
  readonly data: Buffer | null;
  /** What the phone is to get, sealed with its own key: `nonce ‖ ciphertext`, at most 2,856 bytes. */
  readonly payload: Buffer;
  /** Unix milliseconds after which it is pointless; 0 if never. */
  readonly expiry: number;
  /** Whether the phone's app will show something for it, so that it is worth waking the phone at once. */
  readonly urgent: boolean;
}

/**
 * Whose trouble a retry is: that of this one device; the provider's, so that nothing is sent for a while if it goes on;
 * or the provider asks everyone to wait, and nothing at all is sent until then.
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
 * The device will never get anything again: the hivemind forgets it, unless it subscribed after `time`.
 * @param time Unix milliseconds, as the provider says, or when the push was sent
 */
export function gone(reason: string, time: number): OutcomeOf<'gone'> {
  return { kind: 'gone', reason, time };
}

/**
 * As {@link gone}, but seen by the token alone, without asking the provider: however many they are, that tells nothing
 * of our certificate or topic.
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
 * A passing trouble: the push is tried again.
 * @param after milliseconds to wait at least, for what the provider asked; the common policy adds to it
 * @param whom whose trouble it is
 */
export function retry(reason: string, after = 0, whom: Whom = 'provider'): OutcomeOf<'retry'> {
  return { kind: 'retry', reason, after, whom };
}

/** The provider does not accept us: the operator is informed, the device is kept, and the push is tried again. */
export function misconfigured(reason: string): OutcomeOf<'misconfigured'> {
  return { kind: 'misconfigured', reason };
}

/** A `service_info` that names no device. The client is told code and message. */
export class Refusal extends Error {
  /** 1: something is missing; 4: something is wrong (docs/spec/hivemind.md, section 1.2). */
  readonly code: number;

  /** @throws RangeError for a code that would mean that the device was accepted, or nothing at all */
  constructor(code: number, message: string) {
    super(message);
    if (!Number.isInteger(code) || code === 0) throw new RangeError(`${code} is not a code for a refusal`);
    this.name = 'Refusal';
    this.code = code;
  }
}

/**
 * The string `key` of a client's `service_info`, as docs/spec/notifiers.md, section 3 has it for all real providers.
 * Throws {@link Refusal}: code 1 if the key is missing, else `code` with `wrong` for anything but a string that `fits`.
 * @param wrong the text of the refusal, made from the value
 * @param code 4 unless given, as the original has it
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
