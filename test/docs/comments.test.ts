import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

const ROOT = join(import.meta.dirname, '../..');
const { formatter } = JSON.parse(readFileSync(join(ROOT, 'biome.json'), 'utf8')) as {
  formatter: { lineWidth: number };
};

/** Released migrations are never changed, so their comments stay as they are. */
const FILES = globSync(
  [
    '{src,test,bench,ops}/**/*.{ts,yml,html,css,js}',
    'systemd/*.{service,target}',
    'src/cli/{spns,node}',
    'spns.ini.example',
  ],
  { cwd: ROOT },
);
const COMMENT = /^\s*(?:\/\/|\/?\*|#|;|<!--)/;

test('comments keep to the line width of the formatter, which does not wrap them itself', () => {
  let found = 0;
  for (const file of FILES) {
    for (const [index, line] of readFileSync(join(ROOT, file), 'utf8').split('\n').entries()) {
      if (!COMMENT.test(line)) continue;
      found++;
      assert.ok(line.length <= formatter.lineWidth, `${file}:${index + 1} has ${line.length} characters`);
    }
  }
  assert.ok(found > 3000, `only ${found} found`);
});
