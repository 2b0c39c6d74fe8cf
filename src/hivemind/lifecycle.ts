import { type Clock, type Timer, within } from '../clock.ts';
import type { Readiness } from '../daemon/metrics.ts';
import type { Systemd } from '../daemon/systemd.ts';
import type { JudgedClock } from '../judged-clock.ts';
import type { Log } from '../log.ts';
import type { HivemindSettings } from '../settings/hivemind.ts';
import type { Joined } from './cluster/join.ts';
import type { Devices } from './devices/devices.ts';
import type { OpenListener } from './listeners.ts';
import type { Network } from './network/network.ts';
import type { Intake } from './notifications/intake.ts';
import type { Outbox } from './notifications/outbox/outbox.ts';
import { waitForNotifiers } from './notifiers-at-start.ts';
import type { Store } from './store/store.ts';
import type { Expiry } from './subscriptions/expiry.ts';
import { loadSubscriptions } from './subscriptions/load.ts';
import type { Subscriptions } from './subscriptions/subscriptions.ts';

/** How often the statistics are written. */
const STATISTICS_MS = 15_000;

// How the nine seconds of a stop are divided:

/** How long other hiveminds may take to cover what only we covered. */
const LEAVE_MS = 2_500;
/** How long reading what storage servers have sent may take: nobody else has what came before others listened. */
const READ_MS = 2_000;
/** How long notifiers may take to validate devices that clients wait for. Those that they accept are still written. */
const VALIDATE_MS = 2_000;
/** How long we wait for notifiers that report nothing; for those that do, all the time but {@link CLOSE_MS}. */
const SILENT_MS = 5_000;
/** Reserved for closing the database and the listeners. */
const CLOSE_MS = 1_500;
/** Reserved for the last replies, after giving up on a database that does not answer. */
const LAST_MS = 500;

/** The parts, built and connected; clients and notifiers can reach them already. */
export interface Parts {
  readonly clock: JudgedClock;
  readonly log: Log;
  readonly systemd: Pick<Systemd, 'status'>;
  readonly settings: Pick<HivemindSettings, 'notifiersExpected' | 'startupWait'>;
  readonly stopping: AbortSignal;
  readonly store: Store;
  readonly devices: Devices;
  readonly expiry: Expiry;
  readonly subscriptions: Subscriptions;
  readonly intake: Pick<Intake<object>, 'complaints' | 'stop'>;
  readonly outbox: Outbox;
  readonly network: Pick<Network, 'start' | 'caughtUp' | 'stop' | 'complaints'>;
  /** What only a hivemind that is one of several has. */
  readonly joined: Joined | undefined;
  readonly listeners: readonly OpenListener[];
  /** Lets in the subscriptions that have waited for the start. */
  readonly open: () => void;
  /** Writes the statistics counted since the last call. */
  readonly flush: () => void;
}

export interface Lifecycle {
  readiness(): Readiness;
  /** @param deadline how long it may take, in ms */
  stop(deadline: number): Promise<void>;
}

/**
 * Starts the parts in order: load subscriptions, expiry, wait for notifiers, network. Resolves once the subscriptions
 * are loaded; the rest goes on in the background, and `readiness` tells how far it is.
 *
 * @throws Error if the subscriptions cannot be loaded
 */
export async function startParts(parts: Parts): Promise<Lifecycle> {
  const { clock, log, settings, stopping, expiry, outbox, network, joined } = parts;
  parts.systemd.status('Loading existing subscriptions');
  await (joined ? joined.cluster.start() : loadSubscriptions(parts));
  joined?.feed.start();
  await expiry.start();

  let isReady = false;
  const join = async () => {
    await waitForNotifiers({
      clock,
      expected: settings.notifiersExpected,
      wait: settings.startupWait,
      outbox,
      othersWork: () => joined?.cluster.othersWork === true,
      stopping,
    });
    if (stopping.aborted) return;
    network.start();
    joined?.cluster.ready();
    isReady = true;
    parts.open();
    log.info('ready for subscriptions');
  };
  const started = join();
  const statistics = clock.setInterval(parts.flush, STATISTICS_MS);

  return {
    readiness: () => readiness(isReady, parts),
    async stop(deadline) {
      const end = clock.monotonic() + deadline - LAST_MS;
      await started;
      await stop(parts, statistics, end);
    },
  };
}

/**
 * Without oxend or storage servers the hivemind still serves clients: that is a complaint, but no reason to take it out
 * of service.
 */
function readiness(
  isReady: boolean,
  { clock, store, expiry, subscriptions, network, intake, joined }: Parts,
): Readiness {
  const { trouble } = store;
  const reasons = [
    isReady ? undefined : 'waiting for notifiers',
    trouble,
    clock.doubt && `the time is in doubt: ${clock.doubt}`,
    expiry.complaint,
    ...subscriptions.complaints(),
    ...network.complaints(),
    ...intake.complaints(),
    ...(joined?.cluster.complaints() ?? []),
    joined?.feed.complaint,
  ].filter((text) => text !== undefined);
  return { ok: isReady && trouble === undefined, reasons };
}

/** @param end by the monotonic clock, ms */
async function stop(parts: Parts, statistics: Timer, end: number): Promise<void> {
  const { clock, log, store, expiry, subscriptions, network, intake, outbox, joined } = parts;
  parts.open();
  // Not awaited yet: a notifier that does not answer must not use up the time of those that do.
  const answered = subscriptions.stop(VALIDATE_MS);
  statistics.cancel();
  expiry.stop();
  if (joined) await leaveCluster(joined, clock, log);
  if (!(await within(network.caughtUp(), READ_MS, clock)))
    log.warn('messages come faster than they can be read: those that are unread now are lost');
  await network.stop();
  intake.stop();
  await outbox.stop(SILENT_MS, end - CLOSE_MS - clock.monotonic());
  if (!(await within(answered, end - clock.monotonic(), clock)))
    log.warn('the database does not answer: the last clients get no reply');
  parts.flush();
  const isTold = !joined || (await within(joined.close(), end - clock.monotonic(), clock).catch(() => false));
  if (!isTold)
    log.warn('the database does not answer: the other hiveminds will notice by themselves that this one has stopped');
  const closed = await within(store.close(), end - clock.monotonic(), clock);
  if (!closed) log.warn('the database does not answer: the last statistics are lost');
  for (const listener of parts.listeners) await listener.close();
  const { queued, accepted, refused, passed, unreported, elsewhere, dropped, shutdown } = outbox.close();
  if (shutdown > 0) log.warn(`${shutdown} pushes could not be handed over and are given up`);
  if (unreported > 0)
    log.warn(`${unreported} pushes are with notifiers that have not reported on them, and may still deliver them`);
  log.info(
    `of ${queued} pushes ${accepted} were accepted, ${refused} refused, ${passed} passed on without acknowledgement, ` +
      `${dropped} given up, ${unreported} not reported on` +
      (elsewhere > 0 ? `, ${elsewhere} sent by another hivemind` : ''),
  );
}

/** Hands our slots to the others, while we still receive messages that they may not receive yet. */
async function leaveCluster({ cluster }: Joined, clock: Clock, log: Log): Promise<void> {
  let isCovered = false;
  const left = cluster.leave(LEAVE_MS).then((covered) => {
    isCovered = covered;
  });
  if ((await within(left, LEAVE_MS, clock)) && isCovered) return;
  log.warn('no other hivemind covers everything that this one covered: messages that arrive before one does are lost');
}
