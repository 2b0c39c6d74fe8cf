import { randomBytes } from 'node:crypto';
import type { TestContext } from 'node:test';
import { type Backend, type Delivery, type Outcome, tokenOf } from '../../src/notifiers/runtime/backend.ts';
import { Notifier, type NotifierOptions } from '../../src/notifiers/runtime/notifier.ts';
import { keyPairFromSecret } from '../../src/oxenmq/keys.ts';
import { deriveClusterKey, deriveNotifierKey } from '../../src/session/notifier-key.ts';
import type { FakeHivemind } from './fake-hivemind.ts';
import { keepLog, notifierOptions } from './support.ts';

export const SERVICE = 'toy';
const secret = randomBytes(32);
export const keys = keyPairFromSecret(deriveNotifierKey(secret, SERVICE));
/** As the real policy, but a hundred times faster. */
const policy = { base: 20, cap: 3_000, lifetime: 36_000 };

export type Send = (push: Delivery) => Outcome | Promise<Outcome>;

/**
 * A notifier of the service {@link SERVICE} whose provider answers by `send`. It stops before the hiveminds do.
 *
 * @param hiveminds those whose addresses stand in its settings
 */
export function startToy(
  t: TestContext,
  hiveminds: readonly FakeHivemind[],
  send: Send,
  more: Partial<Backend & NotifierOptions> = {},
) {
  const sent: Delivery[] = [];
  const { log, lines } = keepLog();
  const { concurrency, close, ...options } = more;
  const backend: Backend = {
    concurrency: concurrency ?? 16,
    ...(close && { close }),
    validate: (info) => ({
      id: tokenOf(
        info,
        'token',
        (token) => token !== '',
        () => 'Invalid toy device token',
      ),
      data: Buffer.from('kept'),
    }),
    send: async ([push]) => {
      sent.push(push!);
      return [await send(push!)];
    },
  };
  const notifier = new Notifier({
    ...notifierOptions(SERVICE, backend, hiveminds),
    keys,
    clusterKeys: keyPairFromSecret(deriveClusterKey(secret)),
    log,
    policy,
    ping: 300,
    ...options,
  });
  let stopped: Promise<void> | undefined;
  const stop = (deadline = 3_000) => (stopped ??= notifier.stop(deadline));
  for (const hivemind of hiveminds) hivemind.beforeEnd.push(() => stop(1_100));
  t.after(() => stop(1_100));
  return { notifier, sent, lines, stop };
}
