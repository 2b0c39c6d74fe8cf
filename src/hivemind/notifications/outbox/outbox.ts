import type { BreakerLimits } from '../../../breaker.ts';
import type { Clock, Timer } from '../../../clock.ts';
import type { Log } from '../../../log.ts';
import type { Remote } from '../../../oxenmq/remote.ts';
import type { Notification } from '../../../session/notification.ts';
import type { PushReport } from '../../../session/notifier-protocol.ts';
import type { Duty } from '../copies/duty.ts';
import { PushFingerprints } from '../copies/fingerprints.ts';
import type { Tell } from '../copies/progress-reports.ts';
import { Standby } from '../copies/standby.ts';
import { Doubt } from '../doubt.ts';
import type { Instance, Instances } from './instances.ts';
import { type PushedDevice, QueuedMessage, QueuedPush } from './push.ts';
import type { QueueLimits } from './push-queue.ts';
import { Service } from './service.ts';

/** What {@link Outbox} is built from. */
export interface OutboxOptions {
  clock: Clock;
  /** Limits of each service's queue. */
  limits: QueueLimits;
  breaker: BreakerLimits;
  random: (bytes: number) => Buffer;
  log: Pick<Log, 'info' | 'warn'>;
  /** Calls back once the messages that have arrived are handled; setImmediate if not given. */
  defer?: (callback: () => void) => void;
  /** Given to one of several hiveminds. */
  cluster?: ClusterOptions | undefined;
}

/** What the outbox needs in addition in a cluster. */
export interface ClusterOptions {
  readonly duty: Duty;
  /** The hivemind's X25519 private key, 32 bytes, which all members share. */
  readonly secret: Uint8Array;
  /** Tells another hivemind what has become of pushes. */
  readonly tell: Tell;
}

/**
 * What became of all pushes since the start: `queued` is the sum of `accepted`, `refused`, `passed`, `unreported`,
 * `elsewhere` and `dropped`.
 */
export type Totals = Record<
  'queued' | 'accepted' | 'refused' | 'passed' | 'unreported' | 'elsewhere' | 'dropped',
  number
> & {
  /** Those of `dropped` that were given up at the stop. */
  shutdown: number;
};

/** How often services are swept. */
const SWEEP_MS = 2_000;
/** How long the other hiveminds may take, at a stop, to learn of the pushes that we could not send. */
const FLUSH_MS = 500;
const NONCE_BYTES = 24;

/** All pushes on their way to the notifiers, with a queue for each service. */
export class Outbox {
  /** In a cluster: the pushes that another hivemind sends first. */
  readonly standby: Standby | undefined;
  readonly #fingerprints: PushFingerprints | undefined;
  readonly #options: OutboxOptions;
  readonly #services = new Map<string, Service>();
  readonly #sweeper: Timer;
  #lastId: number;
  #nonces: Buffer = Buffer.alloc(0);
  #nonceOffset = 0;

  constructor(options: OutboxOptions) {
    this.#options = options;
    // Ids start at the time in microseconds, so that a notifier's late report on a push from before our restart cannot
    // name one of ours.
    this.#lastId = Math.floor(options.clock.now()) * 1000;
    const { cluster, clock } = options;
    if (cluster) {
      this.#fingerprints = new PushFingerprints(cluster.secret);
      this.standby = new Standby({
        clock,
        duty: cluster.duty,
        tell: cluster.tell,
        maxBytes: () => this.#options.limits.maxBytes,
        defer: options.defer ?? setImmediate,
        outlet: {
          hasNotifier: (service) => this.#services.get(service)?.isServed === true,
          send: ({ push }) => this.#release(push),
          endedElsewhere: (copy) => this.service(copy.push.message.service).endedElsewhere(copy),
        },
      });
    }
    let swept = options.clock.monotonic();
    this.#sweeper = options.clock.setInterval(() => {
      // While we ourselves were held up, notifiers could not be heard: that time does not count as their silence.
      const heldUp = options.clock.monotonic() - swept - SWEEP_MS;
      swept = options.clock.monotonic();
      for (const service of this.#services.values()) service.sweep(Math.max(0, heldUp));
      this.standby?.sweep(this.#options.limits.maxAge);
    }, SWEEP_MS);
  }

  /** Every service that has ever had a notifier or a push, by name. */
  get services(): ReadonlyMap<string, Service> {
    return this.#services;
  }

