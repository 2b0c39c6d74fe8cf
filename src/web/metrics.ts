import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import type { ConnectionLimit } from '../connection-limit.ts';
import type { Answer } from './answer.ts';
import type { Hivemind } from './hivemind.ts';

/** How a request came in. */
export type Via = 'plain' | 'onion' | 'curve';

export interface WebMetrics {
  /** Counts a request. @param seconds from having the whole body to the answer */
  request(via: Via, path: string, answer: Answer, seconds: number): void;
  onionFailure(reason: string): void;
  /** Registers a listener whose connections are shown. */
  watch(listener: 'http' | 'curve', limit: ConnectionLimit): void;
}

/** The front-end's metrics, on `registry`. */
export function webMetrics(registry: Registry, hivemind: Hivemind): WebMetrics {
  const registers = [registry];
  const requests = new Counter({
    name: 'spns_web_requests_total',
    help: 'Requests answered, by the way they came, route and status',
    labelNames: ['via', 'route', 'status'],
    registers,
  });
  const seconds = new Histogram({
    name: 'spns_web_request_duration_seconds',
    help: 'From the whole request to its answer, by route',
    labelNames: ['route'],
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20],
    registers,
  });
  const failures = new Counter({
    name: 'spns_web_onion_failures_total',
    help: 'Onion requests that could not be read: undecryptable, malformed inside, or too many long ones at a time (busy)',
    labelNames: ['reason'],
    registers,
  });
  new Gauge({
    name: 'spns_web_in_flight_requests',
    help: 'Requests waiting for the hivemind',
    registers,
    collect() {
      this.set(hivemind.inFlight);
    },
  });
  new Gauge({
    name: 'spns_web_hivemind_connected',
    help: '1 while there is a connection to a hivemind',
    registers,
    collect() {
      this.set(hivemind.connected ? 1 : 0);
    },
  });
  new Gauge({
    name: 'spns_web_hiveminds_missing',
    help: 'Hiveminds of the cluster that are alive but not connected',
    registers,
    collect() {
      this.set(hivemind.missing.length);
    },
  });
  const limits = new Map<string, ConnectionLimit>();
  new Gauge({
    name: 'spns_web_connections',
    help: 'Connections of clients, by listener',
    labelNames: ['listener'],
    registers,
    collect() {
      for (const [listener, { size }] of limits) this.set({ listener }, size);
    },
  });
  new Gauge({
    name: 'spns_web_unfinished_request_bytes',
    help: 'Bytes held of requests that are not whole yet, or not answered, by listener',
    labelNames: ['listener'],
    registers,
    collect() {
      for (const [listener, { bytes }] of limits) this.set({ listener }, bytes);
    },
  });
  new Counter({
    name: 'spns_web_crowded_out_total',
    help: 'Connections that were closed to make room for others, by listener',
    labelNames: ['listener'],
    registers,
    collect() {
      this.reset();
      for (const [listener, { crowdedOut }] of limits) this.inc({ listener }, crowdedOut);
    },
  });
  for (const reason of ['undecryptable', 'malformed', 'busy']) failures.inc({ reason }, 0);

  return {
    request(via, path, answer, took) {
      const route = path === '/subscribe' || path === '/unsubscribe' ? path.slice(1) : 'other';
      requests.inc({ via, route, status: answer.status });
      seconds.observe({ route }, took);
    },
    onionFailure: (reason) => failures.inc({ reason }),
    watch: (listener, limit) => limits.set(listener, limit),
  };
}
