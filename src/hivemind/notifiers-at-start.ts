import type { Clock } from '../clock.ts';
import type { Outbox } from './notifications/outbox/outbox.ts';

/** What a start that waits for notifiers goes by. */
export interface NotifierWait {
  readonly clock: Clock;
  /** Services of which at least one notifier is to be there. */
  readonly expected: readonly string[];
  /** How long to wait at most, in seconds. */
  readonly wait: number;
  readonly outbox: Pick<Outbox, 'validator'>;
  /** Whether another hivemind of the cluster is at work. */
  readonly othersWork: () => boolean;
  readonly stopping: AbortSignal;
}

const POLL_MS = 25;
/**
 * Notifiers hear of a new hivemind when they register with another one, which they do every 5 s and which knows of it
 * within one; some time (ms) on top to connect.
 */
const ALL_COME_WITHIN = 7_000;

/**
 * Waits until the expected notifiers are registered, or the time is over (docs/spec/hivemind.md, section 6). While
 * other hiveminds are at work, for all the others of these services as well: by those that are registered each
 * hivemind chooses the notifier of a device, and with one of two it would choose another one than they do, so that a
 * phone rings twice.
 */
export async function waitForNotifiers(options: NotifierWait): Promise<void> {
  const { clock, expected, wait, outbox, othersWork, stopping } = options;
  const begun = clock.monotonic();
  const deadline = begun + wait * 1000;
  const missing = () => expected.some((name) => !outbox.validator(name));
  const moreMayCome = () => clock.monotonic() < begun + ALL_COME_WITHIN && othersWork();
  // With nobody expected the original waits the full time, for whoever may come.
  const isEnough = () => expected.length > 0 && !missing() && !moreMayCome();
  while (!stopping.aborted && clock.monotonic() < deadline && !isEnough()) {
    await new Promise<void>((resolve) => {
      clock.setTimeout(resolve, Math.min(POLL_MS, deadline - clock.monotonic()));
    });
  }
}
