/** JSON as the original's library reads and writes it, where JavaScript's own differs in a way that matters here. */

import { isUtf8 } from 'node:buffer';

/** A text that is not JSON, or is JSON that we do not accept. */
export class JsonError extends Error {
  override readonly name = 'JsonError';
}

/** Arrays and objects may be nested this deep. */
const MAX_DEPTH = 256;

const MAX_UINT64 = 2n ** 64n - 1n;
const MIN_INT64 = -(2n ** 63n);

/**
 * Reads one JSON value, strictly. Integers that a number cannot hold exactly come as bigints if they fit 64 bits (swarm
 * ids do); larger ones are rounded. The last of two equal keys wins. A byte order mark in front of bytes passes.
 *
 * @param data the text, or its bytes in UTF-8
 * @param maxValues how many values, keys included, it may hold at most; reading a megabyte takes 10 to 400 ms,
 *   depending on how many it holds
 * @throws JsonError for anything but one JSON value, for half surrogate pairs, for numbers beyond the range of
 *   a double, for more than 256 levels of arrays and objects, and for more than `maxValues`
 */
export function parseJson(data: string | Uint8Array, maxValues = Number.POSITIVE_INFINITY): unknown {
  const text = typeof data === 'string' ? data : fromUtf8(data);
  const hasLargeNumbers = checkShape(text, maxValues);
  let value: unknown;
  try {
    // A reviver makes parsing several times slower, so it is used only if a number may be too large to be exact.
    value = hasLargeNumbers ? JSON.parse(text, reviveNumber as Reviver) : JSON.parse(text);
  } catch (error) {
    if (error instanceof JsonError) throw error;
    throw new JsonError(`Invalid JSON: ${error instanceof Error ? error.message : error}`, { cause: error });
  }
  // Half a pair can only come from an escape; the text itself came from UTF-8.
  if (/\\u[dD][89a-fA-F]/.test(text) && !isWellFormed(value))
    throw new JsonError('Invalid JSON: half a surrogate pair');
  return value;
}

/**
 * Writes compact JSON with object keys in byte order and non-ASCII characters as they are, which is what the original
 * answers with. `undefined` in an object is left out; bigints are written as integers.
 */
export function stringifySorted(value: unknown): string {
  if (typeof value === 'bigint') return value.toString();
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'null';
  if (Array.isArray(value)) return `[${value.map(stringifySorted).join(',')}]`;
  const fields = value as Record<string, unknown>;
  const members: string[] = [];
  for (const key of sortedByBytes(Object.keys(fields))) {
    if (fields[key] !== undefined) members.push(`${JSON.stringify(key)}:${stringifySorted(fields[key])}`);
  }
  return `{${members.join(',')}}`;
}

/** Each key becomes bytes once, not at every comparison: strangers send objects of ten thousand keys. */
function sortedByBytes(keys: string[]): string[] {
  // UTF-16 units sort as UTF-8 does, except for surrogates and the characters after them.
  if (!keys.some((key) => /[\ud800-\uffff]/.test(key))) return keys.sort();
  const encoded = keys.map((key) => ({ key, bytes: Buffer.from(key) }));
  return encoded.sort((a, b) => Buffer.compare(a.bytes, b.bytes)).map(({ key }) => key);
}

function fromUtf8(data: Uint8Array): string {
  if (!isUtf8(data)) throw new JsonError('Invalid JSON: not UTF-8');
  const text = Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString();
  return text.charCodeAt(0) === 0xfeff ? text.slice(1) : text;
}

/** The library types do not know the third parameter yet. */
type Reviver = (this: unknown, key: string, value: unknown) => unknown;

function reviveNumber(_key: string, value: unknown, context: { source?: string }): unknown {
  if (typeof value !== 'number' || Number.isSafeInteger(value)) return value;
  if (!Number.isFinite(value)) throw new JsonError('Invalid JSON: number out of range');
  const source = context.source ?? '';
  if (!/^-?\d{1,20}$/.test(source)) return value;
  const exact = BigInt(source);
  return exact <= MAX_UINT64 && exact >= MIN_INT64 ? exact : value;
}

/** Numbers of fewer digits and without an exponent are exact. */
const MANY_DIGITS = 16;

/**
 * Checks in the text, before anything is built, how deep it nests and how many values it holds: code that walks a
 * value is recursive, and each value takes time to build.
 *
 * @returns whether there are numbers that may be too large to be exact
 */
function checkShape(text: string, maxValues: number): boolean {
  let depth = 0;
  let values = 1;
  let digits = 0;
  let hasLargeNumbers = false;
  for (let at = 0; at < text.length; at++) {
    const unit = text.charCodeAt(at);
    const isDigit = unit >= 0x30 && unit <= 0x39;
    if (isDigit ? ++digits === MANY_DIGITS : digits > 0 && (unit === 0x65 || unit === 0x45)) hasLargeNumbers = true;
    if (!isDigit) digits = 0;
    if (unit === 0x22) {
      at = endOfString(text, at);
    } else if (unit === 0x5b || unit === 0x7b) {
      if (++depth > MAX_DEPTH) throw new JsonError('Invalid JSON: nested too deeply');
      values++;
    } else if (unit === 0x5d || unit === 0x7d) {
      depth--;
    } else if (unit === 0x2c || unit === 0x3a) {
      values++;
    }
    if (values > maxValues) throw new JsonError('Invalid JSON: too many values');
  }
  return hasLargeNumbers;
}

/** The index of the quote that closes the string whose opening quote is at `at`, or the end of the text. */
function endOfString(text: string, at: number): number {
  for (at++; at < text.length; at++) {
    const unit = text.charCodeAt(at);
    if (unit === 0x22) return at;
    if (unit === 0x5c) at++;
  }
  return at;
}

function isWellFormed(value: unknown): boolean {
  if (typeof value === 'string') return value.isWellFormed();
  if (typeof value !== 'object' || value === null) return true;
  return Object.entries(value).every(([key, member]) => key.isWellFormed() && isWellFormed(member));
}
