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
  /** The longest body of /subscribe and /unsubscribe, also within onion requests, in bytes. */
  readonly bodyLimit: number;
  /** Whose `X-Forwarded-For` is believed: nobody's, everybody's, or that of these addresses and networks. */
  readonly trustProxy: boolean | string;
  /** When there are this many, a newcomer takes the place of another, see {@link ConnectionLimit}. */
  readonly maxConnections: number;
  /**
   * How many requests per minute one client address may make on the plain routes at the moment; 0 = no limit. Does not
   * apply to onion requests.
   */
  readonly rateLimit: () => number;
}

/** How long a client may take to send its headers, ms. */
const HEADERS_TIMEOUT = 10_000;
/** How long it may take to send a whole request, ms: bodies are small. */
const REQUEST_TIMEOUT = 30_000;
/** How often Node checks these two, ms. */
const TIMEOUT_CHECK = 1_000;

/** An onion request is longer than the body in it, by less than this many bytes. */
const ONION_EXTRA = 64 * 1024;
/** How many bytes all longer onion requests that are being received may have together: no client needs such. */
const MAX_LONG_ONIONS = 64 * 1024 * 1024;

/** How many bytes all requests may hold that are incomplete or not answered yet. */
const MAX_UNFINISHED = 64 * 1024 * 1024;

/** How long an idle connection is kept, ms: longer than nginx keeps its upstream connections (60 s). */
const KEEP_ALIVE = 75_000;

export interface ServerModules {
  readonly options: ServerOptions;
  readonly hivemind: Hivemind;
  /** The pair of `[keys] onionreq`. */
  readonly onionKeys: OnionKeys;
  readonly clock: Clock;
  readonly metrics: WebMetrics;
  /** Called with errors that should not happen. */
  readonly onFault: (what: string, error: Error) => void;
}

/**
 * Builds the HTTP server; {@link listen} starts it. It logs no requests, since they hold tokens and account ids.
 */
export async function buildServer(modules: ServerModules): Promise<FastifyInstance> {
  const { clock, metrics } = modules;
  const { bodyLimit, maxConnections } = modules.options;

  const server = fastify({
    bodyLimit,
    trustProxy: trusted(modules.options),
    requestTimeout: REQUEST_TIMEOUT,
    keepAliveTimeout: KEEP_ALIVE,
    http: { headersTimeout: HEADERS_TIMEOUT, connectionsCheckingInterval: TIMEOUT_CHECK },
    forceCloseConnections: 'idle',
    exposeHeadRoutes: false,
    // A stopping server finishes the requests that it has; load balancers see the 503 for new ones.
    return503OnClosing: true,
    // A path that cannot be decoded is none of ours.
    frameworkErrors: (_error, _request, reply) => send(reply, notFound),
  });

  const limit = new ConnectionLimit({ maxConnections, maxBytes: MAX_UNFINISHED });
  limitConnections(server, limit, clock);
  metrics.watch('http', limit);

  // Every body is taken as it is, whatever its content type, even a malformed one.
  server.removeAllContentTypeParsers();
  server.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body));
  server.addHook('onRequest', async (request) => {
    delete request.raw.headers['content-type'];
  });

  server.setErrorHandler(errorHandler(modules));
  server.setNotFoundHandler((request, reply) => send(reply, unrouted(request)));
  await server.register(plainRoutes(modules));
  addOnionRoute(server, modules);
  return server;
}

/** Answers a request that failed, or was refused before its route was called. */
function errorHandler({ metrics, onFault }: ServerModules) {
  return (error: FastifyError & { answer?: Answer }, request: FastifyRequest, reply: FastifyReply) => {
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
    if (status >= 500) onFault('a request failed', error);
    return send(reply, {
      status,
      headers: { 'content-type': 'text/plain; charset=utf-8' },
      body: status >= 500 ? 'Internal server error\n' : 'Bad request\n',
    });
  };
}

/**
 * /subscribe and /unsubscribe, which share one limit by client address. Onion requests have none.
 */
function plainRoutes(modules: ServerModules): FastifyPluginAsync {
  const { hivemind, clock, metrics } = modules;
  const { bodyLimit, listen, trustProxy, rateLimit: perMinute } = modules.options;
  return async (plain) => {
    // On a Unix socket without a trusted proxy all clients have the same, empty address: there is nothing to limit by.
    if (!('path' in listen) || trustProxy !== false) {
      await plain.register(rateLimit, {
        timeWindow: 60_000,
        max: perMinute,
        allowList: () => perMinute() === 0,
        // Clients without an address count as one.
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

/** Onion requests, whose long ones share {@link MAX_LONG_ONIONS}. */
function addOnionRoute(server: FastifyInstance, modules: ServerModules): void {
  const { hivemind, onionKeys, clock, metrics } = modules;
  const { bodyLimit } = modules.options;
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
}

/** Not encrypted: the client's key is in the request, which was not read. */
const busy: Answer = {
  status: 503,
  headers: { 'content-type': 'text/plain; charset=utf-8', 'retry-after': RETRY_AFTER },
  body: 'Too many requests at the moment\n',
};

const tooMany: Answer = errorAnswer(429, 2, 'Too many requests from your address, try again later');

/** The answer to a request with another method than POST, or for an unknown path. */
function unrouted(request: FastifyRequest): Answer {
  const path = request.url.replace(/\?.*$/s, '');
  if (!isSubscriptionPath(path) && path !== ONION_PATH) return notFound;
  return request.method === 'OPTIONS' ? options : methodNotAllowed;
}

/** The network of a client; undefined on a Unix socket without a trusted proxy, where no client has an address. */
function clientName(request: FastifyRequest): string | undefined {
  return request.ip ? networkOf(request.ip) : undefined;
}

/** An empty body counts as one if the headers announce it. */
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
 * The value for Fastify's `trustProxy`. The peer of a Unix socket has no address; it is the web server in front, and is
 * trusted if any proxy is.
 */
function trusted({
  listen,
  trustProxy,
}: ServerOptions): boolean | string | ((address: string, hop: number) => boolean) {
  return typeof trustProxy === 'string' && 'path' in listen ? (_, hop) => hop === 0 : trustProxy;
}

/** Starts to listen. @returns the address that it has, with the real port instead of 0 */
export async function listen(server: FastifyInstance, address: ListenAddress): Promise<string> {
  if (!('path' in address)) {
    // For "localhost" Fastify would open a second server on ::1, whose connections nothing bounds.
    const host = address.host === 'localhost' ? '127.0.0.1' : address.host;
    return await server.listen({ ...address, host });
  }
  await removeStaleSocket(address.path);
  await server.listen(address);
  // As open as a TCP port on loopback would be, since the web server in front runs as another user.
  await chmod(address.path, 0o666);
  return formatListen(address);
}
