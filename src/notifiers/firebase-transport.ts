import http2, { type ClientHttp2Stream, type OutgoingHttpHeaders, type SecureClientSessionOptions } from 'node:http2';
import type { Messaging } from 'firebase-admin/messaging';

const GOOGLE = 'https://fcm.googleapis.com';

/**
 * Switches off the retries inside firebase-admin: they hold up a batch of 500 for as long as the slowest of them is told to wait, and ours know
 * more. There is no public switch for it.
 * Throws an Error if the library is not as it was when this was written.
 */
export function withoutRetries(messaging: Messaging): void {
  const { messagingRequestHandler: handler } = messaging as unknown as {
    messagingRequestHandler?: { http2Client?: { retry?: unknown } };
  };
  if (!handler?.http2Client || !('retry' in handler.http2Client)) {
    throw new TypeError('firebase-admin has changed inside: its own retries cannot be switched off');
  }
  handler.http2Client.retry = undefined;
}

interface Detour {
  /** The address of the server in Google's place. */
  readonly to: string | undefined;
  readonly ca: Buffer | undefined;
}

/** Those that hold, the newest last: after a reload there are two for a while, and the library does not say for whom it connects. */
const detours: Detour[] = [];
const original = http2.connect;

/**
 * Stands between firebase-admin and node:http2, for the library has no setting for either:
 * - when Google closes a connection in order, the library never says what became of the requests on it, and a whole batch would have to be sent
 *   once more. Here every request that is closed without an answer fails;
 * - tests send what is meant for Google to another server.
 * @param to the address of that other server
 * @returns what undoes it
 */
export function intercept(to: string | undefined, ca: Buffer | undefined): () => void {
  const detour: Detour = { to, ca };
  detours.push(detour);
  http2.connect = connect as typeof http2.connect;
  return () => {
    const index = detours.indexOf(detour);
    if (index >= 0) detours.splice(index, 1);
    if (detours.length === 0) http2.connect = original;
  };
}

function connect(authority: string | URL, options: SecureClientSessionOptions, ...rest: []) {
  const detour = detours.at(-1);
  if (!detour || String(authority) !== GOOGLE) return original(authority, options, ...rest);
  const { to, ca } = detour;
  const session =
    to === undefined ? original(GOOGLE, options, ...rest) : original(to, { ...options, ...(ca ? { ca } : {}) });
  const request = session.request.bind(session);
  session.request = (headers, ...more) => {
    // The library says `https:`, which Google does not mind, but others do.
    const stream = request({ ...(headers as OutgoingHttpHeaders), ':scheme': 'https' }, ...more);
    failWhenClosed(stream);
    return stream;
  };
  return session;
}

/** Makes a stream that is closed before its answer is complete tell an error, which the library would pass over if it is `aborted`. */
function failWhenClosed(stream: ClientHttp2Stream): void {
  let answered = false;
  let over = false;
  Object.defineProperty(stream, 'aborted', { value: false });
  stream.once('response', () => {
    answered = true;
  });
  // It ends also when it is closed without an answer.
  stream.once('end', () => {
    over = answered;
  });
  stream.once('error', () => {
    over = true;
  });
  stream.once('close', () => {
    if (!over) stream.emit('error', Object.assign(new Error('closed without an answer'), { code: 'ECONNRESET' }));
  });
}
