import { type Allowance, TokenBuckets } from './token-buckets.ts';

/**
 * What one storage server may announce for one account. Anybody can invent messages whose hash is right, so this bounds
 * what a server alone can make of a phone. A busy group has some messages a second, a server that comes back into its
 * swarm may tell hundreds at once, and each counts only where it was heard first.
 */
const TOLD: Allowance = { burst: 500, every: 200 };
/**
 * Of these, messages that no other server confirmed though others were there to do so, and whose hash proves nothing.
 */
const ALONE: Allowance = { burst: 50, every: 2_000 };
/**
 * Pushes to one device, from all its accounts and all servers. More than one server can use up, or two of a swarm: a
 * liar must not be able to spend what the honest ones need.
 */
export const PUSHED: Allowance = { burst: 2_000, every: 50 };

/**
 * What a storage server has used of its allowances. Account numbers may be used again for another account, which does
 * no harm.
 */
export class ServerLimits {
  readonly #told = new TokenBuckets<number>(TOLD);
  readonly #alone = new TokenBuckets<number>(ALONE);

  /** Whether the server may tell one more message of that account. */
  tell(account: number, now: number): boolean {
    return this.#told.take(account, now);
  }

  /** Whether one more message of that account may go on this server's word alone. */
  tellAlone(account: number, now: number): boolean {
    return this.#alone.take(account, now);
  }
}

/** What was pushed to each device lately. */
export class DeviceLimits {
  readonly #services = new Map<string, TokenBuckets<string>>();

  /** Whether the device may be pushed once more. Names of services are the operator's, so there are few. */
  push(service: string, serviceId: string, now: number): boolean {
    let buckets = this.#services.get(service);
    if (!buckets) {
      buckets = new TokenBuckets(PUSHED);
      this.#services.set(service, buckets);
    }
    return buckets.take(serviceId, now);
  }
}
