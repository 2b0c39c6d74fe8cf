import { systemClock } from '../../src/clock.ts';
import { buildInfo, createRegistry, reloadMetric, serveMetrics } from '../../src/daemon/metrics.ts';
import { transportMetrics } from '../../src/daemon/transport-metrics.ts';
import { type MetricSources, registerMetrics } from '../../src/hivemind/operators/metrics.ts';
import { canaryLatency, observeCanary } from '../../src/notifiers/canary/metrics.ts';
import type { Prober } from '../../src/notifiers/canary/prober.ts';
import { observeNotifier, providerLatency } from '../../src/notifiers/runtime/metrics.ts';
import type { Notifier } from '../../src/notifiers/runtime/notifier.ts';
import { webMetrics } from '../../src/web/metrics.ts';

/** A metric as a daemon registers it; a histogram has `buckets`. */
export interface ExportedMetric {
  readonly name: string;
  readonly type: string;
  readonly help: string;
  readonly labelNames?: readonly string[];
  readonly buckets?: readonly number[];
}

/** The metrics of all daemons together, by their own registration: nothing is read from the sources. */
export async function exportedMetrics(): Promise<ExportedMetric[]> {
  const registry = createRegistry(true);
  const nothing = {} as never;
  buildInfo(registry);
  reloadMetric(registry, () => true);
  transportMetrics(registry, () => []);
  registerMetrics(registry, {
    clock: nothing,
    devices: nothing,
    expiry: nothing,
    intake: nothing,
    joined: nothing,
    network: nothing,
    oversized: nothing,
    outbox: nothing,
    store: nothing,
    subscriptions: nothing,
  } satisfies MetricSources);
  webMetrics(registry, nothing);
  providerLatency(registry);
  observeNotifier(registry, {} as Notifier, systemClock);
  canaryLatency(registry);
  observeCanary(registry, {} as Prober);
  const server = await serveMetrics({ listen: '127.0.0.1:0', registry, ready: () => ({ ok: true, reasons: [] }) });
  await server.close();
  return registry.getMetricsAsArray() as unknown as ExportedMetric[];
}
