/** Reading the dictionaries of known keys in which our own processes talk to each other. */

import { type Bencoded, BencodeError, decode } from '../codec/bencode.ts';

/** The members of a dictionary, each read by its type: a {@link BencodeError} says which one is missing or wrong. */
export class Fields {
  readonly #what: string;
  readonly #dict: ReadonlyMap<string, Bencoded>;

  /**
   * @param what what the message is called in errors
   * @param value must be a dictionary
   */
  constructor(what: string, value: Bencoded) {
    if (!(value instanceof Map)) throw new BencodeError(`Invalid ${what}: expected a dictionary`);
    this.#what = what;
    this.#dict = value;
  }

  /** Decodes a message that is one dictionary. */
  static decode(what: string, data: Uint8Array): Fields {
    return new Fields(what, decode(data));
  }

  /** A view of what was decoded. */
  bytes(key: string): Buffer {
    const value = this.#dict.get(key);
    if (!Buffer.isBuffer(value)) throw this.#error(key, 'bytes');
    return value;
  }

  /** null if there is no such key. */
  optionalBytes(key: string): Buffer | null {
    return this.#dict.has(key) ? this.bytes(key) : null;
  }

  /** UTF-8. */
  text(key: string): string {
    return this.bytes(key).toString();
  }

  /** UTF-8 of 1 to `most` bytes. */
  boundedText(key: string, most: number): string {
    const bytes = this.bytes(key);
    if (bytes.length < 1 || bytes.length > most) throw this.#error(key, `1 to ${most} bytes`);
    return bytes.toString();
  }

  /** A safe integer. */
  integer(key: string): number {
    const value = this.#dict.get(key);
    if (typeof value !== 'number') throw this.#error(key, 'an integer');
    return value;
  }

  /** undefined if there is no such key. */
  optionalInteger(key: string): number | undefined {
    return this.#dict.has(key) ? this.integer(key) : undefined;
  }

  /** Up to 64 bits. */
  wideInteger(key: string): number | bigint {
    const value = this.#dict.get(key);
    if (typeof value !== 'number' && typeof value !== 'bigint') throw this.#error(key, 'an integer');
    return value;
  }

  /** Empty if there is no such key. */
  list(key: string): readonly Bencoded[] {
    const value = this.#dict.get(key) ?? [];
    if (!Array.isArray(value)) throw this.#error(key, 'a list');
    return value;
  }

  /** Empty if there is no such key. */
  integers(key: string): readonly number[] {
    const list = this.list(key);
    if (!list.every((element) => typeof element === 'number')) throw this.#error(key, 'a list of integers');
    return list;
  }

  #error(key: string, expected: string): BencodeError {
    return new BencodeError(`Invalid ${this.#what}: expected ${expected} as ${JSON.stringify(key)}`);
  }
}
