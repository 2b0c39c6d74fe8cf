import { parentPort } from 'node:worker_threads';
import { doChecks } from './checks.ts';

/**
 * Says that it is ready; then does the checks of each message, one after the other, and answers with their verdicts.
 * Ends at `null`. See check-pool.ts.
 */
parentPort?.on('message', (checks: Uint8Array | null) => {
  if (checks === null) {
    parentPort?.close();
    return;
  }
  const verdicts = doChecks(checks);
  parentPort?.postMessage(verdicts, [verdicts.buffer]);
});
parentPort?.postMessage('ready');
