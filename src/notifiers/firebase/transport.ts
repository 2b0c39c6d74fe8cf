import http2, { type ClientHttp2Stream, type OutgoingHttpHeaders, type SecureClientSessionOptions } from 'node:http2';
import type { Messaging } from 'firebase-admin/messaging';
import type { Clock } from '../../clock.ts';
import { Exchange, outliveGoaway } from '../runtime/exchange.ts';
import type { HttpProxy } from '../runtime/proxy.ts';
import { connectThrough } from '../runtime/tunnel.ts';

/** Milliseconds that Google has for an answer: as many as the library would give it for each piece of one. */
const TIMEOUT = 15_000;
const GOOGLE = 'https://fcm.googleapis.com';

/**
 * Switches off the retries inside firebase-admin: they delay a batch of 500 by the longest wait that any of them was
 * asked for, and ours know more. There is no public switch for it. Throws an Error if the library is not as it was when
 * this was written.
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

/** Where what the library sends to Google goes instead, and how. */
export interface Detour {
  /** The address of a server in Google's place. */
  readonly to: string | undefined;
  readonly ca: Buffer | undefined;
  readonly proxy: HttpProxy | undefined;
  readonly clock: Clock;
}

/**
 * Those that hold, the newest last: after a reload there are two for a while, and the library does not say for whom it
 * connects.
 */
const detours: Detour[] = [];
const original = http2.connect;

/**
 * Stands between firebase-admin and node:http2, for the library has no setting for any of it:
 * - it adds up and unpacks whatever is answered, of any size and for any time, and never says what became of a request
 *   on a connection that Google closes in order: a whole batch would have to be sent once more. It gets to see an
 *   {@link Exchange};
 * - what is meant for Google may have to go through a proxy, and of tests to another server.
 * @returns what undoes it
 */
export function intercept(detour: Detour): () => void {
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
  const { to = GOOGLE, ca, proxy, clock } = detour;
  const session = original(to, {
    ...options,
    ...(ca && { ca }),
    ...(proxy && {
      createConnection: ({ hostname, port }: URL) =>
        connectThrough(
          proxy,
          { host: hostname, port: Number(port) || 443 },
          { ...(ca && { ca }), ALPNProtocols: ['h2'] },
          clock,
        ),
    }),
  });
  outliveGoaway(session);
  const request = session.request.bind(session);
  session.request = (headers, ...more) => {
    // The library says `https:`, which Google does not mind, but others do.
    const stream = request({ ...(headers as OutgoingHttpHeaders), ':scheme': 'https' }, ...more);
    return new Exchange(stream, clock, TIMEOUT) as unknown as ClientHttp2Stream;
  };
  return session;
}
