/** The server's side of CURVE (ZeroMQ RFC 26), without any socket. */

import { timingSafeEqual } from 'node:crypto';
import sodium from 'libsodium-wrappers';
import type { KeyPair } from './keys.ts';
import { decodeCommand, encodeCommand, type Frame, ProtocolError } from './zmtp.ts';

await sodium.ready;

const MESSAGE = 'MESSAGE';
/** How many bytes the body of an encrypted frame has on top of the part in it: name, counter, tag and flags. */
export const CURVE_OVERHEAD = 1 + MESSAGE.length + 8 + sodium.crypto_box_MACBYTES + 1;
/** The longest INITIATE accepted, in bytes: its metadata is two short properties. */
export const MAX_HANDSHAKE = 1024;
const [MORE, COMMAND] = [1, 2];

type Next = 'HELLO' | 'INITIATE' | 'MESSAGE';

/** One connection's handshake, and then its encryption. Whatever a peer does wrong is thrown as a ProtocolError. */
export class CurveServer {
  readonly #keys: KeyPair;
  readonly #random: (bytes: number) => Buffer;
  readonly #cookie: Buffer;
  #next: Next = 'HELLO';
  /** The keys of this connection alone: the client's public one, and our secret one. */
  #transient: { readonly client: Buffer; readonly secret: Uint8Array } | undefined;
  /** What both sides encrypt with once the handshake is over, and the client's last number. */
  #session: { readonly shared: Uint8Array; received: bigint } | undefined;
  #sent = 0n;

  constructor(keys: KeyPair, random: (bytes: number) => Buffer) {
    this.#keys = keys;
    this.#random = random;
    this.#cookie = random(96);
  }

  /**
   * Takes the next command of the handshake.
   *
   * @param metadata to send in READY
   * @returns the command to answer with and, once the handshake is over, the client's key, which it has proven to hold
   */
  handshake(body: Buffer, metadata: Buffer): { answer: Buffer; clientKey?: Buffer } {
    const { name, data } = decodeCommand(body);
    if (name !== this.#next) throw new ProtocolError(`${this.#next} was expected`);
    return name === 'HELLO' ? { answer: this.#hello(data) } : this.#initiate(data, metadata);
  }

  #hello(data: Buffer): Buffer {
    if (data.length !== 194 || data[0] !== 1 || data[1] !== 0) throw new ProtocolError('no HELLO of CURVE 1.0');
    const client = Buffer.from(data.subarray(74, 106));
    const shared = attempt(() => sodium.crypto_box_beforenm(client, this.#keys.secretKey));
    open(data.subarray(114), nonce('CurveZMQHELLO---', data.subarray(106, 114)), shared);
    const { publicKey, privateKey } = sodium.crypto_box_keypair();
    this.#transient = { client, secret: privateKey };
    this.#next = 'INITIATE';
    const long = this.#random(16);
    const content = Buffer.concat([publicKey, this.#cookie]);
    const box = sodium.crypto_box_easy_afternm(content, nonce('WELCOME-', long), shared);
    return encodeCommand('WELCOME', Buffer.concat([long, box]));
  }

  #initiate(data: Buffer, metadata: Buffer): { answer: Buffer; clientKey: Buffer } {
    if (data.length < 96 + 8 + 16 + 128) throw new ProtocolError('INITIATE is too short');
    if (!timingSafeEqual(data.subarray(0, 96), this.#cookie)) throw new ProtocolError('wrong cookie');
    if (!this.#transient) throw new ProtocolError('HELLO was expected');
    const { client, secret } = this.#transient;
    const shared = attempt(() => sodium.crypto_box_beforenm(client, secret));
    const short = data.subarray(96, 104);
    const content = open(data.subarray(104), nonce('CurveZMQINITIATE', short), shared);
    const clientKey = content.subarray(0, 32);
    const vouched = open(
      content.subarray(48, 128),
      nonce('VOUCH---', content.subarray(32, 48)),
      attempt(() => sodium.crypto_box_beforenm(clientKey, secret)),
    );
    const expected = Buffer.concat([client, this.#keys.publicKey]);
    if (!vouched.equals(expected)) throw new ProtocolError('the vouch is for another connection');
    this.#session = { shared, received: short.readBigUInt64BE() };
    this.#next = 'MESSAGE';
    const counter = this.#count();
    const box = sodium.crypto_box_easy_afternm(metadata, nonce('CurveZMQREADY---', counter), shared);
    return { answer: encodeCommand('READY', Buffer.concat([counter, box])), clientKey: Buffer.from(clientKey) };
  }

  /** Opens the body of a frame after the handshake. */
  decrypt(body: Buffer): Frame {
    const { name, data } = decodeCommand(body);
    if (name !== MESSAGE || data.length < 8 + sodium.crypto_box_MACBYTES + 1) throw new ProtocolError('no MESSAGE');
    const session = this.#established;
    const counter = data.readBigUInt64BE();
    if (counter <= session.received) throw new ProtocolError('a repeated MESSAGE');
    session.received = counter;
    const plain = open(data.subarray(8), nonce('CurveZMQMESSAGEC', data.subarray(0, 8)), session.shared);
    const flags = plain.readUInt8();
    return { command: (flags & COMMAND) !== 0, more: (flags & MORE) !== 0, body: plain.subarray(1) };
  }

  /** The body of the encrypted frame that carries a frame of ours. */
  encrypt({ command, more, body }: Omit<Frame, 'body'> & { readonly body: Uint8Array }): Buffer {
    const flags = (command ? COMMAND : 0) | (more ? MORE : 0);
    const counter = this.#count();
    const plain = Buffer.concat([Buffer.from([flags]), body]);
    const box = sodium.crypto_box_easy_afternm(plain, nonce('CurveZMQMESSAGES', counter), this.#established.shared);
    return encodeCommand(MESSAGE, Buffer.concat([counter, box]));
  }

  get #established() {
    if (!this.#session) throw new ProtocolError('the handshake is not finished');
    return this.#session;
  }

  #count(): Buffer {
    const counter = Buffer.alloc(8);
    counter.writeBigUInt64BE(++this.#sent);
    return counter;
  }
}

function nonce(prefix: string, rest: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from(prefix, 'latin1'), rest]);
}

function open(box: Uint8Array, nonceBytes: Buffer, shared: Uint8Array): Buffer {
  const plain = attempt(() => sodium.crypto_box_open_easy_afternm(box, nonceBytes, shared));
  return Buffer.from(plain.buffer, plain.byteOffset, plain.length);
}

/** libsodium-wrappers throws for a forged box and for a key of small order: that is the peer's fault. */
function attempt<T>(calculation: () => T): T {
  try {
    return calculation();
  } catch {
    throw new ProtocolError('its message cannot be decrypted');
  }
}
