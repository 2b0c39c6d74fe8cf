import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { deriveClusterKey, deriveNotifierKey } from '../../src/session/notifier-key.ts';
import { x25519Public } from '../../src/session/sodium.ts';
import { vectors } from '../support/vectors.ts';

const { cases } = vectors<{
  cases: { hivemind_privkey: string; name: string; notifier_privkey: string; notifier_pubkey: string }[];
}>('notifier-key.json');

describe('deriveNotifierKey', () => {
  it('is checked against every case of the vectors', () => assert.equal(cases.length, 28));

  for (const vector of cases) {
    it(`derives the key of ${vector.name} from ${vector.hivemind_privkey.slice(0, 6)}…`, () => {
      const secret = deriveNotifierKey(Buffer.from(vector.hivemind_privkey, 'hex'), vector.name);
      assert.equal(secret.toString('hex'), vector.notifier_privkey);
      assert.equal(x25519Public(secret).toString('hex'), vector.notifier_pubkey);
    });
  }
});

it("derives the key of a cluster, which is not a notifier's, from that of its hiveminds", () => {
  const [one, other] = [Buffer.alloc(32, 1), Buffer.alloc(32, 2)];
  assert.equal(deriveClusterKey(one).length, 32);
  assert.deepEqual(deriveClusterKey(one), deriveClusterKey(Buffer.from(one)));
  assert.notDeepEqual(deriveClusterKey(one), deriveClusterKey(other));
  for (const { name } of cases) assert.notDeepEqual(deriveClusterKey(one), deriveNotifierKey(one, name));
});
