import type { Clock } from '../../clock.ts';
import { RecentFingerprints } from '../../recent-fingerprints.ts';
import { SipHash } from '../devices/siphash.ts';
import type { Doubt } from './doubt.ts';

/** The most entries of a generation, over 6,000 a second for ten minutes; with more it ends early. */
const MAX_ENTRIES = 4_000_000;
/** Message hashes have at most 99 bytes, service ids 999. */
const SCRATCH = 2048;
const MESSAGE = 1;
const DEVICE = 2;
const DEVICE_IN_NAMESPACE = 3;
const HASH = 4;

/**
 * Remembers what was pushed lately, so that it is pushed only once: each member of a swarm sends every message, and
 * more copies may follow later.
 *
 * An entry lives for one to two lifetimes (docs/spec/hivemind.md, section 2). Two full generations of
 * {@link MAX_ENTRIES} take 128 MB.
 */
export class DuplicateFilter {
  readonly #hash: SipHash;
  readonly #recent: RecentFingerprints;
  readonly #scratch = pushScratch();

  /**
   * @param options.random makes the key: strangers choose the hashes
   * @param options.lifetime milliseconds
   */
  constructor(options: { clock: Clock; random: (bytes: number) => Buffer; lifetime: number }) {
    this.#hash = new SipHash(options.random(8));
    this.#recent = new RecentFingerprints(options.clock, options.lifetime, MAX_ENTRIES);
  }

  /** Entries in both generations. */
  get size(): number {
    return this.#recent.size;
  }

  /** In ms; may be changed at any time. */
  get lifetime(): number {
    return this.#recent.lifetime;
  }

  set lifetime(lifetime: number) {
    this.#recent.lifetime = lifetime;
  }

  /**
   * Whether this message of this account was added lately with no more doubt than this. The same hash in another
   * namespace is another message.
   */
  hasMessage(account: Uint8Array, namespace: number, hash: Uint8Array, doubt: Doubt = 0): boolean {
    return this.#has(this.#message(account, namespace, hash), doubt);
  }

  addMessage(account: Uint8Array, namespace: number, hash: Uint8Array, doubt: Doubt = 0): void {
    this.#add(this.#message(account, namespace, hash), doubt);
  }

  /** Whether this hash of this account was added lately with no more doubt than this, in any namespace. */
  hasHash(account: Uint8Array, hash: Uint8Array, doubt: Doubt): boolean {
    return this.#has(this.#hashOf(account, hash), doubt);
  }

  addHash(account: Uint8Array, hash: Uint8Array, doubt: Doubt): void {
    this.#add(this.#hashOf(account, hash), doubt);
  }

  /**
   * Whether a message with this hash was pushed to this device lately with no more doubt than this. Without doubt the
   * account and the namespace do not matter, as in the original (test/vectors/notifier-push.json, `filter`); a doubtful
   * push counts only for its namespace, which may be the lie.
   */
  hasDevice(service: string, serviceId: string, hash: Uint8Array, namespace = 0, doubt: Doubt = 0): boolean {
    if (this.#has(this.#device(service, serviceId, hash), 0)) return true;
    return doubt > 0 && this.#has(this.#device(service, serviceId, hash, namespace), doubt);
  }

  addDevice(service: string, serviceId: string, hash: Uint8Array, namespace = 0, doubt: Doubt = 0): void {
    if (doubt === 0) this.#add(this.#device(service, serviceId, hash), 0);
    else this.#add(this.#device(service, serviceId, hash, namespace), doubt);
  }

  #message(account: Uint8Array, namespace: number, hash: Uint8Array): number {
    const scratch = this.#scratch;
    scratch[0] = MESSAGE;
    scratch.writeInt16LE(namespace, 1);
    return this.#fingerprint(append(scratch, append(scratch, 3, account), hash));
  }

  #hashOf(account: Uint8Array, hash: Uint8Array): number {
    this.#scratch[0] = HASH;
    return this.#fingerprint(append(this.#scratch, append(this.#scratch, 1, account), hash));
  }

  #device(service: string, serviceId: string, hash: Uint8Array, namespace?: number): number {
    return hashPush(this.#hash, this.#scratch, service, serviceId, hash, namespace);
  }

  #fingerprint(size: number): number {
    return this.#hash.bytes(this.#scratch, 0, size);
  }

  #has(low: number, doubt: Doubt): boolean {
    const { high } = this.#hash;
    for (let least = 0; least <= doubt; least++) {
      if (this.#recent.has(low, (high + least) >>> 0)) return true;
    }
    return false;
  }

  #add(low: number, doubt: Doubt): void {
    this.#recent.add(low, (this.#hash.high + doubt) >>> 0);
  }
}

/** The buffer that {@link hashPush} works in. */
export function pushScratch(): Buffer {
  return Buffer.alloc(SCRATCH);
}

/**
 * Hashes what identifies the push of a message to a device; see {@link DuplicateFilter.hasDevice}.
 *
 * @param scratch of {@link pushScratch}
 * @param namespace given for a doubtful message only
 * @returns the lower 32 bits; `hash.high` gets the upper ones
 */
export function hashPush(
  hash: SipHash,
  scratch: Buffer,
  service: string,
  serviceId: string,
  messageHash: Uint8Array,
  namespace?: number,
): number {
  scratch[0] = namespace === undefined ? DEVICE : DEVICE_IN_NAMESPACE;
  let end = 1;
  if (namespace !== undefined) end = scratch.writeInt16LE(namespace, end);
  end += scratch.write(service, end);
  end += scratch.write(serviceId, end);
  return hash.bytes(scratch, 0, append(scratch, end, messageHash));
}

function append(to: Buffer, at: number, bytes: Uint8Array): number {
  const size = Math.min(bytes.length, to.length - at);
  for (let n = 0; n < size; n++) to[at + n] = bytes[n]!;
  return at + size;
}
