import type { Request } from './request.ts';
import type { Swarm } from './swarm-member.ts';

/** The most requests of a swarm that are kept, and the most bytes of all bodies. */
const MAX_OF_SWARM = 32;
const MAX_BYTES = 32 * 1024 * 1024;

/**
 * The latest bulk requests, by swarm. After a start, or when a swarm has moved, all its servers are asked for the same
 * accounts in the same order, so a request that one was sent can be sent to the others.
 */
export class RecentRequests {
  /** The swarm whose latest request is the oldest comes first. */
  readonly #bySwarm = new Map<Swarm, Request[]>();
  #bytes = 0;

  /** The requests of a swarm, in the order of when they were last sent. */
  of(swarm: Swarm): readonly Request[] {
    return this.#bySwarm.get(swarm) ?? [];
  }

  /** Keeps a request for as long as there is room. */
  add(swarm: Swarm, request: Request): void {
    const requests = this.#bySwarm.get(swarm) ?? [];
    this.#bySwarm.delete(swarm);
    this.#bySwarm.set(swarm, requests);
    const index = requests.indexOf(request);
    if (index >= 0) requests.splice(index, 1);
    requests.push(request);
    if (index >= 0) return;
    if (requests.length > MAX_OF_SWARM) this.#bytes -= requests.shift()?.body.length ?? 0;
    this.#bytes += request.body.length;
    for (const other of this.#bySwarm.keys()) {
      if (this.#bytes <= MAX_BYTES || other === swarm) break;
      this.drop(other);
    }
  }

  /** Drops the requests of a swarm. */
  drop(swarm: Swarm): void {
    for (const { body } of this.of(swarm)) this.#bytes -= body.length;
    this.#bySwarm.delete(swarm);
  }

  clear(): void {
    this.#bySwarm.clear();
    this.#bytes = 0;
  }
}
