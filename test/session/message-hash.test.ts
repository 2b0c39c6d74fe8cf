import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { fitsMessageHash, messageHash } from '../../src/session/message-hash.ts';
import { fuzz } from '../support/fuzz.ts';
import { vectors } from '../support/vectors.ts';

const { cases } = vectors<{
  cases: { note: string; account: string; namespace: number; data: string; hash: string }[];
}>('message-hash.json');

describe("a message's hash", () => {
  it('is computed and checked as by the storage servers, in every case of the vectors', () => {
    assert.equal(cases.length, 8);
    for (const { account, namespace, data, hash } of cases) {
      const parts = [Buffer.from(account, 'hex'), namespace, Buffer.from(data, 'base64')] as const;
      assert.equal(messageHash(...parts).toString(), hash);
      assert.ok(fitsMessageHash(...parts, Buffer.from(hash)));
    }
  });

  it('fits no other account, namespace or body, and no other spelling of it', () => {
    fuzz(300, (random) => {
      const account = random.bytes(33);
      const namespace = random.below(65_536) - 32_768;
      const body = random.bytes(random.below(300));
      const hash = messageHash(account, namespace, body);
      assert.equal(hash.length, 43);
      assert.ok(fitsMessageHash(account, namespace, body, hash));
      for (let at = 0; at < hash.length; at++) {
        const other = Buffer.from(hash);
        other[at]! ^= 1 << random.below(8);
        assert.ok(!fitsMessageHash(account, namespace, body, other), `${hash} ${other}`);
      }
      const flipped = (bytes: Buffer) => {
        const other = Buffer.from(bytes);
        other[random.below(other.length)]! ^= 1 << random.below(8);
        return other;
      };
      assert.ok(!fitsMessageHash(flipped(account), namespace, body, hash));
      assert.ok(!fitsMessageHash(account, namespace + 1, body, hash));
      assert.ok(!fitsMessageHash(account, namespace, Buffer.concat([body, Buffer.from([0])]), hash));
      if (body.length > 0) assert.ok(!fitsMessageHash(account, namespace, flipped(body), hash));
      for (const size of [0, 42]) assert.ok(!fitsMessageHash(account, namespace, body, hash.subarray(0, size)));
      assert.ok(!fitsMessageHash(account, namespace, body, Buffer.concat([hash, Buffer.from('=')])));
    });
  });

  it('is checked for bodies of every size that a storage server accepts, and for larger ones not even computed', () => {
    const account = Buffer.alloc(33, 3);
    for (const size of [76_800, 100_000]) {
      const body = Buffer.alloc(size, 7);
      assert.ok(fitsMessageHash(account, -32_768, body, messageHash(account, -32_768, body)));
    }
    assert.throws(() => messageHash(account, 0, Buffer.alloc(100_001)), RangeError);
    assert.equal(fitsMessageHash(account, 0, Buffer.alloc(10_000_000), Buffer.alloc(43, 'a')), false);
  });
});
