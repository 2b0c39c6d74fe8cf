import { isDeepStrictEqual } from 'node:util';
import { getHeapStatistics } from 'node:v8';
import type { Log } from '../log.ts';
import type { Config } from '../settings/config.ts';
import type { DuplicateFilter } from './notifications/duplicate-filter.ts';
import type { Outbox } from './notifications/outbox/outbox.ts';

/**
 * The largest share of V8's heap that the pushes of one service may take, whatever is configured: several full queues
 * must not crash the process.
 */
const HEAP_SHARE = 1 / 8;

/**
 * The outbox's settings that a reload can change; sizes in bytes, ages in ms.
 * @param log is told if a limit was lowered
 */
export function outboxLimits({ hivemind }: Config, log?: Pick<Log, 'info'>) {
  const most = Math.floor(getHeapStatistics().heap_size_limit * HEAP_SHARE);
  if (most < hivemind.outboxMaxBytes)
    log?.info(`outbox_max_bytes is limited to ${most}: an eighth of the heap that Node allows itself here`);
  return {
    limits: { maxBytes: Math.min(hivemind.outboxMaxBytes, most), maxAge: hivemind.outboxMaxAge * 1000 },
    breaker: { share: hivemind.goneBreakerShare, minimum: hivemind.goneBreakerMinimum },
  };
}

/** How long the duplicate filter remembers a message, in ms. */
export function filterLifetime({ hivemind }: Config): number {
  return hivemind.filterLifetime * 1000;
}

/** Makes a function that applies the settings that need no restart. It returns each change in words, for the log. */
export function reloader(
  config: Config,
  { outbox, seen }: { outbox: Outbox; seen: DuplicateFilter },
): (next: Config) => string[] {
  let current = outboxLimits(config);
  return (next) => {
    const changes: string[] = [];
    const limits = outboxLimits(next);
    if (!isDeepStrictEqual(limits, current)) {
      outbox.setLimits(limits.limits, limits.breaker);
      current = limits;
      changes.push("the outbox's and the breaker's limits");
    }
    const lifetime = filterLifetime(next);
    if (lifetime !== seen.lifetime) {
      seen.lifetime = lifetime;
      changes.push("the duplicate filter's lifetime");
    }
    return changes;
  };
}
