import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Registry } from 'prom-client';
import { transportMetrics } from '../../src/daemon/transport-metrics.ts';
import { newCounters } from '../../src/oxenmq/counters.ts';

test("what a daemon's sockets drop is counted by socket and reason, sockets of one name together", async () => {
  const registry = new Registry();
  const [first, second, nodes] = [newCounters(), newCounters(), newCounters()];
  transportMetrics(registry, () => [
    ['clients', first],
    ['clients', second],
    ['nodes', nodes],
  ]);
  first.overrun = 2;
  second.overrun = 3;
  nodes.lost = 1;
  const text = await registry.metrics();
  assert.match(text, /^spns_messages_dropped_total\{socket="clients",reason="overrun"\} 5$/m);
  assert.match(text, /^spns_messages_dropped_total\{socket="nodes",reason="lost"\} 1$/m);
  assert.match(text, /^spns_messages_dropped_total\{socket="nodes",reason="unanswered"\} 0$/m);
});
