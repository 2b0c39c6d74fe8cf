import type { TestContext } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import type { KeyPair } from '../../src/oxenmq/keys.ts';
import { Listener } from '../../src/oxenmq/listener.ts';
import type { Incoming } from '../../src/oxenmq/remote.ts';

/** A real CURVE listener in place of a storage server, whose requests `monitor` answers. */
export async function openStorageListener(
  t: TestContext,
  options: { keys: KeyPair; address?: string; monitor: (request: Incoming, listener: Listener) => void },
): Promise<Listener> {
  const { keys, address = 'tcp://127.0.0.1:*', monitor } = options;
  const listener: Listener = new Listener({
    clock: systemClock,
    address,
    access: 'none',
    keys,
    commands: {
      monitor: {
        access: 'none',
        commands: { messages: { kind: 'request', handler: (request) => monitor(request, listener) } },
      },
    },
  });
  await listener.bind();
  t.after(() => listener.close());
  return listener;
}
