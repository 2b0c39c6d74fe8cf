import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Bencoded, BencodeError, BencodeReader, decode, type Encodable, encode } from '../../src/codec/bencode.ts';
import { fuzz } from '../support/fuzz.ts';
import { vectors } from '../support/vectors.ts';

type Notation =
  | { t: 'i'; v: string }
  | { t: 's'; hex: string }
  | { t: 'l'; v: Notation[] }
  | { t: 'd'; v: [string, Notation][] };

const file = vectors<{
  decode: { hex: string; value?: Notation; reencoded_hex?: string; error?: string }[];
  encode: { value: Notation; hex: string }[];
}>('bencode.json');

/** A decoded value in the notation of the vectors. */
function notation(value: Bencoded): Notation {
  if (typeof value === 'number' || typeof value === 'bigint') return { t: 'i', v: value.toString() };
  if (Buffer.isBuffer(value)) return { t: 's', hex: value.toString('hex') };
  if (Array.isArray(value)) return { t: 'l', v: value.map(notation) };
  const members = [...value].map(([key, member]): [string, Notation] => {
    return [Buffer.from(key, 'latin1').toString('hex'), notation(member)];
  });
  return { t: 'd', v: members.sort(([a], [b]) => (a < b ? -1 : 1)) };
}

/** A value of the vectors, ready to encode. */
function encodable(value: Notation): Encodable {
  if (value.t === 'i') return BigInt(value.v);
  if (value.t === 's') return Buffer.from(value.hex, 'hex');
  if (value.t === 'l') return value.v.map(encodable);
  return new Map(value.v.map(([key, member]) => [Buffer.from(key, 'hex').toString('latin1'), encodable(member)]));
}

describe('decode', () => {
  for (const { hex, value, reencoded_hex, error } of file.decode) {
    const data = Buffer.from(hex, 'hex');
    const shown = JSON.stringify(data.toString('latin1').slice(0, 40));
    if (error !== undefined) {
      it(`refuses ${shown}`, () => assert.throws(() => decode(data), BencodeError));
    } else {
      it(`reads ${shown}`, () => {
        const decoded = decode(data);
        assert.deepEqual(notation(decoded), value);
        assert.equal(encode(decoded).toString('hex'), reencoded_hex);
      });
    }
  }

  it('reads every case of the vectors', () => assert.equal(file.decode.length, 68));

  it('returns integers as numbers while they are exact', () => {
    assert.equal(decode(Buffer.from('i9007199254740991e')), 9007199254740991);
    assert.equal(decode(Buffer.from('i-9007199254740991e')), -9007199254740991);
    assert.equal(decode(Buffer.from('i9007199254740992e')), 9007199254740992n);
    assert.equal(decode(Buffer.from('i-9007199254740993e')), -9007199254740993n);
    assert.ok(Object.is(decode(Buffer.from('i-0e')), 0));
  });

  it('returns views, not copies', () => {
    const data = Buffer.from('l3:abce');
    const [text] = decode(data) as Buffer[];
    data[3] = 0x78;
    assert.equal(text!.toString(), 'xbc');
  });

  it('reads a plain Uint8Array that is a part of a larger one', () => {
    assert.deepEqual(decode(new Uint8Array(Buffer.from('xx3:abcxx')).subarray(2, 7)), Buffer.from('abc'));
  });

  it('accepts lists and dictionaries nested 256 deep and refuses one level more', () => {
    const lists = (depth: number) => Buffer.from('l'.repeat(depth) + 'e'.repeat(depth));
    const dicts = (depth: number) => Buffer.from(`${'d1:a'.repeat(depth)}0:${'e'.repeat(depth)}`);
    for (const nested of [lists, dicts]) {
      decode(nested(256));
      assert.throws(() => decode(nested(257)), /nested too deeply/);
      new BencodeReader(nested(256)).skip();
      assert.throws(() => new BencodeReader(nested(257)).skip(), /nested too deeply/);
    }
  });

  it('refuses a million open lists without exhausting the stack', () => {
    assert.throws(() => decode(Buffer.alloc(1_000_000, 'l')), BencodeError);
    assert.throws(() => new BencodeReader(Buffer.alloc(1_000_000, 'l')).skip(), BencodeError);
  });

  it('refuses lengths and integers of a million digits quickly', () => {
    assert.throws(() => decode(Buffer.alloc(1_000_000, '9')), BencodeError);
    assert.throws(() => decode(Buffer.from(`i${'9'.repeat(1_000_000)}e`)), BencodeError);
    assert.equal(decode(Buffer.from(`i${'0'.repeat(100_000)}7e`)), 7);
  });
});

describe('encode', () => {
  for (const { value, hex } of file.encode) {
    it(`writes ${JSON.stringify(value).slice(0, 60)}`, () =>
      assert.equal(encode(encodable(value)).toString('hex'), hex));
  }

  it('writes every case of the vectors', () => assert.equal(file.encode.length, 11));

  it('writes objects with their keys sorted and leaves out undefined values', () => {
    assert.equal(encode({ b: 1, a: 'ü', '': [], c: undefined }).toString(), 'd0:le1:a2:ü1:bi1ee');
  });

  it('writes zero as zero', () => assert.equal(encode([0, -0, 0n]).toString(), 'li0ei0ei0ee'));

  it('refuses what bencode cannot hold', () => {
    for (const value of [1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, 2n ** 64n, -(2n ** 63n) - 1n]) {
      assert.throws(() => encode(value), BencodeError);
    }
    assert.throws(() => encode({ '\u0100': 1 }), BencodeError);
  });
});

