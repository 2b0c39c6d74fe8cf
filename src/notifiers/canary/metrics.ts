import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import type { Prober } from './prober.ts';

/** In seconds. */
const BUCKETS = [0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 3, 5, 10, 20, 40, 60];

/** The histogram of how long pushes take; made before the prober, which is given it. */
export function canaryLatency(registry: Registry): (seconds: number) => void {
  const histogram = new Histogram({
    name: 'spns_canary_seconds',
    help: "From storing one of the canary's messages to decrypting its push",
    buckets: BUCKETS,
    registers: [registry],
  });
  return (seconds) => histogram.observe(seconds);
}

/** Registers the canary's metrics. */
export function observeCanary(registry: Registry, prober: Prober): void {
  const registers = [registry];
  new Counter({
    name: 'spns_canary_messages_total',
    help: "The canary's messages, by result: delivered, lost after being stored, or why they could not be stored",
    labelNames: ['result'],
    registers,
    collect() {
      this.reset();
      for (const [result, count] of Object.entries(prober.results)) this.inc({ result }, count);
    },
  });
  new Gauge({
    name: 'spns_canary_silent_seconds',
    help: "Seconds since one of the canary's pushes last came, or since its start if none has",
    registers,
    collect() {
      this.set(prober.silentSeconds);
    },
  });
  new Gauge({
    name: 'spns_canary_front_end_up',
    help: "1 while the front-end takes the canary's subscription at its public address",
    registers,
    collect() {
      this.set(prober.frontEndWorks ? 1 : 0);
    },
  });
}
