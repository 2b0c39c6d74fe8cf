import { slotOf } from '../../../session/slots.ts';
import { blake2b } from '../../../session/sodium.ts';
import { SipHash } from '../../devices/siphash.ts';
import { Doubt } from '../doubt.ts';
import { hashPush, pushScratch } from '../duplicate-filter.ts';
import type { QueuedPush } from '../outbox/push.ts';

/** Identifies the same push at several hiveminds. Fingerprints are 8 bytes, as latin1 strings. */
export interface PushIdentity {
  /** What notifiers are told, along with the doubt. */
  readonly fingerprint: string;
  readonly doubt: Doubt;
  /** What other hiveminds are told: the fingerprint with the doubt mixed in. */
  readonly key: string;
  /**
   * The keys of the same push with less doubt: whoever has had one of those does not need this one. The first, without
   * doubt, is that push's fingerprint too.
   */
  readonly lesser: readonly string[];
  /** The slot of the account. */
  readonly slot: number;
}

/**
 * The state of a push in a cluster:
 *
 *     waiting     the member that sends first has not mentioned it yet
 *     kept        another member has it in hand: in its queue, and a notifier to give it to
 *     due         we would send it now, but have no notifier for it, and another member has it as well
 *     released    on its way into the queue
 *     ours        in the queue, or with a notifier of ours
 *     over        another member has ended it while it was in our queue
 */
export type CopyState = 'waiting' | 'kept' | 'due' | 'released' | 'ours' | 'over';

/** One run of another member, which has pushes in hand. */
export interface Keeper {
  readonly name: string;
  readonly run: bigint;
}

/** What only a push in a cluster has. */
export class Copy implements PushIdentity {
  readonly push: QueuedPush;
  readonly fingerprint: string;
  readonly doubt: Doubt;
  readonly key: string;
  readonly lesser: readonly string[];
  readonly slot: number;
  state: CopyState = 'ours';
  /** The member that has it in hand, while the state is `kept`. */
  keeper: Keeper | undefined;
  /** Since when the state has been `waiting`; monotonic ms. */
  since = 0;

  constructor(push: QueuedPush, { fingerprint, doubt, key, lesser, slot }: PushIdentity) {
    this.push = push;
    this.fingerprint = fingerprint;
    this.doubt = doubt;
    this.key = key;
    this.lesser = lesser;
    this.slot = slot;
  }
}

/** The memory that a copy takes besides its push, in bytes: its objects and its places in indexes. */
export const COPY_COST = 240;

/** Bytes of the derived key: the fewest that libsodium's BLAKE2b gives. */
const DERIVED = 16;
const NO_KEYS: readonly string[] = [];

/**
 * Computes the fingerprints of pushes: the same at every hivemind with the same secret, and meaningless to anybody
 * else. They cover what the duplicate filter goes by, so that hiveminds agree on which pushes are the same.
 */
export class PushFingerprints {
  readonly #hash: SipHash;
  readonly #scratch = pushScratch();
  readonly #bytes = Buffer.alloc(8);

  /** @param secret the hivemind's X25519 private key, 32 bytes */
  constructor(secret: Uint8Array) {
    this.#hash = new SipHash(blake2b(DERIVED, secret, Buffer.from('push fingerprint')));
  }

  /**
   * Identifies the push of a message to a device.
   * @param account 33 bytes
   * @param hash the message's
   */
  of(
    service: string,
    serviceId: string,
    account: Uint8Array,
    hash: Uint8Array,
    namespace: number,
    doubt: Doubt,
  ): PushIdentity {
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

/** The lower 32 bits of a fingerprint, for {@link RecentFingerprints}. */
export function lowOf(key: string): number {
  return word(key, 0);
}

/** The upper 32 bits. See {@link lowOf}. */
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
