import { Breaker, type BreakerLimits } from '../../../breaker.ts';
import type { Clock, Timer } from '../../../clock.ts';
import { Latency } from '../../../latency.ts';
import type { Log } from '../../../log.ts';
import type { Remote } from '../../../oxenmq/remote.ts';
import { encodeSealedPushes, type PushReport, type SealedPush } from '../../../session/notifier-protocol.ts';
import { isShown, sealPayload } from '../../../session/payload.ts';
import { encodePush } from '../../../session/push.ts';
import type { Standby } from '../copies/standby.ts';
import { hasRoom, type Instance, Instances } from './instances.ts';
import { type Copy, latin1, NOTIFIER_COST, plainPush, type QueuedMessage, type QueuedPush, sealable } from './push.ts';
import { type DropReason, type EndReason, PushQueue, type QueueLimits } from './push-queue.ts';

/** What a service counts; plain numbers that the metrics and `admin.get_stats` read. */
export interface ServiceCounters {
  queued: number;
  /** Given to a notifier; a push given to another after that counts again. */
  handed: number;
  accepted: number;
  refused: number;
  /** Given to an original notifier, which does not say what becomes of them. */
  passed: number;
  /** With a notifier that had not reported on them when we stopped: they may have been delivered. */
  unreported: number;
  /** Ended by another hivemind of the cluster while they waited here. */
  elsewhere: number;
  /** Taken back from a notifier that has gone or handed them back. */
  redelivered: number;
  /** Devices that the provider called gone, and those of them that the breaker kept. */
  gone: number;
  goneHeldBack: number;
  readonly dropped: Record<DropReason, number>;
}

/** What {@link Service} is built from. */
export interface ServiceOptions {
  clock: Clock;
  limits: QueueLimits;
  breaker: BreakerLimits;
  /** 24 random bytes, the nonce of one sealed payload. */
  nonce: () => Buffer;
  /** Calls back once the messages that have arrived are handled; setImmediate outside tests. */
  defer: (callback: () => void) => void;
  log: Pick<Log, 'info' | 'warn'>;
  /** In a cluster: told what becomes of pushes, for the other hiveminds. */
  standby?: Standby | undefined;
}

/** Pushes that go to a notifier in one message. */
interface Batch {
  readonly pushes: QueuedPush[];
  readonly sealed: SealedPush[];
}

/** In ms. Registrations come every 5 s; after three missed ones a notifier is taken for dead. */
const REGISTRATION_LIFETIME = 20_000;
/** The most pushes in one message to a notifier, so that the first need not wait long for the last to be sealed. */
const BATCH = 64;
/** How many pushes are handled before the event loop gets its turn: about 5 ms of sealing. */
const PUSHES_PER_TURN = 192;
/** Pushes with notifiers or on the way there may take this share of the queue's byte limit, on top of it. */
const WIRE_SHARE = 1 / 4;
/** Why we give up pushes that another hivemind may still send. */
const SENT_BY_OTHERS: readonly DropReason[] = ['overflow', 'account_share', 'shutdown'];
/** How long to wait when a notifier's pipe is full or has just gone. */
const RETRY_MS = 25;

/**
 * The pushes of one service: a bounded queue, the notifiers that take from it, and what each of them has not yet
 * acknowledged. One service never waits for another (docs/decisions/06).
 */
