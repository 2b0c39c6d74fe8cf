import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { withMemorySettings } from '../../src/daemon/daemon-process.ts';

const UNITS = path.join(import.meta.dirname, '../../systemd');
/** What a unit may set about memory. */
const NAMES = ['NODE_OPTIONS', 'MALLOC_ARENA_MAX'];

/** What a unit sets of these. */
function memoryOf(unit: string): Record<string, string> {
  const text = readFileSync(path.join(UNITS, `${unit}.service`), 'utf8');
  const lines = [...text.matchAll(/^Environment=(\w+)=(.*)$/gm)];
  return Object.fromEntries(lines.map(([, name, value]) => [name!, value!]).filter(([name]) => NAMES.includes(name!)));
}

test('a daemon gets the memory settings of its unit', () => {
  for (const [name, unit] of [
    ['hivemind', 'spns-hivemind'],
    ['hivemind-a', 'spns-hivemind@'],
    ['notify-apns-sandbox', 'spns-notifier@'],
    ['web', 'spns-web'],
    ['canary', 'spns-canary'],
  ] as const) {
    assert.deepEqual(withMemorySettings(name, {}), memoryOf(unit), name);
  }
  assert.equal(memoryOf('spns-notifier@').MALLOC_ARENA_MAX, '1');
});

test("what the operator sets comes last, so that it wins over the unit's, and the rest stays", () => {
  const own = { NODE_OPTIONS: '--max-semi-space-size=32 --trace-gc', MALLOC_ARENA_MAX: '4', HOME: '/root' };
  assert.deepEqual(withMemorySettings('notify-firebase', own), {
    ...own,
    NODE_OPTIONS: '--max-semi-space-size=8 --max-semi-space-size=32 --trace-gc',
  });
  assert.deepEqual(withMemorySettings('web', own), own);
});
