import type { Clock, Timer } from '../../clock.ts';
import type { Remote } from '../../oxenmq/remote.ts';
import { encodeSealedPushes, type PushReport, type SealedPush } from '../../session/notifier-protocol.ts';
import { sealPayload } from '../../session/payload.ts';
import { encodePush } from '../../session/push.ts';
import { Breaker, type BreakerLimits } from './breaker.ts';
import { type Instance, Instances } from './instances.ts';
import { type DropReason, PushQueue, type QueuedPush, type QueueLimits } from './push-queue.ts';

/** What a service counts; plain numbers, read by the metrics and by admin.get_stats. */
export interface ServiceCounters {
  queued: number;
  /** Given to a notifier; a push given again after a notifier's death counts again. */
  handed: number;
  accepted: number;
  refused: number;
  redelivered: number;
  /** Devices that the provider called gone, and what became of that. */
  gone: number;
  goneHeldBack: number;
  readonly dropped: Record<DropReason, number>;
}

/** What a service is made with. */
export interface ServiceOptions {
  clock: Clock;
  limits: QueueLimits;
  breaker: BreakerLimits;
  /** 24 random bytes, the nonce of one sealed payload. */
  nonce: () => Buffer;
  /** Runs a function when the messages that have arrived are dealt with; setImmediate outside tests. */
  defer: (callback: () => void) => void;
  /** Told when something happened that an operator would want to read. */
  log: (level: 'info' | 'warn', text: string) => void;
}

/** Registrations come every 5 s; three missed ones and the notifier is taken for dead. */
const REGISTRATION_LIFETIME = 20_000;
/** One message to a notifier carries at most so many pushes, so that the first need not wait for the last to be sealed. */
const BATCH = 64;
/** Pushes dealt with before the event loop gets its turn: about 5 ms of sealing. */
const SLICE = 192;
/** When a notifier's pipe is full or just gone: ask again after this. */
const RETRY_MS = 25;

/**
 * The pushes of one service: a bounded queue, the notifiers that take from it, and what each of them has not yet
 * acknowledged. One service never waits for another (design: an outbox a service).
 */
export class Service {
  readonly name: string;
  readonly queue: PushQueue;
  readonly breaker: Breaker;
  /** The notifiers that are registered now. */
  readonly instances = new Instances();
  readonly counters: ServiceCounters = {
    queued: 0,
    handed: 0,
    accepted: 0,
    refused: 0,
    redelivered: 0,
    gone: 0,
    goneHeldBack: 0,
    dropped: { overflow: 0, too_old: 0, expired: 0, unacknowledged: 0, shutdown: 0 },
  };
  readonly #options: ServiceOptions;
  #pumping = false;
  #retry: Timer | undefined;
  #stopped = false;

  constructor(name: string, options: ServiceOptions) {
    this.name = name;
    this.#options = options;
    this.breaker = new Breaker(options.breaker, options.clock);
    this.queue = new PushQueue(options.limits, (push, reason) => this.#drop(push, reason));
  }

  /** When the oldest push that is neither acknowledged nor given up came in (monotonic milliseconds). */
  get oldest(): number | undefined {
    const oldest = Math.min(this.queue.oldest ?? Number.POSITIVE_INFINITY, this.instances.oldest);
    return oldest === Number.POSITIVE_INFINITY ? undefined : oldest;
  }

  /**
   * A notifier registered, for the first time or again.
   * @param window how many unacknowledged pushes it takes; undefined for one of the original's, which acknowledges nothing
   */
  register(remote: Remote, window: number | undefined): void {
    const now = this.#options.clock.monotonic();
    const acknowledges = window !== undefined;
    let instance = this.instances.find(remote.id);
    if (instance && instance.acknowledges !== acknowledges) {
      this.unregister(remote.id);
      instance = undefined;
    }
    if (!instance) {
      instance = this.instances.add(remote, acknowledges, now);
      const kind = acknowledges ? '' : " (of the original's kind: pushes to it are not acknowledged)";
      this.#options.log('info', `notifier for ${this.name} registered${kind}; ${this.instances.size} connected`);
    }
    instance.window = window ?? Number.POSITIVE_INFINITY;
    instance.lastSeen = now;
    this.#pump();
  }

  /** The notifier asks for no new pushes; what it has it will report. */
  drain(remoteId: string): void {
    const instance = this.instances.find(remoteId);
    if (instance) instance.draining = true;
  }

  /** The notifier has gone: what it did not acknowledge goes to the others, or waits for the next. */
  unregister(remoteId: string): void {
    const instance = this.instances.find(remoteId);
    if (!instance) return;
    this.instances.remove(instance);
    const left = [...instance.inFlight.values()];
    this.counters.redelivered += left.length;
    this.queue.putBack(left);
    const rest = left.length > 0 ? `, ${left.length} pushes that it had not acknowledged go to the next` : '';
    this.#options.log(
      instance.draining ? 'info' : 'warn',
      `notifier for ${this.name} is gone${rest}; ${this.instances.size} connected`,
    );
    this.#pump();
  }

  /** Takes a push; it will be delivered, or dropped and counted. */
  add(push: QueuedPush): void {
    this.counters.queued++;
    this.queue.add(push);
    this.#pump();
  }

