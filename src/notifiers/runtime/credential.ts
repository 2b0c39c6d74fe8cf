import type { Clock, Timer } from '../../clock.ts';
import type { Logger } from '../../daemon/log.ts';

const DAY = 86_400_000;
/** From so many days before a credential expires, that is logged once a day. */
const WARNING_DAYS = 30;

/**
 * Warns of a credential that is about to expire, at once and then every day from 30 days on.
 * @param expiry Unix milliseconds; undefined if it never does
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
