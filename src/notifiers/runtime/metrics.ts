import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import type { Clock } from '../../clock.ts';
import type { Notifier } from './notifier.ts';

/** In seconds. Providers answer within 0.05 to 0.3; operators look for the tail. */
const BUCKETS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];

/** The histogram of how long calls take; made before the notifier, which is given it. */
export function providerLatency(registry: Registry): (ms: number) => void {
  const histogram = new Histogram({
    name: 'spns_notifier_provider_seconds',
    help: 'How long a call to the provider took, a batch counted once',
    buckets: BUCKETS,
    registers: [registry],
  });
  return (ms) => histogram.observe(ms / 1000);
}

/** Registers a notifier's metrics. The figures are read when somebody asks; sending pushes costs nothing more. */
export function observeNotifier(registry: Registry, notifier: Notifier, clock: Clock): void {
  const registers = [registry];
  const counter = (name: string, help: string, value: () => number) => {
    new Counter({
      name,
      help,
      registers,
      collect() {
        this.reset();
        this.inc(value());
      },
    });
  };
  const gauge = (name: string, help: string, value: () => number | undefined) => {
    new Gauge({
      name,
      help,
      registers,
      collect() {
        const now = value();
        if (now === undefined) this.remove();
        else this.set(now);
      },
    });
  };
  new Counter({
    name: 'spns_notifier_pushes_total',
    help: 'Pushes that came to an end, by outcome and reason',
    labelNames: ['outcome', 'reason'],
    registers,
    collect() {
      this.reset();
      for (const [end, count] of notifier.ends) {
        const colon = end.indexOf(':');
        const outcome = colon < 0 ? end : end.slice(0, colon);
        this.inc({ outcome, reason: colon < 0 ? '' : end.slice(colon + 1) }, count);
      }
    },
  });
  const { counters, sender } = notifier;
  counter(
    'spns_notifier_gone_held_back_total',
    'Devices that the provider called gone, not reported to an original hivemind because there were suspiciously many',
    () => counters.goneHeldBack,
  );
  counter('spns_notifier_received_total', 'Pushes that came from the hivemind', () => counters.received);
  counter('spns_notifier_duplicates_total', 'Pushes that came twice and were sent once', () => counters.duplicates);
  counter(
    'spns_notifier_copies_total',
    'Pushes that another hivemind of the cluster had given already, and that were sent once',
    () => counters.copies,
  );
  counter('spns_notifier_malformed_total', 'Messages of the hivemind that could not be read', () => counters.malformed);
  counter('spns_notifier_attempts_total', 'Answers of the provider', () => counters.attempts);
  counter(
    'spns_notifier_retries_total',
    'Answers of the provider after which a push is tried again',
    () => counters.retries,
  );
  counter('spns_notifier_validations_total', 'Devices that clients asked to have checked', () => counters.validations);
  counter('spns_notifier_validations_refused_total', 'Devices that were not accepted', () => counters.refusals);
  gauge('spns_notifier_queued', 'Pushes that wait to be sent', () => sender.queued);
  gauge('spns_notifier_in_flight', 'Pushes that the provider is being asked about', () => sender.inFlight);
  gauge('spns_notifier_retrying', 'Pushes that wait for another attempt', () => sender.retrying);
  gauge(
    'spns_notifier_paused',
    '1 while the provider fails or asked us to wait: nothing is sent, or a push now and then to find out',
    () => (sender.isPaused ? 1 : 0),
  );
  gauge('spns_notifier_registered', '1 while a hivemind has our registration', () => (notifier.registered ? 1 : 0));
  gauge(
    'spns_notifier_hiveminds_missing',
    'Hiveminds of the cluster that are alive but do not have our registration',
    () => notifier.hiveminds.missing.length,
  );
  gauge('spns_notifier_credential_seconds_left', 'Seconds until the credential for the provider expires', () => {
    const { credentialExpiry } = notifier.backend;
    return credentialExpiry === undefined ? undefined : (credentialExpiry - clock.now()) / 1000;
  });
}
