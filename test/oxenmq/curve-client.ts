import { randomBytes } from 'node:crypto';
import sodium from 'libsodium-wrappers';
import { type KeyPair, randomKeyPair } from '../../src/oxenmq/keys.ts';

await sodium.ready;

/** What is to differ from an honest client, in one message. */
export type Twist = (bytes: Buffer) => Buffer;

/**
 * The client's side of CURVE (ZeroMQ RFC 26) as bytes: the bodies of command frames. Honest unless told otherwise.
 */
export class CurveClient {
  readonly keys: KeyPair = randomKeyPair();
  readonly transient: KeyPair = randomKeyPair();
  readonly #serverKey: Buffer;
  #serverTransient: Buffer = Buffer.alloc(32);
  #cookie: Buffer = Buffer.alloc(96);

  constructor(serverKey: Buffer) {
    this.#serverKey = serverKey;
  }

  hello(signature: Buffer = Buffer.alloc(64)): Buffer {
    const short = counter(1n);
    const box = seal(signature, `CurveZMQHELLO---`, short, this.#serverKey, this.transient.secretKey);
    const version = Buffer.from([1, 0]);
    return Buffer.concat([name('HELLO'), version, Buffer.alloc(72), this.transient.publicKey, short, box]);
  }

  /** Reads WELCOME. */
  welcomed(welcome: Buffer): void {
    const long = welcome.subarray(8, 24);
    const box = open(welcome.subarray(24), 'WELCOME-', long, this.#serverKey, this.transient.secretKey);
    this.#serverTransient = box.subarray(0, 32);
    this.#cookie = box.subarray(32);
  }

  /** @param twists what is vouched for, the cookie, and all that the box holds, may each be changed */
  initiate({
    metadata = Buffer.alloc(0),
    number = 1n,
    vouched = Buffer.concat([this.transient.publicKey, this.#serverKey]),
    cookie = this.#cookie,
    content = (bytes: Buffer) => bytes,
  }: {
    metadata?: Buffer;
    number?: bigint;
    vouched?: Buffer;
    cookie?: Buffer;
    content?: Twist;
  } = {}): Buffer {
    const long = randomBytes(16);
    const vouch = seal(vouched, 'VOUCH---', long, this.#serverTransient, this.keys.secretKey);
    const whole = content(Buffer.concat([this.keys.publicKey, long, vouch, metadata]));
    const short = counter(number);
    const box = this.#seal(whole, 'CurveZMQINITIATE', short);
    return Buffer.concat([name('INITIATE'), cookie, short, box]);
  }

  /** Opens READY: its number, and the metadata. */
  ready(body: Buffer): { number: bigint; plain: Buffer } {
    return this.#open(body.subarray(6), 'CurveZMQREADY---');
  }

  /** A part of a message. @param flags 1 more parts follow, 2 a command */
  message(number: bigint, flags: number, part: Buffer): Buffer {
    const short = counter(number);
    const plain = Buffer.concat([Buffer.from([flags]), part]);
    return Buffer.concat([name('MESSAGE'), short, this.#seal(plain, 'CurveZMQMESSAGEC', short)]);
  }

  /** Opens MESSAGE: its number, and its flags with the part. */
  opened(body: Buffer): { number: bigint; plain: Buffer } {
    return this.#open(body.subarray(8), 'CurveZMQMESSAGES');
  }

  #seal(plain: Buffer, prefix: string, short: Buffer): Buffer {
    return seal(plain, prefix, short, this.#serverTransient, this.transient.secretKey);
  }

  #open(data: Buffer, prefix: string): { number: bigint; plain: Buffer } {
    const short = data.subarray(0, 8);
    const plain = open(data.subarray(8), prefix, short, this.#serverTransient, this.transient.secretKey);
    return { number: short.readBigUInt64BE(), plain };
  }
}

function name(text: string): Buffer {
  return Buffer.from([text.length, ...Buffer.from(text)]);
}

function counter(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(value);
  return bytes;
}

function seal(plain: Buffer, prefix: string, rest: Buffer, theirs: Buffer, ours: Buffer): Buffer {
  return Buffer.from(sodium.crypto_box_easy(plain, Buffer.concat([Buffer.from(prefix), rest]), theirs, ours));
}

function open(box: Buffer, prefix: string, rest: Buffer, theirs: Buffer, ours: Buffer): Buffer {
  return Buffer.from(sodium.crypto_box_open_easy(box, Buffer.concat([Buffer.from(prefix), rest]), theirs, ours));
}
