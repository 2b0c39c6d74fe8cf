import { isDeepStrictEqual } from 'node:util';
import { getHeapStatistics } from 'node:v8';
import type { Log } from '../log.ts';
import type { Config } from '../settings/config.ts';
import type { DuplicateFilter } from './notifications/duplicate-filter.ts';
import type { Outbox } from './notifications/outbox/outbox.ts';

/**
 * Of V8's heap, what the pushes of one service may take at most, whatever is configured: several full queues must not
 * end the process.
 */
const HEAP_SHARE = 1 / 8;

/** What the outbox is built with, and what a reload can change. Ages in ms. */
export function outboxLimits({ hivemind }: Config, log?: Pick<Log, 'info'>) {
  const most = Math.floor(getHeapStatistics().heap_size_limit * HEAP_SHARE);
  if (most < hivemind.outboxMaxBytes)
    log?.info(`outbox_max_bytes is limited to ${most}: an eighth of the heap that Node allows itself here`);
  return {
    limits: { maxBytes: Math.min(hivemind.outboxMaxBytes, most), maxAge: hivemind.outboxMaxAge * 1000 },
    breaker: { share: hivemind.goneBreakerShare, minimum: hivemind.goneBreakerMinimum },
  };
}

/** Milliseconds. */
export function filterLifetime({ hivemind }: Config): number {
  return hivemind.filterLifetime * 1000;
}

/** Takes over what can change without a restart; the function returned names each change in words. */
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
