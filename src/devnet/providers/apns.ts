import { generateKeyPairSync } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import {
  constants,
  createSecureServer,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { TLSSocket } from 'node:tls';
import { APNS_CLIENT_FILE, CA_FILE, serverCertificate } from './certificates.ts';
import { readJwt } from './jwt.ts';
import { type FakeOptions, type FakeProvider, KEEP, Script, Taken } from './script.ts';

/** What to answer in place of taking a push. */
export interface ApnsAnswer {
  readonly status?: number;
  readonly reason?: string;
  /** Unix milliseconds, with 410. */
  readonly timestamp?: number;
  /** In place of the JSON made of reason and timestamp. */
  readonly body?: string;
  readonly headers?: Readonly<Record<string, string>>;
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
  /** Streams at a time, once the first push was taken; 1000 unless given. Until then it is 1, as Apple has it. */
  readonly streams?: number;
}

export interface FakeApns extends FakeProvider {
  readonly script: Script<ApnsAnswer>;
  /** Connections that were made, since the start. */
  readonly connections: number;
  /** Different provider tokens (JWT) that were shown, since the start. */
  readonly tokens: ReadonlySet<string>;
  /** Says goodbye on every connection, as Apple does before maintenance: what is being processed is still answered. */
  goaway(): void;
  /** Takes what comes and answers nothing any more, on every connection there is now. */
  freeze(): void;
  /** Cuts every connection. */
  cut(): void;
}

const TOPIC = 'com.loki-project.loki-messenger';
const TEAM = 'FAKETEAM01';
const KEY = 'FAKEKEY001';
const MAX_BODY = 4096;
const TOKEN_LIFETIME = 3_600;

/** Apple's push service: HTTP/2 over TLS, with Apple's own checks of what is sent (providers: APNs). */
export async function startFakeApns(options: FakeApnsOptions = {}): Promise<FakeApns> {
  const taken = new Taken(options.keep ?? KEEP);
  const script = new Script<ApnsAnswer>();
  const auth = options.auth ?? 'certificate';
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const sessions = new Set<ServerHttp2Session>();
  const frozen = new WeakSet<object>();
  const tokens = new Set<string>();
  const counters = { connections: 0, requests: 0 };
  const server = createSecureServer({
    ...serverCertificate(),
    requestCert: auth === 'certificate',
    rejectUnauthorized: false,
    settings: { maxConcurrentStreams: 1 },
  });
  server.on('session', (session) => {
    counters.connections++;
    sessions.add(session);
    session.on('close', () => sessions.delete(session));
    session.on('error', () => {});
  });
  server.on('tlsClientError', () => {});

  /** Why Apple would not take it: status and reason. */
  const objection = (
    stream: ServerHttp2Stream,
    headers: IncomingHttpHeaders,
    body: Buffer,
  ): [number, string] | undefined => {
    const denied = auth === 'certificate' ? checkCertificate(stream) : checkToken(headers.authorization);
    if (denied) return [403, denied];
    if (headers[':method'] !== 'POST') return [405, 'MethodNotAllowed'];
    const [, device] = /^\/3\/device\/([^/]*)$/.exec(String(headers[':path'])) ?? [];
    if (device === undefined) return [404, 'BadPath'];
    if (!/^[0-9a-f]{64,200}$/i.test(device)) return [400, 'BadDeviceToken'];
    if (body.length === 0) return [400, 'PayloadEmpty'];
    if (body.length > MAX_BODY) return [413, 'PayloadTooLarge'];
    if (!headers['apns-topic']) return [400, 'MissingTopic'];
    if (headers['apns-topic'] !== TOPIC) return [400, 'BadTopic'];
    if (headers['apns-push-type'] !== 'alert') return [400, 'InvalidPushType'];
    if (!/^(1|5|10)$/.test(String(headers['apns-priority']))) return [400, 'BadPriority'];
    if (!/^\d{1,10}$/.test(String(headers['apns-expiration']))) return [400, 'BadExpirationDate'];
    return undefined;
  };
  const checkCertificate = (stream: ServerHttp2Stream) =>
    (stream.session?.socket as TLSSocket | undefined)?.authorized ? undefined : 'BadCertificate';
  const checkToken = (authorization: string | undefined): string | undefined => {
    const [, token] = /^bearer (.+)$/i.exec(authorization ?? '') ?? [];
    if (!token) return 'MissingProviderToken';
    tokens.add(token);
    const jwt = readJwt(token, publicKey);
    if (jwt?.header.kid !== KEY || jwt.header.alg !== 'ES256' || jwt.claims.iss !== TEAM) return 'InvalidProviderToken';
    const age = Date.now() / 1000 - Number(jwt.claims.iat);
    return Math.abs(age) < TOKEN_LIFETIME ? undefined : 'ExpiredProviderToken';
  };

  const answer = (stream: ServerHttp2Stream, reply: ApnsAnswer, id: string) => {
    if (stream.destroyed || (stream.session && frozen.has(stream.session))) return;
    if (reply.hang) return;
    if (reply.cut) stream.session?.destroy();
    else if (reply.goaway !== undefined) {
      const last = (stream.id ?? 1) - 2;
      stream.session?.goaway(reply.goaway, Math.max(last, 0), Buffer.from('{"reason":"Shutdown"}'));
      stream.session?.destroy();
    } else if (reply.reset !== undefined) stream.close(reply.reset);
    else {
      const { status = 200, reason, timestamp } = reply;
      const body = reply.body ?? (reason === undefined ? '' : JSON.stringify({ reason, timestamp }));
      stream.respond({ ':status': status, 'apns-id': id, ...reply.headers }, { endStream: body === '' });
      if (body !== '') stream.end(body);
    }
  };

  const raised = new WeakSet<object>();
  const onRequest = (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, body: Buffer) => {
    counters.requests++;
    const token = String(headers[':path']).slice('/3/device/'.length);
    const id = String(headers['apns-id'] ?? crypto.randomUUID());
    const scripted = script.answer(token);
    if (scripted) return answer(stream, scripted, id);
    const wrong = objection(stream, headers, body);
    if (wrong) return answer(stream, { status: wrong[0], reason: wrong[1] }, id);
    const { session } = stream;
    if (session && !raised.has(session)) {
      raised.add(session);
      session.settings({ maxConcurrentStreams: options.streams ?? 1000 });
    }
    const json = JSON.parse(body.toString());
    taken.add({ token, payload: Buffer.from(json.enc_payload, 'base64'), body: json, headers: { ...headers } });
    return answer(stream, {}, id);
  };

  server.on('stream', (stream, headers) => {
    const chunks: Buffer[] = [];
    stream.on('error', () => {});
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.on('end', () => {
      if (stream.session && frozen.has(stream.session)) return;
      const act = () => onRequest(stream, headers, Buffer.concat(chunks));
      if (options.delay) setTimeout(act, options.delay);
      else act();
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port ?? 0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as AddressInfo;

  return {
    port,
    taken,
    script,
    tokens,
    get requests() {
      return counters.requests;
    },
    get connections() {
      return counters.connections;
    },
    goaway() {
      for (const session of sessions) {
        session.goaway(constants.NGHTTP2_NO_ERROR, undefined, Buffer.from('{"reason":"Shutdown"}'));
        session.close();
      }
    },
    freeze() {
      for (const session of sessions) frozen.add(session);
    },
    cut() {
      for (const session of sessions) session.destroy();
    },
    async settings(folder) {
      const common = { identifier: TOPIC, host: '127.0.0.1', port: String(port), ca_file: CA_FILE };
      if (auth === 'certificate') return { ...common, cert_file: APNS_CLIENT_FILE };
      const file = join(folder, `apns-${port}.p8`);
      await writeFile(file, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
      return { ...common, key_file: file, key_id: KEY, team_id: TEAM };
    },
    async close() {
      for (const session of sessions) session.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}