  /** The service of that name, made if there is none yet. */
  service(name: string): Service {
    let service = this.#services.get(name);
    if (!service) {
      service = new Service(name, {
        clock: this.#options.clock,
        limits: { ...this.#options.limits },
        breaker: { ...this.#options.breaker },
        nonce: () => this.#nonce(),
        defer: this.#options.defer ?? setImmediate,
        log: this.#options.log,
        standby: this.standby,
      });
      this.#services.set(name, service);
    }
    return service;
  }

  /** The notifier to ask about a device of that service; see {@link Instances.validator}. */
  validator(name: string): Instance | undefined {
    return this.#services.get(name)?.instances.validator;
  }

  /**
   * Queues a push of this message for each of the devices. Each is delivered, or dropped and counted; in a cluster it
   * is held back while it is another hivemind's to send.
   *
   * @param message copied, so that its buffers are not kept
   * @param doubt about the message
   * @param onAnswer called with the providers' answers in words, if somebody waits for them; no other hivemind has the
   *   same push then
   */
  add(
    message: Notification,
    devices: readonly PushedDevice[],
    doubt: Doubt = Doubt.none,
    onAnswer?: (text: string) => void,
  ): void {
    const now = this.#options.clock.monotonic();
    // One for each service, since each counts its own memory, with the body and without.
    const messages: QueuedMessage[] = [];
    for (const device of devices) {
      let queued = messages.find(({ service, wantData }) => service === device.service && wantData === device.wantData);
      if (!queued) {
        queued = new QueuedMessage(message, device.service, device.wantData, now);
        messages.push(queued);
      }
      const identity = onAnswer
        ? undefined
        : this.#fingerprints?.of(
            device.service,
            device.serviceId,
            message.account,
            message.hash,
            message.namespace,
            doubt,
          );
      const push = new QueuedPush(++this.#lastId, queued, device, onAnswer, identity);
      if (push.copy && this.standby?.take(push.copy) === false) continue;
      this.service(device.service).add(push);
    }
  }

  /** Queues a push that was held back. */
  #release(push: QueuedPush): void {
    push.id = ++this.#lastId;
    this.service(push.message.service).add(push);
  }

  /** See {@link Service.register}. */
  register(
    name: string,
    remote: Remote,
    window: number | undefined,
    id: Buffer | null = null,
    validatesMany = false,
  ): void {
    this.service(name).register(remote, window, id, validatesMany);
  }

  /** A notifier's report; see {@link Service.report}. */
  report(remote: Remote, report: PushReport): void {
    this.#services.get(report.service)?.report(remote.id, report);
  }

  /** A connection to our listener has ended: it is no longer registered for any service. */
  gone(remote: Remote): void {
    for (const service of this.#services.values()) service.unregister(remote.id);
  }

  /** Changes the limits of all services, including later ones. */
  setLimits(limits: QueueLimits, breaker: BreakerLimits): void {
    this.#options.limits = limits;
    this.#options.breaker = breaker;
    for (const service of this.#services.values()) {
      service.queue.limits = { ...limits };
      service.breaker.limits = { ...breaker };
    }
  }

  /** How many pushes are neither acknowledged nor given up. */
  get outstanding(): number {
    let total = 0;
    for (const service of this.#services.values()) total += service.queue.size;
    return total;
  }

  /**
   * Waits until every push is acknowledged; then hands out no more, and gives up those that still wait. Pushes of
   * services without a notifier are not waited for. Reports are counted until {@link close}.
   * @param patience how long to wait at most without any progress, in ms
   * @param ms how long to wait at most in all, in ms
   */
  async stop(patience: number, ms = patience): Promise<void> {
    const { clock } = this.#options;
    const deadline = clock.monotonic() + ms;
    let left = this.outstanding;
    let progress = clock.monotonic();
    while (this.#unsettled() && clock.monotonic() < Math.min(deadline, progress + patience)) {
      await new Promise<void>((resolve) => {
        clock.setTimeout(resolve, 20);
      });
      if (this.outstanding < left) progress = clock.monotonic();
      left = this.outstanding;
    }
    this.#sweeper.cancel();
    this.standby?.stop();
    for (const service of this.#services.values()) service.stop();
    await this.standby?.flush(FLUSH_MS);
  }

  /**
   * Ends all counting: what notifiers have not reported on by now counts as unreported.
   * @returns the totals of all services
   */
  close(): Totals {
    const totals: Totals = {
      queued: 0,
      accepted: 0,
      refused: 0,
      passed: 0,
      unreported: 0,
      elsewhere: 0,
      dropped: 0,
      shutdown: 0,
    };
    for (const service of this.#services.values()) {
      service.close();
      const { counters } = service;
      totals.queued += counters.queued;
      totals.accepted += counters.accepted;
      totals.refused += counters.refused;
      totals.passed += counters.passed;
      totals.unreported += counters.unreported;
      totals.elsewhere += counters.elsewhere;
      totals.shutdown += counters.dropped.shutdown;
      for (const count of Object.values(counters.dropped)) totals.dropped += count;
    }
    this.standby?.close();
    return totals;
  }

  /** Whether a stop has something to wait for. */
  #unsettled(): boolean {
    if (this.standby && this.standby.unsettled > 0) return true;
    for (const service of this.#services.values()) {
      if (service.instances.inFlight > 0 || (service.queue.length > 0 && service.instances.validator)) return true;
    }
    return false;
  }

  /** Nonces are cut from a larger draw: drawing each by itself would cost as much as sealing. */
  #nonce(): Buffer {
    if (this.#nonceOffset + NONCE_BYTES > this.#nonces.length) {
      this.#nonces = this.#options.random(NONCE_BYTES * 256);
      this.#nonceOffset = 0;
    }
    const nonce = this.#nonces.subarray(this.#nonceOffset, this.#nonceOffset + NONCE_BYTES);
    this.#nonceOffset += NONCE_BYTES;
    return nonce;
  }
}
