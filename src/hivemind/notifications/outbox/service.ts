import { Breaker, type BreakerLimits } from '../../../breaker.ts';
import type { Clock, Timer } from '../../../clock.ts';
import { Latency } from '../../../latency.ts';
import type { Log } from '../../../log.ts';
import type { Remote } from '../../../oxenmq/remote.ts';
import { encodeSealedPushes, type PushReport, type SealedPush } from '../../../session/notifier-protocol.ts';
import { isShown, sealPayload } from '../../../session/payload.ts';
import { encodePush } from '../../../session/push.ts';
import type { Copy } from '../copies/copy.ts';
import type { Standby } from '../copies/standby.ts';
import { hasRoom, type Instance, Instances } from './instances.ts';
import { type HeldMessage, latin1, NOTIFIER_COST, plainPush, type QueuedPush, sealable } from './push.ts';
import { type DropReason, type EndReason, PushQueue, type QueueLimits } from './push-queue.ts';

/** What a service counts; plain numbers, read by the metrics and by admin.get_stats. */
export interface ServiceCounters {
  queued: number;
  /** Given to a notifier; a push given again after a notifier's death counts again. */
  handed: number;
  accepted: number;
  refused: number;
  /** Given to a notifier of the original's kind, which says nothing of what becomes of them. */
  passed: number;
  /** With a notifier that had not reported on them when we ended: whether they were delivered is not known. */
  unreported: number;
  /** Ended by another hivemind of the cluster while they waited here. */
  elsewhere: number;
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
  /** Called with a line for the operator when something happened that he would want to know. */
  log: Pick<Log, 'info' | 'warn'>;
  /** In a cluster: learns what becomes of pushes, for the other hiveminds. */
  standby?: Standby | undefined;
}

/** Pushes that go to a notifier in one message. */
interface Batch {
  readonly pushes: QueuedPush[];
  readonly sealed: SealedPush[];
}

/** Registrations come every 5 s; after three missed ones the notifier is declared dead. */
const REGISTRATION_LIFETIME = 20_000;
/**
 * One message to a notifier carries at most so many pushes, so that the first need not wait for the last to be sealed.
 */
const BATCH = 64;
/** Pushes dealt with before the event loop gets its turn: about 5 ms of sealing. */
const SLICE = 192;
/** What is on the way to notifiers and with them may take this part of the limit of the queue, on top of it. */
const WIRE_SHARE = 1 / 4;
/** Pushes that were given up here, but not everywhere. */
const SENT_BY_OTHERS: readonly DropReason[] = ['overflow', 'account_share', 'shutdown'];
/** When a notifier's pipe is full or just gone: ask again after this. */
const RETRY_MS = 25;

/**
 * The pushes of one service: a bounded queue, the notifiers that take from it, and what each of them has not yet
 * acknowledged. One service never waits for another (docs/decisions/06).
 */
export class Service {
  readonly name: string;
  readonly queue: PushQueue;
  readonly breaker: Breaker;
  /** From a message being stored, as its sender has it, to the provider's word that it took the push. */
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

  /** Whether a notifier takes its pushes. */
  get isServed(): boolean {
    return this.instances.validator !== undefined;
  }

  /** When the oldest push that is neither acknowledged nor given up came in (monotonic milliseconds). */
  get oldest(): number | undefined {
    return this.queue.oldest;
  }

  /** The memory that its pushes take, in bytes: here, on the way to the notifiers, and there. */
  get bytes(): number {
    return this.queue.bytes + this.instances.wireBytes;
  }

  /**
   * A notifier registered, for the first time or again.
   * @param window how many unacknowledged pushes it takes; undefined for one of the original's, which acknowledges
   *   nothing
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

  /** The notifier asks for no new pushes; what it has it will report. */
  drain(remoteId: string): void {
    const instance = this.instances.find(remoteId);
    if (!instance || instance.draining) return;
    instance.draining = true;
    this.queue.bringBack(instance);
    if (!this.isServed) this.#announce();
    this.#pump();
  }

