import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { AddressError, formatAddress, parseAddress, zmqAddress } from '../../src/oxenmq/address.ts';
import vectors from '../vectors/addresses.json' with { type: 'json' };

interface Case {
  addr: string;
  error?: string;
  full_b32z?: string;
  full_b64?: string;
  full_hex?: string;
  host?: string;
  port?: number;
  proto?: string;
  pubkey?: string;
  socket?: string;
  zmq?: string;
}

describe('addresses are read and written as liboxenmq does', () => {
  for (const c of vectors.cases as Case[]) {
    test(c.addr, () => {
      if (c.error !== undefined) {
        assert.throws(() => parseAddress(c.addr), { name: 'AddressError', message: c.error });
        return;
      }
      const address = parseAddress(c.addr);
      assert.equal(address.protocol, c.proto?.replace('_curve', ''));
      assert.equal(address.host ?? '', c.host);
      assert.equal(address.port ?? 0, c.port);
      assert.equal(address.path ?? '', c.socket);
      assert.equal(address.publicKey?.toString('hex') ?? '', c.pubkey);
      assert.equal(formatAddress(address), c.full_b32z);
      assert.equal(formatAddress(address, 'base64'), c.full_b64);
      assert.equal(formatAddress(address, 'hex'), c.full_hex);
      assert.equal(zmqAddress(address), c.zmq);
    });
  }
});

test('a key that is none of the three encodings is refused', () => {
  assert.throws(() => parseAddress(`curve://host:5/${'!'.repeat(64)}`), AddressError);
  assert.throws(() => parseAddress('curve://host:5/abc'), AddressError);
});
