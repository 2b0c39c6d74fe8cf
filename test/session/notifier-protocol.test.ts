import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { BencodeError } from '../../src/codec/bencode.ts';
import {
  decodeDeviceGone,
  decodeDropRegistrations,
  decodePushReport,
  decodeRegistration,
  decodeSealedPushes,
  decodeServiceInfos,
  decodeVerdicts,
  encodeDeviceGone,
  encodeDropRegistrations,
  encodePushReport,
  encodeRegistration,
  encodeSealedPushes,
  encodeServiceInfos,
  encodeVerdicts,
} from '../../src/session/notifier-protocol.ts';
import { refusesDamage } from '../support/fuzz.ts';

const registration = { service: 'apns', instance: Buffer.from([0, 255, 7]), window: 1000, validatesMany: true };
const infos = ['{"token":"ü"}', '{}', '5'];
const verdicts = [['0', 'id', Buffer.of(255)], ['4', 'no'], []];
const pushes = [
  {
    id: 7,
    serviceId: 'token ü',
    serviceData: null,
    expiry: 1_701_000_000_000,
    payload: Buffer.from([0, 1]),
    wantsAnswer: false,
    urgent: true,
    fingerprint: null,
    doubt: 0,
    proven: null,
  },
  {
    id: 2 ** 50,
    serviceId: 'x',
    serviceData: Buffer.alloc(0),
    expiry: 2n ** 63n - 1n,
    payload: Buffer.alloc(0),
    wantsAnswer: true,
    urgent: false,
    fingerprint: null,
    doubt: 0,
    proven: null,
  },
];
/** As a hivemind of a cluster sends it. */
const copies = [
  { ...pushes[0]!, fingerprint: Buffer.from('0001fe8081ff7f0a', 'hex'), doubt: 0 },
  { ...pushes[0]!, fingerprint: Buffer.from('unproven'), doubt: 1, proven: Buffer.from('0001fe8081ff7f0a', 'hex') },
];
const report = {
  service: 'firebase',
  accepted: [1, 2],
  refused: [3],
  handedBack: [4],
  answers: [[2, 'HTTP 200 ✓'] as const],
};
const quiet = { service: 'firebase', accepted: [], refused: [], handedBack: [], answers: [] };
const gone = { service: 'apns', serviceId: 'token', time: 1_700_000_000_000, reason: 'Unregistered', local: false };

