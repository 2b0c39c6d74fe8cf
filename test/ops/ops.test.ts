import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { exportedMetrics } from '../support/exported-metrics.ts';

const ROOT = join(import.meta.dirname, '../..');
const ALERTS = readFileSync(join(ROOT, 'ops/alerts.yml'), 'utf8');

interface Panel {
  title: string;
  type: string;
  gridPos: { x: number; y: number; w: number; h: number };
  targets?: { expr: string }[];
}
const { panels } = JSON.parse(readFileSync(join(ROOT, 'ops/grafana-dashboard.json'), 'utf8')) as { panels: Panel[] };

/** The expressions of the alert rules: `expr: …` on one line, or a block of deeper lines. */
const alertExpressions = [...ALERTS.matchAll(/^ {8}expr: (?:\|\n((?: {10}.*\n)+)|(.*)\n)/gm)].map(
  (match) => match[1] ?? match[2]!,
);
const dashboardExpressions = panels.flatMap(({ targets }) => (targets ?? []).map(({ expr }) => expr));

const registered = await exportedMetrics();
/** What the daemons export, with the labels of each. */
const exported = (() => {
  // Prometheus' own.
  const names = new Map<string, Set<string>>([['up', new Set()]]);
  for (const { name, labelNames = [], buckets } of registered) {
    const labels = new Set(labelNames);
    names.set(name, labels);
    if (!buckets) continue;
    for (const suffix of ['_sum', '_count']) names.set(name + suffix, labels);
    names.set(`${name}_bucket`, new Set([...labels, 'le']));
  }
  return names;
})();
/** Labels that the scrape adds (ops/prometheus.yml). */
const SCRAPED = ['job', 'instance', 'daemon'];
const WORDS = new Set(
  'sum rate increase changes by on unless and or max min histogram_quantile job instance daemon le'.split(' '),
);

/** The metrics that an expression names, each with the labels that it selects by. */
function selectors(expression: string): { metric: string; labels: string[] }[] {
  const grouping = [...expression.matchAll(/\b(?:by|on) \(([^)]*)\)/g)].flatMap((match) => match[1]!.split(/,\s*/));
  const plain = expression.replace(/\b(?:by|on) \([^)]*\)/g, '').replace(/\[[^\]]*\]/g, '');
  return [...plain.matchAll(/([a-z_][a-z_0-9]*)(?:\{([^}]*)\})?/g)]
    .filter(([, name]) => !WORDS.has(name!))
    .filter(({ index }) => !insideBraces(plain, index))
    .map(([, metric, matchers]) => ({
      metric: metric!,
      labels: [...grouping, ...[...(matchers ?? '').matchAll(/(\w+)\s*(?:=~|!~|!=|=)/g)].map((match) => match[1]!)],
    }));
}

function insideBraces(text: string, index: number): boolean {
  return text.lastIndexOf('{', index) > text.lastIndexOf('}', index);
}

for (const [where, expressions] of [
  ['alert rule', alertExpressions],
  ['dashboard', dashboardExpressions],
] as const) {
  test(`every metric and label in the ${where}s is exported by a daemon`, () => {
    assert.ok(expressions.length >= 15);
    for (const expression of expressions) {
      const found = selectors(expression);
      assert.ok(found.length > 0, expression);
      for (const { metric, labels } of found) {
        const known = exported.get(metric);
        assert.ok(known, `${metric} is exported by no daemon: ${expression}`);
        for (const label of labels) {
          assert.ok(known.has(label) || SCRAPED.includes(label), `${metric} has no label ${label}: ${expression}`);
        }
      }
    }
  });
}

