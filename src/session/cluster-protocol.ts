/**
 * What the hiveminds of a cluster say to each other over OxenMQ, category `cluster`, one bencoded part each. No push
 * depends on these messages: if one is lost, a member waits, reads the feed or sends needlessly.
 *
 * - `cluster.hello` (request, answered with another): a {@link Hello}; tells who is at the other end.
 * - `cluster.progress` (request, answered without data): a {@link Progress} of pushes.
 * - `cluster.changed` (command): a {@link Changed}; subscriptions have changed, so the receiver reads the feed.
 * - `cluster.leaving` (command): a {@link Sender} alone; it is about to stop.
 * - `cluster.heard` (command): a {@link Heard}; which storage servers send it notifications.
 */

import { BencodeError, type Encodable, encode } from '../codec/bencode.ts';
import { Fields } from './fields.ts';
import { FINGERPRINT_SIZE } from './notifier-protocol.ts';
import { SLOTS } from './slots.ts';

/** Who sends a message. Each message says so, so that none depends on an earlier one that may have been lost. */
export interface Sender {
  /** The member's name, 1 to {@link MAX_NAME} bytes. */
  readonly name: string;
  /** Tells one run of its process from the next. */
  readonly run: bigint;
}

/** The greeting of a connection, and the answer to it. */
export interface Hello extends Sender {
  /** The version of its program, 1 to {@link MAX_VERSION} bytes. */
  readonly version: string;
}

/**
 * What became of pushes, by their fingerprints: {@link FINGERPRINT_SIZE} bytes each, held as latin1 text. At most
 * {@link MAX_FINGERPRINTS} in each list.
 */
export interface News {
  /** A notifier has them, or will get them when it has room. */
  readonly handed: readonly string[];
  /** They are over: the provider has answered, or they have expired. */
  readonly ended: readonly string[];
  /** The sender will not send them, or not now: it has no notifier for them, or had to give them up. */
  readonly none: readonly string[];
}

/** What became of pushes at the sender. */
export interface Progress extends Sender, News {}

/** In which slots the sender has committed changes of subscriptions. */
export interface Changed extends Sender {
  /** {@link SLOT_BYTES} bytes, a bit for each slot. */
  readonly slots: Buffer;
}

/** A storage server that announced something. */
export interface HeardServer {
  /** Its X25519 public key, 32 bytes. */
  readonly key: Buffer;
  /** The slot of an account that it announced a message for. */
  readonly slot: number;
}

/** From which storage servers the sender recently had notifications that the receiver should have had as well. */
export interface Heard extends Sender {
  /** At most {@link MAX_SERVERS}. */
  readonly servers: readonly HeardServer[];
}

const MAX_NAME = 64;
const MAX_VERSION = 64;
export const MAX_FINGERPRINTS = 4_096;
export const MAX_SERVERS = 4_096;
const SLOT_BYTES = SLOTS / 8;
const KEY_SIZE = 32;

/** Writes the part of `cluster.hello`, and that of its answer. */
export function encodeHello(hello: Hello): Buffer {
  return write(hello, { v: hello.version });
}

/**
 * Reads what {@link encodeHello} wrote.
 *
 * @throws BencodeError if it is no such message
 */
export function decodeHello(data: Uint8Array): Hello {
  const { fields, sender } = read('greeting', data);
  return { ...sender, version: fields.boundedText('v', MAX_VERSION) };
}

/** Writes the part of `cluster.progress`. */
export function encodeProgress(progress: Progress): Buffer {
  const { handed, ended, none } = progress;
  return write(progress, { e: joined(ended), h: joined(handed), n: joined(none) });
}

/**
 * Reads what {@link encodeProgress} wrote.
 *
 * @throws BencodeError if it is no such message
 */
export function decodeProgress(data: Uint8Array): Progress {
  const { fields, sender } = read('progress', data);
  const fingerprints = (key: string): string[] => {
    const text = (fields.optionalBytes(key) ?? Buffer.alloc(0)).toString('latin1');
    const count = countOf('progress', key, text.length, FINGERPRINT_SIZE, MAX_FINGERPRINTS);
    return Array.from({ length: count }, (_, n) => text.slice(n * FINGERPRINT_SIZE, (n + 1) * FINGERPRINT_SIZE));
  };
  return { ...sender, handed: fingerprints('h'), ended: fingerprints('e'), none: fingerprints('n') };
}

/** Writes the part of `cluster.changed`. */
export function encodeChanged(changed: Changed): Buffer {
  return write(changed, { s: changed.slots });
}

/**
 * Reads what {@link encodeChanged} wrote. The slots are a view of `data`.
 *
 * @throws BencodeError if it is no such message
 */
export function decodeChanged(data: Uint8Array): Changed {
  const { fields, sender } = read('hint', data);
  const slots = fields.bytes('s');
  if (slots.length !== SLOT_BYTES) throw new BencodeError(`Invalid hint: slots of ${slots.length} bytes`);
  return { ...sender, slots };
}

/** Writes the part of `cluster.leaving`. */
export function encodeLeaving(sender: Sender): Buffer {
  return write(sender, {});
}

/**
 * Reads what {@link encodeLeaving} wrote.
 *
 * @throws BencodeError if it is no such message
 */
export function decodeLeaving(data: Uint8Array): Sender {
  return read('leaving', data).sender;
}

/** Writes the part of `cluster.heard`. */
export function encodeHeard(heard: Heard): Buffer {
  const { servers } = heard;
  return write(heard, {
    k: Buffer.concat(servers.map(({ key }) => key)),
    s: Buffer.from(servers.map(({ slot }) => slot)),
  });
}

/**
 * Reads what {@link encodeHeard} wrote. The keys are views of `data`.
 *
 * @throws BencodeError if it is no such message
 */
export function decodeHeard(data: Uint8Array): Heard {
  const { fields, sender } = read('report of servers', data);
  const keys = fields.bytes('k');
  const slots = fields.bytes('s');
  const length = countOf('report of servers', 'k', keys.length, KEY_SIZE, MAX_SERVERS);
  if (slots.length !== length) throw new BencodeError(`Invalid report of servers: ${slots.length} bytes as "s"`);
  const servers = Array.from(slots, (slot, n) => ({ key: keys.subarray(n * KEY_SIZE, (n + 1) * KEY_SIZE), slot }));
  return { ...sender, servers };
}

function write({ name, run }: Sender, fields: { readonly [key: string]: Encodable | undefined }): Buffer {
  return encode({ ...fields, m: name, r: run });
}

function read(what: string, data: Uint8Array): { fields: Fields; sender: Sender } {
  const fields = Fields.decode(what, data);
  return { fields, sender: { name: fields.boundedText('m', MAX_NAME), run: BigInt(fields.wideInteger('r')) } };
}

function joined(fingerprints: readonly string[]): Buffer | undefined {
  return fingerprints.length > 0 ? Buffer.from(fingerprints.join(''), 'latin1') : undefined;
}

/** How many elements of `size` bytes `bytes` bytes hold; throws if that is no whole number, or more than `most`. */
function countOf(what: string, key: string, bytes: number, size: number, most: number): number {
  const count = bytes / size;
  if (!Number.isInteger(count) || count > most) {
    throw new BencodeError(`Invalid ${what}: ${bytes} bytes as ${JSON.stringify(key)}`);
  }
  return count;
}
