import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

const ROOT = join(import.meta.dirname, '../..');
const read = (file: string) => readFileSync(join(ROOT, file), 'utf8');
const { scripts, optionalDependencies } = JSON.parse(read('package.json')) as Record<string, Record<string, string>>;

test('every script that the documentation tells readers to run exists', () => {
  const pages = globSync(['*.md', 'docs/**/*.md', '.ci/run'], { cwd: ROOT });
  const named = pages.flatMap((page) =>
    [...read(page).matchAll(/\bnpm run (?:-s )?([\w:]+)/g)].map(([, name]) => name!),
  );
  assert.ok(named.length > 10);
  for (const name of named) assert.ok(scripts![name], `npm run ${name}`);
});

test('every pattern of the fast tests matches some', () => {
  const patterns = [...scripts!['test:fast']!.matchAll(/'([^']+)'/g)].map(([, pattern]) => pattern!);
  assert.ok(patterns.length > 3);
  for (const pattern of patterns) {
    // Each of `{a,b}` by itself: a file that has moved must not drop out of the fast tests unseen.
    const [, before, names, after] = /^([^{]*)(?:\{([^}]*)\}(.*))?$/.exec(pattern)!;
    for (const name of names?.split(',') ?? ['']) {
      const single = `${before}${name}${after ?? ''}`;
      assert.notEqual(globSync(single, { cwd: ROOT }).length, 0, `${single} finds nothing`);
    }
  }
});

test('version managers use the Node that npm ci installs', () => {
  const version = read('.node-version').trim();
  const brought = Object.entries(optionalDependencies!).filter(([name]) => name.startsWith('node-linux-'));
  assert.deepEqual(
    brought.map(([, its]) => its),
    [version, version],
  );
});
