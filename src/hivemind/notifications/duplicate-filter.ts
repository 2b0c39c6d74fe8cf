import type { Clock } from '../../clock.ts';
import { SipHash } from '../devices/siphash.ts';
import type { Doubt } from './doubt.ts';

/** A power of two. Each table grows by itself, so that no single entry pays for the whole filter. */
const TABLES = 256;
const FIRST_SLOTS = 16;
/** Of one generation. More than 6,000 new messages a second for ten minutes; then a generation ends before its time. */
const MAX_ENTRIES = 4_000_000;
/** Message hashes have at most 99 bytes, service ids 999. */
const SCRATCH = 2048;
const MESSAGE = 1;
const DEVICE = 2;
const DEVICE_IN_NAMESPACE = 3;
const HASH = 4;

/**
 * What was pushed lately, so that it is pushed once: a message arrives from each member of its swarm, and later copies
 * may follow.
 *
 * Two generations of 64-bit keyed fingerprints: what is added goes to the current one; after each lifetime the current
 * becomes the previous, whose entries are forgotten. So an entry lives for one to two lifetimes (docs/spec/hivemind.md,
 * section 2). An entry costs 8 bytes a slot, 11 to 21 bytes in all; two full generations of {@link MAX_ENTRIES} take
 * 128 MB. In a million entries a look-up errs once in 10^13.
 */
export class DuplicateFilter {
  /** Milliseconds after which the generations change; may be set anew at any time. */
  lifetime: number;
  readonly #clock: Clock;
  readonly #hash: SipHash;
  #current = new Fingerprints();
  #previous = new Fingerprints();
  #rotatedAt: number;
  readonly #scratch = Buffer.alloc(SCRATCH);

  /**
   * @param options.random gives the key: hashes are chosen by strangers
   * @param options.lifetime milliseconds
   */
  constructor(options: { clock: Clock; random: (bytes: number) => Buffer; lifetime: number }) {
    this.#clock = options.clock;
    this.#hash = new SipHash(options.random(8));
    this.lifetime = options.lifetime;
    this.#rotatedAt = options.clock.monotonic();
  }

  /** Entries in both generations. */
  get size(): number {
    return this.#current.size + this.#previous.size;
  }

  /**
   * Whether this message of this account was added lately, on copies at most so doubtful. The same hash in another
   * namespace is another message.
   */
  hasMessage(account: Uint8Array, namespace: number, hash: Uint8Array, doubt: Doubt = 0): boolean {
    return this.#has(this.#message(account, namespace, hash), doubt);
  }

  addMessage(account: Uint8Array, namespace: number, hash: Uint8Array, doubt: Doubt = 0): void {
    this.#add(this.#message(account, namespace, hash), doubt);
  }

  /** Whether this hash of this account was added lately, in whatever namespace, on copies at most so doubtful. */
  hasHash(account: Uint8Array, hash: Uint8Array, doubt: Doubt): boolean {
    return this.#has(this.#hashOf(account, hash), doubt);
  }

  addHash(account: Uint8Array, hash: Uint8Array, doubt: Doubt): void {
    this.#add(this.#hashOf(account, hash), doubt);
  }

  /**
   * Whether a message with this hash was pushed to this device lately, on copies at most so doubtful. Without doubt its
   * account and namespace are no part of it, and nothing stands between the parts (test/vectors/notifier-push.json,
   * `filter`). What is doubtful counts for its namespace only: that may be the lie.
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
    const scratch = this.#scratch;
    scratch[0] = namespace === undefined ? DEVICE : DEVICE_IN_NAMESPACE;
    let end = 1;
    if (namespace !== undefined) end = scratch.writeInt16LE(namespace, end);
    end += scratch.write(service, end);
    end += scratch.write(serviceId, end);
    return this.#fingerprint(append(scratch, end, hash));
  }

  #fingerprint(size: number): number {
    return this.#hash.bytes(this.#scratch, 0, size);
  }

  #has(low: number, doubt: Doubt): boolean {
    this.#rotate();
    const { high } = this.#hash;
    for (let least = 0; least <= doubt; least++) {
      const its = (high + least) >>> 0;
      if (this.#current.has(low, its) || this.#previous.has(low, its)) return true;
    }
    return false;
  }

  #add(low: number, doubt: Doubt): void {
    this.#rotate();
    this.#current.add(low, (this.#hash.high + doubt) >>> 0);
  }

  #rotate(): void {
    const now = this.#clock.monotonic();
    const age = now - this.#rotatedAt;
    if (age < this.lifetime && this.#current.size < MAX_ENTRIES) return;
    // Nobody asked for so long that the current generation is past its time as well.
    this.#previous = age < 2 * this.lifetime ? this.#current : new Fingerprints();
    this.#current = new Fingerprints();
    this.#rotatedAt = now;
  }
}

function append(to: Buffer, at: number, bytes: Uint8Array): number {
  const size = Math.min(bytes.length, to.length - at);
  for (let n = 0; n < size; n++) to[at + n] = bytes[n]!;
  return at + size;
}

/** A set of 64-bit numbers in two halves. Slots of two words; 0, 0 is an empty one, and the number 0 counts as 1. */
class Fingerprints {
  readonly #tables: Uint32Array[] = [];
  readonly #counts = new Uint32Array(TABLES);
  size = 0;

  constructor() {
    for (let n = 0; n < TABLES; n++) this.#tables.push(new Uint32Array(FIRST_SLOTS * 2));
  }

  has(low: number, high: number): boolean {
    return find(this.#tables[low & (TABLES - 1)]!, low || 1, high) < 0;
  }

  add(low: number, high: number): void {
    const which = low & (TABLES - 1);
    let table = this.#tables[which]!;
    low ||= 1;
    let slot = find(table, low, high);
    if (slot < 0) return;
    if ((this.#counts[which]! + 1) * 8 > table.length * 3) {
      table = grow(table);
      this.#tables[which] = table;
      slot = find(table, low, high);
    }
    table[slot] = low;
    table[slot + 1] = high;
    this.#counts[which]!++;
    this.size++;
  }
}

/** The empty slot where that number belongs; -1 if it is there. */
function find(table: Uint32Array, low: number, high: number): number {
  const last = table.length - 1;
  for (let at = (high << 1) & last; ; at = (at + 2) & last) {
    const here = table[at]!;
    if (here === 0) return at;
    if (here === low && table[at + 1] === high) return -1;
  }
}

function grow(from: Uint32Array): Uint32Array {
  const to = new Uint32Array(from.length * 2);
  for (let at = 0; at < from.length; at += 2) {
    const low = from[at]!;
    if (low === 0) continue;
    const slot = find(to, low, from[at + 1]!);
    to[slot] = low;
    to[slot + 1] = from[at + 1]!;
  }
  return to;
}
