import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

const ROOT = join(import.meta.dirname, '../..');

/** What a test must not do, and where it is done all the same. */
const RULES: { what: string; line: RegExp; except: readonly string[] }[] = [
  {
    what: 'waits for an event without a deadline: take once() of test/support/once.ts',
    line: /^import \{.*\bonce\b.*\} from 'node:events'/,
    // It is a process of its own, which the test ends.
    except: ['test/support/once.ts', 'test/daemon/fixtures/daemon.ts'],
  },
  {
    what: 'polls without a deadline: take until() of test/support/until.ts',
    line: /^\s*(?:\} )?while \(.*\bawait (?!once\(|client\.receive\()/,
    except: ['test/support/until.ts', 'test/long/soak.ts', 'test/hivemind/notifications/outbox/memory-child.ts'],
  },
  {
    what: 'measures time on the wall, which a busy machine stretches: count, order, or take CPU time',
    line: /performance\.now\(/,
    // These pace a load.
    except: [
      'test/docs/waits.test.ts',
      'test/support/until.ts',
      'test/support/skipping-clock.ts',
      'test/faults/hiveminds-world.ts',
      'test/oxenmq/hostile-peers.test.ts',
    ],
  },
];

test('tests wait with a deadline, and assert nothing about wall-clock time', () => {
  const files = globSync('test/**/*.ts', { cwd: ROOT }).filter((file) => !/^test\/(mutation|install)\//.test(file));
  const found = files.flatMap((file) =>
    readFileSync(join(ROOT, file), 'utf8')
      .split('\n')
      .flatMap((line, index) => RULES.filter((rule) => rule.line.test(line)).map((rule) => ({ file, index, rule }))),
  );
  for (const { file, index, rule } of found) {
    const isLoad = file.startsWith('test/long/') && rule.line.test('performance.now()');
    assert.ok(isLoad || rule.except.includes(file), `${file}:${index + 1} ${rule.what}`);
  }
  for (const { what, except } of RULES) {
    for (const file of except) {
      assert.ok(
        found.some((one) => one.file === file && one.rule.what === what),
        `${file} needs no exception`,
      );
    }
  }
});
