/**
 * Bencode, as the storage servers, the notifiers and the onion requests speak it. The rules of reading are in
 * bencode-reader.ts; what we write is always canonical.
 */

import { type Bencoded, BencodeError, BencodeReader, MAX_UINT64, MIN_INT64 } from './bencode-reader.ts';

export { type Bencoded, BencodeError, BencodeReader } from './bencode-reader.ts';

/**
 * What {@link encode} takes: safe integers and 64-bit bigints; strings, written as UTF-8; bytes; lists; dictionaries as
 * maps or plain objects, whose keys are latin1 (one byte a character) and whose `undefined` values are left out.
 */
export type Encodable =
  | number
  | bigint
  | string
  | Uint8Array
  | readonly Encodable[]
  | ReadonlyMap<string, Encodable | undefined>
  | { readonly [key: string]: Encodable | undefined };

/**
 * Reads one value, which must be all there is (test/vectors/bencode.json, `decode`).
 *
 * @returns byte strings are views of `data`, not copies
 * @throws BencodeError if the bytes are not bencode, nest too deeply for {@link BencodeReader}, or go on after the
 *   value
 */
export function decode(data: Uint8Array): Bencoded {
  const reader = new BencodeReader(data);
  const value = reader.value();
  reader.expectDone();
  return value;
}

/**
 * Writes a value in canonical form: dictionary keys in byte order (test/vectors/bencode.json, `encode`).
 *
 * @throws BencodeError for a number that is not a safe integer, a bigint of more than 64 bits, or a key with characters
 *   above U+00FF
 */
export function encode(value: Encodable): Buffer {
  // Measured first, so that one buffer is allocated and nothing is copied.
  const out = Buffer.allocUnsafe(sizeOf(value));
  write(out, 0, value);
  return out;
}

const END = 0x65; // e

type Dict = Exclude<Encodable, number | bigint | string | Uint8Array | readonly Encodable[]>;

function sizeOf(value: Encodable): number {
  if (typeof value === 'string') return stringSize(Buffer.byteLength(value));
  if (typeof value === 'number' || typeof value === 'bigint') return integerText(value).length + 2;
  if (value instanceof Uint8Array) return stringSize(value.length);
  let size = 2;
  if (isList(value)) {
    for (const element of value) size += sizeOf(element);
  } else {
    for (const [key, element] of entries(value)) {
      if (element !== undefined) size += stringSize(key.length) + sizeOf(element);
    }
  }
  return size;
}

/** Writes at `at`, and returns where the next byte goes. */
function write(out: Buffer, at: number, value: Encodable): number {
  if (typeof value === 'string') {
    at = writeLength(out, at, Buffer.byteLength(value));
    return at + out.write(value, at);
  }
  if (typeof value === 'number' || typeof value === 'bigint') {
    out[at] = 0x69; // i
    at = writeLatin1(out, at + 1, integerText(value));
    out[at] = END;
    return at + 1;
  }
  if (value instanceof Uint8Array) {
    at = writeLength(out, at, value.length);
    out.set(value, at);
    return at + value.length;
  }
  if (isList(value)) {
    out[at++] = 0x6c; // l
    for (const element of value) at = write(out, at, element);
  } else {
    out[at++] = 0x64; // d
    // Latin1 strings compare by code unit as their bytes do.
    for (const [key, element] of entries(value).sort(([a], [b]) => (a < b ? -1 : 1))) {
      if (element === undefined) continue;
      at = writeLength(out, at, key.length);
      at = writeLatin1(out, at, key);
      at = write(out, at, element);
    }
  }
  out[at] = END;
  return at + 1;
}

function entries(dict: Dict): [string, Encodable | undefined][] {
  return isMap(dict) ? [...dict] : Object.entries(dict);
}

function integerText(value: number | bigint): string {
  if (typeof value === 'number' ? !Number.isSafeInteger(value) : value > MAX_UINT64 || value < MIN_INT64) {
    throw new BencodeError(`Cannot encode ${value}: not an integer of at most 64 bits, or not exact`);
  }
  return value.toString();
}

function stringSize(length: number): number {
  return length.toString().length + 1 + length;
}

function writeLength(out: Buffer, at: number, length: number): number {
  at = writeLatin1(out, at, length.toString());
  out[at] = 0x3a; // :
  return at + 1;
}

/** For texts of a few characters: calling Buffer.write costs far more than it saves on them. */
function writeLatin1(out: Buffer, at: number, text: string): number {
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index);
    if (unit > 0xff) throw new BencodeError('Cannot encode a dictionary key with characters above U+00FF');
    out[at++] = unit;
  }
  return at;
}

// Array.isArray and instanceof do not narrow the readonly types by themselves.
function isList(value: Encodable): value is readonly Encodable[] {
  return Array.isArray(value);
}

function isMap(value: Dict): value is ReadonlyMap<string, Encodable | undefined> {
  return value instanceof Map;
}
