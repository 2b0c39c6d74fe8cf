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
  const { longRuns, hasExponents } = checkShape(text, maxValues);
  // Half a pair can only come from an escape, unless it stands in the text as such.
  const isDoubtful = /\\u[dD][89a-fA-F]/.test(text) || (typeof data === 'string' && !text.isWellFormed());
  const isExact = longRuns.length === 0 && !hasExponents;
  if (isDoubtful || isExact) {
    const value = parse(text);
    if (isDoubtful && !isWellFormed(value)) throw new JsonError('Invalid JSON: half a surrogate pair');
    if (isExact) return value;
  }
  return withExactNumbers(parse(withMarks(text, longRuns)));
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new JsonError(`Invalid JSON: ${error instanceof Error ? error.message : error}`, { cause: error });
  }
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

/**
 * Begins a string that stands for an integer, so that its digits outlive JSON.parse: the second half of a surrogate
 * pair, with which no string of an accepted text begins. A reviver would get the digits, too, but takes several times
 * as long as all the rest.
 */
const MARK = '\udc00';

/** Makes marked strings of long integers. @param runs where there are many digits in a row */
function withMarks(text: string, runs: readonly Run[]): string {
  const pieces: string[] = [];
  let done = 0;
  for (const { start: digits, end } of runs) {
    const start = text.charAt(digits - 1) === '-' ? digits - 1 : digits;
    // Whatever is not an integer in its place stays, so that it is as wrong as before.
    if (!isInteger(text, start, end)) continue;
    pieces.push(text.slice(done, start), '"', MARK, text.slice(start, end), '"');
    done = end;
  }
  pieces.push(text.slice(done));
  return pieces.join('');
}

/** Whether digits, with the sign before them, are a value of their own: no fraction, key, or what JSON forbids. */
function isInteger(text: string, start: number, end: number): boolean {
  VALUE_ENDS.lastIndex = end;
  return (
    /^[[,: \t\n\r]?$/.test(text.charAt(start - 1)) &&
    !/^-?0/.test(text.slice(start, start + 2)) &&
    VALUE_ENDS.test(text)
  );
}

/** What may follow a value that is no key. */
const VALUE_ENDS = /[ \t\n\r]*(?:[,\]}]|$)/y;

/** Puts numbers in the place of marked strings; arrays and objects are changed. @throws JsonError for infinite ones */
function withExactNumbers(value: unknown): unknown {
  if (typeof value === 'string') return value.startsWith(MARK) ? exactNumber(value.slice(MARK.length)) : value;
  if (typeof value === 'number') return finite(value);
  if (Array.isArray(value)) {
    for (let at = 0; at < value.length; at++) value[at] = withExactNumbers(value[at]);
  } else if (typeof value === 'object' && value !== null) {
    const fields = value as Record<string, unknown>;
    for (const key of Object.keys(fields)) fields[key] = withExactNumbers(fields[key]);
  }
  return value;
}

/** @param source digits, perhaps with a sign */
function exactNumber(source: string): number | bigint {
  const rounded = finite(Number(source));
  if (Number.isSafeInteger(rounded)) return rounded;
  const exact = BigInt(source);
  return exact <= MAX_UINT64 && exact >= MIN_INT64 ? exact : rounded;
}

function finite(value: number): number {
  if (!Number.isFinite(value)) throw new JsonError('Invalid JSON: number out of range');
  return value;
}

/** Numbers of fewer digits and without an exponent are exact. */
const MANY_DIGITS = 16;

/** Digits in a row: where they begin, and where they have ended. */
interface Run {
  readonly start: number;
  readonly end: number;
}

/**
 * Checks in the text, before anything is built, how deep it nests and how many values it holds: code that walks a
 * value is recursive, and each value takes time to build.
 *
 * @returns where there are many digits in a row, and whether there are numbers with exponents
 */
function checkShape(text: string, maxValues: number): { longRuns: readonly Run[]; hasExponents: boolean } {
  const longRuns: Run[] = [];
  let hasExponents = false;
  let depth = 0;
  let values = 1;
  let digits = 0;
  for (let at = 0; at <= text.length; at++) {
    const unit = text.charCodeAt(at);
    const isDigit = unit >= 0x30 && unit <= 0x39;
    if (!isDigit && digits >= MANY_DIGITS) longRuns.push({ start: at - digits, end: at });
    if (digits > 0 && (unit === 0x65 || unit === 0x45)) hasExponents = true;
    digits = isDigit ? digits + 1 : 0;
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
  return { longRuns, hasExponents };
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
