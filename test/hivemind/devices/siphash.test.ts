import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SipHash } from '../../../src/hivemind/devices/siphash.ts';
import { seededRandom } from '../../support/random.ts';

/**
 * HalfSipHash with 64 bits of output, as its authors describe it.
 *
 * @param c rounds for each word
 * @param d rounds at the end, twice
 */
function halfSipHash(c: number, d: number, key: Buffer, bytes: Buffer): Buffer {
  const [k0, k1] = [key.readUInt32LE(0), key.readUInt32LE(4)];
  const v = Uint32Array.of(k0, k1 ^ 0xee, k0 ^ 0x6c796765, k1 ^ 0x74656462);
  const rotate = (n: number, by: number) => {
    v[n] = (v[n]! << by) | (v[n]! >>> (32 - by));
  };
  const half = (a: number, b: number, by: number) => {
    v[a]! += v[b]!;
    rotate(b, by);
    v[b]! ^= v[a]!;
  };
  const rounds = (count: number) => {
    for (let n = 0; n < count; n++) {
      half(0, 1, 5);
      rotate(0, 16);
      half(2, 3, 8);
      half(0, 3, 7);
      half(2, 1, 13);
      rotate(2, 16);
    }
  };
  const padded = Buffer.alloc((bytes.length | 3) + 1);
  bytes.copy(padded);
  padded[padded.length - 1] = bytes.length;
  for (let at = 0; at < padded.length; at += 4) {
    const word = padded.readUInt32LE(at);
    v[3]! ^= word;
    rounds(c);
    v[0]! ^= word;
  }
  v[2]! ^= 0xee;
  rounds(d);
  const out = Buffer.alloc(8);
  out.writeUInt32LE((v[1]! ^ v[3]!) >>> 0, 0);
  v[1]! ^= 0xdd;
  rounds(d);
  out.writeUInt32LE((v[1]! ^ v[3]!) >>> 0, 4);
  return out;
}

test('the reference of this test is the published HalfSipHash', () => {
  const key = Buffer.from('0001020304050607', 'hex');
  const input = Buffer.from(Array.from({ length: 8 }, (_, n) => n));
  for (const [length, expected] of [
    [0, '218d1f59b9b83cc8'],
    [1, 'be552412f8387315'],
    [2, '064f39ef7c50eb57'],
    [3, 'ce0f1a45f7060679'],
    [8, 'edfee820bce4858c'],
  ] as const)
    assert.equal(halfSipHash(2, 4, key, input.subarray(0, length)).toString('hex'), expected);
});

test('it is HalfSipHash-1-3 of any bytes, wherever they stand', (t) => {
  const random = seededRandom();
  t.diagnostic(`SPNS_TEST_SEED=${random.seed}`);
  for (let n = 0; n < 500; n++) {
    const key = random.bytes(8);
    const hash = new SipHash(key);
    const bytes = random.bytes(300);
    const start = random.int(20);
    const end = start + random.int(n < 250 ? 20 : 270);
    const low = hash.bytes(bytes, start, end);
    const expected = halfSipHash(1, 3, key, bytes.subarray(start, end));
    assert.deepEqual([low, hash.high], [expected.readUInt32LE(0), expected.readUInt32LE(4)], `${end - start} bytes`);
  }
});
