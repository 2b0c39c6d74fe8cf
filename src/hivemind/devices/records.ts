import { Arena } from './arena.ts';
import type { DeviceRow, Utf8 } from './device.ts';
import { NamespaceSets } from './namespace-sets.ts';
import type { SipHash } from './siphash.ts';

/**
 * The 32-bit words at the head of a record. First, the next and the previous record in each of the three lists that it
 * is in: of the same account, of the same device, and signed in the same minute.
 */
export const List = { ACCOUNT: 0, DEVICE: 2, TIME: 4 } as const;
export type List = (typeof List)[keyof typeof List];
/** The account's id in {@link AccountTable}. */
const ACCOUNT = 6;
/** Unix seconds. */
const SIGNED_AT = 7;
const CONFIRMED_AT = 8;
/** Number of the service (16 bits), bytes of the service id (16 bits). */
const NAMES = 9;
/** A reference of {@link NamespaceSets}. */
const NAMESPACES = 10;
/** Flags (3 bits), the round it was written in (8 bits), and bytes of the service data + 1, or 0 for none (20 bits). */
const SERVICE_DATA = 11;
const HEAD = 12 * 4;

const HAS_SESSION_KEY = 2 ** 31;
const HAS_SUBACCOUNT = 2 ** 30;
const WANTS_DATA = 2 ** 29;
const ROUND_AT = 20;
const ROUNDS = 2 ** 8;
const LENGTH = 2 ** ROUND_AT - 1;

const ENC_KEY = 32;
const SIGNATURE = 64;
const SESSION_KEY = 32;
const SUBACCOUNT = 64 + 36;

/**
 * Subscriptions in packed memory, each a record of {@link HEAD} bytes, then the encryption key, the signature, the
 * session key, the subaccount's signature and tag, the service id and the service data. About 330 bytes for a Session
 * account and a token of 150 characters.
 */
export class Records {
  readonly #arena = new Arena();
  /** The namespaces that records ask for. */
  readonly sets: NamespaceSets;
  /** The current round, which each record written gets. */
  #round = 0;

