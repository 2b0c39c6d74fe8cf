import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type ReportSources, statusLine } from '../../../src/hivemind/operators/report.ts';
import { sampleWith } from './samples.ts';

test('the status line counts connected and fresh storage servers among those that this hivemind needs', () => {
  const sources = {
    startedAt: 0,
    devices: { accounts: 5, size: 7 },
    network: { summary: () => sampleWith({ nodes: 2_000, unneeded: 1_400, connected: 598, pending: 2, fresh: 590 }) },
    stats: { alive: () => ['apns', 'firebase'], total: () => 12 },
    outbox: { outstanding: 3 },
    intake: { raw: 40 },
  };
  assert.equal(
    statusLine(sources as unknown as ReportSources),
    "SN conns: 598/600 (2 pending); Fresh: 590/600; Height: 1234567; Accts/Subs: 5/7; svcs: apns, firebase; notifies: 12; pushes recv'd: 40; unacknowledged: 3",
  );
});
