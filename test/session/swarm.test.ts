import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { INVALID_SWARM, SwarmSpace } from '../../src/session/swarm.ts';
import { fuzz } from '../support/fuzz.ts';
import { swarmSpace } from '../support/reference.ts';
import { vectors } from '../support/vectors.ts';

const file = vectors<{
  space: { account: string; space: string }[];
  swarm_lists: Record<string, string[]>;
  closest: { account: string; space: string; closest: Record<string, string> }[];
}>('swarm-space.json');

describe('swarmSpace', () => {
  it('places every account of the vectors', () => {
    assert.equal(file.space.length, 76);
    for (const { account, space } of file.space) assert.equal(swarmSpace(Buffer.from(account, 'hex')), BigInt(space));
  });

  it('reads an account in the middle of other bytes', () => {
    const account = Buffer.from(file.space[5]!.account, 'hex');
    assert.equal(swarmSpace(Buffer.concat([Buffer.alloc(7, 1), account, Buffer.alloc(7, 2)]), 7), swarmSpace(account));
  });
});

describe('SwarmSpace', () => {
  for (const [name, list] of Object.entries(file.swarm_lists)) {
    it(`finds the closest swarm in the list "${name}"`, () => {
      const swarms = new SwarmSpace(list.map(BigInt));
      assert.equal(file.closest.length, 69);
      for (const { account, space, closest } of file.closest) {
        const bytes = Buffer.from(account, 'hex');
        assert.equal(swarmSpace(bytes), BigInt(space));
        const index = swarms.closest(bytes);
        assert.equal(index < 0 ? INVALID_SWARM : swarms.ids[index], BigInt(closest[name]!), `${name}: ${account}`);
      }
    });
  }

  it('sorts the ids, and leaves out duplicates and the id of no swarm', () => {
    assert.deepEqual(new SwarmSpace([9n, 2n ** 63n, INVALID_SWARM, 1n, 9n]).ids, [1n, 9n, 2n ** 63n]);
    assert.equal(new SwarmSpace([INVALID_SWARM]).closest(Buffer.alloc(33)), -1);
  });

  it('agrees with the definition in bigints, on random lists', () => {
    fuzz(300, (random) => {
      const number = () => random.bytes(8).readBigUInt64BE() >> BigInt(random.below(64));
      const swarms = new SwarmSpace(Array.from({ length: 1 + random.below(20) }, number));
      const account = Buffer.alloc(40);
      const offset = random.below(8);
      account.writeBigUInt64BE(number(), offset + 1);
      const space = swarmSpace(account, offset);
      const up = (id: bigint) => BigInt.asUintN(64, id - space);
      const down = (id: bigint) => BigInt.asUintN(64, space - id);
      const near = (id: bigint) => {
        if (up(id) < down(id)) return up(id);
        return down(id);
      };
      // By the nearer of its two distances; of two equally near, the one further down.
      const [best] = [...swarms.ids].sort((a, b) => {
        if (near(a) !== near(b)) return near(a) < near(b) ? -1 : 1;
        return down(a) < down(b) ? -1 : 1;
      });
      assert.equal(swarms.ids[swarms.closest(account, offset)], best);
    });
  });
});
