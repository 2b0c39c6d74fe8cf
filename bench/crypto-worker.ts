import { parentPort } from 'node:worker_threads';
import { ed25519Verify } from '../src/session/sodium.ts';
import { CHECK_BYTES, MESSAGE_BYTES } from './crypto-messages.ts';

/** Verifies the checks of each message, and answers with a byte for each. */
parentPort?.on('message', (checks: Uint8Array<ArrayBuffer>) => {
  const verdicts = new Uint8Array(checks.length / CHECK_BYTES);
  for (let n = 0; n < verdicts.length; n++) {
    const check = checks.subarray(n * CHECK_BYTES, (n + 1) * CHECK_BYTES);
    const isGood = ed25519Verify(check.subarray(0, 64), check.subarray(96, 96 + MESSAGE_BYTES), check.subarray(64, 96));
    verdicts[n] = isGood ? 1 : 0;
  }
  parentPort?.postMessage(verdicts, [verdicts.buffer]);
});
