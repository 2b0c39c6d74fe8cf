import { chmod } from 'node:fs/promises';
import rateLimit from '@fastify/rate-limit';
import fastify, {
  type FastifyError,
  type FastifyInstance,
  type FastifyPluginAsync,
  type FastifyReply,
  type FastifyRequest,
} from 'fastify';
import type { Clock } from '../clock.ts';
import { ConnectionLimit, networkOf } from '../connection-limit.ts';
import { removeStaleSocket } from '../daemon/listen.ts';
import { MAX_ONION_SIZE, type OnionKeys } from '../session/onion.ts';
import { formatListen, type ListenAddress } from '../settings/listen-address.ts';
import { type Answer, errorAnswer, methodNotAllowed, notFound, options } from './answer.ts';
import type { Hivemind } from './hivemind.ts';
import { limitConnections } from './limit.ts';
import type { WebMetrics } from './metrics.ts';
import { isSubscriptionPath, ONION_PATH, onionRequest, undecryptable } from './onion.ts';
import { bodyMissing, RETRY_AFTER, ROUTES, type SubscriptionPath, subscription, tooLarge } from './subscriptions.ts';

/** What an operator can set, see `[web]` in spns.ini. */
export interface ServerOptions {
  readonly listen: ListenAddress;
  /** Longest body of /subscribe and /unsubscribe, bytes; also of those within onion requests. */
  readonly bodyLimit: number;
  /** Whose `X-Forwarded-For` is believed: nobody's, everybody's, or that of these addresses and networks. */
  readonly trustProxy: boolean | string;
  /**
   * Connections at a time; when there are so many, a newcomer takes the place of the quietest of those who hold most.
   */
  readonly maxConnections: number;
  /**
   * Requests a minute from one client address on the plain routes, at this moment; 0 = as many as come. Never applied
   * to onion requests.
   */
  readonly rateLimit: () => number;
}

/** A client has this long to deliver its headers, and this long for the whole request, ms. Bodies are small. */
const HEADERS_TIMEOUT = 10_000;
const REQUEST_TIMEOUT = 30_000;
/** How often Node looks for those who are late, ms. */
const LOOK_FOR_LATE = 1_000;

/** What an onion request has beside a body that is within the limit, bytes, and more. */
const ONION_EXTRA = 64 * 1024;
/** Longer onion requests are of no use to anybody; those that are being received may hold so much in all, bytes. */
const MAX_LONG_ONIONS = 64 * 1024 * 1024;

/** What all requests that are not whole yet, or not answered, may hold, bytes. */
const MAX_UNFINISHED = 64 * 1024 * 1024;

/** Idle time of a kept-alive connection, ms: longer than nginx keeps its upstream connections (60 s). */
const KEEP_ALIVE = 75_000;

export interface ServerModules {
  readonly options: ServerOptions;
  readonly hivemind: Hivemind;
  /** Of `[keys] onionreq`. */
  readonly onionKeys: OnionKeys;
  readonly clock: Clock;
  readonly metrics: WebMetrics;
  /** Called with errors that should not happen. */
  readonly onFault: (what: string, error: Error) => void;
}

/**
 * Builds the HTTP server; {@link listen} starts it. It logs nothing of a request: bodies hold tokens and account ids.
 */
export async function buildServer(modules: ServerModules): Promise<FastifyInstance> {
  const { hivemind, onionKeys, clock, metrics } = modules;
  const { bodyLimit, maxConnections } = modules.options;

  const server = fastify({
    bodyLimit,
    trustProxy: trusted(modules.options),
    requestTimeout: REQUEST_TIMEOUT,
    keepAliveTimeout: KEEP_ALIVE,
    http: { headersTimeout: HEADERS_TIMEOUT, connectionsCheckingInterval: LOOK_FOR_LATE },
    forceCloseConnections: 'idle',
    exposeHeadRoutes: false,
    // A stopping server finishes what it has; a load balancer sees the closed connection.
    return503OnClosing: true,
  });

  const limit = new ConnectionLimit({ maxConnections, maxBytes: MAX_UNFINISHED });
  limitConnections(server, limit, clock);
  metrics.watch('http', limit);

  // Every body is taken as it comes, whatever its content type is called, or how badly it is spelt.
  server.removeAllContentTypeParsers();
  server.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body));
  server.addHook('onRequest', async (request) => {
    delete request.raw.headers['content-type'];
  });

  server.setErrorHandler((error: FastifyError & { answer?: Answer }, request, reply) => {
    const path = request.routeOptions.url ?? '';
    if (error.answer) {
      metrics.request('plain', path, error.answer, reply.elapsedTime / 1000);
      return send(reply, error.answer);
    }
    if (error.code === 'FST_ERR_CTP_BODY_TOO_LARGE') {
      reply.header('connection', 'close');
      if (isSubscriptionPath(path)) {
        metrics.request('plain', path, tooLarge, reply.elapsedTime / 1000);
        return send(reply, tooLarge);
      }
      if (path === ONION_PATH) return send(reply, undecryptable);
    }
    const status = error.statusCode ?? 500;
    if (status >= 500) modules.onFault('a request failed', error);
    return send(reply, {
      status,
      headers: { 'content-type': 'text/plain; charset=utf-8' },
      body: status >= 500 ? 'Internal server error\n' : 'Bad request\n',
    });
  });
  server.setNotFoundHandler((request, reply) => send(reply, unrouted(request)));

  await server.register(plainRoutes(modules, metrics));

  let longOnions = 0;
  const admit = async (request: FastifyRequest, reply: FastifyReply) => {
    const length = Number(request.headers['content-length'] ?? MAX_ONION_SIZE);
    if (length <= bodyLimit + ONION_EXTRA || length > MAX_ONION_SIZE) return;
    if (longOnions + length > MAX_LONG_ONIONS) {
      metrics.onionFailure('busy');
      reply.header('connection', 'close');
      return send(reply, busy);
    }
    longOnions += length;
    reply.raw.once('close', () => {
      longOnions -= length;
    });
  };
  server.post(ONION_PATH, { bodyLimit: MAX_ONION_SIZE, onRequest: admit }, async (request, reply) => {
    const start = clock.monotonic();
    const body = (request.body as Buffer | undefined) ?? Buffer.alloc(0);
    const answer = await onionRequest({ hivemind, onionKeys, bodyLimit, client: clientName(request) }, body, {
      failed: metrics.onionFailure,
      answered: (path, inner) => metrics.request('onion', path, inner, (clock.monotonic() - start) / 1000),
    });
    return send(reply, answer);
  });

  return server;
}

