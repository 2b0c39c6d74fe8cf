/**
 * Reading bencode, as the storage servers, the notifiers and the onion requests speak it.
 *
 * The rules are those of oxen-encoding, which every peer of ours runs (test/vectors/bencode.json), not those of
 * BitTorrent: integers fit 64 bits (signed, or unsigned up to 2^64-1), leading zeros and `-0` pass, dictionary keys may
 * come in any order and the first of two equal keys wins.
 */

/**
 * A decoded value. Integers are numbers while those are exact and bigints beyond; dictionary keys are latin1 strings.
 */
export type Bencoded = number | bigint | Buffer | Bencoded[] | Map<string, Bencoded>;

/** Bytes that are not the bencode that was expected, or a value that cannot be written as bencode. */
export class BencodeError extends Error {
  override readonly name = 'BencodeError';
}

/** Lists and dictionaries may be nested this deep; no peer of ours needs more than four. */
const MAX_DEPTH = 256;

const INT = 0x69; // i
const LIST = 0x6c; // l
const DICT = 0x64; // d
const END = 0x65; // e
const COLON = 0x3a;
/** More bytes than this are compared faster by a native call. */
const LONG = 64;
const MINUS = 0x2d;
const ZERO = 0x30;

/** The largest integer there is: unsigned, 64 bits. */
export const MAX_UINT64 = 2n ** 64n - 1n;
/** The smallest integer there is: signed, 64 bits. */
export const MIN_INT64 = -(2n ** 63n);

/** The kind of the value that comes next in a {@link BencodeReader}. */
export type Kind = 'string' | 'integer' | 'list' | 'dict';

/**
 * Reads bencode forwards over one buffer, without copying and without building what nobody asked for: byte strings come
 * as views of the buffer. Every method throws {@link BencodeError} when the bytes are not what it is there to read.
 */
export class BencodeReader {
  readonly #data: Buffer;
  #at: number;

  /**
   * @param data the bytes to read; they must not change while the views handed out are in use
   * @param offset where to begin
   */
  constructor(data: Uint8Array, offset = 0) {
    this.#data = asBuffer(data);
    this.#at = offset;
  }

  /** Where the next byte will be read. */
  get offset(): number {
    return this.#at;
  }

  /** Whether every byte was read. */
  get done(): boolean {
    return this.#at >= this.#data.length;
  }

  /** The kind of what comes next, without reading it. */
  peek(): Kind {
    const byte = this.#data[this.#at];
    if (byte === undefined) throw this.#error('the data ends where a value should be');
    if (isDigit(byte)) return 'string';
    if (byte === INT) return 'integer';
    if (byte === LIST) return 'list';
    if (byte === DICT) return 'dict';
    throw this.#error('expected a value: one of 0-9, i, l, d');
  }

