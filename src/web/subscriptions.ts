import { type Answer, errorAnswer, jsonAnswer } from './answer.ts';
import type { Hivemind, Outcome } from './hivemind.ts';

/** The paths of the plain routes, and the hivemind's commands for them. */
export const ROUTES = { '/subscribe': 'push.subscribe', '/unsubscribe': 'push.unsubscribe' } as const;
export type SubscriptionPath = keyof typeof ROUTES;

export const tooLarge: Answer = errorAnswer(200, 1, 'Invalid request: request too large');
export const bodyMissing: Answer = errorAnswer(200, 1, 'Invalid request: request body missing');

/** Codes of errors that pass by themselves, so that the client should retry (docs/spec/hivemind.md, section 1.1). */
const PASSING = new Set([2, 3, 5]);

/** Seconds after which a client should retry. */
export const RETRY_AFTER = '15';

/**
 * For up to this many elements a front-end error is repeated for each; nobody asks for more, and a reply must not dwarf
 * its request.
 */
const MAX_REPEATED = 1000;
/** Bodies of more bytes than this are not parsed to count their elements. */
const MAX_COUNTED = 8_000;

/**
 * Carries out a POST to /subscribe or /unsubscribe: passes the body on to the hivemind unread, and returns its reply.
 *
 * The status tells the truth (docs/decisions/14): today's Android app takes an element with an `error` as done, and
 * retries only after a status other than 2xx. So an error that passes by itself makes the status 503, with the same
 * JSON and a Retry-After.
 *
 * @param bodyLimit in bytes; clients count on 100,000 (docs/spec/onionreq.md, section 2)
 * @param client who asks, as far as clients can be told apart
 */
export async function subscription(
  hivemind: Hivemind,
  path: SubscriptionPath,
  body: Uint8Array,
  bodyLimit: number,
  client?: string,
): Promise<Answer> {
  if (body.length > bodyLimit) return tooLarge;
  const outcome = await hivemind.ask(ROUTES[path], body, client);
  const answer =
    outcome.kind === 'reply'
      ? jsonAnswer((outcome.passing ?? hasPassingError(outcome.data)) ? 503 : 200, outcome.data)
      : ownAnswer(outcome, body);
  return answer.status === 503 ? { ...answer, headers: { ...answer.headers, 'retry-after': RETRY_AFTER } } : answer;
}

function ownAnswer(outcome: Exclude<Outcome, { kind: 'reply' }>, body: Uint8Array): Answer {
  switch (outcome.kind) {
    case 'away':
    case 'timeout':
      return forEach(body, errorAnswer(503, 3, 'Timeout waiting for push notification backend'));
    case 'busy':
      return forEach(body, errorAnswer(503, 2, 'Too many requests at the moment, try again later'));
    case 'failed':
      return forEach(body, errorAnswer(200, 4, 'An error occured while processing your request'));
  }
}

/**
 * Android sends an array and only accepts an array of the same length, so an array is answered with one. Of a 503 it
 * only reads the status, so long bodies need not be parsed for that, at a time when there is none to spare.
 */
function forEach(body: Uint8Array, answer: Answer): Answer {
  if (answer.status === 503 && body.length > MAX_COUNTED) return answer;
  const length = arrayLength(body);
  if (length === 0 || length > MAX_REPEATED) return answer;
  const element = String(answer.body).trimEnd();
  return { ...answer, body: `[${Array(length).fill(element).join(',')}]\n` };
}

function arrayLength(body: Uint8Array): number {
  const value = parse(body);
  return Array.isArray(value) ? value.length : 0;
}

/** Whether a reply of an original hivemind has an error that passes; one that is not JSON has none. */
function hasPassingError(reply: Buffer): boolean {
  // Almost every reply is a success: no need to parse it.
  if (!reply.includes('"error"')) return false;
  const value = parse(reply);
  return (Array.isArray(value) ? value : [value]).some((element) => PASSING.has(element?.error));
}

function parse(json: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(json.buffer, json.byteOffset, json.length).toString());
  } catch {
    return undefined;
  }
}
