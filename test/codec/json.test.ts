import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { JsonError, parseJson, stringifySorted } from '../../src/codec/json.ts';
import { fuzz } from '../support/fuzz.ts';

/** What a reviver, which is told the digits of each number, makes of them. */
function revive(_key: string, value: unknown, { source = '' }: { source?: string }): unknown {
  if (typeof value !== 'number' || Number.isSafeInteger(value)) return value;
  if (!Number.isFinite(value)) throw new Error('out of range');
  if (!/^-?\d+$/.test(source)) return value;
  const exact = BigInt(source);
  return exact < 2n ** 64n && exact >= -(2n ** 63n) ? exact : value;
}

function attempt(read: () => unknown): unknown {
  try {
    return { value: read() };
  } catch {
    return 'refused';
  }
}

describe('parseJson', () => {
  it('keeps 64-bit integers exact', () => {
    assert.deepEqual(parseJson('{"swarm_id":16212958658533785599,"height":1758000,"small":-5}'), {
      swarm_id: 16212958658533785599n,
      height: 1758000,
      small: -5,
    });
    assert.equal(parseJson('9007199254740991'), 9007199254740991);
    assert.equal(parseJson('9007199254740993'), 9007199254740993n);
    assert.equal(parseJson('-9223372036854775808'), -9223372036854775808n);
    assert.equal(parseJson('-9223372036854775809'), -(2 ** 63), 'one less is rounded');
    assert.equal(parseJson('18446744073709551615'), 18446744073709551615n);
    assert.deepEqual(parseJson('["1e5",9007199254740993,"",{"1":-9007199254740993}]'), [
      '1e5',
      9007199254740993n,
      '',
      { '1': -9007199254740993n },
    ]);
  });

  it('rounds what 64 bits cannot hold, and fractions', () => {
    assert.equal(parseJson('18446744073709551616'), 2 ** 64);
    assert.equal(parseJson('1e20'), 1e20);
    assert.equal(parseJson('12345678901234567.5'), 12345678901234568);
    assert.equal(parseJson(`"${'1'.repeat(30)}"`), '1'.repeat(30));
  });

  it('reads bytes as UTF-8, with a byte order mark or without', () => {
    assert.equal(parseJson(Buffer.from('"ü€😀"')), 'ü€😀');
    assert.deepEqual(parseJson(Buffer.from('\ufeff {} ')), {});
    assert.deepEqual(parseJson(Buffer.from('\ufeff{}')), {});
    assert.deepEqual(parseJson(new Uint8Array(Buffer.from('x[1]x')).subarray(1, 4)), [1]);
  });

  it('reads integers exactly wherever they stand, and refuses what JSON refuses', () => {
    const values = ['16212958658533785599', '-9007199254740993', '9007199254740992', '1000000000000000', '-1e5', '7'];
    // What is no JSON, or no integer, must not become one.
    const others = ['0123456789012345678', '-01234567890123456789', '+16212958658533785599', '--1000000000000001'];
    const fractions = ['0.1234567890123456789', '12345678901234567.5', '1e-1234567890123456', '1234567890123456e2'];
    const strings = ['"16212958658533785599"', '"\\ud800\\udc001234567890123456"', '"𐀀1234567890123456"', '"\\u0000"'];
    const numbers = [...values, ...others, ...fractions, ...strings, `1${'0'.repeat(400)}`, '"x"1234567890123456'];
    const pieces = [...numbers, '[', ']', '{', '}', ',', ':', ' ', '\n', '\u00a0', '"__proto__"', '"a"', 'null'];
    const outcomes = { read: 0, refused: 0 };
    const same = (text: string) => {
      const expected = attempt(() => JSON.parse(text, revive as (key: string, value: unknown) => unknown));
      const found = attempt(() => parseJson(text));
      assert.deepEqual(found, expected, text);
      outcomes[expected === 'refused' ? 'refused' : 'read']++;
    };
    for (const number of numbers) {
      for (const text of [`${number}`, ` ${number} `, `[${number}]`, `{"a":${number}}`, `[7,${number} ,${number}]`])
        same(text);
      for (const text of [`{${number}:1}`, `{"a":1,${number}\t:1}`, `{"a" ${number}}`, `{"__proto__":${number}}`])
        same(text);
      for (const text of [`[${number}x]`, `[x${number}]`, `[1${number}]`, `[${number}${number}]`, `\u00a0${number}`])
        same(text);
    }
    fuzz(5_000, (random) => {
      same(Array.from({ length: 1 + random.below(8) }, () => pieces[random.below(pieces.length)]).join(''));
    });
    assert.ok(outcomes.read > 200 && outcomes.refused > 200, JSON.stringify(outcomes));
  });

  it('treats a key named __proto__ as any other', () => {
    const value = parseJson('{"__proto__":{"pubkey":1}}') as object;
    assert.equal(Object.getPrototypeOf(value), Object.prototype);
    assert.equal('pubkey' in value, false);
  });

  for (const text of [
    '',
    ' ',
    'nope',
    '{}x',
    '{a:1}',
    "{'a':1}",
    '[1,]',
    '01',
    '+1',
    '.5',
    'NaN',
    '1e400',
    '-1e999',
    '["",1E+400]',
  ]) {
    it(`refuses ${JSON.stringify(text)}`, () => assert.throws(() => parseJson(text), JsonError));
  }

  it('refuses invalid UTF-8 and half surrogate pairs', () => {
    assert.throws(() => parseJson(Buffer.from([0x22, 0xff, 0x22])), JsonError);
    assert.throws(() => parseJson(Buffer.from([0x22, 0xed, 0xa0, 0x80, 0x22])), JsonError);
    assert.throws(() => parseJson('"\\ud800"'), JsonError);
    assert.throws(() => parseJson('"\ud800"'), JsonError);
    assert.throws(() => parseJson('["\udc001234567890123456",1234567890123456]'), JsonError);
    assert.throws(() => parseJson('["\\udc001234567890123456",1234567890123456]'), JsonError);
    assert.throws(() => parseJson('[{"\\uDFFF":1}]'), JsonError);
    assert.throws(() => parseJson('[null,{"a":["\\uDC00"]}]'), JsonError);
    assert.equal(parseJson('"\\ud83d\\ude00"'), '😀');
    assert.deepEqual(parseJson('[{"\\ud83d\\ude00":5},null]'), [{ '😀': 5 }, null]);
    assert.equal(parseJson('"\\\\ud800"'), '\\ud800');
  });

  it('accepts 256 levels and no more, and does not count brackets in strings', () => {
    const nested = (depth: number) => '['.repeat(depth) + ']'.repeat(depth);
    parseJson(nested(256));
    assert.throws(() => parseJson(nested(257)), JsonError);
    assert.throws(() => parseJson('{"a":'.repeat(100_000)), JsonError);
    assert.equal(parseJson(`"\\"${'['.repeat(1000)}"`), `"${'['.repeat(1000)}`);
  });

  it('counts levels, and not how many arrays and objects there are', () => {
    assert.equal((parseJson(`[${'[],'.repeat(300)}[]]`) as unknown[]).length, 301);
    assert.equal((parseJson(`[${'{"a":{}},'.repeat(300)}{}]`) as unknown[]).length, 301);
    const deep = '['.repeat(255) + ']'.repeat(255);
    parseJson(`[${deep},${deep}]`);
    assert.throws(() => parseJson(`[[],[${deep}]]`), JsonError);
  });

  it('accepts as many values as the limit allows, keys included, and not one more', () => {
    for (const [text, values] of [
      ['1', 1],
      ['[1,2]', 3],
      ['{"a":1,"b":[null]}', 6],
      ['["[{,:", "\\\\",5]', 4],
    ] as const) {
      parseJson(text, values);
      assert.throws(() => parseJson(text, values - 1), /too many values/);
    }
  });

  it('reads or refuses damaged texts, and throws nothing but JsonError', () => {
    const intact = Buffer.from('{"a":[1,-2.5e3,"\\ud83d\\ude00 ü",18446744073709551615],"b":{"c":null,"d":true}}');
    fuzz(5_000, (random) => {
      try {
        stringifySorted(parseJson(random.damage(intact)));
      } catch (error) {
        assert.ok(error instanceof JsonError);
      }
    });
  });
});

