import { type ClientHttp2Session, connect, constants, type OutgoingHttpHeaders } from 'node:http2';
import type { ConnectionOptions } from 'node:tls';
import apn from '@parse/node-apn';
import type { Clock } from '../../clock.ts';
import { Exchange, outliveGoaway } from '../runtime/exchange.ts';
import type { HttpProxy } from '../runtime/proxy.ts';
import { connectThrough } from '../runtime/tunnel.ts';
import type { ApnsCredential } from './credential.ts';

/** What the library says about one push: that it was taken, or any of the rest. */
export interface ApnsAnswer {
  readonly taken: boolean;
  readonly status?: number | string;
  readonly reason?: string;
  /** Unix milliseconds, with 410. */
  readonly timestamp?: number;
  readonly error?: Error;
}

/** One HTTP/2 connection to Apple, which is made when first needed, and again after it has broken or fallen silent. */
export interface ApnsClient {
  send(body: string, headers: ApnsHeaders, device: string): Promise<ApnsAnswer>;
  close(): void;
}

export interface ApnsHeaders {
  readonly topic: string;
  /** Unix seconds. */
  readonly expiration: number;
}

export interface ApnsClientOptions {
  readonly host: string;
  readonly port: number;
  readonly ca: Buffer | undefined;
  readonly proxy: HttpProxy | undefined;
  readonly credential: ApnsCredential;
  /** How long a push may take from {@link ApnsClient.send} to its complete answer, in milliseconds. */
  readonly timeout: number;
}

/**
 * The private parts of the library that we use: they make the request, with its headers and tokens, and read the
 * answer. {@link inside} checks that they are still there.
 */
interface Inside {
  config: { token: SharedToken | null } & ConnectionOptions;
  /** The connection that is kept awake with pings and closed at the end. */
  session?: ClientHttp2Session;
  /** @returns Apple's answer; rejects with a {@link Failure} or an Error */
  request(
    session: { request(headers: OutgoingHttpHeaders): unknown },
    authority: string,
    notification: { headers: object; body: string },
    path: string,
    method: 'POST',
  ): Promise<unknown>;
}

interface Failure {
  readonly status?: number | string;
  readonly response?: { readonly reason?: string; readonly timestamp?: number };
  readonly error?: Error;
}

interface SharedToken {
  generation: number;
  regenerate(generation: number): void;
}

/**
 * One of a client's connections. Those that got a GOAWAY live on until the requests on them are answered.
 */
interface Connection {
  readonly session: ClientHttp2Session;
  /** When something last came in on it, by the monotonic clock. */
  heard: number;
  /** The error code of Apple's GOAWAY, if there was one. */
  goaway: number | undefined;
}

/** Apple refuses provider tokens that change more often than every 20 minutes. */
const TOKEN_KEPT = 20 * 60_000;

/**
 * The connections to Apple. They share one provider token, so that it is renewed once for all of them and no more often
 * than Apple allows: if a new token is refused, our clock is wrong, and another one would not help.
 */
export function createClients(count: number, options: ApnsClientOptions, clock: Clock): ApnsClient[] {
  const { host, port, ca, credential } = options;
  const providers = Array.from(
    { length: count },
    () =>
      new apn.Provider({
        address: host,
        port,
        ...(ca ? { ca: [ca] } : {}),
        ...(credential.token ? { token: { ...credential.token } } : {}),
        ...(credential.certificate ? { cert: credential.certificate, key: credential.certificate } : {}),
      }),
  );
  const [first] = providers;
  const token = first && inside(first).config.token;
  if (token) {
    const regenerate = token.regenerate;
    let renewed = Number.NEGATIVE_INFINITY;
    token.regenerate = function (generation) {
      if (clock.monotonic() - renewed < TOKEN_KEPT) return;
      if (generation === this.generation) renewed = clock.monotonic();
      regenerate.call(this, generation);
    };
    for (const provider of providers) inside(provider).config.token = token;
  }
  return providers.map((provider) => createClient(provider, options, clock));
}

/**
 * A client that makes its own connections. The library would destroy a connection at a second GOAWAY, or when Apple
 * answers 500 twice: all pushes that Apple is just answering would be sent again, and ring twice.
 */
