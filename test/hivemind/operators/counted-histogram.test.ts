import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Registry } from 'prom-client';
import { CountedHistogram } from '../../../src/hivemind/operators/counted-histogram.ts';

test('Prometheus gets each bucket with all below it, the sum and the count', async () => {
  const registry = new Registry();
  const counted = { labels: { service: 'apns' }, counts: [3, 0, 2], count: 5, sum: 9.5 };
  new CountedHistogram(
    { name: 'spns_x_seconds', help: 'X', labelNames: ['service'], buckets: [0.5, 2], registers: [registry] },
    () => [counted, { ...counted, labels: { service: 'huawei' } }],
  );
  const text = (service: string) =>
    [
      `spns_x_seconds_bucket{le="0.5",service="${service}"} 3`,
      `spns_x_seconds_bucket{le="2",service="${service}"} 3`,
      `spns_x_seconds_bucket{le="+Inf",service="${service}"} 5`,
      `spns_x_seconds_sum{service="${service}"} 9.5`,
      `spns_x_seconds_count{service="${service}"} 5`,
    ].join('\n');
  const head = '# HELP spns_x_seconds X\n# TYPE spns_x_seconds histogram\n';
  assert.equal(await registry.metrics(), `${head}${text('apns')}\n${text('huawei')}\n`);
  // Read anew each time.
  counted.sum = 10;
  assert.match(await registry.metrics(), /sum\{service="apns"\} 10\n/);
});
