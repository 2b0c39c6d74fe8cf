/** OxenMQ's messages as values, without any socket (docs/spec/oxenmq.md, sections 4 to 6). */

import type { ErrorWord, Part } from './remote.ts';

/** The longest name of a command in bytes: 50 for the category, the dot, 200 for the command. */
const MAX_NAME = 251;

/** Bytes of a request's tag. */
export const TAG_SIZE = 15;

/** What one message from a ROUTER says. */
export type Message =
  /** A command or a request: only the receiver's table of commands tells which. */
  | { readonly kind: 'call'; readonly name: string }
  | { readonly kind: 'reply'; readonly tag: Buffer; readonly parts: Buffer[] }
  /** A peer refused something of ours: a request that it knows (`tag`), or anything else (`name`). */
  | { readonly kind: 'refusal'; readonly word: ErrorWord; readonly tag?: Buffer; readonly name?: string }
  | { readonly kind: 'hi' | 'hello' | 'bye' }
  /** libzmq's own notice that the connection came up or broke (ROUTER_NOTIFY); a peer can send the same. */
  | { readonly kind: 'notice' }
  | { readonly kind: 'garbage'; readonly reason: string };

const HI: Message = { kind: 'hi' };
const HELLO: Message = { kind: 'hello' };
const BYE: Message = { kind: 'bye' };
const NOTICE: Message = { kind: 'notice' };

/**
 * Tells what kind of message this is, without reading the parts that are meant for its handler.
 *
 * @param frames as a ROUTER receives them: the routing id, the name, and the rest
 */
export function readMessage(frames: readonly Buffer[]): Message {
  const head = frames[1];
  if (!head || head.length === 0) return frames.length <= 2 ? NOTICE : garbage('no name');
  if (head.length > MAX_NAME) return garbage('name too long');
  const name = head.toString('latin1');
  // A command's name has a dot in it; the words of the protocol itself have none.
  if (name.indexOf('.') > 0) return { kind: 'call', name };
  switch (name) {
    case 'REPLY':
      return frames[2] ? { kind: 'reply', tag: frames[2], parts: frames.slice(3) } : garbage('reply without tag');
    case 'HI':
      return HI;
    case 'HELLO':
      return HELLO;
    case 'BYE':
      return BYE;
    case 'UNKNOWNCOMMAND':
    case 'FORBIDDEN':
    case 'NOT_A_SERVICE_NODE':
    case 'FORBIDDEN_SN':
    case 'NO_REPLY_TAG':
      return readRefusal(name, frames);
    default:
      return garbage('no category');
  }
}

function readRefusal(word: ErrorWord, frames: readonly Buffer[]): Message {
  const [, , what, tag] = frames;
  if (frames.length === 4 && tag && what?.toString('latin1') === 'REPLY') return { kind: 'refusal', word, tag };
  if (frames.length === 3 && what && what.length <= MAX_NAME) {
    return { kind: 'refusal', word, name: what.toString('latin1') };
  }
  return garbage('refusal of nothing');
}

function garbage(reason: string): Message {
  return { kind: 'garbage', reason };
}

/** The frames that refuse a call: with its tag if it is a request that we know, else with its name. */
export function refusalFrames(word: ErrorWord, name: string, tag: Uint8Array | undefined): Part[] {
  // latin1, as it was read: the same bytes go back.
  return tag ? [word, 'REPLY', tag] : [word, Buffer.from(name, 'latin1')];
}
