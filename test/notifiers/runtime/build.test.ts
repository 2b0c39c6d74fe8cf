import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Registry } from 'prom-client';
import { openSystemd } from '../../../src/daemon/systemd.ts';
import { buildNotifier } from '../../../src/notifiers/runtime/build.ts';
import { loadConfig } from '../../../src/settings/config.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { until } from '../../support/until.ts';
import { FakeHivemind } from '../fake-hivemind.ts';
import { writeConfig } from '../process.ts';
import { folder, keepLog } from '../support.ts';

const SERVICE = 'slow';
/** Its provider takes 1.5 s to answer, and its credential expired in 1970. */
const MODULE = `export const create = ({ clock }) => ({
  validate: () => ({ id: 'device' }),
  send: (pushes) =>
    new Promise((resolve) => clock.setTimeout(() => resolve(pushes.map(() => ({ kind: 'accepted' }))), 1_500)),
  credentialExpiry: 1_000_000_999,
});
`;

async function build(t: TestContext, hivemind?: FakeHivemind) {
  const registry = new Registry();
  const clock = new FakeClock(1_800_000_000_000);
  const path = await folder(t);
  const module = join(path, 'slow.mjs');
  await writeFile(module, MODULE);
  const file = await writeConfig(path, SERVICE, hivemind, { module });
  const notifier = await buildNotifier(SERVICE, {
    name: `notify-${SERVICE}`,
    config: loadConfig({ SPNS_CONFIG: file }, { role: 'notifier' }),
    log: keepLog().log,
    clock,
    systemd: openSystemd({}),
    registry,
    random: randomBytes,
    stopping: new AbortController().signal,
    giveUp: assert.fail,
  });
  t.after(() => notifier.stop(0));
  return { clock, notifier, registry };
}

test('a step of the clock is reported to operators, and does not make the notifier count as broken', async (t) => {
  const { clock, notifier } = await build(t);
  const doubts = () => notifier.ready!().reasons.filter((reason) => reason.includes('time'));
  assert.deepEqual(doubts(), []);
  clock.jump(86_400_000);
  assert.match(doubts().join(), /^the time is in doubt: this machine's clock says /);
});

test('the hivemind is told how long the provider takes, in milliseconds, and until when the credential is good', async (t) => {
  const hivemind = await FakeHivemind.start(t, SERVICE);
  const { clock, registry } = await build(t, hivemind);
  await hivemind.until(() => hivemind.instances.size === 1);
  hivemind.push([{ expiry: clock.now() + 86_400_000 }]);
  await until(async () => {
    await clock.advance(100);
    return String(hivemind.statistics.at(-1)?.get('provider_ms') ?? '') !== '';
  });
  const told = hivemind.statistics.at(-1)!;
  for (const key of ['provider_ms', 'provider_p95_ms']) {
    const ms = Number(told.get(key));
    assert.ok(ms >= 1_000 && ms <= 2_500, `${key}: ${ms}`);
  }
  assert.equal(String(told.get('credential_expires')), '1000000');
  assert.match(await registry.metrics(), /^spns_notifier_provider_seconds_count 1$/m);
});
