/** The server's side of ZMTP 3.1 (ZeroMQ RFC 37) as bytes, for talking to strangers without libzmq. */

export type Mechanism = 'NULL' | 'CURVE';

/** A peer broke the protocol; the connection has to be closed. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError';
}

export interface Frame {
  /** It belongs to ZMTP itself, not to the application. */
  readonly command: boolean;
  /** Another frame of the same message follows. */
  readonly more: boolean;
  readonly body: Buffer;
}

export const GREETING_SIZE = 64;
const [MORE, LONG, COMMAND] = [1, 2, 4];

/** What each side says first. @param asServer true only for the server of CURVE */
export function greeting(mechanism: Mechanism, asServer: boolean): Buffer {
  const bytes = Buffer.alloc(GREETING_SIZE);
  bytes[0] = 0xff;
  bytes[9] = 0x7f;
  bytes[10] = 3;
  bytes[11] = 1;
  bytes.write(mechanism, 12, 'latin1');
  bytes[32] = asServer ? 1 : 0;
  return bytes;
}

/**
 * @param bytes of {@link GREETING_SIZE}
 * @throws ProtocolError if it is not the greeting of a ZMTP 3 client with this mechanism
 */
export function checkGreeting(bytes: Buffer, mechanism: Mechanism): void {
  const isGreeting = bytes[0] === 0xff && (bytes.readUInt8(9) & 1) === 1 && bytes.readUInt8(10) >= 3;
  if (!isGreeting) throw new ProtocolError('not a greeting of ZMTP 3');
  const offered = bytes.toString('latin1', 12, 32).replace(/\0+$/, '');
  if (offered !== mechanism) throw new ProtocolError(`a security mechanism other than ${mechanism}`);
}

export function encodeFrame(body: Uint8Array, { command = false, more = false } = {}): Buffer {
  const flags = (command ? COMMAND : 0) | (more ? MORE : 0);
  const long = body.length > 255;
  const head = Buffer.alloc(long ? 9 : 2);
  head[0] = flags | (long ? LONG : 0);
  if (long) head.writeUInt32BE(body.length, 5);
  else head[1] = body.length;
  return Buffer.concat([head, body]);
}

/** The body of a command frame: its name, and its data. */
export function encodeCommand(name: string, data: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from([name.length]), Buffer.from(name, 'latin1'), data]);
}

/** @throws ProtocolError if it is not one */
export function decodeCommand(body: Buffer): { name: string; data: Buffer } {
  const length = body[0] ?? 0;
  if (length === 0 || body.length < 1 + length) throw new ProtocolError('a command without a name');
  return { name: body.toString('latin1', 1, 1 + length), data: body.subarray(1 + length) };
}

/** What a ROUTER says about itself when the handshake is over. */
export const ROUTER_METADATA = Buffer.concat([property('Socket-Type', 'ROUTER'), property('Identity', '')]);

function property(name: string, value: string): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(value.length);
  return Buffer.concat([Buffer.from([name.length]), Buffer.from(name), length, Buffer.from(value)]);
}

/** Memory that each chunk takes besides its bytes; a client may send single bytes. */
const CHUNK = 512;

/** Cuts incoming bytes into pieces of the size asked for, and keeps those that are not complete yet. */
export class Inbox {
  #chunks: Buffer[] = [];
  #length = 0;

  /** How much memory the incomplete pieces take, in bytes. */
  get size(): number {
    return this.#length + CHUNK * this.#chunks.length;
  }

  add(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#length += chunk.length;
  }

  /** The next `size` bytes, undefined until all of them are there. */
  take(size: number): Buffer | undefined {
    if (this.#length < size) return undefined;
    const chunk = this.#peek(size);
    if (chunk.length > size) this.#chunks[0] = chunk.subarray(size);
    else this.#chunks.shift();
    this.#length -= size;
    return chunk.subarray(0, size);
  }

  /**
   * The next frame, undefined until it is complete.
   *
   * @param maxSize of its body, in bytes
   * @throws ProtocolError
   */
  frame(maxSize: number): Frame | undefined {
    if (this.#length < 2) return undefined;
    const flags = this.#peek(2).readUInt8();
    if (flags > 7 || (flags & (COMMAND | MORE)) === (COMMAND | MORE)) throw new ProtocolError('not a frame');
    const headSize = flags & LONG ? 9 : 2;
    if (this.#length < headSize) return undefined;
    const head = this.#peek(headSize);
    if (headSize === 9 && head.readUInt32BE(1) !== 0) throw new ProtocolError('a frame that is too long');
    const size = headSize === 9 ? head.readUInt32BE(5) : head.readUInt8(1);
    if (size > maxSize) throw new ProtocolError('a frame that is too long');
    const body = this.take(headSize + size)?.subarray(headSize);
    return body && { command: (flags & COMMAND) !== 0, more: (flags & MORE) !== 0, body };
  }

  /** The first chunk, joined with those after it if it is shorter than `size`. */
  #peek(size: number): Buffer {
    const [first] = this.#chunks;
    if (first && first.length >= size) return first;
    // Copies once a frame, and once more if its head was split: callers know that enough bytes are there.
    const joined = Buffer.concat(this.#chunks);
    this.#chunks = [joined];
    return joined;
  }
}
