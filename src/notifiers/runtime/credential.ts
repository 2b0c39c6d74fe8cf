import { readFileSync } from 'node:fs';
import type { Clock, Timer } from '../../clock.ts';
import type { Logger } from '../../daemon/log.ts';

const DAY = 86_400_000;
/** How many days before it expires the warnings begin. */
const WARNING_DAYS = 30;

/**
 * Warns about a credential that is about to expire, now and then once a day, beginning 30 days before.
 *
 * @param expiry Unix milliseconds; undefined if it never expires
 * @param what what it is called in the log
 */
export function watchCredential(expiry: number | undefined, what: string, clock: Clock, log: Logger): Timer {
  const look = () => {
    if (expiry === undefined) return;
    const days = Math.floor((expiry - clock.now()) / DAY);
    const when = new Date(expiry).toISOString().slice(0, 10);
    if (days < 0) log.error(`${what} expired on ${when}: no push will be accepted until it is replaced`);
    else if (days <= WARNING_DAYS) log.warn(`${what} expires on ${when}, in ${days} days: replace it before then`);
  };
  look();
  return clock.setInterval(look, DAY);
}

/** Reads a credential's file. @throws Error with a sentence that follows the name of the file or its key */
export function readCredentialFile(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT') throw new Error('does not exist: correct the path', { cause: error });
    if (code === 'EACCES') throw new Error('may not be read by this user: give it the right owner', { cause: error });
    throw new Error(`cannot be read (${code})`, { cause: error });
  }
}
