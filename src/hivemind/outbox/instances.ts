import type { Remote } from '../../oxenmq/remote.ts';
import type { QueuedPush } from './push-queue.ts';

/** The pushes that a notifier has been given and has not acknowledged, oldest first. */
export class InFlight {
  readonly #pushes = new Map<number, QueuedPush>();
  #bytes = 0;

  get size(): number {
    return this.#pushes.size;
  }

  /** The memory that they hold. */
  get bytes(): number {
    return this.#bytes;
  }

  get(id: number): QueuedPush | undefined {
    return this.#pushes.get(id);
  }

  values(): Iterable<QueuedPush> {
    return this.#pushes.values();
  }

  add(push: QueuedPush): void {
    this.#pushes.set(push.id, push);
    this.#bytes += push.bytes;
  }

  /** Takes one out; undefined if it is not there. */
  take(id: number): QueuedPush | undefined {
    const push = this.#pushes.get(id);
    if (!push) return undefined;
    this.#pushes.delete(id);
    this.#bytes -= push.bytes;
    return push;
  }
}

/** A notifier process that takes the pushes of a service. */
export interface Instance {
  readonly remote: Remote;
  /** Ours acknowledge and take sealed payloads; the original's take the original's dict and say nothing. */
  readonly acknowledges: boolean;
  /** How many unacknowledged pushes it takes at most. */
  window: number;
  readonly inFlight: InFlight;
  /** It finishes what it has and takes nothing new. */
  draining: boolean;
  /** Its last registration, by the monotonic clock, in milliseconds. */
  lastSeen: number;
  /** Mixed with a device's hash to rank the instances for it. */
  readonly rank: number;
}

/** The notifiers of one service, and which of them is for which device. */
export class Instances {
  #all: Instance[] = [];

  /** Those that are registered now, those that drain among them. */
  get all(): readonly Instance[] {
    return this.#all;
  }

  get size(): number {
    return this.#all.length;
  }

  /** Pushes that are with a notifier and not acknowledged. */
  get inFlight(): number {
    let total = 0;
    for (const { inFlight } of this.#all) total += inFlight.size;
    return total;
  }

  /** When the oldest of those came in (monotonic milliseconds); Infinity if there is none. */
  get oldest(): number {
    let oldest = Number.POSITIVE_INFINITY;
    for (const { inFlight } of this.#all) {
      const [first] = inFlight.values();
      if (first) oldest = Math.min(oldest, first.queuedAt);
    }
    return oldest;
  }

  /** The notifier to ask about a device's token: the one with the least to do, be its window full or not. Undefined if none is there. */
  get validator(): Instance | undefined {
    let best: Instance | undefined;
    for (const instance of this.#all) {
      if (!instance.draining && (!best || instance.inFlight.size < best.inFlight.size)) best = instance;
    }
    return best;
  }

  /** @param remoteId as {@link Remote.id} */
  find(remoteId: string): Instance | undefined {
    return this.#all.find(({ remote }) => remote.id === remoteId);
  }

  /** Adds a notifier. One of the original's kind replaces the one before of that kind, as the original's hivemind has it. */
  add(remote: Remote, acknowledges: boolean, now: number): Instance {
    const instance: Instance = {
      remote,
      acknowledges,
      window: 0,
      inFlight: new InFlight(),
      draining: false,
      lastSeen: now,
      rank: hashText(remote.id),
    };
    if (!acknowledges) this.#all = this.#all.filter((known) => known.acknowledges);
    this.#all.push(instance);
    return instance;
  }

  remove(instance: Instance): void {
    this.#all = this.#all.filter((known) => known !== instance);
  }

  clear(): void {
    this.#all = [];
  }

  /**
   * The notifier for a device among those that can take a push now, by rendezvous hashing: when one goes, only its devices move.
   * @param maxBytes one that holds so much is given no more, whatever its window is
   */
  choose(deviceHash: number, maxBytes: number): Instance | undefined {
    let best: Instance | undefined;
    let bestScore = -1;
    for (const instance of this.#all) {
      const { inFlight } = instance;
      if (instance.draining || inFlight.size >= instance.window || inFlight.bytes >= maxBytes) continue;
      const score = mix(deviceHash ^ instance.rank);
      if (score > bestScore) {
        best = instance;
        bestScore = score;
      }
    }
    return best;
  }
}

/** FNV-1a over the UTF-16 units of a text; spreads devices and instances, guards nothing. */
export function hashText(text: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < text.length; index++) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  return hash >>> 0;
}

function mix(value: number): number {
  value = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  value = Math.imul(value ^ (value >>> 13), 0xc2b2ae35);
  return (value ^ (value >>> 16)) >>> 0;
}
