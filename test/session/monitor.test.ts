import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { BencodeError, BencodeReader, decode, type Encodable, encode } from '../../src/codec/bencode.ts';
import { isElsewhere, parseMonitorEnded, parseMonitorReply } from '../../src/session/monitor.ts';
import { parseSubscribe } from '../../src/session/request.ts';
import type { Subscription } from '../../src/session/subscription.ts';
import { fuzz } from '../support/fuzz.ts';
import { encodeMonitor, isSame } from '../support/reference.ts';
import { vectors } from '../support/vectors.ts';
import { decodeMonitor } from './decode-monitor.ts';

interface Dict {
  kind: string;
  pubkey: string;
  namespaces: number[];
  data: boolean;
  sig_ts: number;
  signature: string;
  session_ed25519?: string;
  subaccount?: string;
  subaccount_sig?: string;
  hex: string;
}

const file = vectors<{
  now: number;
  live: { name: string; subscription: Record<string, unknown>; requests_hex: string[] }[];
  dicts: Dict[];
}>('monitor-request.json');

const hex = (text: string) => Buffer.from(text, 'hex');

describe('encodeMonitor', () => {
  it('is checked against every case of the vectors', () => {
    assert.deepEqual([file.live.length, file.dicts.length], [13, 64]);
  });

  // The last three are devices of one account, and each request holds all that the account has.
  const stored = new Map<string, Subscription[]>();
  for (const { name, subscription, requests_hex } of file.live) {
    const parsed = parseSubscribe(subscription, file.now, { service: () => true });
    const id = parsed.account.toString('hex');
    // The original keeps a subscription that is the same as one before, if neither has a subaccount: ours does not.
    const duplicate = name.startsWith('third device, identical settings to the first');
    const before = stored.get(id) ?? [];
    const all = [...before, parsed];
    stored.set(id, all);
    it(`writes what the original sent: ${name}`, () => {
      const requests = requests_hex.map(hex);
      assert.equal(requests.length, 1);
      const ours = all.map((element) => encodeMonitor(element).toString('latin1')).sort();
      const theirs = (decode(requests[0]!) as []).map((element) => encode(element).toString('latin1')).sort();
      assert.deepEqual(ours, theirs);
      assert.equal(
        before.some((element) => isSame(element, parsed) && parsed.signedAt <= element.signedAt),
        duplicate,
      );
    });
  }

  for (const [index, dict] of file.dicts.entries()) {
    it(`writes dict ${index}: ${dict.kind}, ${dict.namespaces.length} namespaces, ${dict.data ? 'with' : 'no'} data`, () => {
      const subscription: Subscription = {
        account: hex(dict.pubkey),
        sessionEd25519: dict.session_ed25519 === undefined ? null : hex(dict.session_ed25519),
        subaccount: dict.subaccount ? { tag: hex(dict.subaccount), signature: hex(dict.subaccount_sig!) } : null,
        namespaces: dict.namespaces,
        wantData: dict.data,
        signedAt: dict.sig_ts,
        signature: hex(dict.signature),
      };
      assert.equal(encodeMonitor(subscription).toString('hex'), dict.hex);
      assert.deepEqual(decodeMonitor(hex(dict.hex)), subscription);
    });
  }
});

describe('decodeMonitor', () => {
  it('refuses what is not a monitor request', () => {
    const good = { n: [0], p: Buffer.alloc(33, 3), s: Buffer.alloc(64), t: 1 };
    decodeMonitor(encode(good));
    const wrong = [
      'x',
      { ...good, p: Buffer.alloc(32) },
      { ...good, p: undefined },
      { ...good, P: Buffer.alloc(32, 9) },
      { ...good, p: undefined, P: Buffer.alloc(32) },
      { ...good, S: Buffer.alloc(64) },
      { ...good, T: Buffer.alloc(36) },
      { ...good, n: 0 },
      { ...good, n: ['0'] },
      { ...good, t: 'x' },
      { ...good, s: Buffer.alloc(63) },
    ];
    for (const value of wrong) assert.throws(() => decodeMonitor(encode(value)), BencodeError);
  });
});