export class Service {
  readonly name: string;
  readonly queue: PushQueue;
  readonly breaker: Breaker;
  /** From when a message was stored, by its timestamp, until the provider accepted the push; seconds. */
  readonly latency = new Latency();
  /** The notifiers that are registered now. */
  readonly instances = new Instances();
  readonly counters: ServiceCounters = {
    queued: 0,
    handed: 0,
    accepted: 0,
    refused: 0,
    passed: 0,
    unreported: 0,
    elsewhere: 0,
    redelivered: 0,
    gone: 0,
    goneHeldBack: 0,
    dropped: { overflow: 0, account_share: 0, too_old: 0, expired: 0, unacknowledged: 0, shutdown: 0 },
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

  /** Whether there is a notifier that takes its pushes. */
  get isServed(): boolean {
    return this.instances.validator !== undefined;
  }

  /** When the oldest push that is neither acknowledged nor given up came in; monotonic ms. */
  get oldest(): number | undefined {
    return this.queue.oldest;
  }

  /** The memory that its pushes take here, on the way to notifiers and there, in bytes. */
  get bytes(): number {
    return this.queue.bytes + this.instances.wireBytes;
  }

  /**
   * A notifier has registered, for the first time or again.
   * @param window the most unacknowledged pushes that it takes; undefined for an original one, which acknowledges none
   * @param id see {@link Instances.add}
   * @param validatesMany see {@link Instance.validatesMany}
   */
  register(remote: Remote, window: number | undefined, id: Buffer | null = null, validatesMany = false): void {
    const now = this.#options.clock.monotonic();
    const wasServed = this.isServed;
    const acknowledges = window !== undefined;
    let instance = this.instances.find(remote.id);
    if (instance && instance.acknowledges !== acknowledges) {
      this.unregister(remote.id);
      instance = undefined;
    }
    if (!instance) {
      instance = this.instances.add(remote, acknowledges, now, id);
      const kind = acknowledges ? '' : " (of the original's kind: pushes to it are not acknowledged)";
      this.#options.log.info(`notifier for ${this.name} registered${kind}; ${this.instances.size} connected`);
    }
    instance.validatesMany = validatesMany;
    instance.window = window ?? Number.POSITIVE_INFINITY;
    instance.lastSeen = now;
    if (!wasServed) {
      this.#options.standby?.notifierCame(this.name);
      this.#announce();
    }
    this.#pump();
  }

  /** The notifier wants no more pushes, and will report on those it has. */
  drain(remoteId: string): void {
    const instance = this.instances.find(remoteId);
    if (!instance || instance.draining) return;
    instance.draining = true;
    this.queue.bringBack(instance);
    if (!this.isServed) this.#announce();
    this.#pump();
  }

  /** The notifier has gone: what it has not acknowledged goes to the others, or waits for the next one. */
  unregister(remoteId: string): void {
    const instance = this.instances.find(remoteId);
    if (!instance) return;
    this.instances.remove(instance);
    this.queue.bringBack(instance);
    const left: QueuedPush[] = [];
    for (const push of this.queue.all()) {
      if (push.holder !== instance) continue;
      push.uncertain = true;
      left.push(push);
    }
    this.#takeBack(left);
    if (!this.isServed) this.#announce();
    const rest = left.length > 0 ? `, ${left.length} pushes that it had not acknowledged go to another` : '';
    this.#options.log[instance.draining ? 'info' : 'warn'](
      `notifier for ${this.name} is gone${rest}; ${this.instances.size} connected`,
    );
    this.#pump();
  }

  /** Queues a push: it will be delivered, or dropped and counted. */
  add(push: QueuedPush): void {
    this.counters.queued++;
    // Before it enters the queue, which may drop it at once.
    if (push.copy) this.#options.standby?.queued(push.copy);
    this.queue.add(push);
    this.#pump();
  }

  /** Another hivemind has ended a push. If a notifier of ours has it, it ends with that one's report instead. */
  endedElsewhere(copy: Copy): void {
    if (!copy.push.holder) this.queue.cancel(copy);
  }

  /** A notifier reports what became of its pushes. Ids that it does not have, or no longer, are ignored. */
  report(remoteId: string, report: PushReport): void {
    const instance = this.instances.find(remoteId);
    if (!instance) return;
    const held = (id: number) => {
      const push = this.queue.get(id);
      return push?.holder === instance ? push : undefined;
    };
    for (const [id, text] of report.answers) held(id)?.onAnswer?.(text);
    const accepted = this.#endAll(report.accepted.map(held), (push) => this.#countLatency(push));
    this.counters.accepted += accepted;
    if (accepted > 0) this.breaker.accepted(accepted);
    this.counters.refused += this.#endAll(report.refused.map(held));
    const back: QueuedPush[] = [];
    for (const id of report.handedBack) {
      const push = held(id);
      if (!push) continue;
      push.uncertain = false;
      this.#unassign(push);
      back.push(push);
    }
    this.#takeBack(back);
    this.#pump();
  }

  /**
   * Gives up pushes that are too old, and notifiers that have fallen silent. Called every few seconds.
   * @param heldUp for how long this process was held up and could not hear notifiers, in ms
   */
  sweep(heldUp: number): void {
    const now = this.#options.clock.monotonic();
    this.queue.dropOld(now);
    for (const instance of this.instances.all) {
      instance.lastSeen += heldUp;
      if (now - instance.lastSeen > REGISTRATION_LIFETIME) this.unregister(instance.remote.id);
    }
    this.#pump();
  }

  /** Hands out no more pushes, and gives up those that still wait. Reports are still taken. */
  stop(): void {
    this.#stopped = true;
    this.#retry?.cancel();
    for (const instance of this.instances.all) this.queue.bringBack(instance);
    this.#giveUpWaiting();
  }

  /** Counts what notifiers have not reported on as unreported. */
  close(): void {
    this.#giveUpWaiting();
    for (const push of this.queue.all()) this.#endUnreported(push);
    this.instances.clear();
  }

