import { Breaker, type BreakerLimits } from '../../breaker.ts';
import { type Clock, type Timer, within } from '../../clock.ts';
import { encode } from '../../codec/bencode.ts';
import { parseJson } from '../../codec/json.ts';
import { type Logger, type Repeated, repeated } from '../../daemon/log.ts';
import type { Address } from '../../oxenmq/address.ts';
import type { Counters } from '../../oxenmq/counters.ts';
import type { KeyPair } from '../../oxenmq/keys.ts';
import type { Incoming } from '../../oxenmq/remote.ts';
import {
  type DeviceGone,
  decodeSealedPushes,
  decodeServiceInfos,
  encodeVerdicts,
  type Verdict,
} from '../../session/notifier-protocol.ts';
import { isShown, sealPayload } from '../../session/payload.ts';
import { decodePush } from '../../session/push.ts';
import { inWords, reportedAs } from './acknowledgements.ts';
import { type Backend, type Outcome, Refusal } from './backend.ts';
import { Copies, type GivenPush, type Giver, marksOf } from './copies.ts';
import type { HivemindLink } from './hivemind-link.ts';
import { Hiveminds } from './hiveminds.ts';
import type { RetryPolicy } from './retry.ts';
import { type End, Sender, type SenderLimits } from './sender.ts';
import { Statistics } from './stats.ts';

/** What a {@link Notifier} is made with. */
export interface NotifierOptions {
  readonly service: string;
  readonly backend: Backend;
  /** Where the hivemind listens, or some of several. */
  readonly addresses: readonly Address[];
  /** For both pairs see session/notifier-key.ts. */
  readonly keys: KeyPair;
  readonly clusterKeys: KeyPair;
  /** How long a push may wait in a hivemind, in milliseconds. */
  readonly pushLifetime: number;
  readonly clock: Clock;
  readonly random: (bytes: number) => Buffer;
  /** When to stop reporting dead devices to an original hivemind, which removes whatever it is told. */
  readonly breaker: BreakerLimits;
  readonly log: Logger;
  /** Called with how long each call to the provider took, in milliseconds. */
  readonly took?: (ms: number) => void;
  /** Figures to send to the hivemind with the common statistics. */
  readonly extraStatistics?: () => Readonly<Record<string, number | string>>;
  /** Only for tests: in place of the common policy. */
  readonly policy?: RetryPolicy;
  /** Only for tests: how often to register and report, in milliseconds; 5,000 unless given. */
  readonly ping?: number;
}

const INTERNAL_ERROR: Verdict = ['4', 'Internal error'];
const PING_MS = 5_000;
const NONCE_BYTES = 24;
/** How many reports of dead devices may wait for the hivemind to come back. */
const MAX_GONE = 10_000;
/** How many different ends are counted separately. */
const MAX_REASONS = 100;
/** The smallest window of pushes from the hivemind: enough to keep working while reports travel. */
const MIN_WINDOW = 1_000;
/** The window if there are many providers: pushes for paused ones wait here, not at the hivemind, at some 4 kB each. */
const LANES_WINDOW = 10_000;
/** An original hivemind does not wait for us: beyond this many windows the oldest pushes are given up. */
const QUEUE_WINDOWS = 10;
/**
 * How much longer than a push may wait its end is remembered, in milliseconds: a hivemind may hear late of a message
 * that another one has pushed.
 */
const LATE_COPIES = 600_000;
/** How much of the time to stop is kept for the last reports and for closing, in milliseconds. */
const CLOSING = 1_000;
/** How long closing the provider's connections may take, in milliseconds. */
const CLOSE_BACKEND = 500;

/**
 * A notifier, around its backend: registers, checks devices, takes pushes to the provider, reports what became of them,
 * and drains when it stops.
 */
export class Notifier {
  readonly #options: NotifierOptions;
  readonly #hiveminds: Hiveminds;
  readonly #sender: Sender<Push>;
  readonly #copies: Copies<HivemindLink>;
  readonly #statistics = new Statistics();
  readonly #breaker: Breaker;
  readonly #ping: Timer;
  #backend: Backend;
  /** Reports of dead devices that could not be sent yet, and who gave the push. */
  #gone: { readonly gone: Omit<DeviceGone, 'service'>; readonly giver: HivemindLink }[] = [];
  readonly #say: Repeated;
  /** How pushes ended, by kind and reason: `accepted`, `gone:Unregistered`, `given-up:expired`, … */
  readonly ends = new Map<string, number>();
  readonly counters = {
    received: 0,
    duplicates: 0,
    /** Pushes that another hivemind had given already. */
    copies: 0,
    malformed: 0,
    attempts: 0,
    retries: 0,
    validations: 0,
    refusals: 0,
    goneHeldBack: 0,
  };