  constructor(hash: SipHash) {
    this.sets = new NamespaceSets(this.#arena, hash);
  }

  get reserved(): number {
    return this.#arena.reserved;
  }

  get inUse(): number {
    return this.#arena.inUse;
  }

  /** Begins a new round, so that what is written from now on can be told from what was there before. */
  nextRound(): void {
    this.#round = (this.#round + 1) % ROUNDS;
  }

  /** Whether the record was written in this round. */
  isOfRound(ref: number): boolean {
    return ((this.#word(ref, SERVICE_DATA) >>> ROUND_AT) & (ROUNDS - 1)) === this.#round;
  }

  /**
   * Makes a record, which is to be put into each of the lists.
   *
   * @param confirmedAt unix seconds
   * @param serviceId `row.serviceId` in UTF-8
   * @returns a reference to it, which is good until {@link free}
   */
  write(row: DeviceRow, confirmedAt: number, account: number, service: number, serviceId: Utf8): number {
    const { size } = serviceId;
    const dataSize = row.serviceData?.length ?? 0;
    const length =
      HEAD +
      ENC_KEY +
      SIGNATURE +
      (row.sessionEd25519 ? SESSION_KEY : 0) +
      (row.subaccount ? SUBACCOUNT : 0) +
      size +
      dataSize;
    const ref = this.#arena.alloc(length);
    const words = this.#arena.words(ref);
    const head = this.#arena.offset(ref) / 4;
    words[head + ACCOUNT] = account;
    words[head + SIGNED_AT] = row.signedAt;
    words[head + CONFIRMED_AT] = confirmedAt;
    words[head + NAMES] = (service << 16) | size;
    words[head + NAMESPACES] = this.sets.take(row.namespaces);
    words[head + SERVICE_DATA] =
      (row.serviceData ? dataSize + 1 : 0) +
      this.#round * 2 ** ROUND_AT +
      (row.sessionEd25519 ? HAS_SESSION_KEY : 0) +
      (row.subaccount ? HAS_SUBACCOUNT : 0) +
      (row.wantData ? WANTS_DATA : 0);

    const bytes = this.#arena.bytes(ref);
    let at = this.#arena.offset(ref) + HEAD;
    at = copyBytes(bytes, at, row.encKey, 0, ENC_KEY);
    at = copyBytes(bytes, at, row.signature, 0, SIGNATURE);
    if (row.sessionEd25519) at = copyBytes(bytes, at, row.sessionEd25519, 0, SESSION_KEY);
    if (row.subaccount) {
      at = copyBytes(bytes, at, row.subaccount.signature, 0, 64);
      at = copyBytes(bytes, at, row.subaccount.tag, 0, 36);
    }
    at = copyBytes(bytes, at, serviceId.bytes, serviceId.at, size);
    if (row.serviceData) copyBytes(bytes, at, row.serviceData, 0, dataSize);
    return ref;
  }

  free(ref: number): void {
    this.sets.release(this.namespaces(ref));
    this.#arena.free(ref);
  }

  /** The record after this one in a list; 0 after the last. */
  next(ref: number, list: List): number {
    return this.#word(ref, list);
  }

  /** Puts a record at the front of a list. @param first the list's first record so far, 0 for none */
  link(ref: number, list: List, first: number): void {
    this.#setWord(ref, list, first);
    this.#setWord(ref, list + 1, 0);
    if (first !== 0) this.#setWord(first, list + 1, ref);
  }

  /** Takes a record out of a list. @returns the list's new first record (0 for none) if it was the first, else -1 */
  unlink(ref: number, list: List): number {
    const next = this.#word(ref, list);
    const previous = this.#word(ref, list + 1);
    if (next !== 0) this.#setWord(next, list + 1, previous);
    if (previous === 0) return next;
    this.#setWord(previous, list, next);
    return -1;
  }

  account(ref: number): number {
    return this.#word(ref, ACCOUNT);
  }

  signedAt(ref: number): number {
    return this.#word(ref, SIGNED_AT);
  }

  confirmedAt(ref: number): number {
    return this.#word(ref, CONFIRMED_AT);
  }

  service(ref: number): number {
    return this.#word(ref, NAMES) >>> 16;
  }

  wantsData(ref: number): boolean {
    return (this.#word(ref, SERVICE_DATA) & WANTS_DATA) !== 0;
  }

  hasSessionKey(ref: number): boolean {
    return (this.#word(ref, SERVICE_DATA) & HAS_SESSION_KEY) !== 0;
  }

  hasSubaccount(ref: number): boolean {
    return (this.#word(ref, SERVICE_DATA) & HAS_SUBACCOUNT) !== 0;
  }

  /** The buffer that holds the record; the offsets below are offsets in it. */
  bytes(ref: number): Buffer {
    return this.#arena.bytes(ref);
  }

  encKeyAt(ref: number): number {
    return this.#arena.offset(ref) + HEAD;
  }

  signatureAt(ref: number): number {
    return this.encKeyAt(ref) + ENC_KEY;
  }

  sessionKeyAt(ref: number): number {
    return this.signatureAt(ref) + SIGNATURE;
  }

  /** Where the subaccount's signature (64 bytes) and tag (36) begin. */
  subaccountAt(ref: number): number {
    return this.sessionKeyAt(ref) + (this.hasSessionKey(ref) ? SESSION_KEY : 0);
  }

  /** Whether it was signed by the subaccount with this tag (36 bytes). */
  hasTag(ref: number, tag: Uint8Array): boolean {
    return this.hasSubaccount(ref) && this.#holds(ref, this.subaccountAt(ref) + 64, tag, 36);
  }

  /** Whether its session key is this one (32 bytes). */
  isSessionKey(ref: number, key: Uint8Array): boolean {
    return this.hasSessionKey(ref) && this.#holds(ref, this.sessionKeyAt(ref), key, SESSION_KEY);
  }

  /** The namespaces asked for: a set in {@link sets}. */
  namespaces(ref: number): number {
    return this.#word(ref, NAMESPACES);
  }

  /** Whether both were signed by the same key: by the account itself, or by the same subaccount. */
  sameSigner(a: number, b: number): boolean {
    if (!this.hasSubaccount(a) || !this.hasSubaccount(b)) return this.hasSubaccount(a) === this.hasSubaccount(b);
    const aBytes = this.bytes(a);
    const bBytes = this.bytes(b);
    const aAt = this.subaccountAt(a) + 64;
    const bAt = this.subaccountAt(b) + 64;
    for (let n = 0; n < 36; n++) if (aBytes[aAt + n] !== bBytes[bAt + n]) return false;
    return true;
  }

  serviceIdAt(ref: number): number {
    return this.subaccountAt(ref) + (this.hasSubaccount(ref) ? SUBACCOUNT : 0);
  }

  serviceIdSize(ref: number): number {
    return this.#word(ref, NAMES) & 0xffff;
  }

  // The strings and buffers that the methods below give are copies, and may be kept.

  serviceId(ref: number): string {
    const at = this.serviceIdAt(ref);
    return this.bytes(ref).toString('utf8', at, at + this.serviceIdSize(ref));
  }

  serviceData(ref: number): Buffer | null {
    const size = (this.#word(ref, SERVICE_DATA) & LENGTH) - 1;
    return size < 0 ? null : this.#copy(ref, this.serviceIdAt(ref) + this.serviceIdSize(ref), size);
  }

  encKey(ref: number): Buffer {
    return this.#copy(ref, this.encKeyAt(ref), ENC_KEY);
  }

  /**
   * The first 48 bits of the signature, which stand for it. Two that share them do not occur by chance: somebody would
   * have to try some 2^24 signatures.
   */
  signatureRef(ref: number): number {
    const bytes = this.bytes(ref);
    const at = this.signatureAt(ref);
    const high = (bytes[at]! << 16) | (bytes[at + 1]! << 8) | bytes[at + 2]!;
    return high * 2 ** 24 + ((bytes[at + 3]! << 16) | (bytes[at + 4]! << 8) | bytes[at + 5]!);
  }

  /** The whole row, copied. */
  row(ref: number, account: Buffer, service: string): DeviceRow {
    const subaccountAt = this.subaccountAt(ref);
    return {
      account,
      sessionEd25519: this.hasSessionKey(ref) ? this.#copy(ref, this.sessionKeyAt(ref), SESSION_KEY) : null,
      subaccount: this.hasSubaccount(ref)
        ? { signature: this.#copy(ref, subaccountAt, 64), tag: this.#copy(ref, subaccountAt + 64, 36) }
        : null,
      signature: this.#copy(ref, this.signatureAt(ref), SIGNATURE),
      signedAt: this.signedAt(ref),
      wantData: this.wantsData(ref),
      encKey: this.encKey(ref),
      service,
      serviceId: this.serviceId(ref),
      serviceData: this.serviceData(ref),
      namespaces: this.sets.list(this.namespaces(ref)),
    };
  }

  #holds(ref: number, at: number, sought: Uint8Array, size: number): boolean {
    const bytes = this.bytes(ref);
    for (let n = 0; n < size; n++) if (bytes[at + n] !== sought[n]) return false;
    return true;
  }

  #word(ref: number, word: number): number {
    return this.#arena.words(ref)[this.#arena.offset(ref) / 4 + word]!;
  }

  #setWord(ref: number, word: number, value: number): void {
    this.#arena.words(ref)[this.#arena.offset(ref) / 4 + word] = value;
  }

  #copy(ref: number, at: number, size: number): Buffer {
    const copy = Buffer.allocUnsafe(size);
    this.bytes(ref).copy(copy, 0, at, at + size);
    return copy;
  }
}

/** Copies `size` bytes. A loop is faster than `copy` for few. @returns the offset after them */
export function copyBytes(to: Buffer, at: number, from: Buffer, start: number, size: number): number {
  if (size > 100) from.copy(to, at, start, start + size);
  else for (let n = 0; n < size; n++) to[at + n] = from[start + n]!;
  return at + size;
}
