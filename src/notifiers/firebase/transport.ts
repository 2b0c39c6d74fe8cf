import http2, { type ClientHttp2Stream, type OutgoingHttpHeaders, type SecureClientSessionOptions } from 'node:http2';
import type { Messaging } from 'firebase-admin/messaging';
import type { Clock } from '../../clock.ts';
import { Exchange, outliveGoaway } from '../runtime/exchange.ts';
import type { HttpProxy } from '../runtime/proxy.ts';
import { connectThrough } from '../runtime/tunnel.ts';

/**
 * How long Google may take for an answer, in milliseconds: as long as the library would allow for each piece of one.
 */
const TIMEOUT = 15_000;
const GOOGLE = 'https://fcm.googleapis.com';

/**
 * Switches off the retries inside firebase-admin: they delay a batch of 500 by the longest wait that any message in it
 * was told, and ours know more. There is no public switch for it.
 *
 * @throws TypeError if the library has changed inside
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

/** How to connect to Google in place of the library. */
export interface Detour {
  /** The address of a server in Google's place. */
  readonly to: string | undefined;
  readonly ca: Buffer | undefined;
  readonly proxy: HttpProxy | undefined;
  readonly clock: Clock;
}

/**
 * All detours in force, the newest last: after a reload there are two for a while, and the library does not say for
 * which app it connects.
 */
const detours: Detour[] = [];
const original = http2.connect;

/**
 * Stands between firebase-admin and node:http2, since the library has no settings for this:
 * - it collects and unpacks answers of any size for any time, and never says what became of a request on a connection
 *   that Google closes in order, so that a whole batch would have to be sent again. So it is given an {@link Exchange};
 * - requests to Google may have to go through a proxy, and in tests to another server.
 *
 * @returns a function that undoes it
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
    // The library writes `https:`, which Google accepts but other servers do not.
    const stream = request({ ...(headers as OutgoingHttpHeaders), ':scheme': 'https' }, ...more);
    return new Exchange(stream, clock, TIMEOUT) as unknown as ClientHttp2Stream;
  };
  return session;
}
