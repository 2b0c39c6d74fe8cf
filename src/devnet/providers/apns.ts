import { generateKeyPairSync } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import {
  constants,
  createSecureServer,
  type Http2Session,
  type IncomingHttpHeaders,
  type ServerHttp2Stream,
} from 'node:http2';
import { join } from 'node:path';
import type { TLSSocket } from 'node:tls';
import { checkToken, KEY, readPush, TEAM, TOPIC } from './apns-checks.ts';
import { APNS_CLIENT_FILE, CA_FILE, serverCertificate } from './certificates.ts';
import { type Endless, pour } from './endless.ts';
import { listen } from './listen.ts';
import { answerWhen, type FakeOptions, type FakeProvider, KEEP, Script, Taken, Tally } from './script.ts';

/** What to answer instead of accepting a push. */
export interface ApnsAnswer {
  readonly status?: number;
  readonly reason?: string;
  /** Unix milliseconds, with 410. */
  readonly timestamp?: number;
  /** Instead of the JSON made of reason and timestamp. */
  readonly body?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** A body that never ends. */
  readonly endless?: Endless;
  /** Never answer. */
  readonly hang?: boolean;
  /** Reset the stream with this HTTP/2 error code. */
  readonly reset?: number;
  /** End the whole connection with GOAWAY and this error code; the stream that asked was not processed. */
  readonly goaway?: number;
  /** Cut the TCP connection. */
  readonly cut?: boolean;
}

export interface FakeApnsOptions extends FakeOptions {
  /** How the notifier identifies itself; `certificate` unless given. */
  readonly auth?: 'certificate' | 'token';
  /** Concurrent streams once a connection's first push was accepted; 1000 unless given. Until then 1, as with Apple. */
  readonly streams?: number;
}

export interface FakeApns extends FakeProvider {
  readonly script: Script<ApnsAnswer>;
  /** Connections made since the start. */
  readonly connections: number;
  /** Resolves when so many requests have been processed since the start. */
  asked(count: number): Promise<void>;
  /** The different provider tokens (JWT) seen since the start. */
  readonly tokens: ReadonlySet<string>;
  /** Ignores higher streams than this one on every present connection. */
  lookUpTo(last: number): void;
  /**
   * Sends GOAWAY on every connection (RFC 9113, section 6.8). What was accepted is still answered; nothing new is
   * processed.
   * @param last the last stream that it names: {@link HIGHEST} to give notice, as Apple does first; unless given, the
   *   highest that was processed
   * @param code the HTTP/2 error code; no error unless given
   */
  goaway(last?: number, code?: number): void;
  /** Resolves when the clients have read what was sent over every present connection. */
  heard(): Promise<void>;
  /** Goes on reading and no longer answers, on every present connection. */
  freeze(): void;
  /** Cuts every connection. */
  cut(): void;
}

/** The highest stream id there can be: a GOAWAY that names it is only a notice. */
export const HIGHEST = 2 ** 31 - 1;
const SHUTDOWN = Buffer.from('{"reason":"Shutdown"}');

interface Connection {
  /** Whether more than one stream at a time was allowed. */
  raised: boolean;
  frozen: boolean;
  /** The highest stream that was processed, and the highest that still would be. */
  processed: number;
  last: number;
}