  constructor(options: NotifierOptions) {
    this.#options = options;
    const { backend, clock, random, log, service } = options;
    this.#backend = backend;
    this.#breaker = new Breaker(options.breaker, clock);
    this.#say = repeated(log, clock);
    this.#copies = new Copies(clock, options.pushLifetime + LATE_COPIES);
    this.#sender = new Sender({
      backend,
      clock,
      random,
      ...limitsOf(backend, 1),
      ...(options.policy ? { policy: options.policy } : {}),
      ...(options.took ? { took: options.took } : {}),
      answered: (push, outcome) => this.#onAnswer(push, outcome),
      done: (push, end, attempts) => this.#onEnd(push, end, attempts),
      paused: (ms, reason, lane) => {
        const time = `for ${Math.ceil(ms / 1000)} s: ${reason}`;
        if (lane === '') return log.warn(`sending nothing ${time}`);
        // Not above debug: a server's name may tell who its owner is.
        log.debug({ lane }, `sending nothing there ${time}`);
        return this.#say.info(`sending nothing to one of the push services for a while: ${reason}`);
      },
    });
    this.#hiveminds = new Hiveminds({
      clock,
      random,
      service,
      addresses: options.addresses,
      keys: options.keys,
      clusterKeys: options.clusterKeys,
      window: () => windowOf(this.#backend),
      log,
      say: this.#say,
      validate: (message) => this.#validate(message),
      validateMany: (message) => this.#validateMany(message),
      sealed: (link, { parts }) => this.#takeSealed(link, parts),
      push: (link, { parts }) => this.#takePlain(link, parts),
      registered: () => this.#tellGone(),
      counted: (count) => {
        this.#sender.limits = limitsOf(this.#backend, count);
      },
    });
    this.#ping = clock.setInterval(() => this.#tick(), options.ping ?? PING_MS);
  }

  get statistics(): Statistics {
    return this.#statistics;
  }

  /** What the socket to the hiveminds counts. */
  get transport(): Counters {
    return this.#hiveminds.counters;
  }

  get sender(): Pick<Sender<Push>, 'queued' | 'inFlight' | 'retrying' | 'held' | 'isPaused'> {
    return this.#sender;
  }

  /** The backend that it sends with now. */
  get backend(): Backend {
    return this.#backend;
  }

  /** Sends with another backend from now on. The one before is closed when its running calls have ended. */
  async use(backend: Backend): Promise<void> {
    const before = this.#backend;
    this.#backend = backend;
    const unused = this.#sender.use(backend, limitsOf(backend, this.#hiveminds.links.length));
    this.#hiveminds.ping();
    await unused;
    await before.close?.();
  }

  /** Changes how long a push may wait in a hivemind, in milliseconds. */
  set pushLifetime(ms: number) {
    this.#copies.lifetime = ms + LATE_COPIES;
  }

  /** Whether a hivemind has our registration. */
  get registered(): boolean {
    return this.#hiveminds.registered;
  }

  /** The hiveminds, and what is wrong with the registrations. */
  get hiveminds(): Pick<Hiveminds, 'links' | 'missing' | 'troubles'> {
    return this.#hiveminds;
  }

  /**
   * Takes no more pushes, lets running calls to the provider end, hands back the rest, and closes everything.
   *
   * @param deadline milliseconds that this may take
   */
  async stop(deadline: number): Promise<void> {
    const { clock, log } = this.#options;
    const end = clock.monotonic() + Math.max(deadline - CLOSING, 0);
    this.#ping.cancel();
    // First, so that pushes which are handed back are not given to us again.
    const signedOff = this.#hiveminds.unregister(Math.min(2_000, deadline / 4));
    const finished = this.#sender.stop();
    await signedOff;
    if (!(await within(finished, end - clock.monotonic(), clock))) {
      log.warn(`${this.#sender.held} pushes were not answered in time`);
    }
    this.#sender.abandon();
    this.#tellGone();
    this.#hiveminds.flush();
    this.#hiveminds.sendStatistics(this.#report());
    const { unreported } = this.#hiveminds;
    if (unreported > 0) log.warn(`${unreported} pushes could not be reported: the hivemind will send them again`);
    const closed = Promise.resolve()
      .then(() => this.#backend.close?.())
      .catch((error: Error) => log.warn(`the backend could not be closed: ${error.message}`));
    await within(closed, CLOSE_BACKEND, clock);
    await this.#hiveminds.close();
    this.#say.stop();
    log.info(this.#statistics.status());
  }

  #tick(): void {
    this.#hiveminds.ping();
    if (this.#hiveminds.registered) {
      this.#hiveminds.sendStatistics(this.#report());
      this.#tellGone();
    }
  }

  #report(): Buffer {
    const { clock, extraStatistics } = this.#options;
    return encode({ ...this.#statistics.report(clock.monotonic()), ...extraStatistics?.() });
  }

  #takeSealed(link: HivemindLink, parts: readonly Buffer[]): void {
    let pushes: ReturnType<typeof decodeSealedPushes>;
    try {
      pushes = decodeSealedPushes(parts[0] ?? Buffer.alloc(0));
    } catch (error) {
      this.counters.malformed++;
      this.#say.error('a batch of pushes from the hivemind cannot be read', { err: error });
      return;
    }
    for (const sealed of pushes) {
      const { id, serviceId, serviceData, expiry, payload, wantsAnswer, urgent } = sealed;
      this.counters.received++;
      if (!link.acknowledgements.take(id)) {
        this.counters.duplicates++;
        continue;
      }
      const giver: Giver<HivemindLink> = { link, id, wantsAnswer };
      const marks = marksOf(sealed);
      const known = this.#copies.find(marks, giver);
      if (known !== undefined) {
        this.counters.copies++;
        if (known !== 'joined') {
          if (wantsAnswer) link.acknowledgements.answer(id, `${known} when another hivemind gave it`);
          link.acknowledgements.end(id, known);
        }
        continue;
      }
      const push = {
        givers: [giver],
        ...marks,
        returnable: true,
        id: serviceId,
        ...ownBytes(payload, serviceData),
        expiry: Number(expiry),
        urgent,
      };
      this.#copies.add(push);
      this.#sender.add(push);
    }
  }

  /** Takes a push of an original hivemind, which is sealed here. */
  #takePlain(link: HivemindLink, parts: readonly Buffer[]): void {
    try {
      const push = decodePush(parts[0] ?? Buffer.alloc(0));
      const payload = sealPayload(push, push.encKey, this.#options.random(NONCE_BYTES));
      this.counters.received++;
      this.#sender.add({
        givers: [{ link, id: undefined, wantsAnswer: false }],
        fingerprint: null,
        doubt: 0,
        proven: null,
        returnable: false,
        id: push.serviceId,
        ...ownBytes(payload, push.serviceData),
        expiry: Number(push.expiry),
        urgent: isShown(push),
      });
    } catch (error) {
      this.counters.malformed++;
      this.#say.error('a push from the hivemind cannot be read', { err: error });
    }
  }

  #validate(message: Incoming): void {
    const [name, json, ...more] = message.parts;
    if (json && more.length === 0 && this.#isOurs(name)) message.reply(...this.#verdictOn(json));
    else {
      this.counters.validations++;
      message.reply(...INTERNAL_ERROR);
    }
  }

  /** Without a reply if it throws, since the request cannot be read. */
  #validateMany(message: Incoming): void {
    const [name, infos] = message.parts;
    if (!infos || !this.#isOurs(name)) throw new Error('notifier.validate_many for another service');
    message.reply(encodeVerdicts(decodeServiceInfos(infos).map((json) => this.#verdictOn(json))));
  }

  #isOurs(name: Buffer | undefined): boolean {
    return name?.toString() === this.#options.service;
  }

  #verdictOn(json: Buffer): Verdict {
    this.counters.validations++;
    let info: unknown;
    try {
      info = parseJson(json);
    } catch {
      return ['4', 'Invalid service_info: not JSON'];
    }
    try {
      const { id, data } = this.#backend.validate(info);
      const verdict = data ? ['0', id, data] : ['0', id];
      // An operator's own module may return anything, and must not spoil the answer for other devices.
      if (!verdict.every(isPart)) throw new TypeError('a device is a text and, perhaps, bytes');
      return verdict;
    } catch (error) {
      this.counters.refusals++;
      if (error instanceof Refusal) return [String(error.code), error.message];
      // Only the name: the text of a library's error may contain the token.
      this.#say.error('checking a device failed', { error: error instanceof Error ? error.name : typeof error });
      this.#options.log.debug({ err: error }, 'checking a device failed');
      return INTERNAL_ERROR;
    }
  }

  #onAnswer(push: Push, outcome: Outcome): void {
    this.counters.attempts++;
    if (outcome.kind === 'retry' || outcome.kind === 'misconfigured') this.counters.retries++;
    if (outcome.kind === 'misconfigured') {
      this.#say.error(
        `the provider does not accept us: ${outcome.reason}; pushes are kept and tried again, check the configuration`,
      );
    } else if (outcome.kind === 'refused') this.#say.warn(`the provider refused a push: ${outcome.reason}`);
    else if (outcome.kind === 'retry') this.#say.info(`a push will be retried: ${outcome.reason}`);
    answer(push, inWords(outcome));
  }

  #onEnd(push: Push, end: End, attempts: number): void {
    const { total } = this.#statistics;
    if (end.kind === 'accepted') {
      total.notifies++;
      if (attempts > 1) total.retries++;
    } else if (end.kind !== 'handed-back') total.failures++;
    this.#countEnd('reason' in end ? `${end.kind}:${end.reason}` : end.kind);
    if (end.kind === 'given-up') {
      this.#say.warn(`a push was given up: ${end.reason}`);
      answer(push, `given up: ${end.reason}`);
    }
    if (end.kind === 'accepted') this.#breaker.accepted(1);
    if (end.kind === 'gone') this.#onGone(push, end);
    this.#copies.end(push, end);
    for (const { link, id } of push.givers) {
      if (id !== undefined) link.acknowledgements.end(id, reportedAs(end));
    }
  }

  #onGone({ id, givers }: Push, { time, reason, local }: Extract<End, { kind: 'gone' }>): void {
    const isLikely = local === true || this.#breaker.gone();
    for (const giver of new Set(givers.map(({ link }) => link))) {
      // A hivemind of ours has its own breaker; an original one removes whatever it is told.
      if (!isLikely && giver.dialect === 'original') {
        this.counters.goneHeldBack++;
        this.#say.error(
          'the provider reports a suspiciously large share of the devices as gone: no more are reported until that share falls. ' +
            'Check the certificate, topic and environment',
        );
        continue;
      }
      if (this.#gone.length >= MAX_GONE) this.#gone.shift();
      this.#gone.push({ gone: { serviceId: id, time: Math.floor(time), reason, local: local === true }, giver });
    }
    this.#tellGone();
  }

  #countEnd(name: string): void {
    // Reasons are the provider's words, which must not be able to fill our memory.
    if (this.ends.size >= MAX_REASONS && !this.ends.has(name)) name = name.replace(/:.*/, ':other');
    this.ends.set(name, (this.ends.get(name) ?? 0) + 1);
  }

  #tellGone(): void {
    for (
      let first = this.#gone[0];
      first && this.#hiveminds.deviceGone(first.gone, first.giver);
      first = this.#gone[0]
    ) {
      this.#gone.shift();
    }
  }
}

