import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { exportedMetrics } from '../support/exported-metrics.ts';

const ROOT = join(import.meta.dirname, '../..');
const read = (file: string) => readFileSync(join(ROOT, file), 'utf8');

const names = (await exportedMetrics()).map(({ name }) => name).filter((name) => name.startsWith('spns_'));
/** PostgreSQL's names that begin the same way. */
const TABLES = new Set(['spns_members', 'spns_changes', 'spns_unsubscribed', 'spns_migrations']);

/** `spns_name` and the patterns `spns_name*` of a page. */
function namedIn(page: string): string[] {
  return [...read(page).matchAll(/(?<![\w@/.])spns_[a-z0-9_]+\*?/g)]
    .map(([name]) => name)
    .filter((n) => !TABLES.has(n));
}

const fits = (name: string, named: string) =>
  named.endsWith('*') ? name.startsWith(named.slice(0, -1)) : name === named;

test('docs/operate.md tells of every metric, by its name or a pattern', () => {
  const named = namedIn('docs/operate.md');
  for (const name of names)
    assert.ok(
      named.some((one) => fits(name, one)),
      `docs/operate.md does not tell of ${name}`,
    );
});

test('docs/several.md tells of every metric that only several hiveminds have', () => {
  const named = namedIn('docs/several.md');
  for (const name of names.filter((one) => one.startsWith('spns_cluster_')))
    assert.ok(named.includes(name), `docs/several.md does not tell of ${name}`);
});

test('every metric that the documentation names exists', () => {
  let found = 0;
  for (const page of globSync(['*.md', 'docs/**/*.md', 'ops/alerts.yml'], { cwd: ROOT })) {
    for (const named of namedIn(page)) {
      found++;
      const name = named.replace(/_(bucket|sum|count)$/, '');
      assert.ok(
        names.some((one) => fits(one, named) || one === name),
        `${page} names ${named}`,
      );
    }
  }
  assert.ok(found > 60, `only ${found} found`);
});
