import { type KeyObject, sign } from 'node:crypto';
import type { Clock } from '../../clock.ts';
import { vapidPublicKey } from '../../settings/vapid-key.ts';

/** A token is good for so long, in seconds; 24 hours is the most that there is (RFC 8292, section 2). */
const LIFETIME = 12 * 3_600;
/** It is used for so long, in milliseconds: clocks differ, and Apple wants no new one within an hour. */
const USED_FOR = 6 * 3_600_000;
/** Tokens that are kept: anybody can name an endpoint at an origin of their own. */
const MOST_ORIGINS = 1_000;

interface Held {
  readonly header: string;
  /** By the monotonic clock, in milliseconds. */
  readonly until: number;
}

/**
 * What shows push services that all our pushes come from one sender: a token signed with a key (VAPID, RFC 8292), one
 * for each push service, kept for hours. A service looks at it once, too, if it does not change.
 */
export class Vapid {
  readonly #key: KeyObject;
  readonly #publicKey: string;
  readonly #contact: string;
  readonly #clock: Clock;
  readonly #wallClock: () => number;
  readonly #held = new Map<string, Held>();

  /**
   * @param contact `mailto:` or `https:`: whom a push service may ask about our pushes
   * @param wallClock Unix milliseconds, as others' clocks have them
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
    const held = this.#held.get(origin);
    if (held && this.#clock.monotonic() < held.until) return held.header;
    const header = `vapid t=${this.#sign(origin)}, k=${this.#publicKey}`;
    this.#held.delete(origin);
    for (const oldest of this.#held.keys()) {
      if (this.#held.size < MOST_ORIGINS) break;
      this.#held.delete(oldest);
    }
    this.#held.set(origin, { header, until: this.#clock.monotonic() + USED_FOR });
    return header;
  }

  /** That origin did not accept it. One that has been replaced already stays. */
  discard(origin: string, header: string): void {
    if (this.#held.get(origin)?.header === header) this.#held.delete(origin);
  }

  #sign(origin: string): string {
    const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const exp = Math.floor(this.#wallClock() / 1000) + LIFETIME;
    const signed = `${part({ typ: 'JWT', alg: 'ES256' })}.${part({ aud: origin, exp, sub: this.#contact })}`;
    const signature = sign('sha256', Buffer.from(signed), { key: this.#key, dsaEncoding: 'ieee-p1363' });
    return `${signed}.${signature.toString('base64url')}`;
  }
}
