import { Breaker, type BreakerLimits } from '../../breaker.ts';
import { type Clock, type Timer, within } from '../../clock.ts';
import { encode } from '../../codec/bencode.ts';
import { parseJson } from '../../codec/json.ts';
import { type Logger, type Repeated, repeated } from '../../daemon/log.ts';
import type { Address } from '../../oxenmq/address.ts';
import type { Counters } from '../../oxenmq/counters.ts';
import type { KeyPair } from '../../oxenmq/keys.ts';
import type { Incoming } from '../../oxenmq/remote.ts';
import { type DeviceGone, decodeSealedPushes } from '../../session/notifier-protocol.ts';
import { isShown, sealPayload } from '../../session/payload.ts';
import { decodePush } from '../../session/push.ts';
import { Acknowledgements, inWords } from './acknowledgements.ts';
import { type Backend, type Outcome, Refusal } from './backend.ts';
import { HivemindLink } from './hivemind-link.ts';
import type { RetryPolicy } from './retry.ts';
import { type End, type HeldPush, Sender, type SenderLimits } from './sender.ts';
import { Statistics } from './stats.ts';

/** What a {@link Notifier} is made with. */
export interface NotifierOptions {
  readonly service: string;
  readonly backend: Backend;
  /** Where the hivemind listens. */
  readonly address: Address;
  /** See session/notifier-key.ts. */
  readonly keys: KeyPair;
  readonly clock: Clock;
  readonly random: (bytes: number) => Buffer;
  /** When dead devices are no longer reported to a hivemind that removes whatever it is told to. */
  readonly breaker: BreakerLimits;
  readonly log: Logger;
  /** Called with how long each call to the provider took, in milliseconds. */
  readonly took?: (ms: number) => void;
  /**
   * The common policy unless given, and in milliseconds how often to register and report; 5,000 unless given. Both for
   * tests.
   */
  readonly policy?: RetryPolicy;
  readonly ping?: number;
}

const PING_MS = 5_000;
const NONCE_BYTES = 24;
/** Reports of dead devices that wait for the hivemind to come back. */
const MAX_GONE = 10_000;
/** Different ends that are counted apart. */
const MAX_REASONS = 100;
/** What a notifier may take from the hivemind, at least: enough to keep working while reports travel. */
const MIN_WINDOW = 1_000;
/** An original hivemind does not wait for us; beyond so many windows the oldest pushes are given up. */
const QUEUE_WINDOWS = 10;
/** Of the time to stop, kept for the last reports and for closing, in milliseconds. */
const CLOSING = 1_000;
/** What closing the provider's connections may take, in milliseconds. */
const CLOSE_BACKEND = 500;

/**
 * The life of a notifier: it registers, checks devices, takes pushes to the provider, tells what became of them, and
 * drains.
 */
export class Notifier {
  readonly #options: NotifierOptions;
  readonly #link: HivemindLink;
  readonly #sender: Sender;
  readonly #acknowledgements: Acknowledgements;
  readonly #statistics = new Statistics();
  readonly #breaker: Breaker;
  readonly #ping: Timer;
  #backend: Backend;
  #gone: Omit<DeviceGone, 'service'>[] = [];
  readonly #say: Repeated;
  /** What the socket to the hivemind counts. */
  get transport(): Counters {
    return this.#link.counters;
  }

