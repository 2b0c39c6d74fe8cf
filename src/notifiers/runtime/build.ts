import type { Context, Daemon } from '../../daemon/run.ts';
import { transportMetrics } from '../../daemon/transport-metrics.ts';
import { JudgedClock } from '../../judged-clock.ts';
import { Latency, type RecentLatency } from '../../latency.ts';
import { connectAddress } from '../../oxenmq/bind-address.ts';
import { keyPairFromSecret } from '../../oxenmq/keys.ts';
import { deriveClusterKey, deriveNotifierKey } from '../../session/notifier-key.ts';
import type { Config } from '../../settings/config.ts';
import { hivemindListens } from '../../settings/hivemind-instances.ts';
import { type Backend, Refusal } from './backend.ts';
import { watchCredential } from './credential.ts';
import { loadBackend } from './load.ts';
import { observeNotifier, providerLatency } from './metrics.ts';
import { Notifier } from './notifier.ts';
import { settingsHash } from './settings-hash.ts';

/** The daemon of one notifier: finds its backend, checks its settings, and connects it to the hivemind. */
export async function buildNotifier(service: string, context: Context): Promise<Daemon> {
  const { log, random, registry } = context;
  const wallClock = () => context.clock.now();
  // So that no step of the machine's clock makes messages expire, or turns a provider's date into a long wait.
  const clock = new JudgedClock({ clock: context.clock, log });
  /** @throws ConfigError, or an Error with a sentence, for settings that are wrong */
  const createBackend = async (config: Config): Promise<Backend> => {
    const section = config.section(`notify-${service}`);
    const create = await loadBackend(service, section);
    const backend = await create({ service, section, log, clock, wallClock, random, Refusal });
    for (const warning of section.warnings()) log.warn(warning);
    return backend;
  };
  const watchCredentialOf = ({ credentialExpiry }: Backend) =>
    watchCredential(credentialExpiry, `the credential of ${service}`, clock, log);

  let current = settingsHash(context.config, service);
  const backend = await createBackend(context.config);
  const observe = providerLatency(registry);
  const latency = new Latency();
  const notifier: Notifier = new Notifier({
    ...hivemindOptions(context.config, service),
    backend,
    clock,
    random,
    log,
    took: (ms) => {
      observe(ms);
      latency.add(ms / 1000, clock.monotonic());
    },
    extraStatistics: () => reportOf(notifier.backend, latency.recent(clock.monotonic())),
  });
  observeNotifier(registry, notifier, clock);
  transportMetrics(registry, () => [['hivemind', notifier.transport]]);
  let watch = watchCredentialOf(backend);
  let stopped = false;
  return {
    /**
     * Replaces the backend only if its settings have changed: to Apple, connections that come and go and new tokens
     * every few minutes look like an attack.
     */
    async reload(config) {
      notifier.pushLifetime = config.hivemind.outboxMaxAge * 1000;
      const next = settingsHash(config, service);
      if (next === current) return [];
      const replacement = await createBackend(config);
      if (stopped) {
        await replacement.close?.();
        return [];
      }
      current = next;
      watch.cancel();
      watch = watchCredentialOf(replacement);
      notifier.use(replacement).catch((error) => log.warn({ err: error }, 'the previous backend could not be closed'));
      return [`the settings and credentials of ${service}`];
    },
    async stop(deadline) {
      stopped = true;
      watch.cancel();
      await notifier.stop(deadline);
      clock.stop();
    },
    status: () => notifier.statistics.status(),
    ready: () => {
      const reasons = [...notifier.hiveminds.troubles];
      // One of several hiveminds is enough for pushes to come.
      const ok = notifier.registered && !notifier.sender.isPaused;
      if (notifier.sender.isPaused) reasons.push('the provider fails or asked us to wait; nothing is sent');
      // No reason to be unready: it can go on until the provider refuses what a wrong clock has signed.
      if (clock.doubt !== undefined) reasons.push(`the time is in doubt: ${clock.doubt}`);
      return { ok, reasons };
    },
  };
}

/**
 * What operators see about the provider in the hivemind's figures: how long it takes to answer, and when our credential
 * expires (unix seconds). The hivemind keeps each value that it was told, so one that no longer exists is sent as
 * empty.
 */
function reportOf({ credentialExpiry }: Backend, latency: RecentLatency | null): Record<string, number | string> {
  const ms = (seconds: number | undefined) => (seconds === undefined ? '' : Math.round(seconds * 1000));
  return {
    provider_ms: ms(latency?.median),
    provider_p95_ms: ms(latency?.p95),
    credential_expires: credentialExpiry === undefined ? '' : Math.floor(credentialExpiry / 1000),
  };
}

/** The options of a service's {@link Notifier} that come from the common sections, all about the hiveminds. */
export function hivemindOptions({ hivemind, ini, keys }: Config, service: string) {
  return {
    service,
    breaker: { share: hivemind.goneBreakerShare, minimum: hivemind.goneBreakerMinimum },
    addresses: hivemindListens(ini).map(({ listen }) => connectAddress(listen)),
    keys: keyPairFromSecret(deriveNotifierKey(keys.hivemind, service)),
    clusterKeys: keyPairFromSecret(deriveClusterKey(keys.hivemind)),
    pushLifetime: hivemind.outboxMaxAge * 1000,
  };
}