type Push = GivenPush<HivemindLink>;

/** Passes an answer in words to those who wait for it. */
function answer({ givers }: Push, text: string): void {
  for (const { link, id, wantsAnswer } of givers) {
    if (wantsAnswer && id !== undefined) link.acknowledgements.answer(id, text);
  }
}

function isPart(value: unknown): boolean {
  return typeof value === 'string' || value instanceof Uint8Array;
}

/** How many pushes the backend sends at the same time. */
function atOnce({ batch = 1, concurrency = 16 }: Backend): number {
  return batch * concurrency;
}

function windowOf(backend: Backend): number {
  if (backend.lane) return LANES_WINDOW;
  return Math.max(MIN_WINDOW, 2 * atOnce(backend));
}

/** @param hiveminds how many there are: each gives up to a window of pushes */
function limitsOf(backend: Backend, hiveminds: number): SenderLimits {
  const window = windowOf(backend);
  return {
    maxQueue: window * (QUEUE_WINDOWS + hiveminds - 1),
    // Half of the windows stay free for pushes that have not been tried yet.
    maxRetrying: Math.max((window * hiveminds) / 2, atOnce(backend)),
  };
}

/**
 * Copies a push's bytes into memory of their own: a push that waits for an hour must not keep in memory the batch that
 * it came in, nor one of the slabs from which Node cuts small buffers.
 */
function ownBytes(payload: Buffer, data: Buffer | null): { payload: Buffer; data: Buffer | null } {
  const own = Buffer.allocUnsafeSlow(payload.length + (data?.length ?? 0));
  own.set(payload);
  if (data) own.set(data, payload.length);
  return { payload: own.subarray(0, payload.length), data: data && own.subarray(payload.length) };
}
