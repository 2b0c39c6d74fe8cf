import { type Allowance, TokenBuckets } from './token-buckets.ts';

/**
 * How many messages of one account one storage server may send. Anybody can invent messages with a correct hash, so
 * this bounds what a single server can do to a phone. A busy group has a few messages a second, and a server that
 * rejoins its swarm may send hundreds at once; a message counts only against the server that sent it first.
 */
const SENT: Allowance = { burst: 500, every: 200 };
/** Of these, unproven messages that no other server has confirmed, although others could have. */
const ALONE: Allowance = { burst: 50, every: 2_000 };
/**
 * How many pushes one device may get, for all its accounts and from all servers. More than a server can use up, or two
 * of a swarm: a liar must not be able to spend what the honest ones need.
 */
export const PUSHED: Allowance = { burst: 2_000, every: 50 };

/** What a storage server has used of its allowances. That account ids are reused for other accounts does no harm. */
export class ServerLimits {
  readonly #sent = new TokenBuckets<number>(SENT);
  readonly #alone = new TokenBuckets<number>(ALONE);

  /** Whether the server may send one more message of that account. @param now monotonic ms */
  allow(account: number, now: number): boolean {
    return this.#sent.take(account, now);
  }

  /** Whether one more message of that account may be passed on with nobody but this server behind it. */
  allowAlone(account: number, now: number): boolean {
    return this.#alone.take(account, now);
  }
}

/** What each device has used of its allowance. */
export class DeviceLimits {
  readonly #services = new Map<string, TokenBuckets<string>>();

  /**
   * Whether the device may get one more push.
   * @param service operators name these, so there are few
   * @param now monotonic ms
   */
  allow(service: string, serviceId: string, now: number): boolean {
    let buckets = this.#services.get(service);
    if (!buckets) {
      buckets = new TokenBuckets(PUSHED);
      this.#services.set(service, buckets);
    }
    return buckets.take(serviceId, now);
  }
}