describe('stringifySorted', () => {
  it('sorts keys by their bytes and leaves characters as they are', () => {
    assert.equal(
      stringifySorted({ b: [1, null, { d: true, c: 'ü' }], a: 2 ** 40 }),
      '{"a":1099511627776,"b":[1,null,{"c":"ü","d":true}]}',
    );
    // In UTF-16 the emoji would come first.
    assert.equal(stringifySorted({ '😀': 1, '\uffee': 2 }), '{"\uffee":2,"😀":1}');
    const keys = ['b', 'é', '', 'a\u0000', 'z', 'ab', '~', 'Z', 'a', '\u07ff', '\ud7ff'];
    const sorted = (of: string[]) =>
      Object.keys(JSON.parse(stringifySorted(Object.fromEntries(of.map((key) => [key, 1])))));
    const byBytes = (of: string[]) => [...of].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
    assert.deepEqual(sorted(keys), byBytes(keys));
    assert.deepEqual(sorted([...keys, '😀', '\uffee']), byBytes([...keys, '😀', '\uffee']));
  });

  it('escapes only what it must', () => {
    assert.equal(stringifySorted('"\\\b\f\n\r\t\u0001\u007f\u2028/'), '"\\"\\\\\\b\\f\\n\\r\\t\\u0001\u007f\u2028/"');
  });

  it('leaves out undefined members and writes bigints exactly', () => {
    assert.equal(
      stringifySorted({ a: undefined, b: 18446744073709551615n, c: [undefined] }),
      '{"b":18446744073709551615,"c":[null]}',
    );
  });
});
