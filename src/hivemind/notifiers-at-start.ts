import type { Clock } from '../clock.ts';
import type { Outbox } from './notifications/outbox/outbox.ts';

/** Options of {@link waitForNotifiers}. */
export interface NotifierWait {
  readonly clock: Clock;
  /** Services that need at least one notifier. */
  readonly expected: readonly string[];
  /** How long to wait at most, in seconds. */
  readonly wait: number;
  readonly outbox: Pick<Outbox, 'validator'>;
  /** Whether another hivemind of the cluster is alive and has joined the network. */
  readonly othersWork: () => boolean;
  readonly stopping: AbortSignal;
}

const POLL_MS = 25;
/**
 * How long (ms) it takes until every notifier has found a new hivemind: other hiveminds know it after 1 s, notifiers
 * learn of it when they next register with one of those, which they do every 5 s, and then connect.
 */
const ALL_COME_WITHIN = 7_000;

/**
 * Waits until the expected notifiers are registered, or the time is over (docs/spec/hivemind.md, section 6).
 *
 * While other hiveminds are at work, waits for all their notifiers as well. Each hivemind chooses a device's notifier
 * among those registered with it; knowing only one of two, it would choose differently from the others, and a phone
 * would ring twice.
 */
export async function waitForNotifiers(options: NotifierWait): Promise<void> {
  const { clock, expected, wait, outbox, othersWork, stopping } = options;
  const begun = clock.monotonic();
  const deadline = begun + wait * 1000;
  const missing = () => expected.some((name) => !outbox.validator(name));
  const moreMayCome = () => clock.monotonic() < begun + ALL_COME_WITHIN && othersWork();
  // If none is expected, wait the full time for whichever come, as the original does.
  const isEnough = () => expected.length > 0 && !missing() && !moreMayCome();
  while (!stopping.aborted && clock.monotonic() < deadline && !isEnough()) {
    await new Promise<void>((resolve) => {
      clock.setTimeout(resolve, Math.min(POLL_MS, deadline - clock.monotonic()));
    });
  }
}
