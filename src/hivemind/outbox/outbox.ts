import type { Clock, Timer } from '../../clock.ts';
import type { Remote } from '../../oxenmq/remote.ts';
import type { PushReport } from '../../session/notifier-protocol.ts';
import type { BreakerLimits } from './breaker.ts';
import { hashText, type Instance, type Instances } from './instances.ts';
import type { QueuedPush, QueueLimits } from './push-queue.ts';
import { Service } from './service.ts';

/** What the outbox is made with. */
export interface OutboxOptions {
  clock: Clock;
  /** The limits of each service's queue. */
  limits: QueueLimits;
  breaker: BreakerLimits;
  random: (bytes: number) => Buffer;
  log: (level: 'info' | 'warn', text: string) => void;
  /** Runs a function after what has arrived is dealt with; setImmediate unless told. */
  defer?: (callback: () => void) => void;
}

/** A push before it is queued: everything but what the queue itself adds. */
export type NewPush = Omit<QueuedPush, 'id' | 'deviceHash' | 'queuedAt' | 'onAnswer'> & {
  readonly onAnswer?: (text: string) => void;
};

const SWEEP_MS = 2_000;
const NONCE_BYTES = 24;

/** All pushes on their way to the notifiers: a queue of its own for each service. */
export class Outbox {
  readonly #options: OutboxOptions;
  readonly #services = new Map<string, Service>();
  readonly #sweeper: Timer;
  #lastId: number;
  #nonces: Buffer = Buffer.alloc(0);
  #nonceOffset = 0;

  constructor(options: OutboxOptions) {
    this.#options = options;
    // Ids start at the time in microseconds, so that a notifier's late report to a hivemind that has restarted hits none of ours.
    this.#lastId = Math.floor(options.clock.now()) * 1000;
    let swept = options.clock.monotonic();
    this.#sweeper = options.clock.setInterval(() => {
      // Where we ourselves were held up, nobody is silent who could not be heard.
      const heldUp = options.clock.monotonic() - swept - SWEEP_MS;
      swept = options.clock.monotonic();
      for (const service of this.#services.values()) service.sweep(Math.max(0, heldUp));
    }, SWEEP_MS);
  }

  /** Every service that ever had a notifier or a push, by name. */
  get services(): ReadonlyMap<string, Service> {
    return this.#services;
  }

  /** The service of that name; it is made if there is none yet. */
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
      });
      this.#services.set(name, service);
    }
    return service;
  }

  /** The notifier that answers for a device of that service; see {@link Instances.validator}. */
  validator(name: string): Instance | undefined {
    return this.#services.get(name)?.instances.validator;
  }

  /** Queues one push for one device. It will be delivered, or dropped and counted. */
  add(push: NewPush): void {
    this.service(push.service).add({
      account: push.account,
      hash: push.hash,
      namespace: push.namespace,
      timestamp: push.timestamp,
      expiry: push.expiry,
      data: push.data,
      service: push.service,
      serviceId: push.serviceId,
      serviceData: push.serviceData,
      encKey: push.encKey,
      bytes: push.bytes,
      onAnswer: push.onAnswer,
      id: ++this.#lastId,
      deviceHash: hashText(push.serviceId),
      queuedAt: this.#options.clock.monotonic(),
    });
  }

  /** @param window see {@link Service.register} */
  register(name: string, remote: Remote, window: number | undefined): void {
    this.service(name).register(remote, window);
  }

  /** A notifier's report; see {@link Service.report}. */
  report(remote: Remote, report: PushReport): void {
    this.#services.get(report.service)?.report(remote.id, report);
  }

  /** A client of our listener has gone: whatever it was registered for. */
  gone(remote: Remote): void {
    for (const service of this.#services.values()) service.unregister(remote.id);
  }

  /** Changes the limits of every service, now and to come. */
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
    for (const service of this.#services.values()) total += service.queue.length + service.instances.inFlight;
    return total;
  }

  /**
   * Waits until everything is acknowledged, or `ms` have passed, then gives up the rest.
   * Where no notifier is there to take anything, there is nothing to wait for.
   * @returns how many pushes were given up
   */
  async stop(ms: number): Promise<number> {
    const deadline = this.#options.clock.monotonic() + ms;
    while (this.#deliverable() && this.#options.clock.monotonic() < deadline) {
      await new Promise<void>((resolve) => {
        this.#options.clock.setTimeout(resolve, 20);
      });
    }
    this.#sweeper.cancel();
    let lost = 0;
    for (const service of this.#services.values()) lost += service.stop();
    return lost;
  }

  #deliverable(): boolean {
    for (const service of this.#services.values()) {
      if (service.instances.inFlight > 0 || (service.queue.length > 0 && service.instances.validator)) return true;
    }
    return false;
  }

  /** Nonces are cut from a larger draw: a call for each would cost as much as the sealing. */
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
