import { Counter, type Registry } from 'prom-client';
import type { Counters } from '../oxenmq/counters.ts';

/** What was dropped, by its reason: see {@link Counters}. */
const REASONS = ['refused', 'unanswered', 'overrun', 'lost', 'garbage'] as const;

/**
 * Tells what a daemon's OxenMQ sockets dropped. Nothing goes missing there without being counted.
 *
 * @param sockets each with a name, at the time of asking; those of one name are added up
 */
export function transportMetrics(registry: Registry, sockets: () => readonly (readonly [string, Counters])[]): void {
  new Counter({
    name: 'spns_messages_dropped_total',
    help:
      'Messages between daemons and servers that were dropped: refused (a full queue; the sender keeps it), unanswered (an answer for whom does not ' +
      'read or is gone), overrun (a request of one who does not read its answers), lost (the connection broke), garbage',
    labelNames: ['socket', 'reason'],
    registers: [registry],
    collect() {
      this.reset();
      for (const [socket, counters] of sockets()) {
        for (const reason of REASONS) this.inc({ socket, reason }, counters[reason]);
      }
    },
  });
}
