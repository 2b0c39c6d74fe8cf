import type { WebSettings } from '../daemon/config.ts';
import { parseListen } from '../daemon/listen.ts';
import { category, repeated } from '../daemon/log.ts';
import type { Context, Daemon } from '../daemon/run.ts';
import { parseAddress } from '../oxenmq/address.ts';
import { connectHivemind } from './hivemind.ts';
import { buildServer, listen } from './server.ts';

/** What it takes to send the last answers when stopping, ms. */
const LAST_WORDS = 2000;

/** Builds the front-end from its parts and starts it. */
export async function startWeb({ config, clock, registry, log: root }: Context): Promise<Daemon> {
  const log = category(root, 'web');
  const faults = repeated(log, clock);
  let settings: WebSettings = config.web;
  const address = parseListen(settings.listen);

  const hivemind = connectHivemind({
    clock,
    address: parseAddress(config.hivemind.listen),
    inFlightLimit: () => settings.inFlightLimit,
    onChange(connected, reason) {
      if (connected) log.info('connected to the hivemind');
      else faults.warn('no connection to the hivemind: clients are asked to come again later', { reason });
    },
  });
  const server = await buildServer({
    options: {
      listen: address,
      bodyLimit: settings.bodyLimit,
      trustProxy: settings.trustProxy,
      rateLimit: () => settings.rateLimit,
    },
    hivemind,
    onionKey: config.keys.onionreq!,
    clock,
    registry,
    onFault: (what, err) => faults.error(what, { err }),
  });
  try {
    log.info({ address: await listen(server, address) }, 'listening');
  } catch (error) {
    await hivemind.close();
    throw error;
  }

  return {
    status: () => (hivemind.connected ? `${hivemind.inFlight} requests in flight` : 'Waiting for the hivemind'),
    ready: () =>
      hivemind.connected ? { ok: true, reasons: [] } : { ok: false, reasons: ['no connection to the hivemind'] },
    reload({ web: next }) {
      const changes: string[] = [];
      if (next.rateLimit !== settings.rateLimit) changes.push(`[web].rate_limit is now ${next.rateLimit}`);
      if (next.inFlightLimit !== settings.inFlightLimit) {
        changes.push(`[web].in_flight_limit is now ${next.inFlightLimit}`);
      }
      settings = { ...settings, rateLimit: next.rateLimit, inFlightLimit: next.inFlightLimit };
      return changes;
    },
    async stop(deadline) {
      // Idle connections are closed at once; what is in flight has until shortly before the end for its answer, and is then told
      // to come again.
      const cut = clock.setTimeout(() => void hivemind.close(), Math.max(deadline - LAST_WORDS, 0));
      await server.close();
      cut.cancel();
      await hivemind.close();
      faults.stop();
    },
  };
}
