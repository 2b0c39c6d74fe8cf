import type { Remote } from '../../../oxenmq/remote.ts';

/** A registered notifier process. */
export interface Instance {
  readonly remote: Remote;
  /** Ours take sealed payloads and acknowledge them; the original's take the original's dict and do not. */
  readonly acknowledges: boolean;
  /** Whether it can validate several devices in one request. */
  validatesMany: boolean;
  /** The most unacknowledged pushes that it takes. */
  window: number;
  /** How many pushes it has and has not acknowledged. */
  inFlight: number;
  /** The memory that those take on the way to it and there, in bytes. */
  wireBytes: number;
  /** Whether it is finishing what it has and takes nothing new. */
  draining: boolean;
  /** When it last registered; monotonic ms. */
  lastSeen: number;
  /** Mixed with a device's hash to rank the instances for it. */
  readonly rank: number;
}

/** The notifiers of one service, and which of them gets the pushes of which device. */
export class Instances {
  #all: Instance[] = [];

  /** All that are registered now, draining ones included. */
  get all(): readonly Instance[] {
    return this.#all;
  }

  get size(): number {
    return this.#all.length;
  }

  /** How many pushes notifiers have and have not acknowledged. */
  get inFlight(): number {
    let total = 0;
    for (const { inFlight } of this.#all) total += inFlight;
    return total;
  }

  /** The memory that those take on the way to the notifiers and there, in bytes. */
  get wireBytes(): number {
    let total = 0;
    for (const { wireBytes } of this.#all) total += wireBytes;
    return total;
  }

  /**
   * The notifier to ask about a device's token: the one with the least to do, even if its window is full; undefined if
   * there is none.
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
   * Adds a notifier. An original one replaces the original one before it, as at an original hivemind.
   * @param now monotonic ms
   * @param id identifies its process to every hivemind alike; null for an original notifier
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
   * The notifier for a device, even if its window is full: all hiveminds of a cluster choose the same, as long as the
   * same notifiers are registered with each of them.
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
      // Equal scores are two connections of one process: the newer counts.
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

/** FNV-1a over the UTF-16 units of a string. Only for spreading devices over notifiers: it resists no attacker. */
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