  /** Steps into a list; its elements follow, until {@link leave} says that it is over. */
  enterList(): void {
    if (this.#data[this.#at] !== LIST) throw this.#error('expected a list');
    this.#at++;
  }

  /** Steps into a dictionary; key, value, key, value follow, until {@link leave} says that it is over. */
  enterDict(): void {
    if (this.#data[this.#at] !== DICT) throw this.#error('expected a dictionary');
    this.#at++;
  }

  /** If the list or dictionary that was entered last is over, steps out of it and returns true. */
  leave(): boolean {
    if (this.#data[this.#at] !== END) return false;
    this.#at++;
    return true;
  }

  /** If exactly these bytes come next, goes past them and returns true: for values that come over and over. */
  accept(bytes: Buffer): boolean {
    const end = this.#at + bytes.length;
    if (bytes.length > LONG) {
      if (end > this.#data.length || this.#data.compare(bytes, 0, bytes.length, this.#at, end) !== 0) return false;
      this.#at = end;
      return true;
    }
    for (let at = this.#at, index = 0; at < end; at++, index++) {
      if (this.#data[at] !== bytes[index]) return false;
    }
    this.#at = end;
    return true;
  }

  /** Reads a byte string, as a view. */
  string(): Buffer {
    const length = this.#length();
    const start = this.#at;
    this.#at = start + length;
    return this.#data.subarray(start, this.#at);
  }

  /** Reads a byte string that is expected to be short, such as a key, as latin1 text. */
  key(): string {
    const length = this.#length();
    const start = this.#at;
    this.#at = start + length;
    return this.#data.toString('latin1', start, this.#at);
  }

  /** Reads an integer of at most 64 bits: a number where that is exact, else a bigint. */
  integer(): number | bigint {
    const data = this.#data;
    if (data[this.#at] !== INT) throw this.#error('expected an integer');
    let at = this.#at + 1;
    const negative = data[at] === MINUS;
    if (negative) at++;
    const start = at;
    let value = 0;
    for (; ; at++) {
      const byte = data[at];
      if (byte === undefined || !isDigit(byte)) break;
      value = value * 10 + (byte - ZERO);
    }
    if (at === start || data[at] !== END) throw this.#error('expected the digits of an integer and an e');
    // Sums of more than 2^53 have been rounded: read those again, exactly. The first test keeps a megabyte of digits
    // from becoming a bigint.
    if (value > Number.MAX_SAFE_INTEGER) {
      if (value > Number(MAX_UINT64)) throw this.#error('integer of more than 64 bits');
      const digits = BigInt(data.toString('latin1', start, at));
      const exact = negative ? -digits : digits;
      if (exact > MAX_UINT64 || exact < MIN_INT64) throw this.#error('integer of more than 64 bits');
      this.#at = at + 1;
      return exact;
    }
    this.#at = at + 1;
    return negative && value !== 0 ? -value : value;
  }

  /** Reads an integer that must lie between `min` and `max`, which are safe integers. */
  safeInteger(min = Number.MIN_SAFE_INTEGER, max = Number.MAX_SAFE_INTEGER): number {
    const start = this.#at;
    const value = this.integer();
    // A bigint is beyond all safe integers.
    if (value < min || value > max) {
      this.#at = start;
      throw this.#error(`expected an integer from ${min} to ${max}`);
    }
    return Number(value);
  }

  /**
   * In a dictionary: goes forward to `key` and past it, so that its value comes next. Keys that sort before it are
   * skipped with their values. Returns false, and stays in front of it, at the first key that sorts after `key`, or at
   * the end of the dictionary. Keys out of order are thus not found, as with oxen-encoding's `skip_until`.
   *
   * @param key one ASCII character
   */
  find(key: string): boolean {
    const data = this.#data;
    const wanted = key.charCodeAt(0);
    for (;;) {
      const start = this.#at;
      if (data[start] === END) return false;
      const length = this.#length();
      const first = length === 0 ? Number.NEGATIVE_INFINITY : data[this.#at]!;
      if (first > wanted || (first === wanted && length > 1)) {
        this.#at = start;
        return false;
      }
      this.#at += length;
      if (first === wanted) return true;
      this.skip();
    }
  }

  /**
   * Goes past the next value, whatever it is, checking its form. Nesting is limited to {@link MAX_DEPTH}.
   *
   * @param most how many values it may hold, itself included: a value can be as short as two bytes, and each takes time
   * @returns how many it held
   */
  skip(most = Number.MAX_SAFE_INTEGER): number {
    return most - this.#skip(0, most);
  }

  /** Reads the next value, whatever it is. Nesting is limited to {@link MAX_DEPTH}. */
  value(): Bencoded {
    return this.#value(0);
  }

  /** Throws unless every byte was read. */
  expectDone(): void {
    if (!this.done) throw this.#error('data after the end of the value');
  }

  /** @returns how many of the `left` values may still follow */
  #skip(depth: number, left: number): number {
    if (left < 1) throw this.#error('more values than there should be');
    left--;
    const kind = this.peek();
    if (kind === 'string') this.#skipString();
    else if (kind === 'integer') this.integer();
    else {
      if (depth >= MAX_DEPTH) throw this.#error('nested too deeply');
      this.#at++;
      while (!this.leave()) {
        if (kind === 'dict') this.#skipString();
        left = this.#skip(depth + 1, left);
      }
    }
    return left;
  }

  #value(depth: number): Bencoded {
    const kind = this.peek();
    if (kind === 'string') return this.string();
    if (kind === 'integer') return this.integer();
    if (depth >= MAX_DEPTH) throw this.#error('nested too deeply');
    this.#at++;
    if (kind === 'list') {
      const list: Bencoded[] = [];
      while (!this.leave()) list.push(this.#value(depth + 1));
      return list;
    }
    const dict = new Map<string, Bencoded>();
    while (!this.leave()) {
      const key = this.key();
      const value = this.#value(depth + 1);
      if (!dict.has(key)) dict.set(key, value);
    }
    return dict;
  }

  #skipString(): void {
    const length = this.#length();
    this.#at += length;
  }

  /** Reads `<digits>:`, and makes sure that as many bytes follow. */
  #length(): number {
    const data = this.#data;
    let at = this.#at;
    let length = 0;
    for (; ; at++) {
      const byte = data[at];
      if (byte === undefined || !isDigit(byte)) break;
      // Rounded, or infinite, where it is far longer than any data.
      length = length * 10 + (byte - ZERO);
    }
    if (at === this.#at) throw this.#error('expected a string');
    if (data[at] !== COLON) throw this.#error('expected a : after the length of a string');
    if (length > data.length - at - 1) throw this.#error('string longer than the data');
    this.#at = at + 1;
    return length;
  }

  #error(text: string): BencodeError {
    return new BencodeError(`Invalid bencode at byte ${this.#at}: ${text}`);
  }
}

function isDigit(byte: number): boolean {
  return byte >= ZERO && byte <= 0x39;
}

function asBuffer(data: Uint8Array): Buffer {
  return Buffer.isBuffer(data) ? data : Buffer.from(data.buffer, data.byteOffset, data.byteLength);
}
