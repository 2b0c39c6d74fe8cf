/** The requests of one connection that wait for their replies. */

import { randomBytes } from 'node:crypto';
import type { Clock, Timer } from '../clock.ts';
import { TAG_SIZE } from './message.ts';
import { type ErrorWord, OxenmqError } from './remote.ts';

interface Request {
  readonly name: string;
  readonly timer: Timer;
  readonly resolve: (parts: Buffer[]) => void;
  readonly reject: (error: OxenmqError) => void;
}

/** For how many tags random bytes are drawn at once: a draw costs about 2 µs, whatever its size. */
const DRAWN = 256;
let drawn = Buffer.alloc(0);

function newTag(): Buffer {
  if (drawn.length === 0) drawn = randomBytes(DRAWN * TAG_SIZE);
  const tag = drawn.subarray(0, TAG_SIZE);
  drawn = drawn.subarray(TAG_SIZE);
  return tag;
}

/**
 * Each connection has its own, so a reply counts only on the connection that was asked. The original looks up replies
 * by their tag alone: there, any peer that guesses a tag may answer for another.
 */
export class Pending {
  readonly #clock: Clock;
  /** By tag, the oldest first. */
  readonly #requests = new Map<string, Request>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get size(): number {
    return this.#requests.size;
  }

  /**
   * @param timeout in milliseconds
   * @returns the tag to send, 15 random bytes, and the promise of the reply's parts
   */
  add(name: string, timeout: number): { tag: Buffer; reply: Promise<Buffer[]> } {
    const tag = newTag();
    const key = tag.toString('latin1');
    const { promise, resolve, reject } = Promise.withResolvers<Buffer[]>();
    const timer = this.#clock.setTimeout(() => {
      this.#requests.delete(key);
      reject(new OxenmqError('TIMEOUT', `no reply to ${name} within ${timeout} ms`));
    }, timeout);
    this.#requests.set(key, { name, timer, resolve, reject });
    return { tag, reply: promise };
  }

  /** @returns false if no request waits under this tag: it was answered before, or timed out, or was never sent */
  settle(tag: Buffer, parts: Buffer[]): boolean {
    const request = this.#take(tag.toString('latin1'));
    request?.resolve(parts);
    return request !== undefined;
  }

  /** @returns false if no request waits under this tag */
  refuse(tag: Buffer, word: ErrorWord): boolean {
    return this.#fail(tag.toString('latin1'), word);
  }

  /**
   * Fails the oldest request of this name. A peer that does not know a command cannot know that it was a request, and
   * answers without the tag; the original then waits for its timeout.
   *
   * @returns false if no request of this name waits
   */
  refuseOldest(name: string, word: ErrorWord): boolean {
    for (const [key, request] of this.#requests) {
      if (request.name === name) return this.#fail(key, word);
    }
    return false;
  }

  /** Fails one request that could not be sent. */
  abandon(tag: Buffer, code: 'UNREACHABLE' | 'CLOSED', message: string): void {
    this.#take(tag.toString('latin1'))?.reject(new OxenmqError(code, message));
  }

  failAll(code: 'UNREACHABLE' | 'CLOSED', message: string): void {
    for (const key of [...this.#requests.keys()]) this.#take(key)?.reject(new OxenmqError(code, message));
  }

  #fail(key: string, word: ErrorWord): boolean {
    const request = this.#take(key);
    request?.reject(new OxenmqError(word, `the peer answered ${request.name} with ${word}`));
    return request !== undefined;
  }

  #take(key: string): Request | undefined {
    const request = this.#requests.get(key);
    if (request) {
      this.#requests.delete(key);
      request.timer.cancel();
    }
    return request;
  }
}
