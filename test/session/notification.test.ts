import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { encodeNotification, type Malformation, parseNotification } from '../../src/session/notification.ts';
import { fuzz } from '../support/fuzz.ts';
import { vectors } from '../support/vectors.ts';

const { notify_message_parse: cases } = vectors<{
  notify_message_parse: {
    name: string;
    hex: string;
    outcome: 'ok' | 'skipped' | 'exception';
    parsed?: { account: string; hash: string; n: number; t: string; z: string; data: string | null };
  }[];
}>('bencode.json');

/** Where the original ends its process, ours drops the message, for this reason. */
const SURVIVED: Readonly<Record<string, Malformation>> = {
  'n out of int16': 'bad-namespace',
  'n below min': 'bad-namespace',
  'n is a string': 'malformed',
  't too large': 'bad-time',
  '@ is an int': 'malformed',
  '~ is an int': 'malformed',
  'not a dict': 'malformed',
  empty: 'malformed',
  'd only': 'malformed',
  truncated: 'malformed',
  'no final e': 'malformed',
};

/** Where the original skips the message, so does ours. */
const SKIPPED: Readonly<Record<string, Malformation>> = {
  'keys out of order (h before @)': 'missing-key',
  'n before h': 'missing-key',
  'missing @': 'missing-key',
  'missing h': 'missing-key',
  'missing n': 'missing-key',
  'missing t': 'missing-key',
  'missing z': 'missing-key',
  '32-byte account': 'bad-account',
  '34-byte account': 'bad-account',
  'hash 31': 'bad-hash',
  'hash 100': 'bad-hash',
  'empty dict': 'missing-key',
};

describe('parseNotification', () => {
  for (const { name, hex, outcome, parsed } of cases) {
    it(`${outcome === 'ok' ? 'reads' : 'drops'}: ${name}`, () => {
      const result = parseNotification(Buffer.from(hex, 'hex'));
      if (outcome !== 'ok') {
        assert.equal(result, outcome === 'skipped' ? SKIPPED[name] : SURVIVED[name]);
        return;
      }
      assert.ok(typeof result !== 'string');
      assert.equal(result.account.toString('hex'), parsed!.account);
      assert.equal(result.hash.toString('hex'), parsed!.hash);
      assert.equal(result.namespace, parsed!.n);
      assert.equal(String(result.timestamp), parsed!.t);
      assert.equal(String(result.expiry), parsed!.z);
      assert.equal(result.data?.toString('hex') ?? null, parsed!.data);
      assert.deepEqual(parseNotification(encodeNotification(result)), result);
    });
  }

  it('is checked against every case of the vectors, and survives the named ones', () => {
    assert.equal(cases.length, 33);
    const names = (outcome: string) => cases.filter((vector) => vector.outcome === outcome).map(({ name }) => name);
    assert.deepEqual(names('exception').sort(), Object.keys(SURVIVED).sort());
    assert.deepEqual(names('skipped').sort(), Object.keys(SKIPPED).sort());
  });

  const intact = encodeNotification({
    account: Buffer.alloc(33, 5),
    hash: Buffer.alloc(43, 0x48),
    namespace: -11,
    timestamp: 1_700_000_000_000,
    expiry: 2n ** 63n - 1n,
    data: Buffer.from('hello'),
  });

  it('reads the outermost namespaces and times, and nothing beyond', () => {
    const whole = parseNotification(intact);
    assert.ok(typeof whole !== 'string');
    const outcome = (more: Partial<typeof whole>) => {
      const result = parseNotification(encodeNotification({ ...whole, ...more }));
      return typeof result === 'string' ? result : 'ok';
    };
    assert.deepEqual(
      [-32_769, -32_768, 32_767, 32_768].map((namespace) => outcome({ namespace })),
      ['bad-namespace', 'ok', 'ok', 'bad-namespace'],
    );
    for (const name of ['timestamp', 'expiry'] as const) {
      assert.deepEqual(
        [2n ** 63n - 1n, 2n ** 63n].map((time) => outcome({ [name]: time })),
        ['ok', 'bad-time'],
        name,
      );
    }
  });

  it('returns views of the body', () => {
    const result = parseNotification(intact);
    assert.ok(typeof result !== 'string');
    for (const view of [result.account, result.hash, result.data!]) assert.equal(view.buffer, intact.buffer);
  });

  it('drops a message that is cut anywhere except behind its data', () => {
    for (let length = 0; length < intact.length - 1; length++) {
      assert.equal(parseNotification(intact.subarray(0, length)), 'malformed', `cut to ${length}`);
    }
    assert.notEqual(typeof parseNotification(intact.subarray(0, -1)), 'string');
  });

  it('drops or reads damaged messages, and never throws', () => {
    fuzz(30_000, (random) => {
      const result = parseNotification(random.damage(intact));
      if (typeof result === 'string') return;
      assert.equal(result.account.length, 33);
      assert.ok(result.hash.length >= 32 && result.hash.length <= 99);
      assert.ok(result.namespace >= -32768 && result.namespace <= 32767);
    });
  });

  it('survives deep nesting and huge lengths', () => {
    for (const text of [
      'l'.repeat(1_000_000),
      `1:!${'d1:a'.repeat(200_000)}`,
      '9'.repeat(1_000_000),
      '1:@99999999999:',
    ]) {
      assert.equal(parseNotification(Buffer.from(`d${text}`)), 'malformed');
    }
  });
});
