import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { toBase32z } from '../../src/codec/bytes.ts';
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

const TRAILING = 'Invalid address: found unexpected trailing data after pubkey';

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

test('what is wrong with an address is told in the words for that, up to the borders', () => {
  const key = Buffer.alloc(32, 1);
  const [hex, b32z, b64] = [key.toString('hex'), toBase32z(key), key.toString('base64').slice(0, 43)];
  for (const [text, message] of [
    ['x://host', "Invalid protocol 'x'"],
    ['tcp://host:2147483647', 'Invalid port: port must be in range 1-65535'],
    ['tcp://host:2147483648', 'stoi'],
    ['curve://host:5/', 'Invalid address: expected /PUBKEY after port'],
    ['curve://host:5/x', 'Invalid address: the public key is neither hex, base32z nor base64 of 32 bytes'],
    // The first encoding that fits decides, so what follows a whole key is too much, whatever it is.
    [`CURVE://HOST:5/${hex}Y`, TRAILING],
    [`CURVE://HOST:5/${b32z.toUpperCase()}Y`, TRAILING],
    [`CURVE://HOST:5/${b32z.toUpperCase()}-`, TRAILING],
    [`curve://host:5/${b32z}!`, TRAILING],
    [`curve://host:5/${b64}!`, TRAILING],
    [`curve://host:5/${b64}=!`, TRAILING],
  ] as const)
    assert.throws(() => parseAddress(text), { name: 'AddressError', message }, text);
});

test('an ipc path ends before the last slash that leaves a whole key', () => {
  const key = Buffer.alloc(32, 0xff);
  for (const text of [key.toString('hex'), toBase32z(key), key.toString('base64'), key.toString('base64').slice(0, 43)])
    assert.deepEqual(parseAddress(`ipc+curve:///run/s/${text}`), { protocol: 'ipc', path: '/run/s', publicKey: key });
  for (const text of [`${'A'.repeat(42)}==`, `${'A'.repeat(42)}=`, 'A'.repeat(44)])
    assert.throws(() => parseAddress(`ipc+curve:///run/s/${text}`), /requires a trailing/, text);
});