  /** A notifier's report of what became of its pushes. Ids that it was not given, or reported before, are ignored. */
  report(remoteId: string, report: PushReport): void {
    const instance = this.instances.find(remoteId);
    if (!instance) return;
    for (const [id, text] of report.answers) instance.inFlight.get(id)?.onAnswer?.(text);
    let accepted = 0;
    for (const id of report.accepted) if (instance.inFlight.take(id)) accepted++;
    this.counters.accepted += accepted;
    if (accepted > 0) this.breaker.accepted(accepted);
    for (const id of report.refused) if (instance.inFlight.take(id)) this.counters.refused++;
    const back: QueuedPush[] = [];
    for (const id of report.handedBack) {
      const push = instance.inFlight.take(id);
      if (push) back.push(push);
    }
    this.counters.redelivered += back.length;
    this.queue.putBack(back);
    this.#pump();
  }

  /**
   * Called every few seconds: gives up what is too old, and notifiers that have fallen silent.
   * @param heldUp for how long this process has not been listening, in milliseconds
   */
  sweep(heldUp: number): void {
    const now = this.#options.clock.monotonic();
    this.queue.dropOld(now);
    for (const instance of this.instances.all) {
      // Notifiers give up in time by themselves; what is left twice the age was lost on the way.
      for (const push of instance.inFlight.values()) {
        if (now - push.queuedAt <= this.queue.limits.maxAge * 2) break;
        instance.inFlight.take(push.id);
        this.#drop(push, 'unacknowledged');
      }
      instance.lastSeen += heldUp;
      if (now - instance.lastSeen > REGISTRATION_LIFETIME) this.unregister(instance.remote.id);
    }
    this.#pump();
  }

  /** Gives up what still waits, and stops. Returns how many pushes were given up. */
  stop(): number {
    this.#stopped = true;
    this.#retry?.cancel();
    const left = this.queue.length + this.instances.inFlight;
    for (const { inFlight } of this.instances.all) for (const push of inFlight.values()) this.#drop(push, 'shutdown');
    this.instances.clear();
    this.queue.clear('shutdown');
    return left;
  }

  #pump(): void {
    if (this.#pumping || this.#stopped || this.instances.size === 0 || this.queue.length === 0) return;
    this.#pumping = true;
    // Deferred, so that what arrives in one turn of the event loop leaves in one message.
    this.#options.defer(() => {
      this.#pumping = false;
      if (!this.#stopped) this.#deliver();
    });
  }

  #deliver(): void {
    const batches = new Map<Instance, QueuedPush[]>();
    const blocked: QueuedPush[] = [];
    let full = false;
    const { clock } = this.#options;
    let left = SLICE;
    while (left-- > 0) {
      const push = this.queue.take();
      if (!push) break;
      if (isExpired(push, clock)) {
        this.#drop(push, 'expired');
        continue;
      }
      const instance = this.instances.choose(push.deviceHash, this.queue.limits.maxBytes);
      if (!instance) {
        // No window is open: an acknowledgement or a new notifier starts the pump again.
        blocked.push(push);
        full = true;
        break;
      }
      if (!instance.acknowledges) {
        if (instance.remote.send('notifier.push', encodePush(push))) this.counters.handed++;
        else blocked.push(push);
        if (blocked.length > 0) break;
        continue;
      }
      instance.inFlight.add(push);
      const batch = batches.get(instance);
      if (!batch) batches.set(instance, [push]);
      else if (batch.push(push) >= BATCH) {
        batches.delete(instance);
        this.#send(instance, batch, blocked);
        if (blocked.length > 0) break;
      }
    }
    for (const [instance, batch] of batches) this.#send(instance, batch, blocked);
    if (blocked.length === 0) {
      if (this.queue.length > 0) this.#pump();
      return;
    }
    this.queue.putBack(blocked);
    if (!full) this.#pumpLater();
  }

  /** Seals a batch for its devices and sends it as one message: frames are what a message costs (platform: ZeroMQ). */
  #send(instance: Instance, batch: readonly QueuedPush[], blocked: QueuedPush[]): void {
    const sealed: SealedPush[] = batch.map((push) => ({
      id: push.id,
      serviceId: push.serviceId,
      serviceData: push.serviceData,
      expiry: push.expiry,
      payload: sealPayload(push, push.encKey, this.#options.nonce()),
      wantsAnswer: push.onAnswer !== undefined,
    }));
    if (instance.remote.send('notifier.sealed', encodeSealedPushes(sealed))) {
      this.counters.handed += batch.length;
      return;
    }
    for (const push of batch) {
      instance.inFlight.take(push.id);
      blocked.push(push);
    }
  }

  #pumpLater(): void {
    this.#retry?.cancel();
    this.#retry = this.#options.clock.setTimeout(() => {
      this.#retry = undefined;
      this.#pump();
    }, RETRY_MS);
  }

  #drop(push: QueuedPush, reason: DropReason): void {
    this.counters.dropped[reason]++;
    push.onAnswer?.(`given up: ${reason.replace('_', ' ')}`);
  }
}

/** By the clock, and by the time that it had left when it came in: a clock that is wrong from the start must not cost every push. */
function isExpired({ expiry, timestamp, queuedAt }: QueuedPush, clock: Clock): boolean {
  return expiry > 0 && expiry <= clock.now() && Number(expiry) - Number(timestamp) <= clock.monotonic() - queuedAt;
}
