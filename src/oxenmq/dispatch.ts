/** Takes messages to their handlers: the commands that a socket offers, and who may call them. */

import type { Counters } from './counters.ts';
import type { Link } from './link.ts';
import { type Message, refusalFrames } from './message.ts';
import type { Access, Commands, ErrorWord, Handler, Incoming, Part, Remote } from './remote.ts';

const RANK: { readonly [access in Access]: number } = { none: 0, basic: 1, admin: 2 };

interface Entry {
  readonly allowed: boolean;
  readonly isRequest: boolean;
  readonly handler: Handler;
}

/** Tells the owner of something odd, in words that are harmless to log. */
export type Stray = (reason: string) => void;

export class Dispatch {
  /** By full name, so that a message costs one look-up. */
  readonly #entries = new Map<string, Entry>();
  readonly #counters: Counters;
  readonly #stray: Stray;

  /** @param access what everybody on this socket is granted */
  constructor(commands: Commands, access: Access, counters: Counters, stray: Stray) {
    this.#counters = counters;
    this.#stray = stray;
    for (const [category, { access: needed, commands: offered }] of Object.entries(commands)) {
      for (const [name, { kind, handler }] of Object.entries(offered)) {
        const allowed = RANK[access] >= RANK[needed];
        this.#entries.set(`${category}.${name}`, { allowed, isRequest: kind === 'request', handler });
      }
    }
  }

  /** Whether a call by this name is answered: as a request, or with a refusal. */
  answers(name: string): boolean {
    const entry = this.#entries.get(name);
    return !entry?.allowed || entry.isRequest;
  }

  /**
   * Does what a message asks for, except for greetings, which are the caller's. Never throws.
   *
   * @param frames as the ROUTER received them
   */
  deliver(link: Link, message: Message, frames: Buffer[]): void {
    switch (message.kind) {
      case 'call':
        this.#call(link, message.name, frames);
        break;
      case 'reply':
        if (!link.pending.settle(message.tag, message.parts)) this.#strayReply('a reply to no request');
        break;
      case 'refusal': {
        const { word, tag, name = '' } = message;
        const known = tag ? link.pending.refuse(tag, word) : link.pending.refuseOldest(name, word);
        if (!known) this.#strayReply(`${word} to no request`);
        break;
      }
      case 'garbage':
        this.#counters.garbage++;
        this.#stray(message.reason);
        break;
    }
  }

  /** The order of the checks, and what is answered, are the original's (docs/spec/oxenmq.md, section 6). */
  #call(link: Link, name: string, frames: Buffer[]): void {
    const entry = this.#entries.get(name);
    const tag = entry?.isRequest ? frames[2] : undefined;
    const refusal = refusalOf(entry, tag);
    // Its answer could not be sent, so nothing is done for it.
    if ((tag || refusal) && link.congested) {
      this.#counters.overrun++;
      this.#stray('a peer does not read the answers to its requests');
      return;
    }
    if (!entry || refusal) {
      this.#refuse(link, refusal ?? 'UNKNOWNCOMMAND', name, tag);
      return;
    }
    try {
      const result = entry.handler(new Call(link, frames.slice(tag ? 3 : 2), tag));
      if (result instanceof Promise) result.catch((error: unknown) => this.#handlerFailed(name, error));
    } catch (error) {
      this.#handlerFailed(name, error);
    }
  }

  #refuse(link: Link, word: ErrorWord, name: string, tag: Buffer | undefined): void {
    this.#counters.refusals++;
    this.#stray(`a call was answered with ${word}`);
    link.transmit(refusalFrames(word, name, tag));
  }

  #strayReply(reason: string): void {
    this.#counters.strayReplies++;
    this.#stray(reason);
  }

  #handlerFailed(name: string, error: unknown): void {
    this.#counters.handlerErrors++;
    this.#stray(`the handler of ${name} failed: ${error instanceof Error ? error.message : error}`);
  }
}

function refusalOf(entry: Entry | undefined, tag: Buffer | undefined): ErrorWord | undefined {
  if (!entry) return 'UNKNOWNCOMMAND';
  if (!entry.allowed) return 'FORBIDDEN';
  return entry.isRequest && !tag ? 'NO_REPLY_TAG' : undefined;
}

class Call implements Incoming {
  readonly parts: Buffer[];
  readonly #link: Link;
  #tag: Buffer | undefined;

  constructor(link: Link, parts: Buffer[], tag: Buffer | undefined) {
    this.#link = link;
    this.parts = parts;
    this.#tag = tag;
  }

  get remote(): Remote {
    return this.#link;
  }

  reply(...parts: Part[]): void {
    const tag = this.#tag;
    if (!tag) return;
    this.#tag = undefined;
    this.#link.transmit(['REPLY', tag, ...parts]);
  }
}
