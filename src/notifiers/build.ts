import type { Context, Daemon } from '../daemon/run.ts';
import { type Address, parseAddress } from '../oxenmq/address.ts';
import { keyPairFromSecret } from '../oxenmq/keys.ts';
import { deriveNotifierKey } from '../session/notifier-key.ts';
import { watchCredential } from './credential.ts';
import { loadBackend } from './load.ts';
import { observeNotifier, providerLatency } from './metrics.ts';
import { Notifier } from './notifier.ts';

/** The daemon of one notifier: finds its backend, checks its settings, and connects it with the hivemind. */
export async function buildNotifier(service: string, context: Context): Promise<Daemon> {
  const { config, log, clock, random, registry } = context;
  const section = config.section(`notify-${service}`);
  const create = await loadBackend(service, section);
  const backend = await create({ service, section, log, clock, random });
  for (const warning of section.warnings()) log.warn(warning);
  const notifier = new Notifier({
    service,
    backend,
    address: connectAddress(config.hivemind.listen),
    keys: keyPairFromSecret(deriveNotifierKey(config.keys.hivemind, service)),
    clock,
    random,
    log,
    took: providerLatency(registry),
  });
  observeNotifier(registry, notifier, backend, clock);
  const watch = watchCredential(backend.credentialExpiry, `the credential of ${service}`, clock, log);
  return {
    async stop(deadline) {
      watch.cancel();
      await notifier.stop(deadline);
    },
    status: () => notifier.statistics.status(),
    ready: () => {
      const reasons: string[] = [];
      if (!notifier.registered) reasons.push('not registered with the hivemind');
      if (notifier.courier.isPaused) reasons.push('the provider fails or asked us to wait; nothing is sent');
      return { ok: reasons.length === 0, reasons };
    },
  };
}

/** Where to connect to reach what is bound to `listen`: any address means this machine. */
export function connectAddress(listen: string): Address {
  return parseAddress(listen.replace(/^tcp:\/\/(\*|0\.0\.0\.0|\[::\])(?=:)/, 'tcp://127.0.0.1'));
}
