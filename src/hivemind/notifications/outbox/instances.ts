import type { Remote } from '../../../oxenmq/remote.ts';
import { AccountQueue } from './account-queue.ts';

/** A notifier process that takes the pushes of a service. */
export interface Instance {
  readonly remote: Remote;
  /** Ours acknowledge and take sealed payloads; the original's take the original's dict and say nothing. */
  readonly acknowledges: boolean;
  /** Whether it says of several devices at once what they are. */
  validatesMany: boolean;
  /** How many unacknowledged pushes it takes at most. */
  window: number;
  /** Pushes that it was given and has not acknowledged. */
  inFlight: number;
  /** What they take on the way to it and there, in bytes. */
  wireBytes: number;
  /** It finishes what it has and takes nothing new. */
  draining: boolean;
  /** Its last registration, by the monotonic clock, in milliseconds. */
  lastSeen: number;
  /** Mixed with a device's hash to rank the instances for it. */
  readonly rank: number;
  /** Pushes that wait for it alone, in a cluster. */
  readonly line: AccountQueue;
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
    for (const { inFlight } of this.#all) total += inFlight;
    return total;
  }

  /** What those take on the way to the notifiers and there, in bytes. */
  get wireBytes(): number {
    let total = 0;
    for (const { wireBytes } of this.#all) total += wireBytes;
    return total;
  }

  /**
   * The notifier to ask about a device's token: the one with the least to do, be its window full or not. Undefined if
   * none is there.
   */
  get validator(): Instance | undefined {
    let best: Instance | undefined;
    for (const instance of this.#all) {
      if (!instance.draining && (!best || instance.inFlight < best.inFlight)) best = instance;
    }
    return best;
  }

  /** @param remoteId as {@link Remote.id} */
  find(remoteId: string): Instance | undefined {
    return this.#all.find(({ remote }) => remote.id === remoteId);
  }

  /**
   * Adds a notifier. One of the original's kind replaces the one before of that kind, as the original's hivemind has
   * it.
   * @param id tells its process from others, the same at every hivemind; null from one of the original's kind
   */
  add(remote: Remote, acknowledges: boolean, now: number, id: Buffer | null = null): Instance {
    const instance: Instance = {
      remote,
      acknowledges,
      validatesMany: false,
      window: 0,
      inFlight: 0,
      wireBytes: 0,
      draining: false,
      lastSeen: now,
      rank: hashText(id?.toString('latin1') ?? remote.id),
      line: new AccountQueue(),
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
   * The notifier for a device among those that can take a push now, by rendezvous hashing: when one goes, only its
   * devices move.
   */
  choose(serviceId: string): Instance | undefined {
    return this.#best(serviceId, hasRoom);
  }

  /**
   * The notifier for a device, be its window full or not: then every hivemind of a cluster comes to the same, as long
   * as the same notifiers are registered with all of them.
   */
  ownerOf(serviceId: string): Instance | undefined {
    return this.#best(serviceId, () => true);
  }

  #best(serviceId: string, isGood: (instance: Instance) => boolean): Instance | undefined {
    let best: Instance | undefined;
    let bestScore = -1;
    const deviceHash = this.#all.length > 1 ? hashText(serviceId) : 0;
    for (const instance of this.#all) {
      if (instance.draining || !isGood(instance)) continue;
      const score = mix(deviceHash ^ instance.rank);
      // Of two connections of one process the newer counts.
      if (score >= bestScore) {
        best = instance;
        bestScore = score;
      }
    }
    return best;
  }
}

/** Whether it takes one more push. */
export function hasRoom({ inFlight, window }: Instance): boolean {
  return inFlight < window;
}

/** FNV-1a over the UTF-16 units of a text; spreads devices and instances, guards nothing. */
function hashText(text: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < text.length; index++) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  return hash >>> 0;
}

function mix(value: number): number {
  value = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  value = Math.imul(value ^ (value >>> 13), 0xc2b2ae35);
  return (value ^ (value >>> 16)) >>> 0;
}
