import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Service } from '../../../src/hivemind/notifications/outbox/service.ts';
import { expectedServices, type ServiceSources } from '../../../src/hivemind/subscriptions/expected-services.ts';
import { parseIni } from '../../../src/settings/ini.ts';

/** What is known of services: the names that stand in the settings, and elsewhere. */
function isExpected(known: {
  ini?: string;
  expected?: readonly string[];
  outbox?: readonly string[];
  reported?: readonly string[];
  devices?: readonly string[];
}) {
  const { ini = '', expected = [], outbox = [], reported = [], devices = [] } = known;
  const config = { ini: parseIni(ini), hivemind: { notifiersExpected: expected } };
  return expectedServices({
    config: config as unknown as ServiceSources['config'],
    outbox: { services: new Map(outbox.map((name) => [name, {} as Service])) },
    hasReported: (service) => reported.includes(service),
    devices: { countByService: () => new Map(devices.map((name) => [name, 1])) },
  });
}

test('a service is expected if it is configured, was ever there, or has subscriptions', () => {
  for (const known of [
    { ini: '[notify-apns]\n' },
    { expected: ['apns'] },
    { outbox: ['apns'] },
    { reported: ['apns'] },
    { devices: ['apns'] },
  ]) {
    const expected = isExpected(known);
    assert.deepEqual([expected('apns'), expected('huawei')], [true, false], JSON.stringify(known));
  }
});

test('no other section of the settings makes a service', () => {
  const expected = isExpected({ ini: '[hivemind]\n[notify-]\n[xnotify-apns]\n' });
  assert.deepEqual(
    ['hivemind', '', 'apns', 'notify-'].map((name) => expected(name)),
    [false, false, false, false],
  );
});
