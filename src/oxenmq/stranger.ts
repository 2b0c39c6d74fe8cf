/** One client of a {@link PublicListener}, from its first byte to its last. */

import type { Socket } from 'node:net';
import type { Clock, Timer } from '../clock.ts';
import type { ConnectionLimit, LimitedConnection } from '../connection-limit.ts';
import { CURVE_OVERHEAD, CurveServer, MAX_HANDSHAKE } from './curve-server.ts';
import type { KeyPair } from './keys.ts';
import { Link, type Wire } from './link.ts';
import type { Part } from './remote.ts';
import { LINGER } from './socket.ts';
import {
  checkGreeting,
  decodeCommand,
  encodeCommand,
  encodeFrame,
  type Frame,
  GREETING_SIZE,
  greeting,
  Inbox,
  ProtocolError,
  ROUTER_METADATA,
} from './zmtp.ts';

/** How long the handshake may take, in milliseconds. */
const HANDSHAKE_TIMEOUT = 10_000;
/** How long a client may be silent, in milliseconds. */
const IDLE_TIMEOUT = 300_000;
/** The most parts of a message accepted; no client sends more than four. */
const MAX_PARTS = 100;
/** Memory that a part takes besides its bytes. */
const PART = 256;
/** Bytes that may wait in the socket for a client to read them; more waits in its outlet, which is bounded. */
const MAX_UNREAD = 256 * 1024;
/** How many frames of one client are read in one turn of the event loop, so that others get theirs. */
const FRAMES_A_TURN = 100;

export interface StrangerOptions {
  readonly clock: Clock;
  readonly random: (bytes: number) => Buffer;
  /** Makes us a CURVE server with this pair; without it, connections are plain. */
  readonly keys?: KeyPair | undefined;
  /** In bytes, of all parts together. A client that sends more loses its connection. */
  readonly maxMessageSize: number;
  /** How many requests of one client are worked on at a time; while there are as many, we do not read from it. */
  readonly inFlight: number;
}

/** What a client needs of its listener. */
export interface Owner {
  mayShakeHands(network: string): boolean;
  allows(key: Buffer): boolean;
  /** @param frames with the routing id as the first, as from a ROUTER */
  message(stranger: Stranger, frames: Buffer[]): void;
  /** @param reason given if the client was cut off */
  left(stranger: Stranger, reason: string | undefined): void;
}

export class Stranger extends Link {
  readonly limited: LimitedConnection;
  readonly #socket: Socket;
  readonly #route: Buffer;
  readonly #options: StrangerOptions;
  readonly #limit: ConnectionLimit;
  readonly #owner: Owner;
  readonly #curve: CurveServer | undefined;
  readonly #inbox = new Inbox();
  readonly #deadline: Timer;
  #stage: 'greeting' | 'handshake' | 'ready' = 'greeting';
  #parts: Buffer[] = [];
  #partsSize = 0;
  #inFlight = 0;
  /** Reading goes on in the next turn of the event loop. */
  #waiting = false;

  constructor(
    wire: Wire,
    route: Buffer,
    socket: Socket,
    network: string,
    options: StrangerOptions,
    limit: ConnectionLimit,
    owner: Owner,
  ) {
    super(wire, route);
    this.#route = route;
    this.#socket = socket;
    this.#options = options;
    this.#limit = limit;
    this.#owner = owner;
    if (options.keys) this.#curve = new CurveServer(options.keys, options.random);
    const { clock } = options;
    this.limited = {
      network,
      lastActive: clock.monotonic(),
      bytes: 0,
      busy: false,
      close: () => this.close('there are too many connections'),
    };
    this.#deadline = clock.setTimeout(() => this.close('no handshake in time'), HANDSHAKE_TIMEOUT);
    socket.setTimeout(IDLE_TIMEOUT, () => this.close());
    socket.on('error', () => {});
    socket.on('close', () => this.close());
    socket.on('data', (chunk) => {
      this.#inbox.add(chunk);
      this.#read();
    });
    socket.write(greeting(options.keys ? 'CURVE' : 'NULL', options.keys !== undefined));
  }

  /** Work on a request of this client begins; it ends when {@link Stranger.write} sends the answer. */
  begin(): void {
    this.#inFlight++;
    this.limited.busy = true;
  }

