import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { createSecureServer, type Http2ServerRequest } from 'node:http2';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { CA_FILE, serverCertificate } from './certificates.ts';
import { serve, type WebAnswer } from './http.ts';
import { listen } from './listen.ts';
import { type FakeOptions, type FakeProvider, KEEP, Script, Taken } from './script.ts';
import { type AppSubscription, checkVapid, makeSubscription, readPush, webPushError } from './webpush-checks.ts';

/** What an app tells its server about its subscription. */
export interface WebPushInfo {
  readonly endpoint: string;
  readonly p256dh: string;
  readonly auth: string;
}

export interface FakeWebPushOptions extends FakeOptions {
  /** The VAPID key that apps register with; a new one unless given. */
  readonly key?: KeyObject;
}

export interface FakeWebPush extends FakeProvider {
  readonly key: KeyObject;
  readonly script: Script<WebAnswer>;
  /** Connections made since the start. */
  readonly connections: number;
  /** The different VAPID tokens seen since the start. */
  readonly tokens: ReadonlySet<string>;
  /** Registers an app, as its library would; `token` names it among the pushes accepted. */
  subscribe(random: (bytes: number) => Buffer): { readonly token: string; readonly info: WebPushInfo };
  cut(): void;
}

/**
 * A Web Push service with the apps behind it, which decrypt their pushes: HTTP/1.1 and HTTP/2 over TLS, at
 * https://localhost.
 */
export async function startFakeWebPush(options: FakeWebPushOptions = {}): Promise<FakeWebPush> {
  const taken = new Taken(options.keep ?? KEEP);
  const script = new Script<WebAnswer>();
  const subscriptions = new Map<string, AppSubscription>();
  const sockets = new Set<Socket>();
  const tokens = new Set<string>();
  const counters = { requests: 0, connections: 0 };
  const privateKey = options.key ?? generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
  const { x = '', y = '' } = privateKey.export({ format: 'jwk' });
  const point = [Buffer.of(4), Buffer.from(x, 'base64url'), Buffer.from(y, 'base64url')];
  const publicKey = Buffer.concat(point).toString('base64url');

  const look = (request: IncomingMessage | Http2ServerRequest, body: Buffer): WebAnswer => {
    if (request.method !== 'POST') return webPushError(405, 'only POST');
    const [, token = ''] = /^\/wpush\/v2\/([\w-]+)$/.exec(request.url ?? '') ?? [];
    const subscription = subscriptions.get(token);
    if (!subscription) return webPushError(404, 'no such subscription');
    counters.requests++;
    const authorization = String(request.headers.authorization);
    tokens.add(authorization);
    const denied = checkVapid(authorization, publicKey, origin);
    if (denied) return denied;
    const push = readPush(request.headers, body, subscription);
    if (!('payload' in push)) return push;
    const scripted = script.answer(token);
    if (scripted) return scripted;
    taken.add({ ...push, headers: { ...request.headers } });
    return { status: 201, headers: { location: `${origin}/m/${taken.count}`, ttl: String(request.headers.ttl) } };
  };
  const server = createSecureServer({ ...serverCertificate(), allowHTTP1: true });
  server.on('secureConnection', (socket: Socket) => {
    counters.connections++;
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => {});
  });
  server.on('request', (request, response) =>
    serve(request, response, (_text, bytes) => look(request, bytes), options),
  );
  const port = await listen(server, options.port);
  const origin = `https://localhost:${port}`;
  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };

  return Object.assign(counters, {
    port,
    taken,
    script,
    key: privateKey,
    tokens,
    subscribe(random: (bytes: number) => Buffer) {
      const token = random(24).toString('base64url');
      const subscription = makeSubscription(token, random);
      subscriptions.set(token, subscription);
      const { keys, auth } = subscription;
      const info = {
        endpoint: `${origin}/wpush/v2/${token}`,
        p256dh: keys.getPublicKey('base64url'),
        auth: auth.toString('base64url'),
      };
      return { token, info };
    },
    cut,
    async settings(folder: string) {
      const file = join(folder, `vapid-${port}.pem`);
      await writeFile(file, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
      const contact = 'mailto:push@example.org';
      return { vapid_key_file: file, contact, private_endpoints: 'localhost', ca_file: CA_FILE };
    },
    async close() {
      cut();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  });
}