/**
 * /subscribe and /unsubscribe. They share one limit by client address; those that come through a service node have
 * none.
 */
function plainRoutes(modules: ServerModules, metrics: WebMetrics): FastifyPluginAsync {
  const { hivemind, clock } = modules;
  const { bodyLimit, listen, trustProxy, rateLimit: perMinute } = modules.options;
  return async (plain) => {
    // On a Unix socket without a trusted proxy every client has the same, empty address: there is nothing to limit by.
    if (!('path' in listen) || trustProxy !== false) {
      await plain.register(rateLimit, {
        timeWindow: 60_000,
        max: perMinute,
        allowList: () => perMinute() === 0,
        // Whom no header names counts with all others of that kind.
        keyGenerator: (request) => clientName(request) ?? '',
        errorResponseBuilder: () => Object.assign(new Error('rate limit'), { answer: tooMany }),
      });
    }
    for (const path of Object.keys(ROUTES) as SubscriptionPath[]) {
      plain.post(path, async (request, reply) => {
        const start = clock.monotonic();
        const body = (request.body as Buffer | undefined) ?? Buffer.alloc(0);
        const answer = hasBody(request)
          ? await subscription(hivemind, path, body, bodyLimit, clientName(request))
          : bodyMissing;
        metrics.request('plain', path, answer, (clock.monotonic() - start) / 1000);
        return send(reply, answer);
      });
    }
  };
}

/** It cannot be encrypted for the client, whose key is in the request that was not read. */
const busy: Answer = {
  status: 503,
  headers: { 'content-type': 'text/plain; charset=utf-8', 'retry-after': RETRY_AFTER },
  body: 'Too many requests at the moment\n',
};

const tooMany: Answer = errorAnswer(429, 2, 'Too many requests from your address, try again later');

/** What is neither a POST nor on a path we know. */
function unrouted(request: FastifyRequest): Answer {
  const path = request.url.replace(/\?.*$/s, '');
  if (!isSubscriptionPath(path) && path !== ONION_PATH) return notFound;
  return request.method === 'OPTIONS' ? options : methodNotAllowed;
}

/** On a Unix socket without a trusted proxy all clients have the same, empty address. */
function clientName(request: FastifyRequest): string | undefined {
  return request.ip ? networkOf(request.ip) : undefined;
}

/** An empty body is a body if its sender says so. */
function hasBody(request: FastifyRequest): boolean {
  return request.headers['content-length'] !== undefined || request.headers['transfer-encoding'] !== undefined;
}

function send(reply: FastifyReply, { status, headers, body }: Answer): FastifyReply {
  // Fastify would add a charset to the content type of a text.
  return reply
    .code(status)
    .headers(headers)
    .send(typeof body === 'string' ? Buffer.from(body) : body);
}

/**
 * A Unix socket's peer has no address: there it is the web server in front, and what that one says is believed if
 * anybody is.
 */
function trusted({
  listen,
  trustProxy,
}: ServerOptions): boolean | string | ((address: string, hop: number) => boolean) {
  return typeof trustProxy === 'string' && 'path' in listen ? (_, hop) => hop === 0 : trustProxy;
}

/** Listens, and gives back the address it really has (port 0 lets the system choose). */
export async function listen(server: FastifyInstance, address: ListenAddress): Promise<string> {
  if (!('path' in address)) {
    // For the name Fastify would open a second server, on ::1, whose connections nobody bounds.
    const host = address.host === 'localhost' ? '127.0.0.1' : address.host;
    return await server.listen({ ...address, host });
  }
  await removeStaleSocket(address.path);
  await server.listen(address);
  // As open as a TCP port on the loopback address would be: the web server in front runs as another user.
  await chmod(address.path, 0o666);
  return formatListen(address);
}
