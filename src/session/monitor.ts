/**
 * monitor.messages: how we ask storage servers to tell us of an account's messages (docs/spec/network.md, section 3).
 */

import { BencodeError, BencodeReader } from '../codec/bencode.ts';
import { ACCOUNT_SIZE } from './account.ts';

/**
 * Error codes of storage servers that say where the account is, not what is wrong with the request
 * (docs/spec/upstream.md, section 1.1).
 */
const WRONG_SWARM = 6;
const NO_SWARM_INFO = 7;

/** The largest `notify.monitor_ended` that is read, in bytes; one that lists a swarm of ten nodes has about 4,200. */
const MAX_ENDED_SIZE = 64 * 1024;

/**
 * How many keys and values of an answer may be skipped: ten nodes of nine keys are 101, and skipping millions would
 * hold up the event loop.
 */
const MAX_VALUES = 400;
/**
 * How many different refusals are kept to recognise repetitions by their bytes, without parsing them: of 2,000 that
 * name the nodes of another swarm, nearly all name the same few.
 */
const KNOWN_REFUSALS = 4;

/** A storage server's answer to one subscription: code 0 if it took it, else the server's own error code and text. */
export interface MonitorResult {
  readonly code: number;
  readonly error?: string;
}

const SUCCESS: MonitorResult = Object.freeze({ code: 0 });
const SUCCESS_BYTES = Buffer.from('d7:successi1ee');

/**
 * Reads a storage server's answer, whose elements are in the order of the request's.
 *
 * @param data the one part of the reply
 * @param expected how many subscriptions the request held
 * @returns as many results; an error of the whole request is repeated for each of them
 * @throws BencodeError if it is no such answer, or holds more or fewer results than were asked for
 */
export function parseMonitorReply(data: Buffer, expected: number): readonly MonitorResult[] {
  const reader = new BencodeReader(data);
  const results: MonitorResult[] = [];
  if (reader.peek() === 'dict') {
    const result = readResult(reader);
    reader.expectDone();
    // A single dictionary answers a single one, or refuses the whole.
    if (expected !== 1 && result.code === 0) throw new BencodeError(`Invalid monitor reply: one for ${expected}`);
    for (let index = 0; index < expected; index++) results.push(result);
    return results;
  }
  reader.enterList();
  const refusals: { bytes: Buffer; result: MonitorResult }[] = [];
  while (!reader.leave()) {
    // Of a million answers nearly all are these same 14 bytes.
    if (reader.accept(SUCCESS_BYTES)) results.push(SUCCESS);
    else results.push(refusals.find(({ bytes }) => reader.accept(bytes))?.result ?? readNew());
    if (results.length > expected) throw new BencodeError(`Invalid monitor reply: more for ${expected}`);
  }
  if (results.length < expected) throw new BencodeError(`Invalid monitor reply: ${results.length} for ${expected}`);
  reader.expectDone();
  return results;

  function readNew(): MonitorResult {
    const start = reader.offset;
    const result = readResult(reader);
    if (refusals.length < KNOWN_REFUSALS) refusals.push({ bytes: data.subarray(start, reader.offset), result });
    return result;
  }
}

/**
 * Whether the server refuses the account because, as far as it knows, the account is not in its own swarm. The answer
 * also says where the account is instead, which is ignored: for that we trust oxend, not a single server.
 */
export function isElsewhere({ code }: MonitorResult): boolean {
  return code === WRONG_SWARM || code === NO_SWARM_INFO;
}

/**
 * Reads `notify.monitor_ended`: the server no longer monitors an account, because it has left the server's swarm.
 *
 * @param parts of the command
 * @returns the 33 bytes of the account, a view
 * @throws BencodeError if it is no such notice
 */
export function parseMonitorEnded(parts: readonly Buffer[]): Buffer {
  const [data] = parts;
  if (!data || parts.length !== 1 || data.length > MAX_ENDED_SIZE) {
    throw new BencodeError('Invalid end of a monitor: expected one part of at most 64 kB');
  }
  const reader = new BencodeReader(data);
  let account: Buffer | undefined;
  let left = MAX_VALUES;
  reader.enterDict();
  while (!reader.leave()) {
    if (reader.key() === '@') account = reader.string();
    else left -= reader.skip(left);
  }
  reader.expectDone();
  if (account?.length !== ACCOUNT_SIZE) throw new BencodeError('Invalid end of a monitor: expected 33 bytes as @');
  return account;
}

function readResult(reader: BencodeReader): MonitorResult {
  let success = false;
  let code = 0;
  let error: string | undefined;
  let left = MAX_VALUES;
  reader.enterDict();
  while (!reader.leave()) {
    if (--left < 0) throw new BencodeError('Invalid monitor reply: a result of too many keys');
    const key = reader.key();
    if (key === 'success') success = reader.safeInteger() !== 0;
    else if (key === 'errcode') code = reader.safeInteger();
    else if (key === 'error') error = reader.string().toString();
    else left -= reader.skip(left);
  }
  if (code !== 0) return error === undefined ? { code } : { code, error };
  if (!success) throw new BencodeError('Invalid monitor reply: neither success nor errcode');
  return SUCCESS;
}