describe('BencodeReader', () => {
  it('walks through a message without decoding it', () => {
    const reader = new BencodeReader(Buffer.from('d1:ai5e1:bl1:x1:ye1:cde1:z0:e'));
    reader.enterDict();
    assert.equal(reader.key(), 'a');
    assert.equal(reader.safeInteger(0, 5), 5);
    assert.equal(reader.key(), 'b');
    reader.enterList();
    const elements: string[] = [];
    while (!reader.leave()) elements.push(reader.string().toString());
    assert.deepEqual(elements, ['x', 'y']);
    assert.equal(reader.find('z'), true);
    assert.equal(reader.string().length, 0);
    assert.equal(reader.find('~'), false);
    assert.equal(reader.leave(), true);
    assert.equal(reader.done, true);
    reader.expectDone();
  });

  it('finds keys only forwards, and stops in front of a later one', () => {
    const reader = new BencodeReader(Buffer.from('d0:i0e1:ai1e2:aai2e1:ci3ee'));
    reader.enterDict();
    assert.equal(reader.find('b'), false, 'aa comes before b, but c after it');
    assert.equal(reader.find('a'), false, 'a is behind');
    assert.equal(reader.find('c'), true);
    assert.equal(reader.integer(), 3);
  });

  it('does not take a longer key for one that begins alike', () => {
    const reader = new BencodeReader(Buffer.from('d2:aai1e1:bi2ee'));
    reader.enterDict();
    assert.equal(reader.find('a'), false);
    assert.equal(reader.key(), 'aa');
  });

  it('stays where it was when an integer is out of range', () => {
    for (const outside of [70000, 32768, -32769, 2n ** 63n]) {
      const reader = new BencodeReader(encode(outside));
      assert.throws(() => reader.safeInteger(-32768, 32767), /expected an integer from -32768 to 32767/);
      assert.equal(reader.offset, 0);
      assert.equal(reader.integer(), outside);
    }
    for (const within of [-32768, 32767]) {
      assert.equal(new BencodeReader(encode(within)).safeInteger(-32768, 32767), within);
    }
  });

  it('reads from an offset', () => assert.equal(new BencodeReader(Buffer.from('xxi5e'), 2).integer(), 5));

  it('accepts exactly what is expected, short or long, and otherwise stays where it is', () => {
    for (const size of [1, 5, 64, 65, 200]) {
      const expected = Buffer.from(`${size}`.padEnd(size, 'm').slice(0, size));
      const reader = new BencodeReader(Buffer.concat([Buffer.from('x'), expected, Buffer.from('yz')]), 1);
      for (const other of [0x00, 0x7f]) {
        for (const at of [0, size - 1]) {
          const changed = Buffer.from(expected);
          changed[at] = other;
          assert.equal(reader.accept(changed), false);
        }
      }
      assert.equal(reader.accept(Buffer.concat([expected, Buffer.from('yz!')])), false);
      assert.equal(reader.offset, 1);
      assert.equal(reader.accept(expected), true);
      assert.equal(reader.offset, 1 + size);
      assert.equal(new BencodeReader(expected).accept(expected), true, 'up to the end of the data');
    }
  });

  it('skips as many values as it may, and says how many there were', () => {
    for (const [text, values] of [
      ['i5e', 1],
      ['l1:xi2ee', 3],
      ['d1:ali1ei2eee', 4],
    ] as const) {
      assert.equal(new BencodeReader(Buffer.from(text)).skip(values), values);
      assert.equal(new BencodeReader(Buffer.from(text)).skip(values + 7), values);
      assert.equal(new BencodeReader(Buffer.from(text)).skip(), values);
      assert.throws(() => new BencodeReader(Buffer.from(text)).skip(values - 1), /more values/);
    }
  });

  it('says where the bytes go wrong', () => {
    assert.throws(() => decode(Buffer.from('li1ex')), /^BencodeError: Invalid bencode at byte 4: expected a value/);
    assert.throws(() => decode(Buffer.from('e')), /at byte 0: expected a value/);
  });

  it('refuses a string that is one byte longer than the data, and reads one that ends with them', () => {
    for (const length of [3, 12]) {
      const text = 'x'.repeat(length);
      assert.equal(new BencodeReader(Buffer.from(`${length}:${text}`)).string().toString(), text);
      assert.throws(() => new BencodeReader(Buffer.from(`${length + 1}:${text}`)).string(), /longer than the data/);
    }
  });
});

describe('damaged bencode', () => {
  const intact = encode({ '!': [1, -2, 'three'], '@': Buffer.alloc(33), n: { deep: [{ er: 2n ** 63n }] }, '~': 'end' });

  it('is refused wherever it is cut', () => {
    for (let length = 0; length < intact.length; length++) {
      assert.throws(() => decode(intact.subarray(0, length)), BencodeError);
      assert.throws(() => new BencodeReader(intact.subarray(0, length)).skip(), BencodeError);
    }
  });

  it('is decoded or refused, and skipped exactly when it is decoded', () => {
    fuzz(20_000, (random) => {
      const data = random.damage(intact);
      const outcome = (read: () => void): boolean => {
        try {
          read();
          return true;
        } catch (error) {
          assert.ok(error instanceof BencodeError);
          return false;
        }
      };
      let again: Buffer | undefined;
      const decoded = outcome(() => {
        again = encode(decode(data));
      });
      const skipped = outcome(() => {
        const reader = new BencodeReader(data);
        reader.skip();
        reader.expectDone();
      });
      assert.equal(decoded, skipped);
      if (again) assert.deepEqual(encode(decode(again)), again);
    });
  });
});
