import { slotOf } from '../../../session/slots.ts';
import { blake2b } from '../../../session/sodium.ts';
import { SipHash } from '../../devices/siphash.ts';
import { Doubt } from '../doubt.ts';
import { hashPush, pushScratch } from '../duplicate-filter.ts';

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