/** Apple's push service: HTTP/2 over TLS, with Apple's own checks of requests (docs/spec/providers.md, section 1). */
export async function startFakeApns(options: FakeApnsOptions = {}): Promise<FakeApns> {
  const taken = new Taken(options.keep ?? KEEP);
  const script = new Script<ApnsAnswer>();
  const auth = options.auth ?? 'certificate';
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const connections = new Map<Http2Session, Connection>();
  const tokens = new Set<string>();
  const requests = new Tally();
  const counters = { connections: 0 };
  const server = createSecureServer({
    ...serverCertificate(),
    requestCert: auth === 'certificate',
    rejectUnauthorized: false,
    settings: { maxConcurrentStreams: 1 },
  });
  server.on('session', (session) => {
    counters.connections++;
    connections.set(session, { raised: false, frozen: false, processed: 0, last: HIGHEST });
    session.on('close', () => connections.delete(session));
    session.on('error', () => {});
  });

  /** Why Apple would not authenticate this client. */
  const denial = (stream: ServerHttp2Stream, authorization: string | undefined): string | undefined => {
    if (auth === 'certificate') {
      return (stream.session?.socket as TLSSocket | undefined)?.authorized ? undefined : 'BadCertificate';
    }
    const [, token] = /^bearer (.+)$/i.exec(authorization ?? '') ?? [];
    if (!token) return 'MissingProviderToken';
    tokens.add(token);
    return checkToken(token, publicKey);
  };

  const answer = (stream: ServerHttp2Stream, reply: ApnsAnswer, id: string) => {
    if (stream.destroyed || !stream.session || connections.get(stream.session)?.frozen || reply.hang) return;
    if (reply.cut) stream.session.destroy();
    else if (reply.goaway !== undefined) {
      const last = (stream.id ?? 1) - 2;
      stream.session.goaway(reply.goaway, Math.max(last, 0), SHUTDOWN);
      stream.session.destroy();
    } else if (reply.reset !== undefined) stream.close(reply.reset);
    else {
      const { status = 200, reason, timestamp } = reply;
      const body = reply.body ?? (reason === undefined ? '' : JSON.stringify({ reason, timestamp }));
      stream.respond(
        { ':status': status, 'apns-id': id, ...reply.headers },
        { endStream: body === '' && !reply.endless },
      );
      if (reply.endless) pour(stream, reply.endless);
      else if (body !== '') stream.end(body);
    }
  };

  const onRequest = (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, body: Buffer): ApnsAnswer | undefined => {
    const connection = stream.session && connections.get(stream.session);
    const id = stream.id ?? 0;
    // It may be gone by now, or is above the stream that GOAWAY named.
    if (!connection || connection.frozen || id > connection.last) return undefined;
    connection.processed = Math.max(connection.processed, id);
    requests.add();
    const denied = denial(stream, headers.authorization);
    if (denied !== undefined) return { status: 403, reason: denied };
    const push = readPush(headers, body);
    if ('reason' in push) return push;
    const scripted = script.answer(push.device);
    if (scripted) return scripted;
    if (!connection.raised) {
      connection.raised = true;
      stream.session?.settings({ maxConcurrentStreams: options.streams ?? 1000 });
    }
    taken.add({ token: push.device, payload: push.payload, body: push.body, headers: { ...headers } });
    return {};
  };

  server.on('stream', (stream, headers) => {
    const chunks: Buffer[] = [];
    stream.on('error', () => {});
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.on('end', () => {
      // Counted before the answer is sent.
      const reply = onRequest(stream, headers, Buffer.concat(chunks));
      if (!reply) return;
      answerWhen(options, () => answer(stream, reply, String(headers['apns-id'] ?? crypto.randomUUID())));
    });
  });
  const port = await listen(server, options.port);

  return {
    port,
    taken,
    script,
    tokens,
    get requests() {
      return requests.count;
    },
    asked: (count) => requests.reached(count),
    get connections() {
      return counters.connections;
    },
    lookUpTo(last) {
      for (const connection of connections.values()) connection.last = last;
    },
    goaway(last, code = constants.NGHTTP2_NO_ERROR) {
      for (const [session, connection] of connections) {
        if (last === undefined) connection.last = connection.processed;
        // It may be destroyed and its `close` still to come.
        if (!session.destroyed) session.goaway(code, last ?? connection.processed, SHUTDOWN);
      }
    },
    async heard() {
      const ping = (session: Http2Session) => new Promise<void>((resolve) => session.ping(() => resolve()));
      await Promise.all([...connections.keys()].map(ping));
    },
    freeze() {
      for (const connection of connections.values()) connection.frozen = true;
    },
    cut() {
      for (const session of connections.keys()) session.destroy();
    },
    async settings(folder) {
      const common = { identifier: TOPIC, host: '127.0.0.1', port: String(port), ca_file: CA_FILE };
      if (auth === 'certificate') return { ...common, cert_file: APNS_CLIENT_FILE };
      const file = join(folder, `apns-${port}.p8`);
      await writeFile(file, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
      return { ...common, key_file: file, key_id: KEY, team_id: TEAM };
    },
    async close() {
      for (const session of connections.keys()) session.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}
