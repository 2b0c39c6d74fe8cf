import { ACCOUNT_SIZE } from '../../session/account.ts';
import { HashIndex } from './hash-index.ts';
import type { SipHash } from './siphash.ts';

/** Accounts in one chunk: the table grows by whole chunks, and never copies what it has. */
const CHUNK = 16_384;
const CHUNK_BITS = 14;

/**
 * Gives each account a small id, which is reused once the account is gone, and keeps one 32-bit value for it.
 */
export class AccountTable {
  readonly #hash: SipHash;
  readonly #ids = new HashIndex();
  readonly #keys: Buffer[] = [];
  readonly #values: Uint32Array[] = [];
  /** freed ids, linked by the first four bytes of their keys; -1 at the end */
  #free = -1;
  #capacity = 0;
  #soughtBytes: Uint8Array = Buffer.alloc(0);
  #soughtOffset = 0;
  readonly #isSought = (value: number) => this.#equals(value - 1);

  constructor(hash: SipHash) {
    this.#hash = hash;
  }

  get size(): number {
    return this.#ids.size;
  }

  /** All ids are below this. */
  get capacity(): number {
    return this.#capacity;
  }

  /** See {@link HashIndex.expect}. */
  expect(accounts: number): void {
    this.#ids.expect(accounts);
  }

  hash(bytes: Uint8Array, offset: number): number {
    return this.#hash.bytes(bytes, offset, offset + ACCOUNT_SIZE);
  }

  /** The id of the account whose 33 bytes are at `offset`, or -1. @param hash its {@link hash} */
  find(bytes: Uint8Array, offset: number, hash: number): number {
    this.#soughtBytes = bytes;
    this.#soughtOffset = offset;
    return this.#ids.find(hash, this.#isSought) - 1;
  }

  /** Adds an account that is not in the table, with the value 0. @returns its id */
  add(bytes: Uint8Array, offset: number, hash: number): number {
    let id = this.#free;
    if (id < 0) {
      id = this.#capacity++;
      if (id % CHUNK === 0) {
        this.#keys.push(Buffer.alloc(CHUNK * ACCOUNT_SIZE));
        this.#values.push(new Uint32Array(CHUNK));
      }
    } else this.#free = this.keyBytes(id).readInt32LE(this.keyOffset(id));
    const to = this.keyBytes(id);
    const at = this.keyOffset(id);
    for (let n = 0; n < ACCOUNT_SIZE; n++) to[at + n] = bytes[offset + n]!;
    this.#ids.add(hash, id + 1);
    return id;
  }

  remove(id: number, hash: number): void {
    this.#ids.remove(hash, id + 1);
    this.setValue(id, 0);
    this.keyBytes(id).writeInt32LE(this.#free, this.keyOffset(id));
    this.#free = id;
  }

  keyBytes(id: number): Buffer {
    return this.#keys[id >>> CHUNK_BITS]!;
  }

  keyOffset(id: number): number {
    return (id & (CHUNK - 1)) * ACCOUNT_SIZE;
  }

  /** The value of an id; 0 if it is not in use. */
  value(id: number): number {
    const chunk = this.#values[id >>> CHUNK_BITS];
    return chunk === undefined ? 0 : chunk[id & (CHUNK - 1)]!;
  }

  setValue(id: number, value: number): void {
    this.#values[id >>> CHUNK_BITS]![id & (CHUNK - 1)] = value;
  }

  #equals(id: number): boolean {
    const bytes = this.keyBytes(id);
    const at = this.keyOffset(id);
    for (let n = 0; n < ACCOUNT_SIZE; n++)
      if (bytes[at + n] !== this.#soughtBytes[this.#soughtOffset + n]) return false;
    return true;
  }
}