  /** Sends a message. Returns libzmq's code for the reason if it was not taken. */
  write(parts: readonly Part[]): 'EAGAIN' | 'EHOSTUNREACH' | undefined {
    if (this.closed) return 'EHOSTUNREACH';
    if (this.#socket.writableLength > MAX_UNREAD) {
      // Now we wait for the client, so it may be closed to make room.
      this.limited.busy = false;
      return 'EAGAIN';
    }
    for (const [index, part] of parts.entries()) {
      const body = typeof part === 'string' ? Buffer.from(part) : part;
      this.#send({ command: false, more: index < parts.length - 1, body });
    }
    // We send a stranger nothing but greetings and answers.
    if (parts[0] !== 'HELLO' && this.#inFlight > 0) this.#answered();
    this.#count();
    return undefined;
  }

  /** @param reason why the client is cut off; none if it went by itself, or the listener closes */
  close(reason?: string): void {
    if (this.closed) return;
    this.#deadline.cancel();
    this.shut(reason === undefined ? 'UNREACHABLE' : 'CLOSED', reason ?? 'the client went');
    this.#limit.release(this.limited);
    if (reason !== undefined) this.#socket.destroy();
    else this.#flush();
    this.#owner.left(this, reason);
  }

  protected override gone(): void {
    this.close();
  }

  /** Lets what was written go out, but does not wait for a client that does not read. */
  #flush(): void {
    if (this.#socket.destroyed) return;
    const late = this.#options.clock.setTimeout(() => this.#socket.destroy(), LINGER);
    this.#socket.once('close', () => late.cancel());
    this.#socket.destroySoon();
  }

  #answered(): void {
    this.#inFlight--;
    this.limited.lastActive = this.#options.clock.monotonic();
    if (this.#inFlight === 0) this.limited.busy = false;
    if (this.#socket.isPaused()) this.#goOn();
  }

  #read(): void {
    try {
      for (let frames = 1; !this.closed && this.#next(); frames++) {
        if (frames >= FRAMES_A_TURN || this.#inFlight >= this.#options.inFlight) {
          this.#socket.pause();
          if (this.#inFlight < this.#options.inFlight) this.#goOn();
          break;
        }
      }
      this.#count();
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.close(error.message);
    }
  }

  /** Tells the limit what this client holds: unfinished messages, and answers that it has not read. */
  readonly #count = (): void => {
    const parts = this.#partsSize + PART * this.#parts.length;
    if (!this.closed) this.#limit.hold(this.limited, this.#inbox.size + parts + this.#socket.writableLength);
  };

  #goOn(): void {
    if (this.#waiting) return;
    this.#waiting = true;
    setImmediate(() => {
      this.#waiting = false;
      if (this.closed) return;
      this.#socket.resume();
      this.#read();
    });
  }

  /** Handles the next greeting or frame; false if it is not complete yet. */
  #next(): boolean {
    if (this.#stage === 'greeting') {
      const bytes = this.#inbox.take(GREETING_SIZE);
      if (!bytes) return false;
      checkGreeting(bytes, this.#curve ? 'CURVE' : 'NULL');
      this.#stage = 'handshake';
      return true;
    }
    const handshake = this.#stage === 'handshake';
    const frame = this.#inbox.frame(handshake ? MAX_HANDSHAKE : this.#options.maxMessageSize + CURVE_OVERHEAD);
    if (!frame) return false;
    if (handshake) this.#shakeHands(frame);
    else this.#take(this.#curve ? this.#curve.decrypt(frame.body) : frame);
    return true;
  }

  #shakeHands({ command, body }: Frame): void {
    if (!command) throw new ProtocolError('a message before the handshake');
    if (!this.#curve) {
      if (decodeCommand(body).name !== 'READY') throw new ProtocolError('READY was expected');
      this.#socket.write(encodeFrame(encodeCommand('READY', ROUTER_METADATA), { command: true }));
    } else {
      const begins = decodeCommand(body).name === 'HELLO';
      if (begins && !this.#owner.mayShakeHands(this.limited.network)) throw new ProtocolError('too many handshakes');
      const { answer, clientKey } = this.#curve.handshake(body, ROUTER_METADATA);
      if (clientKey && !this.#owner.allows(clientKey)) throw new ProtocolError('its key is not admitted');
      this.#socket.write(encodeFrame(answer, { command: true }));
      if (!clientKey) return;
    }
    this.#stage = 'ready';
    this.#deadline.cancel();
    this.limited.lastActive = this.#options.clock.monotonic();
  }

  #take({ command, more, body }: Frame): void {
    if (command) {
      this.#obey(body);
      return;
    }
    this.#partsSize += body.length;
    if (this.#partsSize > this.#options.maxMessageSize) throw new ProtocolError('a message that is too long');
    // A copy, since a view would keep everything that came with it in memory.
    this.#parts.push(this.#curve ? body : Buffer.from(body));
    if (this.#parts.length > MAX_PARTS) throw new ProtocolError('a message of too many parts');
    if (more) return;
    const frames = [this.#route, ...this.#parts];
    this.#parts = [];
    this.#partsSize = 0;
    this.#owner.message(this, frames);
  }

  #obey(body: Buffer): void {
    const { name, data } = decodeCommand(body);
    if (name !== 'PING' || this.#socket.writableLength > MAX_UNREAD) return;
    this.#send({ command: true, more: false, body: encodeCommand('PONG', data.subarray(2, 18)) });
  }

  #send(frame: Omit<Frame, 'body'> & { readonly body: Uint8Array }): void {
    const bytes = this.#curve ? encodeFrame(this.#curve.encrypt(frame)) : encodeFrame(frame.body, frame);
    this.#socket.write(bytes, this.#count);
  }
}
