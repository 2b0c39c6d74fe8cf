import type { ServiceReport, StatusSample } from '../../../src/hivemind/operators/report.ts';

/** A service with nothing to complain of. */
export function report(service: string, values: Partial<ServiceReport> = {}): ServiceReport {
  return {
    service,
    notifiers: 1,
    subscriptions: 1_000,
    queued: 0,
    queued_bytes: 0,
    in_flight: 0,
    oldest_seconds: 0,
    handed: 0,
    accepted: 0,
    refused: 0,
    passed: 0,
    unreported: 0,
    redelivered: 0,
    dropped: { overflow: 0, expired: 0 },
    gone: 0,
    breaker_open: false,
    latency: null,
    provider: null,
    credential_expires: null,
    ...values,
  };
}

/** A quiet moment of a large hivemind. */
export function sampleWith(values: Partial<StatusSample> = {}): StatusSample {
  return {
    nodes: 2_000,
    unneeded: 0,
    swarms: 280,
    connected: 1_998,
    pending: 2,
    fresh: 1_995,
    oldestSeconds: 3_000,
    uncovered: 0,
    blockHeight: 1_234_567,
    accounts: 80_000,
    raw: 0,
    unique: 0,
    services: [report('apns'), report('firebase')],
    requests: { taken: 0, refused: 0, shed: 0 },
    canary: null,
    cluster: null,
    complaints: [],
    ...values,
  };
}