describe('parseMonitorReply', () => {
  const ok = 'd7:successi1ee';
  const bad = 'd7:errcodei5e5:error29:Signature verification failede';
  const parse = (text: string, expected: number) => parseMonitorReply(Buffer.from(text), expected);

  it('gives a result for each element, in order', () => {
    assert.deepEqual(parse(`l${ok}${bad}${ok}e`, 3), [
      { code: 0 },
      { code: 5, error: 'Signature verification failed' },
      { code: 0 },
    ]);
    assert.deepEqual(parse('le', 0), []);
  });

  it('reads a success that is written differently, and skips what it does not know', () => {
    assert.deepEqual(parse('ld1:ali1ee7:successi1ee' + 'd7:errcodei2e4:junk0:ee', 2), [{ code: 0 }, { code: 2 }]);
  });

  it('gives an error of the whole request to each subscription', () => {
    const refused = { code: 5, error: 'Signature verification failed' };
    assert.deepEqual(parse(bad, 3), [refused, refused, refused]);
    assert.deepEqual(parse(ok, 1), [{ code: 0 }]);
  });

  it('refuses answers that do not fit the request', () => {
    assert.throws(() => parse(ok, 2), BencodeError);
    assert.throws(() => parse(`l${ok}e`, 2), /1 for 2/);
    assert.throws(() => parse(`l${ok.repeat(100_000)}e`, 2), /more for 2/);
    assert.throws(() => parse(`l${ok}ex`, 1), BencodeError);
    assert.throws(() => parse(`${ok}x`, 1), BencodeError);
    for (const text of [
      '',
      'i1e',
      '1:x',
      'e',
      'lde',
      'ldee',
      'li1ee',
      'ld7:successi0eee',
      'ld7:errcode1:5ee',
      'ld5:errori5eee',
    ]) {
      assert.throws(() => parse(text, 1), BencodeError, text);
    }
  });

  it('refuses an answer that is cut anywhere, and never throws anything else', () => {
    const intact = Buffer.from(`l${ok}${bad}${ok}e`);
    for (let length = 0; length < intact.length; length++) {
      assert.throws(() => parseMonitorReply(intact.subarray(0, length), 3), BencodeError);
    }
    fuzz(10_000, (random) => {
      try {
        assert.equal(parseMonitorReply(random.damage(intact), 3).length, 3);
      } catch (error) {
        assert.ok(error instanceof BencodeError);
      }
    });
  });
});