function createClient(
  provider: apn.Provider,
  { host, port, proxy, timeout }: ApnsClientOptions,
  clock: Clock,
): ApnsClient {
  const client = inside(provider);
  const connections = new Set<Connection>();
  let current: Connection | undefined;

  const open = (): Connection => {
    const session = connect(`https://${host}:${port}`, {
      // Our credential and whom we trust; its host and port are overridden by the address above.
      ...client.config,
      ...(proxy && {
        createConnection: () =>
          connectThrough(proxy, { host, port }, { ...client.config, ALPNProtocols: ['h2'] }, clock),
      }),
      // Until Apple's SETTINGS arrive it allows only one stream, and refuses further ones.
      peerMaxConcurrentStreams: 1,
    });
    const connection: Connection = { session, heard: clock.monotonic(), goaway: undefined };
    connections.add(connection);
    outliveGoaway(session);
    session.on('goaway', (code) => {
      connection.goaway = code;
    });
    // Ignored: each push on it gets its own error.
    session.on('error', () => {});
    session.on('close', () => connections.delete(connection));
    client.session = session;
    return connection;
  };
  const usable = (): Connection => {
    if (!current || current.session.closed || current.session.destroyed) current = open();
    return current;
  };

  /** Sends over one connection. */
  const ask = async (connection: Connection, body: string, headers: object, device: string) => {
    const asked = clock.monotonic();
    let exchange: Exchange | undefined;
    const request = (given: OutgoingHttpHeaders) => {
      exchange = new Exchange(connection.session.request(given), clock, timeout);
      return exchange;
    };
    let answer: ApnsAnswer;
    try {
      await client.request({ request }, host, { headers, body }, `/3/device/${device}`, 'POST');
      answer = { taken: true };
    } catch (error) {
      answer = readFailure(error instanceof Error ? { error } : (error as Failure), exchange?.status);
    }
    if (exchange?.status !== undefined || !isSilence(answer)) connection.heard = clock.monotonic();
    // If nothing at all came in all this time, the connection is dead.
    else if (connection.heard < asked) connection.session.destroy();
    // Without an exchange the request was never made.
    return { answer, unprocessed: exchange?.unprocessed ?? true };
  };

  return {
    async send(body, { topic, expiration }, device) {
      const note = new apn.Notification();
      note.topic = topic;
      note.pushType = 'alert';
      note.priority = 10;
      note.expiry = expiration;
      const headers = (note as unknown as { headers(): object }).headers();
      const connection = usable();
      const { answer, unprocessed } = await ask(connection, body, headers, device);
      // A push that Apple did not process because of a GOAWAY is sent again at once, over another connection, and once.
      const again = unprocessed && connection.goaway === constants.NGHTTP2_NO_ERROR;
      return again ? (await ask(usable(), body, headers, device)).answer : answer;
    },
    close() {
      provider.shutdown();
      for (const { session } of connections) session.close();
    },
  };
}

/** @param known the status that came in, if any, whatever the library made of the rest */
function readFailure({ status, response, error }: Failure, known: number | undefined): ApnsAnswer {
  // By the status Apple took it; nothing else in the answer matters.
  if (known === 200) return { taken: true };
  // The library reports an answer without a body as an error that names the status.
  const bodyless = /with status (\d+) and empty body/.exec(error?.message ?? '')?.[1];
  // Of an answer without a readable reason we only believe that the server is in trouble.
  const trouble = known !== undefined && (known === 429 || known >= 500) ? known : undefined;
  const code = status ?? (bodyless === undefined ? trouble : Number(bodyless));
  return {
    taken: false,
    ...(code === undefined ? {} : { status: code }),
    ...(response?.reason === undefined ? {} : { reason: response.reason }),
    ...(response?.timestamp === undefined ? {} : { timestamp: Number(response.timestamp) }),
    ...(error === undefined ? {} : { error }),
  };
}

/** Whether nothing at all came back in time. */
function isSilence(answer: ApnsAnswer): boolean {
  return answer.error?.message.includes('timeout') === true;
}

function inside(provider: apn.Provider): Inside {
  const { client } = provider as unknown as { client?: Inside };
  if (!client?.config || !('token' in client.config) || client.request?.length !== 5) {
    throw new TypeError('@parse/node-apn has changed inside: check how it makes its requests');
  }
  return client;
}
