import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { decode } from '../../src/codec/bencode.ts';
import { endpoints } from '../../src/hivemind/operators/endpoints.ts';
import {
  encodeDeviceGone,
  encodePushReport,
  encodeRegistration,
  encodeSealedPushes,
  FINGERPRINT_SIZE,
} from '../../src/session/notifier-protocol.ts';

const PAGE = readFileSync(join(import.meta.dirname, '../../DOCUMENTATION.md'), 'utf8');
const fingerprint = Buffer.alloc(FINGERPRINT_SIZE, 1);

/** Each message with all of its keys. */
const MESSAGES: Readonly<Record<string, Buffer>> = {
  'admin.register_notifier': encodeRegistration({
    service: 'apns',
    instance: Buffer.from('a'),
    window: 1,
    validatesMany: true,
  }),
  'admin.unregister_notifier': encodeRegistration({ service: 'apns', instance: Buffer.from('a') }),
  'notifier.sealed': encodeSealedPushes([
    {
      id: 1,
      serviceId: 'token',
      serviceData: Buffer.from('data'),
      expiry: 1,
      payload: Buffer.from('payload'),
      wantsAnswer: true,
      urgent: false,
      fingerprint,
      doubt: 1,
      proven: fingerprint,
    },
  ]),
  'admin.push_report': encodePushReport({
    service: 'apns',
    accepted: [1],
    refused: [2],
    handedBack: [3],
    answers: [[1, 'OK']],
  }),
  'admin.device_gone': encodeDeviceGone({
    service: 'apns',
    serviceId: 'token',
    time: 1,
    reason: '410',
    local: true,
  }),
};

for (const [name, part] of Object.entries(MESSAGES)) {
  test(`every key of ${name} is documented`, () => {
    const row = new RegExp(`^\\| \\w+ \`${name}\` \\|.*$`, 'm').exec(PAGE)?.[0] ?? '';
    const value = decode(part);
    const [dict] = Array.isArray(value) ? value : [value];
    for (const key of (dict as Map<string, unknown>).keys())
      assert.match(row, new RegExp(`[{ ]${key}:|\`${key}\``), `DOCUMENTATION.md has no ${key} of ${name}`);
  });
}

test('everything that the hivemind can be asked or told over OxenMQ is documented', () => {
  for (const [category, { commands }] of Object.entries(endpoints({} as never))) {
    // What storage servers and oxend say is in docs/spec/.
    if (category === 'notify') continue;
    for (const name of Object.keys(commands))
      assert.ok(PAGE.includes(`\`${category}.${name}\``), `DOCUMENTATION.md has no ${category}.${name}`);
  }
});

test('the replies of the documentation are those of the code', () => {
  const source = readFileSync(join(import.meta.dirname, '../../src/hivemind/subscriptions/subscriptions.ts'), 'utf8');
  const replies = [...PAGE.matchAll(/^\| [^|]* \| `\{.*?"message":"([^"…]+)".*?\}` \|$/gm)].map(([, text]) => text!);
  assert.equal(replies.length, 5);
  for (const text of replies) assert.ok(source.includes(`'${text}'`), text);
});
