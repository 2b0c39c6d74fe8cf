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
import type { Subscriptions } from './subscriptions/subscribe.ts';

const STATISTICS_MS = 15_000;
/**
 * Of the nine seconds that a stop may take, notifiers that report nothing have this long, and those that do as long as
 * leaves {@link CLOSE_MS}.
 */
const HAND_OVER_MS = 5_000;
/** To close the database and the listeners, in ms. */
const CLOSE_MS = 1_500;
/** And so long for their word on devices that clients wait for; what they have vouched for is then still written. */
const VALIDATE_MS = 2_000;
/** What other hiveminds may take to cover what only we covered, in ms. */
const LEAVE_MS = 2_500;
/** The rest of the stop, in ms: for the last answers, after a database that has stopped answering was given up. */
const LAST_MS = 500;

/** The parts that are built and joined, and can be reached by clients and notifiers already. */
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
  readonly network: Pick<Network, 'start' | 'stop' | 'complaints'>;
  /** Of a hivemind that is one of several. */
  readonly joined: Joined | undefined;
  readonly listeners: readonly OpenListener[];
  /** Lets the subscriptions in that wait for the start. */
  readonly open: () => void;
  /** Writes the statistics that are counted here. */
  readonly flush: () => void;
}

export interface Life {
  readiness(): Readiness;
  /** @param deadline milliseconds that it has for this */
  stop(deadline: number): Promise<void>;
}

/**
 * Starts the parts in order: subscriptions from the database, expiry, notifiers, network. It resolves once the
 * subscriptions are loaded; what follows takes as long as it takes, and the operator sees it in the status.
 */
export async function startLife(parts: Parts): Promise<Life> {
  const { clock, log, settings, stopping, expiry, outbox, network, joined } = parts;
  parts.systemd.status('Loading existing subscriptions');
  await (joined ? joined.cluster.start() : loadSubscriptions(parts));
  joined?.feed.start();
  await expiry.start();

  /** Whether the notifiers were waited for, and the network is joined. */
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
 * Without oxend or a storage server the hivemind still does its work for clients: that is a complaint, not a reason to
 * be taken out of service.
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
  // Side by side with the rest: a notifier that answers nobody must not take the time of those that do.
  const answered = subscriptions.stop(VALIDATE_MS);
  statistics.cancel();
  expiry.stop();
  if (joined) await handOver(joined, clock, log);
  await network.stop();
  intake.stop();
  await outbox.stop(HAND_OVER_MS, end - CLOSE_MS - clock.monotonic());
  if (!(await within(answered, end - clock.monotonic(), clock)))
    log.warn('clients wait for a database that does not answer');
  parts.flush();
  const isTold = !joined || (await within(joined.close(), end - clock.monotonic(), clock).catch(() => false));
  if (!isTold)
    log.warn('the database does not answer: the other hiveminds find out by themselves that this one has ended');
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

/** Lets the others have our slots, while we still hear what they may not hear yet. */
async function handOver({ cluster }: Joined, clock: Clock, log: Log): Promise<void> {
  let isCovered = false;
  const left = cluster.leave(LEAVE_MS).then((whole) => {
    isCovered = whole;
  });
  if ((await within(left, LEAVE_MS, clock)) && isCovered) return;
  log.warn('no other hivemind covers everything that this one covered: messages that come before one does are lost');
}