  /** The notifier has gone: what it did not acknowledge goes to the others, or waits for the next. */
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
    const rest = left.length > 0 ? `, ${left.length} pushes that it had not acknowledged go to the next` : '';
    this.#options.log[instance.draining ? 'info' : 'warn'](
      `notifier for ${this.name} is gone${rest}; ${this.instances.size} connected`,
    );
    this.#pump();
  }

  /** Takes a push; it will be delivered, or dropped and counted. */
  add(push: QueuedPush): void {
    this.counters.queued++;
    // Before the queue has it, which may drop it at once.
    if (push.copy) this.#options.standby?.queued(push.copy);
    this.queue.add(push);
    this.#pump();
  }

  /** Another hivemind of the cluster has ended a push; one that is with a notifier of ours ends with its report. */
  endedElsewhere(copy: Copy): void {
    if (!copy.push.holder) this.queue.cancel(copy);
  }

  /** A notifier's report of what became of its pushes. Ids that it was not given, or reported before, are ignored. */
  report(remoteId: string, report: PushReport): void {
    const instance = this.instances.find(remoteId);
    if (!instance) return;
    const held = (id: number) => {
      const push = this.queue.get(id);
      return push?.holder === instance ? push : undefined;
    };
    for (const [id, text] of report.answers) held(id)?.onAnswer?.(text);
    const accepted = this.#endAll(report.accepted.map(held), (push) => this.#took(push));
    this.counters.accepted += accepted;
    if (accepted > 0) this.breaker.accepted(accepted);
    this.counters.refused += this.#endAll(report.refused.map(held));
    const back: QueuedPush[] = [];
    for (const id of report.handedBack) {
      const push = held(id);
      if (!push) continue;
      push.uncertain = false;
      this.#letGo(push);
      back.push(push);
    }
    this.#takeBack(back);
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
      instance.lastSeen += heldUp;
      if (now - instance.lastSeen > REGISTRATION_LIFETIME) this.unregister(instance.remote.id);
    }
    this.#pump();
  }

  /** Hands nothing out any more, and gives up what still waits. Reports are still accepted. */
  stop(): void {
    this.#stopped = true;
    this.#retry?.cancel();
    for (const instance of this.instances.all) this.queue.bringBack(instance);
    this.#giveUpWaiting();
  }

  /** Ends the account of what was handed out. */
  close(): void {
    this.#giveUpWaiting();
    for (const push of this.queue.all()) this.#leave(push);
    this.instances.clear();
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
    const batches = new Map<Instance, Batch>();
    let left = SLICE;
    let stuffed = false;
    // What waited for one notifier's window is older than the rest, but leaves the rest its half of the turn.
    for (const instance of this.instances.all) {
      while (left > SLICE / 2 && !stuffed && instance.line.length > 0 && hasRoom(instance) && this.#hasRoom()) {
        const push = this.queue.takeAside(instance);
        if (!push) break;
        left--;
        if (!this.#endIfOver(push)) stuffed = !this.#give(instance, push, batches);
      }
    }
    for (; left > 0 && !stuffed; left--) {
      const push = this.queue.next;
      if (!push) break;
      const instance = this.#hasRoom() ? this.#choose(push) : undefined;
      // No window is open: an acknowledgement or a new notifier starts the pump again.
      if (!instance && !this.#overBy(push)) break;
      this.queue.take();
      if (this.#endIfOver(push) || !instance) continue;
      if (hasRoom(instance) && instance.line.length === 0) stuffed = !this.#give(instance, push, batches);
      else this.queue.putAside(push, instance);
    }
    for (const [instance, batch] of batches) if (!this.#send(instance, batch)) stuffed = true;
    if (stuffed) this.#pumpLater();
    else if (left <= SLICE / 2) this.#pump();
  }

  /**
   * The notifier for a push. In a cluster the same at every hivemind, for it tells copies of a push apart only of those
   * that it gets itself: so a push waits for its notifier rather than go to one that has room.
   */
  #choose({ serviceId }: QueuedPush): Instance | undefined {
    return this.#options.standby ? this.instances.ownerOf(serviceId) : this.instances.choose(serviceId);
  }

  /** Why a push that waits need not be sent any more. */
  #overBy({ message, copy }: QueuedPush): EndReason | undefined {
    if (copy?.state === 'over') return 'elsewhere';
    return isExpired(message, this.#options.clock) ? 'expired' : undefined;
  }

  /** Ends a push that was taken, if it need not be sent any more. */
  #endIfOver(push: QueuedPush): boolean {
    const reason = this.#overBy(push);
    if (!reason) return false;
    this.queue.end(push);
    this.#drop(push, reason);
    return true;
  }

  /** Gives a push to a notifier, by itself or with others. As {@link #pass}. */
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

  #hasRoom(): boolean {
    return this.instances.wireBytes < this.queue.limits.maxBytes * WIRE_SHARE;
  }

  /**
   * To a notifier of the original's kind: with that, the push is done. False if it cannot take it now; then the push
   * waits again.
   */
  #pass(instance: Instance, push: QueuedPush): boolean {
    if (!instance.remote.send('notifier.push', encodePush(plainPush(push)))) {
      this.queue.putBack([push]);
      return false;
    }
    this.queue.end(push);
    this.#ended(push);
    this.counters.handed++;
    this.counters.passed++;
    // It reports nothing but dead devices: what these are a share of is all that it was handed.
    this.breaker.accepted(1);
    return true;
  }

  /** Seals a push for its device, and counts it to the notifier that will have it. */
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
   * Sends a batch as one message: frames are what a message costs (docs/spec/platform.md, section 1). As {@link #pass}.
   */
  #send(instance: Instance, { pushes, sealed }: Batch): boolean {
    if (instance.remote.send('notifier.sealed', encodeSealedPushes(sealed))) {
      this.counters.handed += pushes.length;
      return true;
    }
    for (const push of pushes) this.#letGo(push);
    this.queue.putBack(pushes);
    return false;
  }

  #letGo(push: QueuedPush): void {
    const { holder } = push;
    if (!holder) return;
    holder.inFlight--;
    holder.wireBytes -= push.wireBytes;
    push.holder = undefined;
  }

  /** Lets pushes that a notifier had wait for another. */
  #takeBack(pushes: readonly QueuedPush[]): void {
    for (const push of pushes) this.#letGo(push);
    this.counters.redelivered += pushes.length;
    this.queue.putBack(pushes);
  }

  #took({ message }: QueuedPush): void {
    const { clock } = this.#options;
    this.latency.add((clock.now() - Number(message.timestamp)) / 1000, clock.monotonic());
  }

  #ended({ copy }: QueuedPush): void {
    if (copy) this.#options.standby?.ended(copy);
  }

  /** Tells the other hiveminds whether the pushes that wait are in good hands here. */
  #announce(): void {
    const { standby } = this.#options;
    if (!standby) return;
    for (const { copy, holder } of this.queue.all()) if (copy && !holder) standby.announce(copy);
  }

  /** How many of them there were. */
  #endAll(pushes: readonly (QueuedPush | undefined)[], ended?: (push: QueuedPush) => void): number {
    let count = 0;
    for (const push of pushes) {
      // Two times in one report is once.
      if (!push?.holder) continue;
      this.#letGo(push);
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
      if (push.uncertain) this.#leave(push);
      else {
        this.queue.end(push);
        this.#drop(push, 'shutdown');
      }
    }
  }

  #leave(push: QueuedPush): void {
    this.#letGo(push);
    this.queue.end(push);
    this.counters.unreported++;
    push.onAnswer?.('not reported before the hivemind stopped');
  }

  #drop(push: QueuedPush, reason: EndReason): void {
    this.#letGo(push);
    if (reason === 'elsewhere') {
      if (push.copy) this.#options.standby?.left(push.copy);
      this.counters.elsewhere++;
      return;
    }
    // What we have no room or time for another hivemind may still send; what is too old is so everywhere.
    if (!SENT_BY_OTHERS.includes(reason)) this.#ended(push);
    else if (push.copy) this.#options.standby?.gaveUp(push.copy);
    this.counters.dropped[reason]++;
    push.onAnswer?.(`given up: ${reason.replace('_', ' ')}`);
  }
}

/**
 * By the clock, and by the time that it had left when it came in: a clock that is wrong from the start must not cost
 * every push.
 */
function isExpired({ expiry, timestamp, queuedAt }: HeldMessage, clock: Clock): boolean {
  return expiry > 0 && expiry <= clock.now() && Number(expiry) - Number(timestamp) <= clock.monotonic() - queuedAt;
}
