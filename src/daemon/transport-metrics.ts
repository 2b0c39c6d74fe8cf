import { Counter, type Registry } from 'prom-client';
import type { Counters } from '../oxenmq/counters.ts';

/** Why messages were dropped: see {@link Counters}. */
const REASONS = ['refused', 'unanswered', 'overrun', 'lost', 'garbage'] as const;

/**
 * Counts what a daemon's OxenMQ sockets dropped. Nothing gets lost there without being counted.
 *
 * @param sockets the sockets that there are at the moment, each with a name; those with the same name are added up
 */
export function transportMetrics(registry: Registry, sockets: () => readonly (readonly [string, Counters])[]): void {
  new Counter({
    name: 'spns_messages_dropped_total',
    help:
      'Messages between daemons and servers that were dropped: refused (a full queue; the sender keeps it), unanswered (an answer to a peer that ' +
      'does not read or is gone), overrun (a request of a peer that does not read its answers), lost (the connection broke), garbage',
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