test("metrics are named by Prometheus' conventions, and their labels have few values", () => {
  const labels = new Set<string>();
  for (const { name, type, help, labelNames = [] } of registered) {
    assert.match(name, /^(spns|process|nodejs)_[a-z0-9_]+$/);
    assert.equal(name.endsWith('_total'), type === 'counter', `${name} is a ${type}`);
    assert.doesNotMatch(name, /_(ms|milliseconds|minutes|mb|kb)(_|$)/, `${name} is not in seconds or bytes`);
    assert.ok(help, name);
    if (name.startsWith('spns_')) for (const label of labelNames) labels.add(label);
  }
  // Nothing by device, account, storage server or client.
  const few = [
    'kind',
    'listener',
    'node',
    'outcome',
    'reason',
    'result',
    'route',
    'service',
    'socket',
    'state',
    'status',
    'version',
    'via',
  ];
  assert.deepEqual([...labels].sort(), few);
});

test('everything that an operator must see is exported', () => {
  for (const name of [
    ...['node_connections', 'nodes', 'nodes_fresh', 'freshness_oldest_seconds'],
    ...['notifications_vouched_total', 'notifications_misfit_total', 'notifications_held', 'pushes_limited_total'],
    ...['notifications_raw_total', 'notifications_duplicate_total', 'notifications_unique_total'],
    ...[
      'pushes_total',
      'outbox_pushes',
      'outbox_oldest_seconds',
      'push_latency_seconds_bucket',
      'pushes_dropped_total',
      'notifications_dropped_total',
    ],
    ...['notifier_retries_total', 'notifier_provider_seconds_bucket', 'devices_gone_total', 'gone_breaker_open'],
    ...['requests_total', 'signature_check_seconds_total', 'database_commit_seconds_total'],
    ...['notifier_credential_seconds_left', 'canary_silent_seconds', 'build_info', 'config_reload_ok'],
    ...['cluster_pushes_held', 'cluster_pushes_held_bytes', 'cluster_copies_total', 'cluster_pushes_elsewhere_total'],
  ]) {
    assert.ok(exported.has(`spns_${name}`), name);
  }
  assert.ok(exported.has('nodejs_eventloop_lag_p99_seconds'));
});

test('counters are queried by rate, increase or changes, never as they are', () => {
  for (const expression of [...alertExpressions, ...dashboardExpressions]) {
    for (const match of expression.matchAll(/\w+_total\b/g)) {
      assert.match(expression.slice(0, match.index), /(rate|increase|changes)\($/, expression);
    }
  }
});

test('every alert is explained in docs/operate.md, and says what it is about', () => {
  const page = readFileSync(join(ROOT, 'docs/operate.md'), 'utf8');
  const names = [...ALERTS.matchAll(/- alert: (\w+)/g)].map((match) => match[1]!);
  assert.equal(names.length, alertExpressions.length);
  for (const name of names)
    assert.ok(
      page.includes(`\n| \`${name}\``) || page.includes(`\`, \`${name}\` |`),
      `docs/operate.md does not say what to do at ${name}`,
    );
  assert.equal([...ALERTS.matchAll(/severity: (page|ticket) /g)].length, names.length);
  assert.equal([...ALERTS.matchAll(/^ {10}(summary|description): ./gm)].length, 2 * names.length);
});

test('the panels of the dashboard do not overlap and have a title', () => {
  const taken = new Set<string>();
  for (const { title, gridPos: at } of panels) {
    assert.ok(title);
    assert.ok(at.x + at.w <= 24, title);
    for (let x = at.x; x < at.x + at.w; x++) {
      for (let y = at.y; y < at.y + at.h; y++) {
        assert.ok(!taken.has(`${x} ${y}`), `${title} lies over another panel`);
        taken.add(`${x} ${y}`);
      }
    }
  }
});

const promtool = process.env.PROMTOOL ?? 'promtool';
const skip =
  spawnSync(promtool, ['--version']).status !== 0 && "promtool (Debian's package prometheus) is not installed here";

test('the alerts fire when they should, and only then', { skip }, () => {
  const { status, stdout, stderr } = spawnSync(
    promtool,
    ['test', 'rules', join(import.meta.dirname, 'alerts.test.yml')],
    {
      encoding: 'utf8',
    },
  );
  assert.equal(status, 0, stdout + stderr);
});
