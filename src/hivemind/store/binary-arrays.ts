/**
 * Arrays as PostgreSQL sends and takes them in its binary format, for a statement's values. As texts, which is what pg
 * makes of an array, byte strings are written in hex and read again: twice the bytes, and on both sides more time than
 * the rest of the statement's way there.
 */

/** What stands in front of the elements: dimensions, whether some are null, their type; their number, the first's. */
const HEAD = 20;
/** The numbers of types that are built in (pg_type.dat). */
const BOOL = 16;
const BYTEA = 17;
const INT8 = 20;
const INT4 = 23;
const TEXT = 25;
const VARCHAR = 1043;

/** A `bytea[]`. */
export function byteaArray(values: readonly (Uint8Array | null)[]): Buffer {
  let size = HEAD + 4 * values.length;
  for (const value of values) size += value?.length ?? 0;
  const array = newArray(BYTEA, size, values);
  let at = HEAD;
  for (const value of values) {
    at = array.writeInt32BE(value?.length ?? -1, at);
    if (value === null) continue;
    array.set(value, at);
    at += value.length;
  }
  return array;
}

/** A `varchar[]`. */
export function varcharArray(values: readonly string[]): Buffer {
  return stringArray(VARCHAR, values);
}

/** A `text[]`. */
export function textArray(values: readonly string[]): Buffer {
  return stringArray(TEXT, values);
}

/** An `int[]`, of integers within 32 bits. */
export function int4Array(values: readonly number[]): Buffer {
  const array = newArray(INT4, HEAD + 8 * values.length, values);
  let at = HEAD;
  for (const value of values) {
    at = array.writeInt32BE(4, at);
    at = array.writeInt32BE(value, at);
  }
  return array;
}

/** A `bigint[]`, of safe integers. */
export function int8Array(values: readonly number[]): Buffer {
  const array = newArray(INT8, HEAD + 12 * values.length, values);
  let at = HEAD;
  for (const value of values) {
    at = array.writeInt32BE(8, at);
    at = array.writeInt32BE(Math.floor(value / 2 ** 32), at);
    at = array.writeUInt32BE(value >>> 0, at);
  }
  return array;
}

/** A `boolean[]`. */
export function boolArray(values: readonly boolean[]): Buffer {
  const array = newArray(BOOL, HEAD + 5 * values.length, values);
  let at = HEAD;
  for (const value of values) {
    at = array.writeInt32BE(1, at);
    at = array.writeUInt8(value ? 1 : 0, at);
  }
  return array;
}

function stringArray(type: number, values: readonly string[]): Buffer {
  let size = HEAD + 4 * values.length;
  for (const value of values) size += Buffer.byteLength(value);
  const array = newArray(type, size, values);
  let at = HEAD;
  for (const value of values) {
    const length = array.write(value, at + 4);
    array.writeInt32BE(length, at);
    at += 4 + length;
  }
  return array;
}

/** An array of one dimension, its elements numbered from 1, of which the head is written. */
function newArray(type: number, size: number, values: readonly unknown[]): Buffer {
  const array = Buffer.allocUnsafe(size);
  array.writeInt32BE(1, 0);
  array.writeInt32BE(values.includes(null) ? 1 : 0, 4);
  array.writeInt32BE(type, 8);
  array.writeInt32BE(values.length, 12);
  array.writeInt32BE(1, 16);
  return array;
}
