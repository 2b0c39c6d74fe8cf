import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock, within } from '../../src/clock.ts';

/** In ms; a test may take two minutes, and should say by then what did not come about. */
const PATIENCE = 60_000;

/**
 * Polls what nothing announces.
 *
 * @param every ms between two looks; 0 looks in each turn of the event loop
 * @param what said in the error, instead of the condition's text
 * @throws Error if the condition is not met within a minute
 */
export async function until(
  condition: () => boolean | Promise<boolean>,
  every = 5,
  what: () => string = () => `${condition}`,
): Promise<void> {
  const end = performance.now() + PATIENCE;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`not so after ${PATIENCE / 1000} s: ${what()}`);
    await (every > 0 ? sleep(every) : new Promise((resolve) => setImmediate(resolve)));
  }
}

/**
 * Waits for an event, for helpers.
 *
 * @param what is waited for, said in the error
 * @throws Error if it does not come within a minute
 */
export async function inTime<T>(event: Promise<T>, what: () => string): Promise<T> {
  if (!(await within(event, PATIENCE, systemClock))) throw new Error(`not within ${PATIENCE / 1000} s: ${what()}`);
  return await event;
}
