import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { BencodeError } from '../../src/codec/bencode.ts';
import { slotBits } from '../../src/hivemind/cluster/roster.ts';
import {
  decodeChanged,
  decodeHeard,
  decodeHello,
  decodeLeaving,
  decodeProgress,
  encodeChanged,
  encodeHeard,
  encodeHello,
  encodeLeaving,
  encodeProgress,
} from '../../src/session/cluster-protocol.ts';
import { refusesDamage } from '../support/fuzz.ts';

const sender = { name: 'a', run: 2n ** 63n - 1n };
const hello = { ...sender, version: '2.0.0' };
const progress = { ...sender, handed: ['\x00\x01\x80\xffabcd', 'handed 2'], ended: ['ended  1'], none: ['none   1'] };
const quiet = { ...sender, handed: [], ended: [], none: [] };
const changed = { ...sender, slots: slotBits([0, 9, 255]) };
const heard = {
  ...sender,
  servers: [
    { key: Buffer.alloc(32, 'k'), slot: 9 },
    { key: Buffer.alloc(32, 'l'), slot: 255 },
  ],
};

describe('the messages between the hiveminds of a cluster', () => {
  it('are written with the agreed keys', () => {
    const from = '1:m1:a1:ri9223372036854775807e';
    assert.equal(encodeHello(hello).toString(), `d${from}1:v5:2.0.0e`);
    assert.equal(encodeLeaving(sender).toString(), `d${from}e`);
    assert.equal(
      encodeProgress(progress).toString('latin1'),
      `d1:e8:ended  11:h16:\x00\x01\x80\xffabcdhanded 21:m1:a1:n8:none   11:ri9223372036854775807ee`,
    );
    assert.equal(encodeProgress(quiet).toString(), `d${from}e`);
    assert.equal(encodeChanged(changed).toString('latin1'), `d${from}1:s32:\x01\x02${'\x00'.repeat(29)}\x80e`);
    const keys = `1:k64:${'k'.repeat(32)}${'l'.repeat(32)}`;
    assert.equal(encodeHeard(heard).toString('latin1'), `d${keys}${from}1:s2:\t\xffe`);
  });

  it('are read as they were written', () => {
    assert.deepEqual(decodeHello(encodeHello(hello)), hello);
    assert.deepEqual(decodeLeaving(encodeLeaving(sender)), sender);
    assert.deepEqual(decodeLeaving(encodeLeaving({ name: 'ü', run: 1n })), { name: 'ü', run: 1n });
    assert.deepEqual(decodeProgress(encodeProgress(progress)), progress);
    assert.deepEqual(decodeProgress(encodeProgress(quiet)), quiet);
    assert.deepEqual(decodeChanged(encodeChanged(changed)), changed);
    assert.deepEqual(decodeHeard(encodeHeard(heard)), heard);
    assert.deepEqual(decodeHeard(encodeHeard({ ...sender, servers: [] })), { ...sender, servers: [] });
  });

  it('may be as large as they can be, and no larger', () => {
    const fingerprints = Array.from({ length: 4_096 }, (_, n) => String(n).padStart(8));
    const servers = Array.from({ length: 4_096 }, () => ({ key: Buffer.alloc(32), slot: 0 }));
    assert.equal(decodeProgress(encodeProgress({ ...quiet, ended: fingerprints })).ended.length, 4_096);
    assert.equal(decodeHeard(encodeHeard({ ...sender, servers })).servers.length, 4_096);
    decodeHello(encodeHello({ ...hello, name: 'n'.repeat(64), version: 'v'.repeat(64) }));
    for (const wrong of [
      () => decodeProgress(encodeProgress({ ...quiet, handed: [...fingerprints, 'one more'] })),
      () => decodeProgress(encodeProgress({ ...quiet, ended: ['short'] })),
      () => decodeHeard(encodeHeard({ ...sender, servers: [...servers, ...heard.servers.slice(1)] })),
      () => decodeHeard(encodeHeard({ ...sender, servers: [{ key: Buffer.alloc(31), slot: 0 }] })),
      () => decodeHeard(Buffer.from(`d1:k32:${'k'.repeat(32)}1:m1:a1:ri1e1:s2:12e`)),
      () => decodeChanged(encodeChanged({ ...changed, slots: Buffer.alloc(31) })),
      () => decodeLeaving(encodeLeaving({ ...sender, name: '' })),
      () => decodeLeaving(encodeLeaving({ ...sender, name: 'n'.repeat(65) })),
      () => decodeHello(encodeHello({ ...hello, version: '' })),
      () => decodeHello(encodeHello({ ...hello, version: 'v'.repeat(65) })),
    ]) {
      assert.throws(wrong, BencodeError, String(wrong));
    }
  });

  const messages: [name: string, intact: Buffer, decode: (data: Buffer) => unknown][] = [
    ['a greeting', encodeHello(hello), decodeHello],
    ['a progress', encodeProgress(progress), decodeProgress],
    ['a hint', encodeChanged(changed), decodeChanged],
    ['a leaving', encodeLeaving(sender), decodeLeaving],
    ['a report of servers', encodeHeard(heard), decodeHeard],
  ];
  for (const [name, intact, decode] of messages) {
    it(`${name} that is cut or damaged is refused, with nothing but BencodeError`, () => {
      refusesDamage(decode, intact, ['le', 'i5e', 'de', 'd1:m1:ae', 'd1:ri1ee', 'd1:mi1e1:ri1ee', 'd1:m1:a1:r1:1e']);
    });
  }
});
