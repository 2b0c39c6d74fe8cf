/**
 * Byte strings written as text: hex, base64 and base32z, each read as strictly as the original reads it.
 */

/** A text that should hold a byte string and does not. */
export class BytesError extends Error {
  override readonly name = 'BytesError';
}

/**
 * Reads hex digits of either case.
 *
 * @returns undefined if the text has an odd length or anything but hex digits
 */
export function fromHex(text: string): Buffer | undefined {
  // Buffer.from takes some characters beyond ASCII for digits, so the characters are checked here.
  return text.length % 2 === 0 && /^[0-9a-fA-F]*$/.test(text) ? Buffer.from(text, 'hex') : undefined;
}

/**
 * Reads standard base64 (`+` and `/`): with any number of `=` at the end, no whitespace, and with the unused low bits
 * of the last character ignored (test/vectors/bytes-params.json).
 *
 * @returns undefined if it is anything else
 */
export function fromBase64(text: string): Buffer | undefined {
  let length = text.length;
  while (text.charCodeAt(length - 1) === 0x3d) length--;
  if (length % 4 === 1) return undefined;
  // Buffer.from also takes the URL alphabet and skips what it does not know, so the characters are checked here.
  if (!/^[A-Za-z0-9+/]*=*$/.test(text)) return undefined;
  return Buffer.from(text.slice(0, length), 'base64');
}

const BASE32Z = 'ybndrfg8ejkmcpqxot1uwisza345h769';

const BASE32Z_VALUES: ReadonlyMap<string, number> = new Map(
  Array.from(BASE32Z).flatMap((character, value) => [
    [character, value],
    [character.toUpperCase(), value],
  ]),
);

/** Writes z-base-32 in lower case, without padding: 32 bytes become 52 characters. */
export function toBase32z(bytes: Uint8Array): string {
  const padded = Buffer.concat([bytes, Buffer.alloc(1)]);
  let text = '';
  for (let bit = 0; bit < 8 * bytes.length; bit += 5) {
    const pair = padded.readUInt16BE(bit >> 3);
    text += BASE32Z[(pair >> (11 - (bit & 7))) & 31];
  }
  return text;
}

/**
 * Reads z-base-32 of either case; the unused low bits of the last character are ignored, as oxen-encoding does.
 *
 * @returns undefined for other characters, and for a length that no number of bytes encodes to
 */
export function fromBase32z(text: string): Buffer | undefined {
  const length = Math.floor((text.length * 5) / 8);
  if (Math.ceil((length * 8) / 5) !== text.length) return undefined;
  const bytes = Buffer.alloc(length);
  let at = 0;
  let bits = 0;
  let value = 0;
  for (const character of text) {
    const five = BASE32Z_VALUES.get(character);
    if (five === undefined) return undefined;
    value = ((value << 5) | five) & 0xfff;
    bits += 5;
    if (bits >= 8) {
      bits -= 8;
      bytes[at++] = value >> bits;
    }
  }
  return bytes;
}

/**
 * Reads a byte string of a known size from a JSON string: verbatim (exactly `size` bytes of UTF-8), as hex or as
 * base64, tried in this order (docs/spec/network.md, section 7; test/vectors/bytes-params.json).
 *
 * @param size in bytes
 * @throws BytesError with the original's text, if it is none of them
 */
export function bytesParameter(value: string, size: number): Buffer {
  if (Buffer.byteLength(value) === size) return Buffer.from(value);
  const bytes = (value.length === 2 * size ? fromHex(value) : undefined) ?? fromBase64(value);
  if (bytes?.length !== size) throw new BytesError('Invalid value: expected bytes, hex, or base64');
  return bytes;
}
