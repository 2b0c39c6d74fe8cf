import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

const FOLDER = join(import.meta.dirname, '../../docs/decisions');
const read = (file: string) => readFileSync(join(FOLDER, file), 'utf8');
const FILES = globSync('[0-9]*.md', { cwd: FOLDER }).sort();

test('the list of decisions has all of them, by number and title, in order', () => {
  const titles = FILES.map((file) => {
    const [, number, title] = /^# (\d+)\. (.+)\n/.exec(read(file)) ?? [];
    assert.equal(file.split('-')[0], number?.padStart(2, '0'), file);
    return `- ${number?.padStart(2, '0')} [${title}](${file})`;
  });
  assert.ok(titles.length > 30, `only ${titles.length} found`);
  assert.deepEqual(
    read('README.md')
      .split('\n')
      .filter((line) => line.startsWith('- ')),
    titles,
  );
});

test('each decision has its context, what was decided and what it costs, in this order', () => {
  for (const file of FILES) {
    const parts = [...read(file).matchAll(/^\*\*(Context|Decision|Cost)\.\*\* /gm)].map(([, part]) => part);
    assert.deepEqual(parts, ['Context', 'Decision', 'Cost'], file);
  }
});
