import type { Logger } from '../../daemon/log.ts';
import { openClient } from './client.ts';
import { INDEX, SPACE } from './lock.ts';

const NAME = 'spns_subscriptions_slot';
const CONNECT = 10_000;

/**
 * Makes the index by which the subscriptions of a few slots are found, or takes it away. On a large table that takes a
 * while, and nobody waits for it: without it the table is read through. Never throws.
 *
 * @param wanted whether it is to be there
 */
export async function keepSlotIndex(url: string, wanted: boolean, log: Logger, stopping: AbortSignal): Promise<void> {
  try {
    const { client, socket } = await openClient(url, CONNECT, { stopping, mustWrite: true });
    const stop = () => socket.destroy();
    stopping.addEventListener('abort', stop);
    try {
      const { rows } = await client.query<{ valid: boolean | null; locked: boolean }>(
        `SELECT pg_try_advisory_lock($2, $3) AS locked,
           (SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)) AS valid`,
        [NAME, SPACE, INDEX],
      );
      const { valid, locked } = rows[0] ?? {};
      if (!locked || valid === wanted || (valid === null && !wanted)) return;
      // Not valid: whoever made it did not come to the end.
      if (valid !== null) await client.query(`DROP INDEX CONCURRENTLY IF EXISTS ${NAME}`);
      if (!wanted) return;
      await client.query(`CREATE INDEX CONCURRENTLY ${NAME} ON subscriptions (spns_slot(account))`);
      log.info('the index of the slots was made');
    } finally {
      stopping.removeEventListener('abort', stop);
      await client.end().catch(() => undefined);
    }
  } catch (error) {
    if (stopping.aborted) return;
    const what = wanted ? 'made: the subscriptions of a slot are found by reading all' : 'taken away';
    log.warn(`the index of the slots could not be ${what} (${(error as Error).message})`);
  }
}
