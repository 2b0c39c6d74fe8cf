import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { BytesError, bytesParameter, fromBase32z, fromBase64, fromHex, toBase32z } from '../../src/codec/bytes.ts';
import { fuzz } from '../support/fuzz.ts';
import { vectors } from '../support/vectors.ts';

const { cases } = vectors<{ cases: { size: number; value: string; why: string; hex?: string; error?: string }[] }>(
  'bytes-params.json',
);

describe('bytesParameter', () => {
  for (const { size, value, why, hex, error } of cases) {
    it(`${hex === undefined ? 'refuses' : 'reads'} ${size} bytes: ${why}`, () => {
      if (hex === undefined) assert.throws(() => bytesParameter(value, size), new BytesError(error));
      else assert.equal(bytesParameter(value, size).toString('hex'), hex);
    });
  }

  it('reads every case of the vectors', () => assert.equal(cases.length, 60));

  it('counts raw bytes in UTF-8', () => {
    assert.deepEqual(bytesParameter('ü'.repeat(18), 36), Buffer.from('ü'.repeat(18)));
    assert.throws(() => bytesParameter('ü'.repeat(36), 36), BytesError);
  });

  it('reads base64 that is as long as hex would be', () => {
    const bytes = Buffer.alloc(32, 0xfe);
    assert.deepEqual(bytesParameter(bytes.toString('base64').padEnd(64, '='), 32), bytes);
  });

  it('refuses hex and base64 with foreign characters', () => {
    const hex = 'ab'.repeat(32);
    for (const bad of ['\n', ' ', 'ａ', '\0', '-', '=']) {
      assert.throws(() => bytesParameter(hex.slice(0, 20) + bad + hex.slice(21), 32), BytesError);
    }
    const base64 = Buffer.alloc(32, 7).toString('base64');
    for (const bad of ['\n', ' ', 'ａ', '\0', '-', '_', '=']) {
      assert.throws(() => bytesParameter(base64.slice(0, 20) + bad + base64.slice(21), 32), BytesError);
    }
  });
});

describe('fromHex and fromBase64', () => {
  it('read what Node writes, and nothing truncated', () => {
    fuzz(2_000, (random) => {
      const bytes = random.bytes(random.below(40));
      assert.deepEqual(fromHex(bytes.toString('hex')), bytes);
      assert.deepEqual(fromHex(bytes.toString('hex').toUpperCase()), bytes);
      assert.deepEqual(fromBase64(bytes.toString('base64')), bytes);
      assert.equal(fromHex(`${bytes.toString('hex')}a`), undefined);
    });
    assert.equal(fromHex('zz'), undefined);
    assert.equal(fromBase64('A'), undefined);
    assert.equal(fromBase64('AAAAA==='), undefined);
    assert.deepEqual(fromBase64('AAAA='), Buffer.alloc(3));
    assert.equal(fromBase64('AA=A'), undefined);
    assert.equal(fromBase64('-_-_'), undefined);
  });
});

describe('base32z', () => {
  const key = Buffer.from('468cd403582139facb48c10746637bc0266ab11d67ca87db1e5a32a51935d805', 'hex');
  const text = 'e4gpey4arrh9i14eardwca55ayugice7c9fexsa6me3kkgji5yno';

  it('writes and reads a key as liboxenmq does', () => {
    assert.equal(toBase32z(key), text);
    assert.deepEqual(fromBase32z(text), key);
    assert.deepEqual(fromBase32z(text.toUpperCase()), key);
  });

  it('reads what it wrote, at every length', () => {
    fuzz(1_000, (random) => {
      const bytes = random.bytes(random.below(50));
      assert.deepEqual(fromBase32z(toBase32z(bytes)), bytes);
    });
  });

  it('refuses foreign characters and impossible lengths', () => {
    assert.equal(fromBase32z(`${text.slice(0, -1)}l`), undefined);
    assert.equal(fromBase32z(`${text}yy`), undefined);
    assert.equal(fromBase32z('y'), undefined);
    assert.deepEqual(fromBase32z(''), Buffer.alloc(0));
  });
});
