import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { isIP } from 'node:net';
import { hostname } from 'node:os';
import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import { type ListenAddress, parseListen } from '../settings/listen-address.ts';
import { VERSION } from '../version.ts';
import { listenOn } from './listen.ts';

/** Whether a daemon can do its work, and what is wrong: each reason a sentence for the operator. */
export interface Readiness {
  readonly ok: boolean;
  readonly reasons: readonly string[];
}

/** What a route answers. */
export interface RouteReply {
  readonly status?: number;
  readonly type: string;
  readonly body: string | Uint8Array;
}

/** Answers GET requests for one path. */
export type Route = (url: URL) => RouteReply | Promise<RouteReply>;
export type Routes = { readonly [path: string]: Route };

export interface MetricsOptions {
  /** `host:port` or `unix:/path`. */
  readonly listen: string;
  readonly registry: Registry;
  readonly ready: () => Readiness;
  /** More paths, looked up at each request, since a daemon has them only once it runs. */
  readonly routes?: () => Routes | undefined;
}

export interface MetricsServer {
  /** Where it listens, with the real port instead of 0. */
  readonly address: ListenAddress;
  close(): Promise<void>;
}

/** How long a request may take to arrive, and how long an idle connection may stay, ms. */
const REQUEST_TIMEOUT = 10_000;
/** How many connections are accepted: Prometheus, a load balancer and an operator's browser need few. */
const MAX_CONNECTIONS = 200;
/**
 * How often the event loop's lag is measured, ms, which is also what is shown when there is none. Each time wakes the
 * process: with the usual 10 ms that is most of what a hivemind does when it is idle.
 */
const LAG_EVERY = 50;
const JSON_TYPE = 'application/json; charset=utf-8';

/**
 * A registry for a daemon's metrics.
 *
 * @param observed whether anybody will read them: only then it includes those of the process itself (CPU, memory, file
 *   descriptors, garbage collection, event-loop lag), which need a timer
 */
export function createRegistry(observed: boolean): Registry {
  const registry = new Registry();
  if (observed) collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: LAG_EVERY });
  // These gauges have the name of a counter, about which Prometheus' own tools complain; the ones by type add up to
  // them.
  for (const what of ['handles', 'requests', 'resources']) registry.removeSingleMetric(`nodejs_active_${what}_total`);
  return registry;
}

/** Which version runs, so that changes in other metrics can be seen beside an upgrade. */
export function buildInfo(registry: Registry): void {
  new Gauge({
    name: 'spns_build_info',
    help: 'Always 1; the versions of this program and of Node are in the labels',
    labelNames: ['version', 'node'],
    registers: [registry],
  }).set({ version: VERSION, node: process.versions.node }, 1);
}

/** Whether the last reload succeeded. @param ok whether the configuration that was read last is the one in force */
export function reloadMetric(registry: Registry, ok: () => boolean): void {
  new Gauge({
    name: 'spns_config_reload_ok',
    help: '0 while the configuration file was refused at the last reload and an older one is in force',
    registers: [registry],
    collect() {
      this.set(ok() ? 1 : 0);
    },
  });
}

/**
 * Serves `/metrics` for Prometheus, `/live` (200 while the event loop turns) and `/ready` (200, or 503 with the reasons
 * in its JSON body). A request for a host name that is not ours gets 421: see {@link isOurs}.
 *
 * @throws Error that says where it could not listen and why
 */
export async function serveMetrics(options: MetricsOptions): Promise<MetricsServer> {
  const listen = parseListen(options.listen);
  const foreign = new Counter({
    name: 'spns_metrics_foreign_host_total',
    help: 'Requests at metrics_listen that were refused because of the host name they asked for',
    registers: [options.registry],
  });
  const server = createServer(
    { requestTimeout: REQUEST_TIMEOUT, keepAliveTimeout: REQUEST_TIMEOUT },
    (request, response) => {
      const known = isOurs(request.headers.host, listen);
      if (!known) foreign.inc();
      (known ? answer(options, request) : Promise.resolve(MISDIRECTED))
        // Details are for the log, not for whoever asks.
        .catch((): RouteReply => ({ status: 500, type: JSON_TYPE, body: '{"error":"internal error"}' }))
        .then((reply) => send(request, response, reply))
        .catch(() => response.destroy());
    },
  );
  server.maxConnections = MAX_CONNECTIONS;
  const address = await listenOn(server, listen);
  return { address, close: () => close(server) };
}

const MISDIRECTED: RouteReply = {
  status: 421,
  type: JSON_TYPE,
  body: '{"error":"this host name is not known here: use the IP address, or write the name into metrics_listen"}',
};

/**
 * Whether a request for this host is meant for us. Any web page, in a browser that can reach us, may make its own host
 * name resolve to our address and then read our answers (DNS rebinding), but it cannot ask by a name that is not its
 * own. So only these are answered: IP addresses, localhost, the name of this machine, and the name in metrics_listen
 * (write it there if Prometheus asks by name). No page can reach a Unix socket.
 */
function isOurs(host: string | undefined, listen: ListenAddress): boolean {
  if (host === undefined || 'path' in listen) return true;
  const name = host.replace(/:\d*$/, '').toLowerCase();
  if (isIP(name.replace(/^\[(.*)\]$/, '$1')) !== 0) return true;
  return [listen.host, 'localhost', hostname()].some((ours) => ours.toLowerCase() === name.replace(/\.$/, ''));
}

async function answer({ registry, ready, routes }: MetricsOptions, request: IncomingMessage): Promise<RouteReply> {
  if (request.method !== 'GET' && request.method !== 'HEAD')
    return { status: 405, type: JSON_TYPE, body: '{"error":"only GET"}' };
  const url = URL.parse(request.url ?? '/', 'http://localhost');
  if (!url) return { status: 400, type: JSON_TYPE, body: '{"error":"bad address"}' };
  switch (url.pathname) {
    case '/metrics':
      return { type: registry.contentType, body: await registry.metrics() };
    case '/live':
      return { type: JSON_TYPE, body: JSON.stringify({ live: true, uptime: Math.round(process.uptime()) }) };
    case '/ready': {
      const { ok, reasons } = ready();
      return { status: ok ? 200 : 503, type: JSON_TYPE, body: JSON.stringify({ ready: ok, reasons }) };
    }
  }
  const more = routes?.();
  const route = more && Object.hasOwn(more, url.pathname) ? more[url.pathname] : undefined;
  if (route) return await route(url);
  return { status: 404, type: JSON_TYPE, body: '{"error":"not found"}' };
}

function send(request: IncomingMessage, response: ServerResponse, { status = 200, type, body }: RouteReply): void {
  response.writeHead(status, {
    'content-type': type,
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
  });
  response.end(request.method === 'HEAD' ? undefined : body);
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}
