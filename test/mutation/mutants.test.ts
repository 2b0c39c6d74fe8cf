// biome-ignore-all lint/suspicious/noTemplateCurlyInString: what is read here is source code
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { AREAS } from './areas.ts';
import { JUDGED_EQUAL } from './judged.ts';
import { mask, mutantsOf, mutated } from './mutants.ts';

const ROOT = join(import.meta.dirname, '../..');

test('every kind of change is made, each in its place', () => {
  const source = [
    'function f(a: number, b?: Map<string, number>): number {',
    '  // a < b && c',
    '  if (a < 5 && g(a)) return 0;',
    "  h('a + b', `c - ${a - 1} d`);",
    '  return a;',
    '}',
    '',
  ].join('\n');
  const mutants = mutantsOf(source);
  const lines = (line: number) =>
    mutants.filter((mutant) => mutant.line === line).map((mutant) => mutated(source, mutant).split('\n')[line - 1]);
  assert.deepEqual(
    mutants.map(({ line }) => line),
    [3, 3, 3, 3, 3, 3, 3, 4, 4, 4],
  );
  assert.deepEqual(
    new Set(lines(3)),
    new Set([
      '  ',
      '  if (!(a < 5 && g(a))) return 0;',
      '  if (a <= 5 && g(a)) return 0;',
      '  if (a >= 5 && g(a)) return 0;',
      '  if (a < 6 && g(a)) return 0;',
      '  if (a < 5 || g(a)) return 0;',
      '  if (a < 5 && g(a)) return 1;',
    ]),
  );
  assert.deepEqual(
    new Set(lines(4)),
    new Set(['  ;', "  h('a + b', `c - ${a + 1} d`);", "  h('a + b', `c - ${a - 2} d`);"]),
  );
});

test('texts, templates and regular expressions are left alone, and what is inside templates is not', () => {
  assert.equal(mask("a = 'x\\'1' + 2; // 3"), `a = ${' '.repeat(6)} + 2;${' '.repeat(5)}`);
  assert.equal(mask('`1${{ a: `2${3}` }.a}4`;'), '    { a:     3   }.a   ;');
  assert.equal(mask('a / 2 / b.match(/[/"]1/);'), `a / 2 / b.match(${' '.repeat(7)});`);
});

test('of a comparison that sorts only the side is changed, since no more than the sign of its result counts', () => {
  assert.deepEqual(
    mutantsOf('list.sort((a, b) => (a < b ? -1 : 1));\n').map(({ text }) => text),
    [';', '<=', '>='],
  );
});

test('every area has its sources and tests, and every source can be changed', () => {
  for (const [name, { sources, tests }] of Object.entries(AREAS)) {
    for (const glob of [...sources, ...tests]) assert.ok(globSync(glob, { cwd: ROOT }).length > 0, `${name}: ${glob}`);
    for (const file of sources.flatMap((glob) => globSync(glob, { cwd: ROOT })))
      mutantsOf(readFileSync(join(ROOT, file), 'utf8'));
  }
});

test('every change that was judged is still one, and only one, of its file', () => {
  for (const { file, change } of JUDGED_EQUAL) {
    const changes = mutantsOf(readFileSync(join(ROOT, file), 'utf8')).map((mutant) => mutant.change);
    assert.equal(changes.filter((other) => other === change).length, 1, `${file}: ${change}`);
  }
});
