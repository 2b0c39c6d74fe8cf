import type { IncomingMessage } from 'node:http';
import { createServer } from 'node:https';
import { CA_FILE, serverCertificate } from './certificates.ts';
import { serve, type WebAnswer } from './http.ts';
import { huaweiCode, readPush } from './huawei-checks.ts';
import { listen } from './listen.ts';
import { type FakeOptions, type FakeProvider, KEEP, Script, Taken } from './script.ts';

export interface FakeHuawei extends FakeProvider {
  readonly script: Script<WebAnswer>;
  /** For the OAuth endpoint; the "device" is always `oauth`. */
  readonly oauth: Script<WebAnswer>;
  /** Access tokens given out since the start. */
  readonly tokensGiven: number;
  /** Connections made since the start. */
  readonly connections: number;
  /** Whether the app may send with urgency HIGH; true at first. */
  highAllowed: boolean;
  expireTokens(): void;
  cut(): void;
}

const APP_ID = '100000001';
const APP_SECRET = 'fake-app-secret';

/** Huawei's Push Kit, v1 API, and Huawei's OAuth endpoint: HTTP/1.1 over TLS, kept alive. */
export async function startFakeHuawei(options: FakeOptions = {}): Promise<FakeHuawei> {
  const taken = new Taken(options.keep ?? KEEP);
  const script = new Script<WebAnswer>();
  const oauth = new Script<WebAnswer>();
  const counters = { requests: 0, tokensGiven: 0, connections: 0 };
  let valid = new Set<string>();

  const giveToken = (request: IncomingMessage, text: string): WebAnswer => {
    const form = new URLSearchParams(text);
    const good =
      /^application\/x-www-form-urlencoded\b/.test(request.headers['content-type'] ?? '') &&
      form.get('grant_type') === 'client_credentials' &&
      form.get('client_id') === APP_ID &&
      form.get('client_secret') === APP_SECRET;
    if (!good) return { status: 400, body: { error: 1101, sub_error: 20001, error_description: 'invalid client' } };
    const token = `fake/huawei+token=${++counters.tokensGiven}`;
    valid.add(token);
    return { body: { access_token: token, expires_in: 3600, token_type: 'Bearer' } };
  };
  const push = (request: IncomingMessage, text: string): WebAnswer => {
    counters.requests++;
    const bearer = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1];
    if (!bearer) return huaweiCode('80200001', 'Oauth authentication error', 401);
    if (!valid.has(bearer)) return huaweiCode('80200003', 'Oauth Token expired', 401);
    const message = readPush(request.headers, text);
    if (!('token' in message)) return message;
    const scripted = script.answer(message.token);
    if (scripted) return scripted;
    if (message.urgency === 'HIGH' && !state.highAllowed) {
      return huaweiCode('80300011', 'No permission to send high-priority messages');
    }
    taken.add({ ...message, headers: { ...request.headers } });
    return huaweiCode('80000000');
  };
  const look = (request: IncomingMessage, text: string): WebAnswer => {
    if (request.method !== 'POST') return { status: 405 };
    if (request.url === '/oauth2/v3/token') return oauth.answer('oauth') ?? giveToken(request, text);
    if (request.url === `/v1/${APP_ID}/messages:send`) return push(request, text);
    return { status: 404 };
  };
  const server = createServer({ ...serverCertificate(), keepAliveTimeout: 60_000 }, (request, response) =>
    serve(request, response, (text) => look(request, text), options),
  );
  server.on('secureConnection', () => {
    counters.connections++;
  });
  const port = await listen(server, options.port);

  const state: FakeHuawei = Object.assign(counters, {
    port,
    taken,
    script,
    oauth,
    highAllowed: true,
    expireTokens() {
      valid = new Set();
    },
    cut: () => server.closeAllConnections(),
    async settings() {
      return {
        app_id: APP_ID,
        app_secret: APP_SECRET,
        url: `https://127.0.0.1:${port}`,
        oauth_url: `https://127.0.0.1:${port}/oauth2/v3/token`,
        ca_file: CA_FILE,
      };
    },
    async close() {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  });
  return state;
}
