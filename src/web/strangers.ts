import type { Clock } from '../clock.ts';
import type { Counters } from '../oxenmq/counters.ts';
import { keyPairFromSecret } from '../oxenmq/keys.ts';
import { PublicListener } from '../oxenmq/public-listener.ts';
import type { Incoming } from '../oxenmq/remote.ts';
import type { Hivemind } from './hivemind.ts';
import type { WebMetrics } from './metrics.ts';
import { ROUTES, type SubscriptionPath, subscription } from './subscriptions.ts';

/** How many requests one client may have waiting for the hivemind. */
const IN_FLIGHT = 16;
/**
 * The longest message, in bytes: the original's limit. Longer bodies than [web] body_limit get an error, as by HTTP.
 */
const MAX_MESSAGE = 1024 * 1024;

/** The open listener. */
export interface Strangers {
  readonly endpoint: string;
  /** The key that clients must know, 32 bytes. */
  readonly publicKey: Buffer;
  readonly counters: Counters;
  close(): Promise<void>;
}

/**
 * `[hivemind] listen_curve_public`: anybody may connect, encrypted, to subscribe and unsubscribe. It is served here so
 * that no stranger connects to the hivemind's process, and with the front-end's own key, since the front-end must not
 * have the hivemind's.
 *
 * @param modules.secret `[keys] onionreq`, 32 bytes
 * @throws Error with the address and the reason
 */
export async function listenToStrangers(modules: {
  readonly clock: Clock;
  readonly random: (bytes: number) => Buffer;
  readonly metrics: WebMetrics;
  readonly hivemind: Hivemind;
  readonly address: string;
  readonly secret: Buffer;
  readonly bodyLimit: number;
  readonly maxConnections: number;
  readonly stray: (reason: string) => void;
}): Promise<Strangers> {
  const { clock, hivemind, metrics, bodyLimit } = modules;
  const keys = keyPairFromSecret(modules.secret);
  const handle = (path: SubscriptionPath) => ({
    kind: 'request' as const,
    async handler(message: Incoming) {
      const start = clock.monotonic();
      const [body = Buffer.alloc(0)] = message.parts;
      const answer = await subscription(hivemind, path, body, bodyLimit, listener.networkOf(message.remote));
      metrics.request('curve', path, answer, (clock.monotonic() - start) / 1000);
      message.reply(answer.body);
    },
  });
  const routes = Object.entries(ROUTES).map(([path, command]) => [
    command.slice('push.'.length),
    handle(path as SubscriptionPath),
  ]);
  const listener: PublicListener = new PublicListener({
    clock,
    random: modules.random,
    address: modules.address,
    access: 'none',
    keys,
    commands: { push: { access: 'none', commands: Object.fromEntries(routes) } },
    maxMessageSize: MAX_MESSAGE,
    maxConnections: modules.maxConnections,
    inFlight: IN_FLIGHT,
    on: { stray: modules.stray },
  });
  await listener.bind();
  metrics.watch('curve', listener.limit);
  return {
    endpoint: listener.endpoint,
    publicKey: keys.publicKey,
    counters: listener.counters,
    close: () => listener.close(),
  };
}
