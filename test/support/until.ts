import { setTimeout as sleep } from 'node:timers/promises';

/** In ms; a test may take two minutes, and should say by then what did not come about. */
const PATIENCE = 60_000;

/**
 * Polls what nothing announces.
 *
 * @param every ms between two looks; 0 looks in each turn of the event loop
 * @throws Error with the text of the condition if it is not met within a minute
 */
export async function until(condition: () => boolean | Promise<boolean>, every = 5): Promise<void> {
  const end = performance.now() + PATIENCE;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`not so after ${PATIENCE / 1000} s: ${condition}`);
    await (every > 0 ? sleep(every) : new Promise((resolve) => setImmediate(resolve)));
  }
}
