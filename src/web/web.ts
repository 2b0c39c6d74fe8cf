import { spareDescriptors } from '../daemon/descriptors.ts';
import { category, repeated } from '../daemon/log.ts';
import type { Context, Daemon } from '../daemon/run.ts';
import { transportMetrics } from '../daemon/transport-metrics.ts';
import { connectAddress } from '../oxenmq/bind-address.ts';
import { onionKeys } from '../session/onion.ts';
import { hivemindListens } from '../settings/hivemind-instances.ts';
import { parseListen } from '../settings/listen-address.ts';
import { ConfigError } from '../settings/section.ts';
import type { WebSettings } from '../settings/web.ts';
import { connectHivemind } from './hivemind.ts';
import { webMetrics } from './metrics.ts';
import { buildServer, listen } from './server.ts';
import { listenToStrangers, type Strangers } from './strangers.ts';

/** How long sending the last answers may take when stopping, ms. */
const LAST_ANSWERS = 2000;

/** How many connections clients may have, over HTTP and by CURVE, if there are file descriptors for that many. */
const MAX_HTTP = 4096;
const MAX_CURVE = 4096;

/** Builds the front-end from its parts and starts it. */
export async function startWeb({ config, clock, registry, random, log: root }: Context): Promise<Daemon> {
  const log = category(root, 'web');
  const faults = repeated(log, clock);
  let settings: WebSettings = config.web;
  const address = parseListen(settings.listen);
  const { onionreq } = config.keys;
  if (!onionreq) throw new ConfigError(['[keys].onionreq is required and not set: add it']);

  const hivemind = connectHivemind({
    clock,
    random,
    addresses: hivemindListens(config.ini).map(({ listen, listenPush }) => connectAddress(listenPush ?? listen)),
    inFlightLimit: () => settings.inFlightLimit,
    onChange(connected, reason) {
      if (connected) log.info('connected to the hivemind');
      else faults.warn('no connection to the hivemind: clients are told to retry', { reason });
    },
    onMember(name, problem) {
      if (problem === undefined) log.info(`connected to the hivemind ${name}`);
      else faults.warn(`no connection to the hivemind ${name}`, { reason: problem });
    },
  });
  const metrics = webMetrics(registry, hivemind);
  const strangersAddress = config.hivemind.listenCurvePublic;
  const spare = spareDescriptors();
  const forCurve = strangersAddress === undefined ? 0 : Math.min(MAX_CURVE, spare >> 1);
  const server = await buildServer({
    options: {
      maxConnections: Math.min(MAX_HTTP, spare - forCurve),
      listen: address,
      bodyLimit: settings.bodyLimit,
      trustProxy: settings.trustProxy,
      rateLimit: () => settings.rateLimit,
    },
    hivemind,
    onionKeys: onionKeys(onionreq),
    clock,
    metrics,
    onFault: (what, err) => faults.error(what, { err }),
  });
  let strangers: Strangers | undefined;
  transportMetrics(registry, () => (strangers ? [['curve', strangers.counters]] : []));
  try {
    log.info({ address: await listen(server, address) }, 'listening');
    if (strangersAddress !== undefined) {
      strangers = await listenToStrangers({
        clock,
        random,
        metrics,
        hivemind,
        address: strangersAddress,
        secret: onionreq,
        bodyLimit: settings.bodyLimit,
        maxConnections: forCurve,
        stray: (reason) => log.debug(reason),
      });
      log.info(
        { address: strangers.endpoint, publicKey: strangers.publicKey.toString('hex') },
        'listening for anonymous clients',
      );
    }
  } catch (error) {
    await server.close();
    await hivemind.close();
    throw error;
  }

  const waiting = () => ['no connection to the hivemind', hivemind.problem].filter(Boolean).join(': ');
  const missing = () =>
    hivemind.missing.map(({ name, problem }) =>
      [`no connection to the hivemind ${name}`, problem].filter(Boolean).join(': '),
    );
  return {
    status: () => `${hivemind.inFlight} requests in flight`,
    ready: () => (hivemind.connected ? { ok: true, reasons: missing() } : { ok: false, reasons: [waiting()] }),
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
      // Idle connections are closed at once. Requests in flight have until shortly before the deadline to be answered;
      // then closing the hivemind answers them 503.
      const cut = clock.setTimeout(() => void hivemind.close(), Math.max(deadline - LAST_ANSWERS, 0));
      await server.close();
      await strangers?.close();
      cut.cancel();
      await hivemind.close();
      faults.stop();
    },
  };
}
