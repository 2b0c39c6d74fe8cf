import { createPublicKey, generateKeyPairSync } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import {
  createSecureServer,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type ServerHttp2Session,
} from 'node:http2';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { CA_FILE, serverCertificate } from './certificates.ts';
import { fcmError, readPush } from './fcm-checks.ts';
import { HTML_PAGE, serve, type WebAnswer } from './http.ts';
import { readJwt } from './jwt.ts';
import { listen } from './listen.ts';
import { type FakeOptions, type FakeProvider, KEEP, Script, Taken } from './script.ts';

export interface FakeFcm extends FakeProvider {
  readonly script: Script<WebAnswer>;
  /** For the OAuth endpoint; the "device" is always `oauth`. */
  readonly oauth: Script<WebAnswer>;
  /** Access tokens given out since the start. */
  readonly tokensGiven: number;
  /** Connections made since the start. */
  readonly connections: number;
  /** Invalidates all access tokens given out so far. */
  expireTokens(): void;
  /** Sends GOAWAY on every connection: what was accepted is still answered, and nothing new is processed. */
  goaway(): void;
  /** Cuts every connection. */
  cut(): void;
}

const PROJECT = 'fake-project';
const EMAIL = `notifier@${PROJECT}.iam.gserviceaccount.com`;
const SCOPE = 'https://www.googleapis.com/auth/firebase.messaging';
const KEY_ID = 'fake-key';
const TOKEN_LIFETIME = 3_600;
/** By how much clocks may differ, seconds. */
const SKEW = 300;

/** Google's Firebase Cloud Messaging, v1 API, and Google's OAuth endpoint: HTTP/2 and 1.1 over TLS. */
export async function startFakeFcm(options: FakeOptions = {}): Promise<FakeFcm> {
  const taken = new Taken(options.keep ?? KEEP);
  const script = new Script<WebAnswer>();
  const oauth = new Script<WebAnswer>();
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const publicKey = createPublicKey(privateKey);
  const sockets = new Set<Socket>();
  const sessions = new Set<ServerHttp2Session>();
  const counters = { requests: 0, tokensGiven: 0, connections: 0 };
  let valid = new Set<string>();
  const server = createSecureServer({
    ...serverCertificate(),
    allowHTTP1: true,
    settings: { maxConcurrentStreams: 100 },
  });
  server.on('secureConnection', (socket: Socket) => {
    counters.connections++;
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => {});
  });
  server.on('session', (session) => {
    sessions.add(session);
    session.on('close', () => sessions.delete(session));
    session.on('error', () => {});
  });

  const giveToken = (form: string): WebAnswer => {
    const fields = new URLSearchParams(form);
    const jwt = readJwt(fields.get('assertion') ?? '', publicKey);
    const [now, iat, exp] = [Date.now() / 1000, Number(jwt?.claims.iat), Number(jwt?.claims.exp)];
    const good =
      fields.get('grant_type') === 'urn:ietf:params:oauth:grant-type:jwt-bearer' &&
      jwt?.header.alg === 'RS256' &&
      jwt.header.kid === KEY_ID &&
      jwt.claims.iss === EMAIL &&
      jwt.claims.scope === SCOPE &&
      jwt.claims.aud === `https://127.0.0.1:${port}/token` &&
      iat <= now + SKEW &&
      exp > now &&
      exp - iat <= TOKEN_LIFETIME;
    if (!good) return { status: 400, body: { error: 'invalid_grant', error_description: 'Invalid JWT' } };
    const token = `fake-access-token-${++counters.tokensGiven}`;
    valid.add(token);
    return { body: { access_token: token, expires_in: TOKEN_LIFETIME, token_type: 'Bearer' } };
  };
  const push = (request: Http2ServerRequest, text: string): WebAnswer => {
    counters.requests++;
    const bearer = /^Bearer (.+)$/.exec(String(request.headers.authorization))?.[1];
    if (!bearer || !valid.has(bearer)) return fcmError(401, 'UNAUTHENTICATED');
    const message = readPush(request.headers, text);
    if (!('token' in message)) return message;
    const scripted = script.answer(message.token);
    if (scripted) return scripted;
    taken.add({ ...message, headers: { ...request.headers } });
    return { body: { name: `projects/${PROJECT}/messages/${taken.count}` } };
  };
  const look = (request: Http2ServerRequest, text: string): WebAnswer => {
    if (request.method !== 'POST') return fcmError(404, 'NOT_FOUND');
    if (request.url === '/token') return oauth.answer('oauth') ?? giveToken(text);
    if (request.url === `/v1/projects/${PROJECT}/messages:send`) return push(request, text);
    return { status: 404, body: HTML_PAGE };
  };
  server.on('request', (request: Http2ServerRequest, response: Http2ServerResponse) =>
    serve(request, response, (text) => look(request, text), options),
  );
  const port = await listen(server, options.port);
  const cut = () => {
    for (const session of sessions) session.destroy();
    for (const socket of sockets) socket.destroy();
  };

  return Object.assign(counters, {
    port,
    taken,
    script,
    oauth,
    expireTokens() {
      valid = new Set();
    },
    goaway() {
      for (const session of sessions) if (!session.destroyed) session.goaway();
    },
    cut,
    async settings(folder: string) {
      const file = join(folder, `firebase-${port}.json`);
      const account = {
        type: 'service_account',
        project_id: PROJECT,
        private_key_id: KEY_ID,
        private_key: privateKey.export({ type: 'pkcs8', format: 'pem' }),
        client_email: EMAIL,
        token_uri: `https://127.0.0.1:${port}/token`,
      };
      await writeFile(file, JSON.stringify(account, null, 2), { mode: 0o600 });
      return { token_file: file, url: `https://127.0.0.1:${port}`, ca_file: CA_FILE };
    },
    async close() {
      cut();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  });
}