  /** How pushes ended, by kind and reason: `accepted`, `gone:Unregistered`, `given-up:expired`, … */
  readonly ends = new Map<string, number>();
  readonly counters = {
    received: 0,
    duplicates: 0,
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
    this.#acknowledgements = new Acknowledgements(clock, (report) => this.#link.report(report));
    this.#sender = new Sender({
      backend,
      clock,
      random,
      ...limitsOf(backend),
      ...(options.policy ? { policy: options.policy } : {}),
      ...(options.took ? { took: options.took } : {}),
      answered: (push, outcome) => this.#onAnswer(push, outcome),
      done: (push, end, attempts) => this.#onEnd(push, end, attempts),
      paused: (ms, reason) => log.warn(`sending nothing for ${Math.ceil(ms / 1000)} s: ${reason}`),
    });
    this.#link = new HivemindLink({
      clock,
      random,
      service,
      address: options.address,
      keys: options.keys,
      window: () => windowOf(this.#backend),
      log,
      say: this.#say,
      validate: (message) => this.#validate(message),
      sealed: ({ parts }) => this.#takeSealed(parts),
      push: ({ parts }) => this.#takePlain(parts),
      registered: () => {
        this.#acknowledgements.flush();
        this.#tellGone();
      },
    });
    this.#ping = clock.setInterval(() => this.#tick(), options.ping ?? PING_MS);
  }

  get statistics(): Statistics {
    return this.#statistics;
  }

  get sender(): Pick<Sender, 'queued' | 'inFlight' | 'retrying' | 'held' | 'isPaused'> {
    return this.#sender;
  }

  /** What it sends with. */
  get backend(): Backend {
    return this.#backend;
  }

  /** Sends with another backend from now on. The one before is closed when it has answered what it was asked. */
  async use(backend: Backend): Promise<void> {
    const before = this.#backend;
    this.#backend = backend;
    const unused = this.#sender.use(backend, limitsOf(backend));
    this.#link.ping();
    await unused;
    await before.close?.();
  }

  get registered(): boolean {
    return this.#link.registered;
  }

  /** Why there is no connection to the hivemind, as far as is known. */
  get problem(): string | undefined {
    return this.#link.problem;
  }

  /** How the hivemind is spoken to. */
  get dialect(): 'ours' | 'original' {
    return this.#link.dialect;
  }

  /**
   * Takes no more pushes, lets the provider answer what it was asked, hands the rest back, and closes everything.
   * @param deadline milliseconds that this may take
   */
  async stop(deadline: number): Promise<void> {
    const { clock, log } = this.#options;
    const end = clock.monotonic() + Math.max(deadline - CLOSING, 0);
    this.#ping.cancel();
    // Said first, so that what is handed back from now on is not given to us again.
    const signedOff = this.#link.unregister(Math.min(2_000, deadline / 4));
    // An original hivemind takes nothing back: what it gave is sent now or never.
    const finished = this.#sender.stop(this.#link.dialect === 'ours' ? 'hand-back' : 'finish');
    await signedOff;
    if (!(await within(finished, end - clock.monotonic(), clock))) {
      log.warn(`${this.#sender.held} pushes were not answered in time`);
    }
    this.#sender.abandon();
    this.#tellGone();
    this.#acknowledgements.flush();
    this.#link.sendStatistics(encode(this.#statistics.report(clock.monotonic())));
    this.#acknowledgements.close();
    if (this.#acknowledgements.unreported > 0) {
      log.warn(`${this.#acknowledgements.unreported} pushes could not be reported: the hivemind will send them again`);
    }
    await within(Promise.resolve(this.#backend.close?.()), CLOSE_BACKEND, clock);
    await this.#link.close();
    this.#say.stop();
    log.info(this.#statistics.status());
  }

  #tick(): void {
    this.#link.ping();
    if (this.#link.registered) {
      this.#link.sendStatistics(encode(this.#statistics.report(this.#options.clock.monotonic())));
      this.#tellGone();
    }
  }

  #takeSealed(parts: readonly Buffer[]): void {
    let pushes: ReturnType<typeof decodeSealedPushes>;
    try {
      pushes = decodeSealedPushes(parts[0] ?? Buffer.alloc(0));
    } catch (error) {
      this.counters.malformed++;
      this.#say.error('a batch of pushes from the hivemind cannot be read', { err: error });
      return;
    }
    for (const { id, serviceId, serviceData, expiry, payload, wantsAnswer, urgent } of pushes) {
      this.counters.received++;
      if (!this.#acknowledgements.take(id)) {
        this.counters.duplicates++;
        continue;
      }
      this.#sender.add({
        pushId: id,
        id: serviceId,
        ...ownBytes(payload, serviceData),
        expiry: Number(expiry),
        urgent,
        wantsAnswer,
      });
    }
  }

  /** A push of an original hivemind: it is sealed here. */
  #takePlain(parts: readonly Buffer[]): void {
    try {
      const push = decodePush(parts[0] ?? Buffer.alloc(0));
      const payload = sealPayload(push, push.encKey, this.#options.random(NONCE_BYTES));
      this.counters.received++;
      this.#sender.add({
        pushId: undefined,
        id: push.serviceId,
        ...ownBytes(payload, push.serviceData),
        expiry: Number(push.expiry),
        urgent: isShown(push),
        wantsAnswer: false,
      });
    } catch (error) {
      this.counters.malformed++;
      this.#say.error('a push from the hivemind cannot be read', { err: error });
    }
  }

  #validate(message: Incoming): void {
    const { parts } = message;
    this.counters.validations++;
    const [name, json] = parts;
    if (parts.length !== 2 || !name || !json || name.toString() !== this.#options.service) {
      message.reply('4', 'Internal error');
      return;
    }
    let info: unknown;
    try {
      info = parseJson(json);
    } catch {
      message.reply('4', 'Invalid service_info: not JSON');
      return;
    }
    try {
      const { id, data } = this.#backend.validate(info);
      if (data) message.reply('0', id, data);
      else message.reply('0', id);
    } catch (error) {
      this.counters.refusals++;
      if (error instanceof Refusal) message.reply(String(error.code), error.message);
      else {
        // The text of a library's error may hold the token.
        this.#say.error('checking a device failed', { error: error instanceof Error ? error.name : typeof error });
        this.#options.log.debug({ err: error }, 'checking a device failed');
        message.reply('4', 'Internal error');
      }
    }
  }

  #onAnswer(push: HeldPush, outcome: Outcome): void {
    this.counters.attempts++;
    if (outcome.kind === 'retry' || outcome.kind === 'misconfigured') this.counters.retries++;
    if (outcome.kind === 'misconfigured') {
      this.#say.error(
        `the provider does not accept us: ${outcome.reason}; pushes are kept and tried again, check the configuration`,
      );
    } else if (outcome.kind === 'refused') this.#say.warn(`the provider refused a push: ${outcome.reason}`);
    else if (outcome.kind === 'retry') this.#say.info(`a push is tried again: ${outcome.reason}`);
    if (push.wantsAnswer && push.pushId !== undefined) this.#acknowledgements.answer(push.pushId, inWords(outcome));
  }

  #onEnd(push: HeldPush, end: End, attempts: number): void {
    const { total } = this.#statistics;
    if (end.kind === 'accepted') {
      total.notifies++;
      if (attempts > 1) total.retries++;
    } else if (end.kind !== 'handed-back') total.failures++;
    this.#count('reason' in end ? `${end.kind}:${end.reason}` : end.kind);
    if (end.kind === 'given-up') {
      this.#say.warn(`a push was given up: ${end.reason}`);
      if (push.wantsAnswer && push.pushId !== undefined)
        this.#acknowledgements.answer(push.pushId, `given up: ${end.reason}`);
    }
    if (end.kind === 'accepted') this.#breaker.accepted(1);
    if (end.kind === 'gone' && this.#mayTell(end.local === true)) {
      if (this.#gone.length >= MAX_GONE) this.#gone.shift();
      this.#gone.push({
        serviceId: push.id,
        time: Math.floor(end.time),
        reason: end.reason,
        local: end.local === true,
      });
      this.#tellGone();
    }
    if (push.pushId !== undefined) this.#acknowledgements.end(push.pushId, end);
  }

  /** A hivemind of ours judges by itself; an original one removes whatever it is told to. */
  #mayTell(local: boolean): boolean {
    const allowed = local || this.#breaker.gone();
    if (allowed || this.#link.dialect === 'ours') return true;
    this.counters.goneHeldBack++;
    this.#say.error(
      'the provider calls an unlikely share of the devices gone: no more are reported until that share falls. ' +
        'Look at the certificate, topic and environment',
    );
    return false;
  }

  #count(name: string): void {
    // Reasons are words of the provider: it must not be able to fill our memory with them.
    if (this.ends.size >= MAX_REASONS && !this.ends.has(name)) name = name.replace(/:.*/, ':other');
    this.ends.set(name, (this.ends.get(name) ?? 0) + 1);
  }

  #tellGone(): void {
    while (this.#gone.length > 0 && this.#link.deviceGone(this.#gone[0]!)) this.#gone.shift();
  }
}

/** Pushes that the provider is asked about at a time. */
function atOnce({ batch = 1, concurrency = 16 }: Backend): number {
  return batch * concurrency;
}

function windowOf(backend: Backend): number {
  return Math.max(MIN_WINDOW, 2 * atOnce(backend));
}

function limitsOf(backend: Backend): SenderLimits {
  const window = windowOf(backend);
  // Half of the window stays free for pushes that have not been tried yet.
  return { maxQueue: window * QUEUE_WINDOWS, maxRetrying: Math.max(window / 2, atOnce(backend)) };
}

/**
 * Copies into memory of their own: a push that waits for an hour must keep neither the batch that it came in alive, nor
 * one of the slabs that Node cuts small buffers from.
 */
function ownBytes(payload: Buffer, data: Buffer | null): { payload: Buffer; data: Buffer | null } {
  const own = Buffer.allocUnsafeSlow(payload.length + (data?.length ?? 0));
  own.set(payload);
  if (data) own.set(data, payload.length);
  return { payload: own.subarray(0, payload.length), data: data && own.subarray(payload.length) };
}