describe('refusals of storage servers that know accounts elsewhere', () => {
  const elsewhere = (nodes: number, swarm: string) =>
    encode({
      errcode: 6,
      error: "Account is not stored by this service node's swarm",
      snodes: Array.from({ length: nodes }, (_, port) => ({ ip: '203.0.113.7', port_omq: port })),
      swarm,
    });

  it('are told apart element by element, whatever nodes they name, however many kinds there are', () => {
    const kinds = Array.from({ length: 9 }, (_, kind) => elsewhere(kind, `${kind}`));
    const success = Buffer.from('d7:successi1ee');
    const forged = encode({ errcode: 5, error: 'Signature verification failed' });
    const elements = Array.from({ length: 500 }, (_, i) =>
      i % 7 === 0 ? success : i % 11 === 0 ? forged : kinds[i % 9]!,
    );
    const results = parseMonitorReply(Buffer.concat([Buffer.from('l'), ...elements, Buffer.from('e')]), 500);
    assert.deepEqual(
      results.map(({ code }) => code),
      elements.map((element) => (element === success ? 0 : element === forged ? 5 : 6)),
    );
    assert.deepEqual(
      results.map(isElsewhere),
      elements.map((element) => element !== success && element !== forged),
    );
  });

  it('count as such for codes 6 and 7 alone', () => {
    const codes = [0, 1, 2, 3, 4, 5, 6, 7, 8, 77].filter((code) => isElsewhere({ code }));
    assert.deepEqual(codes, [6, 7]);
  });

  it('are parsed once each while there are few kinds, however often they come', (t) => {
    const keys = t.mock.method(BencodeReader.prototype, 'key');
    const refusals = Array.from({ length: 5 }, (_, errcode) => encode({ errcode: errcode + 1 }));
    const parsed = (kinds: number) => {
      keys.mock.resetCalls();
      const elements = Array.from({ length: 10 }, () => refusals.slice(0, kinds)).flat();
      parseMonitorReply(Buffer.concat([Buffer.from('l'), ...elements, Buffer.from('e')]), elements.length);
      return keys.mock.callCount();
    };
    // The fifth is parsed each time.
    assert.deepEqual([parsed(1), parsed(4), parsed(5)], [1, 4, 14]);
  });

  it('may hold 400 keys and values, and not one more', () => {
    const parse = (body: string) => parseMonitorReply(Buffer.from(`l${body}e`), 1)[0]!.code;
    for (const [most, more] of [
      [`d${'7:successi1e'.repeat(400)}e`, `d${'7:successi1e'.repeat(401)}e`],
      [`d7:successi1e1:xl${'i0e'.repeat(397)}ee`, `d7:successi1e1:xl${'i0e'.repeat(398)}ee`],
    ] as const) {
      assert.equal(parse(most), 0);
      assert.throws(() => parse(more), BencodeError);
    }
  });

  it('cannot take up our time: a result of very many values or keys is not one', () => {
    for (const body of [
      `ld6:snodesl${'le'.repeat(1000)}e7:successi1eee`,
      `ld${'1:ale'.repeat(1000)}7:successi1eee`,
      `ld${'7:successi1e'.repeat(1000)}ee`,
    ]) {
      assert.throws(() => parseMonitorReply(Buffer.from(body), 1), BencodeError);
    }
    assert.equal(
      parseMonitorReply(Buffer.concat([Buffer.from('l'), elsewhere(20, 'f'), Buffer.from('e')]), 1)[0]!.code,
      6,
    );
  });
});

describe('parseMonitorEnded', () => {
  const account = Buffer.alloc(33, 5);
  const body = encode({ '@': account, errcode: 6, error: 'no longer', snodes: [{ ip: '203.0.113.7' }], swarm: 'beef' });

  it('gives the account, also with keys that are not known yet', () => {
    assert.deepEqual(parseMonitorEnded([body]), account);
    assert.deepEqual(parseMonitorEnded([encode({ '!': 1, '@': account, x: [[1], { y: 2 }] })]), account);
  });

  it('may hold 400 values besides the account, and not one more', () => {
    const ended = (...counts: number[]) => {
      const lists = counts.map((count, n) => [`x${n}`, Array.from({ length: count }, () => 0)] as const);
      return parseMonitorEnded([encode(new Map<string, Encodable>([['@', account], ...lists]))]);
    };
    for (const counts of [[399], [199, 199]]) assert.deepEqual(ended(...counts), account);
    for (const counts of [[400], [199, 200]]) assert.throws(() => ended(...counts), BencodeError);
  });

  it('reads 64 KiB and not a byte more', () => {
    const sized = (size: number) => {
      const rest = size - encode({ '@': account, x: '' }).length;
      const ended = encode({ '@': account, x: 'x'.repeat(rest - `${rest}`.length + 1) });
      assert.equal(ended.length, size);
      return ended;
    };
    assert.deepEqual(parseMonitorEnded([sized(65_536)]), account);
    assert.throws(() => parseMonitorEnded([sized(65_537)]), BencodeError);
  });

  it('throws nothing but BencodeError, whatever the bytes', () => {
    for (let end = 0; end < body.length; end++) {
      assert.throws(() => parseMonitorEnded([body.subarray(0, end)]), BencodeError);
    }
    for (const parts of [
      [],
      [body, body],
      [Buffer.concat([body, body])],
      [Buffer.from('le')],
      [encode({ '@': 'short' })],
    ]) {
      assert.throws(() => parseMonitorEnded(parts), BencodeError);
    }
    fuzz(5000, (random) => {
      try {
        assert.equal(parseMonitorEnded([random.damage(body)]).length, 33);
      } catch (error) {
        assert.ok(error instanceof BencodeError, String(error));
      }
    });
  });
});
