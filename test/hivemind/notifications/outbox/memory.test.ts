import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { promisify } from 'node:util';
import type { Load, Taken } from './memory-child.ts';

async function measure(t: TestContext, load: Load): Promise<Taken> {
  const { NODE_TEST_CONTEXT: _, NODE_OPTIONS: __, ...env } = process.env;
  // V8's space for new objects grows with the machine, to 100 MB and more that no push holds.
  const flags = ['--expose-gc', '--max-semi-space-size=8', join(import.meta.dirname, 'memory-child.ts')];
  const { stdout } = await promisify(execFile)(process.execPath, [...flags, JSON.stringify(load)], { env });
  const taken = JSON.parse(stdout) as Taken;
  const of = (bytes: number) => Math.round(bytes / taken.pushes);
  const { counted, used, wire, wireUsed, leftUsed } = taken;
  t.diagnostic(
    `a push: counted ${of(counted)}, used ${of(used)}; with a notifier ${Math.round(wire / 1e6)} MB counted, ` +
      `${Math.round(wireUsed / 1e6)} used; left ${(leftUsed / used).toFixed(2)}`,
  );
  return taken;
}

const cases: [name: string, load: Load][] = [
  ['one device and message each', { accounts: 60_000, devices: 1, messages: 1, body: 500, wantData: true, data: 0 }],
  ['devices that want no body', { accounts: 80_000, devices: 1, messages: 1, body: 2_500, wantData: false, data: 0 }],
  ['the longest bodies', { accounts: 20_000, devices: 1, messages: 2, body: 2_500, wantData: true, data: 0 }],
  [
    'an account of many devices, with service data, and bodies that are too long',
    { accounts: 2, devices: 1_000, messages: 50, body: 76_800, wantData: true, data: 200 },
  ],
  [
    'copies that are held back',
    { accounts: 60_000, devices: 1, messages: 1, body: 500, wantData: true, data: 0, heldBack: true },
  ],
  ['many messages to one device', { accounts: 1, devices: 1, messages: 80_000, body: 100, wantData: true, data: 0 }],
];

for (const [name, load] of cases) {
  test(`held pushes take the memory that is counted, and give it back: ${name}`, async (t) => {
    const { pushes, counted, used, wire, wireUsed, left, leftUsed } = await measure(t, load);
    assert.ok(pushes >= load.accounts * load.devices * load.messages);
    assert.ok(used < 1.5 * counted, `${counted} counted, ${used} used`);
    assert.ok(counted < 2 * used, `${counted} counted, ${used} used: it would hold half of what it may`);
    assert.ok(wireUsed < 1.5 * wire, `${wire} counted on the way, ${wireUsed} used`);
    assert.equal(left, 0);
    assert.ok(leftUsed < 0.25 * used, `${leftUsed} of ${used} did not come back`);
  });
}
