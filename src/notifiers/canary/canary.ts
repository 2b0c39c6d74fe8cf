import { within } from '../../clock.ts';
import type { Context, Daemon } from '../../daemon/daemon.ts';
import { transportMetrics } from '../../daemon/transport-metrics.ts';
import { parseAddress } from '../../oxenmq/address.ts';
import { keyPairFromSecret } from '../../oxenmq/keys.ts';
import { accepted, type Backend, Refusal, refused } from '../runtime/backend.ts';
import { hivemindOptions } from '../runtime/build.ts';
import { observeNotifier } from '../runtime/metrics.ts';
import { Notifier } from '../runtime/notifier.ts';
import { frontEndOf, SERVICE } from './front-end.ts';
import { deriveIdentity } from './identity.ts';
import { canaryLatency, observeCanary } from './metrics.ts';
import { type Pace, Prober } from './prober.ts';
import { swarmOf } from './swarm.ts';

/** How much of the time to stop unsubscribing may take, ms. */
const UNSUBSCRIBING = 4_000;

/**
 * The canary: a notifier that is its own provider and has one device, its own. It finds out whether phones ring, by
 * going through everything that a push goes through: the public address, the hivemind, the storage servers and a
 * notifier (docs/decisions/36).
 *
 * @param pace only for tests
 */
export async function startCanary(context: Context, pace?: Pace): Promise<Daemon> {
  const { config, clock, random, registry, log } = context;
  const { canary: settings, hivemind, keys } = config;
  if (!settings) throw new Error('there is no section [canary]');
  const identity = deriveIdentity(keys.hivemind);
  const now = () => clock.now();
  const { encKey } = identity;
  const swarm = swarmOf({
    account: identity.account,
    oxend: parseAddress(hivemind.oxendRpc),
    keys: keyPairFromSecret(Buffer.from(keys.hivemind)),
    allowPrivate: hivemind.allowPrivateNodes,
    clock,
    random,
  });
  const prober = new Prober({
    clock,
    random,
    log,
    frontEnd: frontEndOf({ url: settings.frontEnd, publicKey: settings.frontEndKey, identity, now, random }),
    swarm,
    encKey,
    registered: () => notifier.registered,
    took: canaryLatency(registry),
    ...(pace && { pace }),
  });
  const backend: Backend = {
    validate(info) {
      // Nobody else may have a device here.
      const known = typeof info === 'object' && info !== null && 'canary' in info && info.canary === identity.device;
      if (!known) throw new Refusal(4, 'Invalid service_info: the canary has no device other than its own');
      return { id: identity.device };
    },
    send: async (pushes) =>
      pushes.map(({ payload }) => (prober.received(payload) ? accepted : refused('it cannot be decrypted'))),
    batch: 100,
    concurrency: 1,
  };
  const notifier = new Notifier({
    ...hivemindOptions(config, SERVICE),
    backend,
    clock,
    random,
    log,
    extraStatistics: () => ({
      delivered: prober.results.delivered,
      lost: prober.results.lost,
      silent_seconds: Math.round(prober.silentSeconds),
      problem: prober.problems.join('; '),
      ...(prober.lastSeconds !== undefined && { latency_ms: Math.round(prober.lastSeconds * 1000) }),
    }),
  });
  observeCanary(registry, prober);
  observeNotifier(registry, notifier, clock);
  transportMetrics(registry, () => [['hivemind', notifier.transport]]);
  const running = prober.run();
  running.catch((error: Error) => context.giveUp(error));

  return {
    async stop(deadline) {
      await within(prober.stop(), Math.min(UNSUBSCRIBING, deadline / 2), clock);
      await swarm.close();
      await running;
      await notifier.stop(deadline / 2);
    },
    status: () => {
      const { delivered, lost } = prober.results;
      const last = prober.lastSeconds === undefined ? '' : `, the last after ${prober.lastSeconds.toFixed(2)} s`;
      return `${delivered} pushes came${last}; ${lost} lost`;
    },
    ready: () => ({ ok: prober.problems.length === 0, reasons: prober.problems }),
  };
}
