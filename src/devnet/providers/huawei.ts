import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { CA_FILE, serverCertificate } from './certificates.ts';
import { bodyOf, type WebAnswer } from './http.ts';
import { type FakeOptions, type FakeProvider, KEEP, Script, Taken } from './script.ts';

export interface FakeHuawei extends FakeProvider {
  readonly script: Script<WebAnswer>;
  /** For the OAuth endpoint; the "device" is always `oauth`. */
  readonly oauth: Script<WebAnswer>;
  /** Access tokens that were given out, since the start. */
  readonly tokensGiven: number;
  /** Connections that were made, since the start. */
  readonly connections: number;
  /** Whether the app may send with urgency HIGH; true unless set. */
  highAllowed: boolean;
  expireTokens(): void;
  cut(): void;
}

const APP_ID = '100000001';
const APP_SECRET = 'fake-app-secret';
const MAX_BODY = 4096;

/** An answer of Huawei Push Kit: HTTP 200 with a code, unless told otherwise. */
export function huaweiCode(code: string, msg = 'Success', status = 200): WebAnswer {
  return { status, body: { code, msg, requestId: '157440955549500001002006' } };
}

/** Huawei's Push Kit, v1 API, and Huawei's OAuth endpoint: HTTP/1.1 over TLS, kept alive. */
export async function startFakeHuawei(options: FakeOptions = {}): Promise<FakeHuawei> {
  const taken = new Taken(options.keep ?? KEEP);
  const script = new Script<WebAnswer>();
  const oauth = new Script<WebAnswer>();
  const counters = { requests: 0, tokens: 0, connections: 0 };
  let valid = new Set<string>();

  const giveToken = (text: string): WebAnswer => {
    const form = new URLSearchParams(text);
    const good =
      form.get('grant_type') === 'client_credentials' &&
      form.get('client_id') === APP_ID &&
      form.get('client_secret') === APP_SECRET;
    if (!good) return { status: 400, body: { error: 1101, sub_error: 20001, error_description: 'invalid client' } };
    const token = `fake/huawei+token=${++counters.tokens}`;
    valid.add(token);
    return { body: { access_token: token, expires_in: 3600, token_type: 'Bearer' } };
  };
  const push = (request: IncomingMessage, text: string): WebAnswer => {
    counters.requests++;
    // biome-ignore lint/suspicious/noExplicitAny: it is checked right below
    let json: any;
    try {
      json = JSON.parse(text);
    } catch {
      return huaweiCode('80100003', 'Illegal payload');
    }
    const { message } = json;
    const tokens: unknown = message?.token;
    const token = Array.isArray(tokens) ? String(tokens[0]) : '';
    const scripted = script.answer(token);
    if (scripted) return scripted;
    const bearer = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1];
    if (!bearer) return huaweiCode('80200001', 'Oauth authentication error', 401);
    if (!valid.has(bearer)) return huaweiCode('80200003', 'Oauth Token expired', 401);
    if (token === '') return huaweiCode('80100001', 'Parameter error');
    if (text.length - token.length > MAX_BODY)
      return huaweiCode('80300008', 'Message body size exceeds the default value');
    if (message.android?.urgency === 'HIGH' && !state.highAllowed) {
      return huaweiCode('80300011', 'No permission to send high-priority messages');
    }
    if (!/^(HIGH|NORMAL)$/.test(message.android?.urgency) || !/^[1-9]\d*s$/.test(message.android?.ttl)) {
      return huaweiCode('80100001', 'Parameter error');
    }
    const data = JSON.parse(message.data);
    const payload = Buffer.from(data.enc_payload, 'base64');
    taken.add({ token, payload, body: json, headers: { ...request.headers } });
    return huaweiCode('80000000');
  };
  const onRequest = (request: IncomingMessage, response: ServerResponse, text: string) => {
    let answer: WebAnswer;
    if (request.url === '/oauth2/v3/token') answer = oauth.answer('oauth') ?? giveToken(text);
    else if (request.url === `/v1/${APP_ID}/messages:send`) answer = push(request, text);
    else answer = { status: 404 };
    if (answer.hang) return;
    if (answer.cut) {
      request.socket.destroy();
      return;
    }
    const body = bodyOf(answer);
    response.writeHead(answer.status ?? 200, {
      'content-type': body.type,
      'content-length': Buffer.byteLength(body.text),
      ...answer.headers,
    });
    if (answer.truncate) {
      response.write(body.text.slice(0, body.text.length / 2));
      setImmediate(() => request.socket.destroy());
    } else response.end(body.text);
  };
  const server = createServer({ ...serverCertificate(), keepAliveTimeout: 60_000 }, (request, response) => {
    const chunks: Buffer[] = [];
    request.on('error', () => {});
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const act = () => onRequest(request, response, Buffer.concat(chunks).toString());
      if (options.delay) setTimeout(act, options.delay);
      else act();
    });
  });
  server.on('secureConnection', () => {
    counters.connections++;
  });
  server.on('tlsClientError', () => {});
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port ?? 0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as AddressInfo;

  const state: FakeHuawei = {
    port,
    taken,
    script,
    oauth,
    highAllowed: true,
    get requests() {
      return counters.requests;
    },
    get tokensGiven() {
      return counters.tokens;
    },
    get connections() {
      return counters.connections;
    },
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
  };
  return state;
}