describe('the protocol between hivemind and notifiers', () => {
  it('writes each message with the agreed keys', () => {
    assert.equal(encodeRegistration(registration).toString('latin1'), 'd1:i3:\x00\xff\x071:s4:apns1:vi1e1:wi1000ee');
    assert.equal(encodeRegistration({ service: 'apns', instance: Buffer.from('i') }).toString(), 'd1:i1:i1:s4:apnse');
    assert.equal(
      encodeSealedPushes(pushes).toString('latin1'),
      'ld1:d8:token \xc3\xbc1:ei1701000000000e1:ii7e1:p2:\x00\x01ed1:d1:x1:ei9223372036854775807e1:ii1125899906842624e1:li1e1:p0:1:qi1e1:x0:ee',
    );
    assert.equal(
      encodeSealedPushes(copies).toString('latin1'),
      'ld1:d8:token \xc3\xbc1:ei1701000000000e1:f8:\x00\x01\xfe\x80\x81\xff\x7f\x0a1:ii7e1:p2:\x00\x01ed1:d8:token \xc3\xbc1:ei1701000000000e1:f8:unproven1:gi1e1:ii7e1:p2:\x00\x011:v8:\x00\x01\xfe\x80\x81\xff\x7f\x0aee',
    );
    assert.equal(
      encodePushReport(report).toString(),
      'd1:ali1ei2ee1:hli4ee1:rli3ee1:s8:firebase1:wlli2e12:HTTP 200 ✓eee',
    );
    assert.equal(encodeServiceInfos(infos).toString(), 'l14:{"token":"ü"}2:{}1:5e');
    assert.equal(encodeVerdicts(verdicts).toString('latin1'), 'll1:02:id1:\xffel1:42:noelee');
    assert.equal(encodePushReport(quiet).toString(), 'd1:s8:firebasee');
    assert.equal(encodeDeviceGone(gone).toString(), 'd1:d5:token1:r12:Unregistered1:s4:apns1:ti1700000000000ee');
    assert.equal(
      encodeDeviceGone({ ...gone, local: true }).toString(),
      'd1:d5:token1:li1e1:r12:Unregistered1:s4:apns1:ti1700000000000ee',
    );
  });

  it('reads what it wrote', () => {
    assert.deepEqual(decodeServiceInfos(encodeServiceInfos(infos)).map(String), infos);
    assert.deepEqual(
      decodeVerdicts(encodeVerdicts(verdicts)),
      verdicts.map((verdict) => verdict.map((part) => Buffer.from(part as string))),
    );
    assert.equal(decodeRegistration(Buffer.from('d1:i1:i1:s4:apnse')).validatesMany, false);
    assert.deepEqual(decodeRegistration(encodeRegistration(registration)), registration);
    assert.equal(decodeRegistration(encodeRegistration({ ...registration, window: undefined! })).window, 0);
    assert.deepEqual(decodeSealedPushes(encodeSealedPushes(pushes)), pushes);
    assert.deepEqual(decodeSealedPushes(encodeSealedPushes(copies)), copies);
    // An older hivemind says nothing of urgency.
    const older = decodeSealedPushes(Buffer.from('ld1:d1:x1:ei1e1:ii1e1:p0:ee'));
    assert.deepEqual(
      older.map(({ urgent }) => urgent),
      [true],
    );
    assert.deepEqual(decodePushReport(encodePushReport(report)), report);
    assert.deepEqual(decodePushReport(encodePushReport(quiet)), quiet);
    assert.deepEqual(decodeDeviceGone(encodeDeviceGone(gone)), gone);
    assert.deepEqual(decodeDeviceGone(encodeDeviceGone({ ...gone, local: true })), { ...gone, local: true });
  });

  it('refuses names that are empty or too long, and a negative window', () => {
    decodeRegistration(encodeRegistration({ ...registration, instance: Buffer.alloc(64), service: 's'.repeat(32) }));
    for (const wrong of [
      { instance: Buffer.alloc(0) },
      { instance: Buffer.alloc(65) },
      { service: '' },
      { service: 's'.repeat(33) },
      { service: 'ü'.repeat(17) },
      { window: -1 },
    ]) {
      assert.throws(() => decodeRegistration(encodeRegistration({ ...registration, ...wrong })), BencodeError);
    }
  });

  it('reads answers as pairs of number and text alone', () => {
    for (const answer of ['le', 'li2ee', 'l1:xe', 'l1:x1:ye', 'li2ei3ee', 'li2e1:xi3ee', 'li2e1:x1:ye', '1:x']) {
      assert.throws(() => decodePushReport(Buffer.from(`d1:s1:x1:wl${answer}ee`)), /pairs of number and text/, answer);
    }
  });

  it('reads dropped registrations, one or more', () => {
    for (const ids of [['a'], ['a', 'ü', '']]) {
      assert.deepEqual(decodeDropRegistrations(encodeDropRegistrations(ids)), ids);
    }
    assert.throws(() => decodeDropRegistrations(encodeDropRegistrations([])), BencodeError);
  });

  it('refuses a fingerprint of another size, and an impossible doubt', () => {
    for (const wrong of [
      { fingerprint: Buffer.alloc(0) },
      { fingerprint: Buffer.alloc(7) },
      { fingerprint: Buffer.alloc(9) },
      { proven: Buffer.alloc(7) },
      { doubt: 10 },
    ]) {
      assert.throws(() => decodeSealedPushes(encodeSealedPushes([{ ...copies[0]!, ...wrong }])), BencodeError);
    }
    assert.throws(() => decodeSealedPushes(Buffer.from('ld1:d1:x1:ei1e1:gi-1e1:ii1e1:p0:ee')), BencodeError);
    assert.equal(decodeSealedPushes(encodeSealedPushes([{ ...copies[0]!, doubt: 9 }]))[0]?.doubt, 9);
  });

  const messages: [name: string, intact: Buffer, decode: (data: Buffer) => unknown][] = [
    ['a registration', encodeRegistration(registration), decodeRegistration],
    ['service_infos', encodeServiceInfos(infos), decodeServiceInfos],
    ['verdicts', encodeVerdicts(verdicts), decodeVerdicts],
    ['sealed pushes', encodeSealedPushes(pushes), decodeSealedPushes],
    ['sealed pushes of a cluster', encodeSealedPushes(copies), decodeSealedPushes],
    ['a report', encodePushReport(report), decodePushReport],
    ['a gone device', encodeDeviceGone(gone), decodeDeviceGone],
    ['a list of dropped devices', encodeDropRegistrations(['a', 'ü', '']), decodeDropRegistrations],
  ];
  for (const [name, intact, decode] of messages) {
    it(`refuses ${name} cut or damaged, and throws nothing but BencodeError`, () => {
      refusesDamage(decode, intact, [
        'le5',
        'i5e',
        '0:',
        'lli1eee',
        'ldee',
        'd1:ai5e1:s1:xe',
        'd1:s1:x1:wli5eee',
        'd1:s1:x1:al1:xee',
      ]);
    });
  }
});
