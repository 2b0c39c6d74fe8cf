import assert from 'node:assert/strict';
import { test } from 'node:test';
import { highOf, lowOf, PushFingerprints } from '../../../../src/hivemind/notifications/copies/fingerprints.ts';
import { Doubt } from '../../../../src/hivemind/notifications/doubt.ts';
import { FINGERPRINT_SIZE } from '../../../../src/session/notifier-protocol.ts';
import { slotOf } from '../../../../src/session/slots.ts';

const SECRET = Buffer.alloc(32, 3);
const ACCOUNT = Buffer.from(`05${'a7'.repeat(8)}${'01'.repeat(24)}`, 'hex');
const HASH = Buffer.from('h'.repeat(43));

const of = (
  what: { secret?: Buffer; service?: string; device?: string; hash?: Buffer; namespace?: number; doubt?: Doubt } = {},
) => {
  const { secret = SECRET, service = 'apns', device = 'token', hash = HASH, namespace = 0, doubt = Doubt.none } = what;
  return new PushFingerprints(secret).of(service, device, ACCOUNT, hash, namespace, doubt);
};

test('the same push has the same fingerprint at every hivemind with the same secret, and a different push a different one', () => {
  assert.deepEqual(of(), of());
  const all = [
    of(),
    of({ secret: Buffer.alloc(32, 4) }),
    of({ service: 'firebase' }),
    of({ device: 'token 2' }),
    of({ hash: Buffer.from('i'.repeat(43)) }),
    of({ doubt: Doubt.unproven }),
    of({ doubt: Doubt.unproven, namespace: 1 }),
  ].map(({ fingerprint }) => fingerprint);
  assert.equal(new Set(all).size, all.length);
  for (const fingerprint of all) assert.equal(fingerprint.length, FINGERPRINT_SIZE);
});

test('fingerprints stay as they are from version to version: hiveminds and notifiers of several serve together', () => {
  const hex = (text: string) => Buffer.from(text, 'latin1').toString('hex');
  assert.equal(hex(of().key), '1e6458b3ea4d770c');
  const { fingerprint, key, lesser } = of({ doubt: Doubt.untimely, namespace: -3 });
  assert.deepEqual([fingerprint, key, ...lesser].map(hex), [
    'a8b3d304dd68e98c',
    'a8b3d304df68e98c',
    '1e6458b3ea4d770c',
    'a8b3d304de68e98c',
  ]);
});

test('the slot is that of the account', () => {
  assert.equal(of().slot, slotOf(ACCOUNT));
});

test('for a message without doubt the namespace is not part of it, as in the duplicate filter', () => {
  assert.deepEqual(of({ namespace: 0 }), of({ namespace: 5 }));
});

test('for a doubtful message notifiers see one fingerprint whatever the doubt, and hiveminds which of them has it with less', () => {
  const [none, unproven, untimely] = [of(), of({ doubt: Doubt.unproven }), of({ doubt: Doubt.untimely })];
  assert.equal(unproven.fingerprint, untimely.fingerprint);
  assert.equal(none.key, none.fingerprint);
  assert.deepEqual(none.lesser, []);
  assert.deepEqual([none.lesser[0], unproven.lesser[0], untimely.lesser[0]], [undefined, none.key, none.key]);
  assert.deepEqual(unproven.lesser, [none.key]);
  assert.deepEqual(untimely.lesser, [none.key, unproven.key]);
  assert.equal(new Set([none.key, unproven.key, untimely.key]).size, 3);
  assert.notEqual(of({ doubt: Doubt.unproven, namespace: 1 }).key, unproven.key);
});

test('a fingerprint is split into unsigned halves', () => {
  const key = Buffer.from('0102038004ff06f0', 'hex').toString('latin1');
  assert.deepEqual([lowOf(key), highOf(key)], [0x80030201, 0xf006ff04]);
});
