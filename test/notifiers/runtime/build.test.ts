import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { Registry } from 'prom-client';
import { createNotifier } from '../../../src/daemon/systemd.ts';
import { buildNotifier } from '../../../src/notifiers/runtime/build.ts';
import { loadConfig } from '../../../src/settings/config.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { writeConfig } from '../process.ts';
import { folder, keepLog } from '../support.ts';

test('a step of the clock is reported to operators, and does not make the notifier count as broken', async (t) => {
  const clock = new FakeClock(1_800_000_000_000);
  const file = await writeConfig(await folder(t), 'dummy', undefined, {});
  const config = loadConfig({ SPNS_CONFIG: file }, { role: 'notifier' });
  const notifier = await buildNotifier('dummy', {
    name: 'notify-dummy',
    config,
    log: keepLog().log,
    clock,
    systemd: createNotifier({}),
    registry: new Registry(),
    random: randomBytes,
    stopping: new AbortController().signal,
    giveUp: assert.fail,
  });
  t.after(() => notifier.stop(0));
  const doubts = () => notifier.ready!().reasons.filter((reason) => reason.includes('time'));
  assert.deepEqual(doubts(), []);
  clock.jump(86_400_000);
  assert.match(doubts().join(), /^the time is in doubt: this machine's clock says /);
});
