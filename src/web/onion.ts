import { decryptOnion, encodeV4Response, OnionError, type OnionKeys, parseV4Request } from '../session/onion.ts';
import { type Answer, methodNotAllowed, notFound, options } from './answer.ts';
import type { Hivemind } from './hivemind.ts';
import { ROUTES, type SubscriptionPath, subscription } from './subscriptions.ts';

/** Where service nodes post what clients have encrypted for us. */
export const ONION_PATH = '/oxen/v4/lsrpc';

/**
 * The longest metadata in JSON, outside and inside, in bytes; real ones have a few hundred. The rest of a request costs
 * little per byte, but JSON made to be slow could keep us busy for most of a second.
 */
const MAX_METADATA = 16 * 1024;

/**
 * The longest request that is decrypted, in bytes. The original takes 10 MiB, but no body over 100,000 bytes is useful,
 * and decrypting 10 MiB would hold up everybody else for a tenth of a second.
 */
const MAX_DECRYPTED = 2 * 1024 * 1024;

/** What is needed to carry out an onion request. */
export interface OnionModules {
  readonly hivemind: Hivemind;
  /** The pair of `[keys] onionreq`. */
  readonly onionKeys: OnionKeys;
  /** The longest inner body, in bytes. */
  readonly bodyLimit: number;
  /** The service node that passed the request on, which stands for all clients that come through it. */
  readonly client?: string | undefined;
}

/** What the metrics are told: the inner route and its answer, or why a request got no further. */
export interface OnionReport {
  failed(reason: 'undecryptable' | 'malformed'): void;
  answered(path: string, answer: Answer): void;
}

/** The one answer to whatever does not decrypt, so that nobody learns which step failed. */
export const undecryptable: Answer = {
  status: 400,
  headers: { 'content-type': 'text/plain; charset=utf-8' },
  body: 'Invalid onion request\n',
};

const malformed: Answer = {
  status: 400,
  headers: { 'content-type': 'text/plain; charset=utf-8' },
  body: 'Invalid v4 onion request',
};

/**
 * Carries out an onion request (docs/spec/onionreq.md, sections 4 and 5): decrypts it with our key, carries out the
 * request inside, and encrypts the answer for the client alone. The outer status is 200 whatever the inner one is.
 */
export async function onionRequest(modules: OnionModules, body: Uint8Array, report: OnionReport): Promise<Answer> {
  let request: ReturnType<typeof decryptOnion>;
  try {
    if (body.length > MAX_DECRYPTED) throw new OnionError('too long to be of use');
    checkMetadata(body);
    request = decryptOnion(body, modules.onionKeys);
  } catch (error) {
    if (!(error instanceof OnionError)) throw error;
    report.failed('undecryptable');
    return undecryptable;
  }
  const answer = await inner(modules, request.plaintext, report);
  const plaintext = encodeV4Response({ code: answer.status, headers: answer.headers, body: bytes(answer.body) });
  return { status: 200, headers: { 'content-type': 'application/octet-stream' }, body: request.reply(plaintext) };
}

/** Bounds the outer metadata, which follows the ciphertext, whose length comes first. @throws OnionError */
function checkMetadata(body: Uint8Array): void {
  if (body.length < 4) return;
  const ciphertext = new DataView(body.buffer, body.byteOffset, 4).getUint32(0, true);
  if (body.length - 4 - ciphertext > MAX_METADATA) throw new OnionError('too much metadata');
}

/**
 * Bounds the inner metadata, the first string of a list: `l<length>:`, perhaps with leading zeros.
 *
 * @throws OnionError
 */
function checkInnerMetadata(plaintext: Buffer): void {
  const digits = /^l(\d*)/.exec(plaintext.toString('latin1', 0, 32))?.[1] ?? '';
  if (digits.length > 20 || Number(digits) > MAX_METADATA) throw new OnionError('too much metadata');
}

async function inner(modules: OnionModules, plaintext: Buffer, report: OnionReport): Promise<Answer> {
  let request: ReturnType<typeof parseV4Request>;
  let path: string;
  try {
    checkInnerMetadata(plaintext);
    request = parseV4Request(plaintext);
    path = pathOf(request.endpoint);
  } catch (error) {
    if (!(error instanceof OnionError)) throw error;
    report.failed('malformed');
    return malformed;
  }
  const answer = await route(modules, request.method.toUpperCase(), path, request.body);
  report.answered(path, answer);
  return answer;
}

async function route(modules: OnionModules, method: string, path: string, body: Uint8Array): Promise<Answer> {
  // Nobody needs an onion request within an onion request, so ONION_PATH is unknown in here.
  if (!isSubscriptionPath(path)) return notFound;
  if (method === 'OPTIONS') return options;
  if (method !== 'POST') return methodNotAllowed;
  return await subscription(modules.hivemind, path, body, modules.bodyLimit, modules.client);
}

export function isSubscriptionPath(path: string): path is SubscriptionPath {
  return Object.hasOwn(ROUTES, path);
}

/** The path of an endpoint: without its query, percent escapes decoded, several leading slashes as one. */
function pathOf(endpoint: string): string {
  const query = endpoint.indexOf('?');
  const path = query < 0 ? endpoint : endpoint.slice(0, query);
  return decodeURIComponent(path).replace(/^\/+/, '/');
}

function bytes(body: Uint8Array | string): Uint8Array {
  return typeof body === 'string' ? Buffer.from(body) : body;
}
