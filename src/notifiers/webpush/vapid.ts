import { type KeyObject, sign } from 'node:crypto';
import type { Clock } from '../../clock.ts';
import { vapidPublicKey } from '../../settings/vapid-key.ts';

/** How long a token is valid, in seconds; at most 24 hours are allowed (RFC 8292, section 2). */
const LIFETIME = 12 * 3_600;
/** How long it is used, in milliseconds: clocks differ, and Apple wants no new one within an hour. */
const USED_FOR = 6 * 3_600_000;
/** How many tokens are kept: anybody can name an endpoint at their own origin. */
const MOST_ORIGINS = 1_000;

interface CachedHeader {
  readonly header: string;
  /** By the monotonic clock, in milliseconds. */
  readonly until: number;
}

/**
 * Shows push services that all our pushes come from one sender: by a token signed with our key (VAPID, RFC 8292), one
 * for each push service. It is kept for hours, so that the service need not check a new one each time.
 */
export class Vapid {
  readonly #key: KeyObject;
  readonly #publicKey: string;
  readonly #contact: string;
  readonly #clock: Clock;
  readonly #wallClock: () => number;
  readonly #cached = new Map<string, CachedHeader>();

  /**
   * @param contact `mailto:` or `https:`, where a push service's operators can reach ours
   * @param wallClock the machine's own clock, Unix milliseconds
   */
  constructor(key: KeyObject, contact: string, clock: Clock, wallClock: () => number) {
    this.#key = key;
    this.#publicKey = vapidPublicKey(key);
    this.#contact = contact;
    this.#clock = clock;
    this.#wallClock = wallClock;
  }

  /** The value of Authorization for pushes to this origin, such as `https://ntfy.sh`. */
  authorization(origin: string): string {
    const cached = this.#cached.get(origin);
    if (cached && this.#clock.monotonic() < cached.until) return cached.header;
    const header = `vapid t=${this.#sign(origin)}, k=${this.#publicKey}`;
    this.#cached.delete(origin);
    for (const oldest of this.#cached.keys()) {
      if (this.#cached.size < MOST_ORIGINS) break;
      this.#cached.delete(oldest);
    }
    this.#cached.set(origin, { header, until: this.#clock.monotonic() + USED_FOR });
    return header;
  }

  /** That origin did not accept this value: the next one is new, unless it has been replaced already. */
  discard(origin: string, header: string): void {
    if (this.#cached.get(origin)?.header === header) this.#cached.delete(origin);
  }

  #sign(origin: string): string {
    const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const exp = Math.floor(this.#wallClock() / 1000) + LIFETIME;
    const signed = `${part({ typ: 'JWT', alg: 'ES256' })}.${part({ aud: origin, exp, sub: this.#contact })}`;
    const signature = sign('sha256', Buffer.from(signed), { key: this.#key, dsaEncoding: 'ieee-p1363' });
    return `${signed}.${signature.toString('base64url')}`;
  }
}
