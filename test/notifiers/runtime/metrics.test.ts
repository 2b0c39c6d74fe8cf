import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Registry } from 'prom-client';
import { systemClock } from '../../../src/clock.ts';
import { accepted, type Backend, gone, Refusal } from '../../../src/notifiers/runtime/backend.ts';
import { watchCredential } from '../../../src/notifiers/runtime/credential.ts';
import { observeNotifier, providerLatency } from '../../../src/notifiers/runtime/metrics.ts';
import { Notifier } from '../../../src/notifiers/runtime/notifier.ts';
import { FakeHivemind } from '../fake-hivemind.ts';
import { FakeClock, keepLog, notifierOptions } from '../support.ts';

const DAY = 86_400_000;

test('what a notifier does can be read as metrics', async (t) => {
  const hivemind = await FakeHivemind.start(t, 'toy');
  const registry = new Registry();
  const backend: Backend = {
    validate: (info) => {
      if (!(info as Record<string, unknown>).token) throw new Refusal(4, 'no token');
      return { id: 'x' };
    },
    send: async ([push]) => [push!.id === 'dead' ? gone('Unregistered', 1) : accepted],
    credentialExpiry: Date.now() + 10 * DAY,
  };
  const notifier = new Notifier({
    ...notifierOptions('toy', backend, [hivemind]),
    took: providerLatency(registry),
  });
  hivemind.beforeEnd.push(() => notifier.stop(1_100));
  observeNotifier(registry, notifier, systemClock);
  await hivemind.until(() => hivemind.instances.size === 1);
  hivemind.push([{ serviceId: 'dead' }, {}, {}]);
  await hivemind.until(() => hivemind.outstanding === 0);
  for (const info of ['{"token":1}', '{"token":2}', '{}']) await hivemind.validate('toy', info);
  // Read twice: nothing is counted twice.
  await registry.metrics();
  const text = await registry.metrics();
  const lines = text
    .split('\n')
    .filter((line) => /^spns_notifier_(?!credential|provider_seconds_(bucket|sum))/.test(line));
  assert.deepEqual(lines.sort(), [
    'spns_notifier_attempts_total 3',
    'spns_notifier_copies_total 0',
    'spns_notifier_duplicates_total 0',
    'spns_notifier_gone_held_back_total 0',
    'spns_notifier_hiveminds_missing 0',
    'spns_notifier_in_flight 0',
    'spns_notifier_malformed_total 0',
    'spns_notifier_paused 0',
    'spns_notifier_provider_seconds_count 3',
    'spns_notifier_pushes_total{outcome="accepted",reason=""} 2',
    'spns_notifier_pushes_total{outcome="gone",reason="Unregistered"} 1',
    'spns_notifier_queued 0',
    'spns_notifier_received_total 3',
    'spns_notifier_registered 1',
    'spns_notifier_retries_total 0',
    'spns_notifier_retrying 0',
    'spns_notifier_validations_refused_total 1',
    'spns_notifier_validations_total 3',
  ]);
  const buckets = [...text.matchAll(/^spns_notifier_provider_seconds_bucket\{le="([^"]+)"\}/gm)].map(([, le]) => le);
  assert.equal(buckets.join(' '), '0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 5 10 30 +Inf');
  const left = Number(/^spns_notifier_credential_seconds_left (\S+)$/m.exec(text)![1]);
  assert.ok(left > 10 * 86_400 - 100 && left <= 10 * 86_400, `${left} s`);
  // Of a new credential the new end is told, and one that does not run out has none.
  let closed = false;
  await notifier.use({ ...backend, credentialExpiry: Date.now() + 400 * DAY });
  assert.match(await registry.metrics(), /^spns_notifier_credential_seconds_left 345\d{5}/m);
  const close = () => {
    closed = true;
  };
  await notifier.use({ ...backend, credentialExpiry: undefined, close });
  assert.doesNotMatch(await registry.metrics(), /^spns_notifier_credential_seconds_left /m);
  await notifier.use(backend);
  assert.ok(closed);
});

test('a credential that is about to expire is reported from 30 days on, once a day', async () => {
  const clock = new FakeClock(Date.UTC(2026, 0, 1));
  const { log, lines } = keepLog();
  const timer = watchCredential(Date.UTC(2026, 1, 2), 'the credential of apns', clock, log);
  assert.equal(lines.length, 0);
  await clock.advance(3 * DAY);
  assert.equal(lines.length, 2);
  assert.match(lines[0]!, /"warning".*the credential of apns expires on 2026-02-02, in 30 days/);
  await clock.advance(30 * DAY);
  assert.equal(lines.length, 32);
  assert.match(lines[30]!, /"warning".*expires on 2026-02-02, in 0 days/);
  assert.match(lines.at(-1)!, /"error".*expired on 2026-02-02/);
  timer.cancel();
  assert.equal(clock.pending, 0);
  watchCredential(undefined, 'x', clock, log).cancel();
  assert.equal(lines.length, 32);
});
