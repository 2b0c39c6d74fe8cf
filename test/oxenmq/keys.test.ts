import assert from 'node:assert/strict';
import { test } from 'node:test';
import { curveKeyPair } from 'zeromq';
import { keyPairFromSecret, randomKeyPair, toZ85 } from '../../src/oxenmq/keys.ts';
import vectors from '../vectors/notifier-key.json' with { type: 'json' };

test('the public half is computed from the secret half', () => {
  for (const c of vectors.cases) {
    const pair = keyPairFromSecret(Buffer.from(c.notifier_privkey, 'hex'));
    assert.equal(pair.publicKey.toString('hex'), c.notifier_pubkey);
  }
});

test('a secret of another length is refused', () => {
  assert.throws(() => keyPairFromSecret(Buffer.alloc(31)), RangeError);
});

test('random pairs differ', () => {
  assert.notDeepEqual(randomKeyPair().secretKey, randomKeyPair().secretKey);
});

test('Z85 writes what ZeroMQ expects', () => {
  // The example of ZeroMQ RFC 32.
  assert.equal(toZ85(Buffer.from('864fd26fb559f75b', 'hex')), 'HelloWorld');
  assert.equal(toZ85(randomKeyPair().publicKey).length, curveKeyPair().publicKey.length);
  assert.throws(() => toZ85(Buffer.alloc(3)), RangeError);
});