  #pump(): void {
    if (this.#pumping || this.#stopped || this.instances.size === 0 || this.queue.length === 0) return;
    this.#pumping = true;
    // Deferred, so that pushes that come in during one turn of the event loop leave in one message.
    this.#options.defer(() => {
      this.#pumping = false;
      if (!this.#stopped) this.#deliver();
    });
  }

  #deliver(): void {
    const batches = new Map<Instance, Batch>();
    let left = PUSHES_PER_TURN;
    let isBlocked = false;
    // Pushes that wait for one notifier are older than the rest, but leave the rest half of the slice.
    for (const instance of this.instances.all) {
      while (
        left > PUSHES_PER_TURN / 2 &&
        !isBlocked &&
        this.queue.hasAside(instance) &&
        hasRoom(instance) &&
        this.#hasRoom()
      ) {
        const push = this.queue.takeAside(instance);
        if (!push) break;
        left--;
        if (!this.#endIfOver(push)) isBlocked = !this.#give(instance, push, batches);
      }
    }
    for (; left > 0 && !isBlocked; left--) {
      const push = this.queue.next;
      if (!push) break;
      const instance = this.#hasRoom() ? this.#choose(push) : undefined;
      // No notifier has room: an acknowledgement or a registration starts the pump again.
      if (!instance && !this.#endReasonOf(push)) break;
      this.queue.take();
      if (this.#endIfOver(push) || !instance) continue;
      if (hasRoom(instance) && !this.queue.hasAside(instance)) isBlocked = !this.#give(instance, push, batches);
      else this.queue.putAside(push, instance);
    }
    for (const [instance, batch] of batches) if (!this.#send(instance, batch)) isBlocked = true;
    if (isBlocked) this.#pumpLater();
    else if (left <= PUSHES_PER_TURN / 2) this.#pump();
  }

  /**
   * The notifier for a push. In a cluster every hivemind must choose the same one, since a notifier recognizes only
   * copies of what it has had itself: so a push waits for its notifier even if another one has room.
   */
  #choose({ serviceId }: QueuedPush): Instance | undefined {
    return this.#options.standby ? this.instances.ownerOf(serviceId) : this.instances.choose(serviceId);
  }

  /** Why a waiting push need not be sent any more, if so. */
  #endReasonOf({ message, copy }: QueuedPush): EndReason | undefined {
    const { clock } = this.#options;
    if (copy?.state === 'over') return 'elsewhere';
    // A push that was held back stands behind younger ones, where PushQueue.dropOld does not look for it. Past its time
    // the notifier may have forgotten that another hivemind's copy of it was sent.
    if (copy && clock.monotonic() - message.queuedAt > this.queue.limits.maxAge) return 'too_old';
    return isExpired(message, clock) ? 'expired' : undefined;
  }

  /** Ends a taken push that need not be sent any more. @returns whether it was one */
  #endIfOver(push: QueuedPush): boolean {
    const reason = this.#endReasonOf(push);
    if (!reason) return false;
    this.queue.end(push);
    this.#drop(push, reason);
    return true;
  }

  /**
   * Gives a push to a notifier, in a batch or by itself.
   * @returns false if the notifier cannot take it now: it waits again then
   */
  #give(instance: Instance, push: QueuedPush, batches: Map<Instance, Batch>): boolean {
    if (!instance.acknowledges) return this.#pass(instance, push);
    let batch = batches.get(instance);
    if (!batch) {
      batch = { pushes: [], sealed: [] };
      batches.set(instance, batch);
    }
    batch.pushes.push(push);
    batch.sealed.push(this.#seal(instance, push));
    if (batch.pushes.length < BATCH) return true;
    batches.delete(instance);
    return this.#send(instance, batch);
  }

  /** Whether more may be on the way to notifiers. */
  #hasRoom(): boolean {
    return this.instances.wireBytes < this.queue.limits.maxBytes * WIRE_SHARE;
  }

  /** Passes a push on to an original notifier, which ends it. @returns as {@link #give} */
  #pass(instance: Instance, push: QueuedPush): boolean {
    if (!instance.remote.send('notifier.push', encodePush(plainPush(push)))) {
      this.queue.putBack([push]);
      return false;
    }
    this.queue.end(push);
    this.#ended(push);
    this.counters.handed++;
    this.counters.passed++;
    // It reports only dead devices, so the breaker takes their share of all that it was handed.
    this.breaker.accepted(1);
    return true;
  }

  /** Seals a push for its device, and assigns it to the notifier. */
  #seal(instance: Instance, push: QueuedPush): SealedPush {
    const { id, serviceId } = push;
    const message = sealable(push);
    const proven = push.copy?.lesser[0];
    const payload = sealPayload(message, latin1(push.encKey), this.#options.nonce());
    push.holder = instance;
    push.wireBytes = NOTIFIER_COST + payload.length + serviceId.length + (push.serviceData?.length ?? 0);
    instance.inFlight++;
    instance.wireBytes += push.wireBytes;
    return {
      id,
      serviceId,
      serviceData: push.serviceData === null ? null : latin1(push.serviceData),
      expiry: push.message.expiry,
      payload,
      wantsAnswer: push.onAnswer !== undefined,
      urgent: isShown(message),
      fingerprint: push.copy ? latin1(push.copy.fingerprint) : null,
      doubt: push.copy?.doubt ?? 0,
      proven: proven === undefined ? null : latin1(proven),
    };
  }

  /**
   * Sends a batch as one message, since each frame costs more than its bytes (docs/spec/platform.md, section 1).
   * @returns as {@link #give}
   */
  #send(instance: Instance, { pushes, sealed }: Batch): boolean {
    if (instance.remote.send('notifier.sealed', encodeSealedPushes(sealed))) {
      this.counters.handed += pushes.length;
      return true;
    }
    for (const push of pushes) this.#unassign(push);
    this.queue.putBack(pushes);
    return false;
  }

  /** The push is no longer with its notifier. */
  #unassign(push: QueuedPush): void {
    const { holder } = push;
    if (!holder) return;
    holder.inFlight--;
    holder.wireBytes -= push.wireBytes;
    push.holder = undefined;
  }

  /** Takes pushes back from a notifier: they wait for another. */
  #takeBack(pushes: readonly QueuedPush[]): void {
    for (const push of pushes) this.#unassign(push);
    this.counters.redelivered += pushes.length;
    this.queue.putBack(pushes);
  }

  #countLatency({ message }: QueuedPush): void {
    const { clock } = this.#options;
    this.latency.add((clock.now() - Number(message.timestamp)) / 1000, clock.monotonic());
  }

  #ended({ copy }: QueuedPush): void {
    if (copy) this.#options.standby?.ended(copy);
  }

  /** Tells the other hiveminds whether we have a notifier for the pushes that wait here. */
  #announce(): void {
    const { standby } = this.#options;
    if (!standby) return;
    for (const { copy, holder } of this.queue.all()) if (copy && !holder) standby.announce(copy);
  }

  /** Ends those of the pushes that a notifier has. @returns how many */
  #endAll(pushes: readonly (QueuedPush | undefined)[], ended?: (push: QueuedPush) => void): number {
    let count = 0;
    for (const push of pushes) {
      // Undefined if it is not ours; without a holder if the report names it twice.
      if (!push?.holder) continue;
      this.#unassign(push);
      this.queue.end(push);
      ended?.(push);
      this.#ended(push);
      count++;
    }
    return count;
  }

  #pumpLater(): void {
    this.#retry?.cancel();
    this.#retry = this.#options.clock.setTimeout(() => {
      this.#retry = undefined;
      this.#pump();
    }, RETRY_MS);
  }

  #giveUpWaiting(): void {
    for (let push = this.queue.take(); push; push = this.queue.take()) {
      if (push.uncertain) this.#endUnreported(push);
      else {
        this.queue.end(push);
        this.#drop(push, 'shutdown');
      }
    }
  }

  #endUnreported(push: QueuedPush): void {
    this.#unassign(push);
    this.queue.end(push);
    this.counters.unreported++;
    push.onAnswer?.('not reported before the hivemind stopped');
  }

  #drop(push: QueuedPush, reason: EndReason): void {
    this.#unassign(push);
    if (reason === 'elsewhere') {
      if (push.copy) this.#options.standby?.left(push.copy);
      this.counters.elsewhere++;
      return;
    }
    // Another hivemind may still send what we have no room or time for, but what is too old is too old everywhere.
    if (!SENT_BY_OTHERS.includes(reason)) this.#ended(push);
    else if (push.copy) this.#options.standby?.gaveUp(push.copy);
    this.counters.dropped[reason]++;
    push.onAnswer?.(`given up: ${reason.replace('_', ' ')}`);
  }
}

/**
 * Whether a message has expired, both by our clock and by how long it has been here compared to its whole lifetime: if
 * our clock is wrong, that must not cost every push.
 */
function isExpired({ expiry, timestamp, queuedAt }: QueuedMessage, clock: Clock): boolean {
  return expiry > 0 && expiry <= clock.now() && Number(expiry) - Number(timestamp) <= clock.monotonic() - queuedAt;
}
