import { slotOf } from '../../../session/slots.ts';
import { blake2b } from '../../../session/sodium.ts';
import { SipHash } from '../../devices/siphash.ts';
import { Doubt } from '../doubt.ts';
import { hashPush, pushScratch } from '../duplicate-filter.ts';
import type { QueuedPush } from '../outbox/push.ts';

/** By what the same push of several hiveminds is known. Fingerprints are 8 bytes, as latin1 texts. */
export interface Identity {
  /** What notifiers are told, beside the doubt. */
  readonly fingerprint: string;
  readonly doubt: Doubt;
  /** What the other hiveminds are told: the fingerprint with the doubt mixed in. */
  readonly key: string;
  /**
   * The keys of the same push with less doubt: whoever has one of these has this. The first is without doubt, so it is
   * its fingerprint, too.
   */
  readonly lesser: readonly string[];
  /** Of the account. */
  readonly slot: number;
}

/**
 * Where the push of a hivemind of a cluster is:
 *
 *     waiting     the one that sends first has said nothing of it yet
 *     kept        another member has it in hand
 *     due         it would be ours to send, but we have no notifier for it, and another member has it as well
 *     released    on its way into the queue
 *     ours        in the queue, or with a notifier of ours
 *     over        another member has ended it while it was in our queue
 */
export type CopyState = 'waiting' | 'kept' | 'due' | 'released' | 'ours' | 'over';

/** One run of another member. */
export interface Keeper {
  readonly name: string;
  readonly run: bigint;
}

/** What a push has in a cluster alone. */
export class Copy implements Identity {
  readonly push: QueuedPush;
  readonly fingerprint: string;
  readonly doubt: Doubt;
  readonly key: string;
  readonly lesser: readonly string[];
  readonly slot: number;
  state: CopyState = 'ours';
  /** Who has it in hand, while it is kept. */
  keeper: Keeper | undefined;
  /** Since when it is waiting; monotonic ms. */
  since = 0;

  constructor(push: QueuedPush, { fingerprint, doubt, key, lesser, slot }: Identity) {
    this.push = push;
    this.fingerprint = fingerprint;
    this.doubt = doubt;
    this.key = key;
    this.lesser = lesser;
    this.slot = slot;
    this.keeper = undefined;
  }
}

/** What a copy takes in memory beside its push, in bytes: its objects and its places in the indexes. */
export const COPY_COST = 240;

/** libsodium's smallest. */
const DERIVED = 16;
const NO_KEYS: readonly string[] = [];

/**
 * Computes the fingerprints of pushes: equal at every hivemind that has the same secret, and of no use to anybody who
 * has not. They cover what the duplicate filter tells pushes apart by, so that two hiveminds agree with each other as
 * one does with itself.
 */
export class PushFingerprints {
  readonly #hash: SipHash;
  readonly #scratch = pushScratch();
  readonly #bytes = Buffer.alloc(8);

  /** @param secret the hivemind's, 32 bytes */
  constructor(secret: Uint8Array) {
    this.#hash = new SipHash(blake2b(DERIVED, secret, Buffer.from('push fingerprint')));
  }

  /**
   * @param account 33 bytes
   * @param hash of the message
   */
  of(
    service: string,
    serviceId: string,
    account: Uint8Array,
    hash: Uint8Array,
    namespace: number,
    doubt: Doubt,
  ): Identity {
    const slot = slotOf(account);
    const low = hashPush(this.#hash, this.#scratch, service, serviceId, hash);
    const proven = this.#text(low, this.#hash.high);
    if (doubt === Doubt.none) return { fingerprint: proven, doubt, key: proven, lesser: NO_KEYS, slot };
    const itsLow = hashPush(this.#hash, this.#scratch, service, serviceId, hash, namespace);
    const { high } = this.#hash;
    const withDoubt = (of: number) => this.#text(itsLow, (high + of) >>> 0);
    const lesser = [proven];
    for (let less = Doubt.none + 1; less < doubt; less++) lesser.push(withDoubt(less));
    return { fingerprint: withDoubt(0), doubt, key: withDoubt(doubt), lesser, slot };
  }

  #text(low: number, high: number): string {
    this.#bytes.writeUInt32LE(low, 0);
    this.#bytes.writeUInt32LE(high, 4);
    return this.#bytes.toString('latin1');
  }
}

/** Takes a fingerprint apart into the halves that sets of them work with; of a text that is shorter, any. */
export function lowOf(key: string): number {
  return word(key, 0);
}

/** As {@link lowOf}. */
export function highOf(key: string): number {
  return word(key, 4);
}

function word(key: string, at: number): number {
  return (
    (key.charCodeAt(at) |
      (key.charCodeAt(at + 1) << 8) |
      (key.charCodeAt(at + 2) << 16) |
      (key.charCodeAt(at + 3) << 24)) >>>
    0
  );
}
